"""The benchmark reads folders that it has never seen, counts every cost, and censors what was not reached."""

import importlib.util
import json
import math
from pathlib import Path

import pytest

from finestep.errors import BadInput

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _repository_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def grid_csv(folder, *, loss="smooth_loss", lengths=(1e9, 8e9), steep=1.0):
    lines = [f"N,D,lr,bs,{loss}"]
    for tokens in lengths:
        for k in range(8):
            for batch in (32, 64, 128):
                rate = 2.0 ** (-12 + k / 2)
                value = (
                    3
                    * (tokens / 8e9) ** -0.05
                    * math.exp(steep * (0.003 * (k - 4) ** 2 + 0.002 * (math.log2(batch / 64)) ** 2))
                )
                lines.append(f"100,{tokens},{rate:.4g},{batch},{'nan' if k == 7 else value}")
    (folder / "anything.csv").write_text("\n".join(lines))


def test_a_grid_under_any_name_becomes_a_task_with_its_lengths(tmp_path):
    from benchmarks.search.surfaces import load_tasks

    grid_csv(tmp_path)
    (task,) = load_tasks(tmp_path)
    assert task.fidelities == (0.125, 1.0)
    assert task.best_cell.point == (-10.0, 6.0)
    assert task.regret(task.best) == 0
    assert task.regret(None) == math.inf


def test_unknown_or_broken_folders_say_what_is_missing(tmp_path):
    from benchmarks.search.surfaces import load_tasks

    with pytest.raises(BadInput, match="must exist"):
        load_tasks(tmp_path / "nowhere")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BadInput, match="at least one CSV"):
        load_tasks(tmp_path)
    (tmp_path / "other.csv").write_text("D,bs,lr,loss\n1e9,0,0.1,2\n")
    with pytest.raises(BadInput, match=r"other\.csv:2"):
        load_tasks(tmp_path)


def test_every_run_is_paid_and_the_search_reaches_the_best(tmp_path):
    from benchmarks.search.engines import Finestep, Random, prior_centre
    from benchmarks.search.simulate import Clock, cost_to
    from benchmarks.search.surfaces import load_tasks

    grid_csv(tmp_path)
    (task,) = load_tasks(tmp_path)
    for make in (Finestep, Random):
        marks = Clock(task, make(task, prior_centre(task, "off4", 0), 0), 1, 40).run()
        assert [m.cost for m in marks] == sorted(m.cost for m in marks)
        assert cost_to(marks, 0.25).cost >= 1
    assert cost_to(marks, -1.0) is None


def test_the_told_search_knows_every_short_run_and_pays_only_for_full_ones(tmp_path):
    from benchmarks.search.engines import Told, prior_centre
    from benchmarks.search.surfaces import load_tasks

    grid_csv(tmp_path)
    (task,) = load_tasks(tmp_path)
    engine = Told(task, prior_centre(task, "off4", 0), 0)
    assert [trial.fidelity for trial in engine.ended] == [0.125] * len(task.cells[0.125])
    assert sum(trial.state == "diverged" for trial in engine.ended) == 3
    assert engine.ask(1).fidelity == 1.0


def test_made_up_surfaces_without_noise_are_the_truth_behind_the_same_seed(tmp_path):
    from benchmarks.search.surfaces import load_tasks
    from benchmarks.search.synthetic import write

    tasks = {}
    for name, words in {"seen": {}, "truth": {"noise": 0.0}, "straight": {"bent": False}}.items():
        write(tmp_path / name, num_grids=3, num_adapters=1, seed=3, **{"bent": True, **words})
        tasks[name] = [task for task in load_tasks(tmp_path / name) if task.kind == "grid"]
    for seen, truth in zip(tasks["seen"], tasks["truth"], strict=True):
        assert [cell.point for cell in seen.full] == [cell.point for cell in truth.full]
        pairs = [(a.value, b.value) for a, b in zip(seen.full, truth.full, strict=True)]
        near = [abs(math.log(a / b)) for a, b in pairs if b < 1.02 * truth.best]
        assert 0 < max(near) < 0.01
    cells = {name: [cell.value for cell in found[0].full] for name, found in tasks.items()}
    assert cells["straight"] != cells["seen"]


def test_the_search_is_judged_in_the_units_that_tune_uses(tmp_path):
    from benchmarks.search.engines import Finestep, prior_centre
    from benchmarks.search.simulate import Clock
    from benchmarks.search.surfaces import load_tasks

    told = {}
    for steep in (1.0, 30.0):
        grid_csv(tmp_path, steep=steep)
        (task,) = load_tasks(tmp_path)
        engine = Finestep(task, prior_centre(task, "off16", 0), 0)
        Clock(task, engine, 1, 4).run()
        told[steep] = engine._view(engine.ended)
    assert told[1.0][2] < 2
    assert told[30.0][2] > 8
    seen = [t.outcome.eval_loss for t in told[30.0][1] if t.fidelity == 1.0 and t.ranks]
    raw = [t.outcome.eval_loss for t in engine.ended if t.fidelity == 1.0 and t.ranks]
    assert math.log(max(seen) / min(seen)) == pytest.approx(math.log(max(raw) / min(raw)) / told[30.0][2])


def test_a_repeat_is_free_only_after_it_has_finished(tmp_path):
    from benchmarks.search.engines import Random, prior_centre
    from benchmarks.search.simulate import Clock, Wish
    from benchmarks.search.surfaces import load_tasks

    class Stubborn(Random):
        def ask(self, idle):
            return Wish((-12.0, 5.0))

    grid_csv(tmp_path)
    (task,) = load_tasks(tmp_path)
    clock = Clock(task, Stubborn(task, prior_centre(task, "good", 0), 0), 4, 20)
    (mark,) = clock.run()
    assert (mark.wall, mark.cost) == (1.0, 4.0)


def test_peers_are_named_with_their_packages():
    from benchmarks.search.peers import PEERS, installed, is_peer

    assert is_peer("tpe+start")
    assert not is_peer("nobody")
    assert installed("tpe") == (importlib.util.find_spec("optuna") is not None)
    assert {"tpe", "gp_winsor", "botorch_winsor", "smac", "cmaes"} <= set(PEERS)


def test_columns_may_have_other_names_and_a_grid_may_have_one_length(tmp_path):
    from benchmarks.search.surfaces import load_tasks

    lines = ["tokens,learning_rate,effective_batch_size,eval_loss"]
    lines += [f"1e9,{2.0**-k},{batch},{2 + 0.01 * abs(k - 10)}" for k in range(8, 13) for batch in (16, 32)]
    (tmp_path / "one.csv").write_text("\n".join(lines))
    (task,) = load_tasks(tmp_path)
    assert (task.fidelities, len(task.full), task.best_cell.point[0]) == ((1.0,), 10, -10.0)


def test_an_offset_box_is_smaller_holds_the_best_and_moves_with_the_seed(tmp_path):
    from benchmarks.search.surfaces import load_tasks, offset_box
    from benchmarks.search.synthetic import write

    write(tmp_path, num_grids=2, num_adapters=2)
    grids = [task for task in load_tasks(tmp_path) if task.kind == "grid"]
    for task in grids:
        boxes = [offset_box(task, seed) for seed in range(8)]
        assert all(box.best_cell == task.best_cell for box in boxes)
        assert all(len(box.full) < 0.6 * len(task.full) for box in boxes)
        assert len({box.bounds for box in boxes}) > 2
    adapters = [task for task in load_tasks(tmp_path) if task.kind == "adapter"]
    assert adapters
    assert offset_box(adapters[0], 0) is adapters[0]


def test_the_command_writes_a_row_per_engine_task_seed_and_target(tmp_path, monkeypatch, capsys):
    from benchmarks.search.__main__ import main

    folder = tmp_path / "surfaces"
    folder.mkdir()
    grid_csv(folder)
    out = tmp_path / "out.json"
    words = f"x --surfaces {folder} --seeds 2 --workers 2 --engines finestep,random --prior none --json {out}"
    monkeypatch.setattr("sys.argv", words.split())
    assert main() == 0
    rows = json.loads(out.read_text())
    assert len(rows) == 2 * 1 * 2 * 3
    assert {"engine", "task", "seed", "prior", "workers", "target", "cost"} <= set(rows[0])
    assert "finestep" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", [*words.split(), "--engines", "nobody"])
    assert main() == 2


def test_rows_of_peers_without_a_prior_serve_every_prior_and_differences_are_run_by_run(tmp_path, monkeypatch, capsys):
    from benchmarks.search.__main__ import main, read_rows

    grid_csv(tmp_path)
    earlier = tmp_path / "earlier.json"
    words = f"x --surfaces {tmp_path} --seeds 3 --engines finestep,random --prior none --json {earlier}".split()
    monkeypatch.setattr("sys.argv", words)
    assert main() == 0
    foreign = {**read_rows(earlier)[0], "task": "another", "engine": "random"}
    earlier.write_text(json.dumps([*read_rows(earlier), foreign]))
    capsys.readouterr()
    words = f"x --surfaces {tmp_path} --seeds 3 --engines sweep --prior off4 --with {earlier} --against sweep".split()
    monkeypatch.setattr("sys.argv", words)
    assert main() == 0
    table, differences = capsys.readouterr().out.split("mean difference to sweep")
    assert "random" in table
    assert "finestep" not in table  # it was told another prior
    line = next(line for line in differences.splitlines() if "random" in line)
    assert "(100%)" in line
    assert line.count("[") == 3


def test_an_engine_that_only_repeats_free_runs_comes_to_an_end(tmp_path):
    from benchmarks.search.engines import Random, prior_centre
    from benchmarks.search.simulate import Clock, Wish
    from benchmarks.search.surfaces import load_tasks

    class StopsAtTheFirstRung(Random):
        def ask(self, idle):
            return Wish((-12.0, 5.0), None)

        def report(self, wish, cost, value):
            return False

    grid_csv(tmp_path)
    (task,) = load_tasks(tmp_path)
    assert Clock(task, StopsAtTheFirstRung(task, prior_centre(task, "good", 0), 0), 1, 20).run() == []
