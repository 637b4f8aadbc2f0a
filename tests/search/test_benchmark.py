"""The benchmark reads folders that it has never seen, counts every cost, and censors what was not reached."""

import importlib.util
import math
from pathlib import Path

import pytest

from finestep.errors import BadInput

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _repository_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def grid_csv(folder, *, loss="smooth_loss", lengths=(1e9, 8e9)):
    lines = [f"N,D,lr,bs,{loss}"]
    for tokens in lengths:
        for k in range(8):
            for batch in (32, 64, 128):
                rate = 2.0 ** (-12 + k / 2)
                value = 3 * (tokens / 8e9) ** -0.05 * (1 + 0.003 * (k - 4) ** 2 + 0.002 * (math.log2(batch / 64)) ** 2)
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
