"""The disk is full at each write in turn: the study pauses, and goes on to the leaderboard of a quiet run."""

from __future__ import annotations

import errno
import json
import os

import pytest

from finestep.errors import EnvironmentFault, FinestepError
from finestep.studies.files import write_results
from finestep.studies.show import show_study
from finestep.study import Budget, DataSpec
from tests.flows.studies import READY, open_store, tune

BUDGET = 3


class FullDisk:
    """Answers the n-th opening of a file for writing, and all later ones, as a full disk does."""

    def __init__(self, monkeypatch, *, after: int):
        self.left, self.seen, self._open = after, 0, os.open
        monkeypatch.setattr(os, "open", self.open)

    def open(self, path, flags, *more, **options):
        if flags & (os.O_WRONLY | os.O_RDWR) and "study.lock" not in str(path) and "/dev/" not in str(path):
            self.seen += 1
            if self.seen > self.left:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return self._open(path, flags, *more, **options)


def run(folder):
    store = open_store(folder)
    try:
        tune(store, budget=BUDGET)
        write_results(store, command="finestep tune", budget=Budget(full_runs=BUDGET), ready=READY)
        return [(t.number, t.state, t.recipe.learning_rate, t.outcome.eval_loss) for t in store.trials()]
    finally:
        store.close()


def test_no_space_at_any_write_loses_nothing(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        disk = FullDisk(patch, after=10**9)
        quiet = run(tmp_path / "quiet")
    assert len(quiet) == BUDGET
    assert disk.seen > 25
    for after in [*range(4), *range(5, disk.seen, 5)]:
        folder = tmp_path / f"full{after}"
        with monkeypatch.context() as patch:
            FullDisk(patch, after=after)
            with pytest.raises(EnvironmentFault, match="no space is left") as fault:
                run(folder)
        assert fault.value.exit_code == 75
        assert str(folder) in str(fault.value)
        assert "MB" in (fault.value.next_step or "")
        assert run(folder) == quiet, after
        assert not list(folder.rglob("*.partial")), after
        assert (
            show_study(folder).as_values()["best"]["eval_loss"]
            == json.loads((folder / "result.json").read_text())["best"]["eval_loss"]
        )


@pytest.mark.parametrize("pages", [2, 12, 26])
def test_a_database_that_may_not_grow_pauses_the_study(tmp_path, pages):
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def limit(connection, _):
        connection.execute(f"pragma max_page_count = {pages}")

    event.listen(Engine, "connect", limit)
    try:
        with pytest.raises(EnvironmentFault, match="no space is left"):
            run(tmp_path / "study")
    finally:
        event.remove(Engine, "connect", limit)
    assert [state for _, state, _, _ in run(tmp_path / "study")] == ["completed"] * BUDGET


def test_a_place_that_cannot_be_written_is_the_users_to_mend(tmp_path):
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file" / "study", tmp_path / ("a" * 300)):
        with pytest.raises(FinestepError, match="--out") as refusal:
            open_store(place)
        assert refusal.value.exit_code == 2


def test_the_same_data_by_another_name_is_the_same_study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("{}\n")
    store = open_store(tmp_path / "study", data=DataSpec(path="rows.jsonl"))
    tune(store, budget=1)
    store.close()
    open_store(tmp_path / "study", data=DataSpec(path=str(tmp_path / "rows.jsonl"))).close()
    (tmp_path / "others.jsonl").write_text("{}\n")
    with pytest.raises(FinestepError, match=r"data\.path"):
        open_store(tmp_path / "study", data=DataSpec(path="others.jsonl"))
