"""Recorded passes: the book-keeping on a CPU, where a graph is only pretended; the graphs themselves need a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from finestep.recipe import Recipe
from finestep.rules.recorded_passes import SEEN_BEFORE_RECORDING, bucket
from finestep.study import DataSpec, ModelSpec
from finestep.train.batch import collate_lanes
from finestep.train.recorded_pass import RecordedPasses, Recording, own_copy, same_as_plain
from finestep.train.resident import Resident
from tests.train.runs import make_resident, run_pack, run_trial

CPU = torch.device("cpu")
RECIPE = Recipe.model_validate({"learning_rate": 1e-3, "lora": {"rank": 4, "alpha": 8}, "effective_batch_size": 2})


@dataclass
class Pretended:
    """What a CUDA graph does on a replay: the same work on the tensors that it was recorded with."""

    compute: Any
    batch: Any
    losses: torch.Tensor
    error: float = 0.0
    plays: int = 0

    def replay(self) -> None:
        self.plays += 1
        self.losses.copy_(self.compute(self.batch) * (1 + self.error))


class OnCPU(RecordedPasses):
    """Recordings without a device; `error` spoils what they compute, `fails` their making."""

    def __init__(self, *, error: float = 0.0, fails: bool = False):
        self.notes: list[str] = []
        super().__init__(CPU, note=self.notes.append)
        self.error, self.fails, self.made = error, fails, []

    def _recorded(self, batch, compute, grads, before):
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        static = own_copy(batch)
        graph = Pretended(compute, static, torch.zeros(len(grads)), self.error)
        self.made.append(graph)
        return Recording(graph, static, graph.losses)


@pytest.fixture(scope="module")
def resident(shipped_model, instruct_file):
    return make_resident(shipped_model, instruct_file, RECIPE)


def _passes(resident, recorded, *, count, joins=()):
    """Losses and gradients of `count` passes over changing rows; a third trial joins before the passes in `joins`."""
    rows = resident.open_rows(RECIPE, room=3)
    for number in (0, 1):
        rows.join(number, resident.initial_values(RECIPE), scale=2.0)
    data, found = resident.data, []

    def compute(batch):
        losses = resident.token_loss.lane_sums(resident.base, batch, [0] * len(rows.keys)) / batch.units_L
        losses.sum().backward()
        rows.after_pass()
        return losses.detach()

    for number in range(count):
        if number in joins:
            rows.leave(0)
            rows.join(7, resident.initial_values(RECIPE), scale=2.0)
        chosen = [np.array([number, number + 1])] * 2
        batch, _ = collate_lanes(
            data.train, chosen, pad_id=data.pad_id, device=CPU, units=[9, 9], rounded=lambda n: max(bucket(n), 96)
        )
        losses = compute(batch) if recorded is None else recorded.losses(batch, rows, compute)
        found.append((losses.clone(), rows.buffers.rows("grad").clone()))
    for number in list(rows.keys):
        rows.leave(number)
    return found


def _equal(left, right):
    return all(
        torch.equal(a, b) for one, other in zip(left, right, strict=True) for a, b in zip(one, other, strict=True)
    )


def test_a_recorded_pass_gives_losses_and_accumulated_gradients_of_plain_ones(resident):
    recorded, count = OnCPU(), SEEN_BEFORE_RECORDING + 4
    plain = _passes(resident, None, count=count)
    assert _equal(_passes(resident, recorded, count=count), plain)
    (graph,) = recorded.made
    assert graph.plays == 5, "once to check it, then for every pass"
    assert recorded.notes == []


def test_a_recording_outlives_who_joins_and_leaves(resident):
    recorded, count = OnCPU(), SEEN_BEFORE_RECORDING + 4
    joins = (SEEN_BEFORE_RECORDING + 1,)
    assert _equal(
        _passes(resident, recorded, count=count, joins=joins), _passes(resident, None, count=count, joins=joins)
    )
    assert len(recorded.made) == 1


def test_a_recording_is_not_played_on_the_rows_of_a_later_pack(resident):
    """Both packs have the same shapes; the memory of the first may be given to anything by then."""
    recorded, count = OnCPU(), SEEN_BEFORE_RECORDING + 1
    _passes(resident, recorded, count=count)
    assert _equal(_passes(resident, recorded, count=count), _passes(resident, None, count=count))
    assert len(recorded.made) == 2


@pytest.mark.parametrize(("spoil", "words"), [({"error": 1e-3}, "differ"), ({"fails": True}, "capturing")])
def test_any_doubt_falls_back_to_plain_passes_with_one_note(resident, spoil, words):
    recorded, count = OnCPU(**spoil), SEEN_BEFORE_RECORDING + 4
    assert _equal(_passes(resident, recorded, count=count), _passes(resident, None, count=count))
    assert len(recorded.notes) == 1
    assert words in recorded.notes[0]


def test_memory_is_given_back_and_recordings_are_made_anew(resident):
    recorded = OnCPU()
    _passes(resident, recorded, count=SEEN_BEFORE_RECORDING)
    assert recorded.release()
    assert not recorded.release()


def test_a_recording_may_differ_by_no_more_than_two_plain_passes():
    one, noisy, off = torch.ones(3), torch.ones(3) * (1 + 1e-6), torch.ones(3) * (1 + 1e-4)
    assert same_as_plain((one, one), (one, one), (one, one))
    assert same_as_plain((one, noisy), (one, one), (one, noisy))
    assert not same_as_plain((one, noisy), (one, one), (one, one))
    assert not same_as_plain((one, off), (one, one), (one, noisy))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_graphs_give_the_losses_of_plain_passes(shipped_model, instruct_file, tmp_path, monkeypatch):
    """Thirty steps of two trials, with graphs and without: equal losses, and a pack in which graphs were played."""
    recipes = {
        number: RECIPE.changed(learning_rate=rate, micro_batch_size=1, num_epochs=0.6)
        for number, rate in enumerate((3e-4, 1e-3))
    }
    resident = Resident(
        ModelSpec(path=str(shipped_model), device="cuda"), DataSpec(path=str(instruct_file), max_length=96), RECIPE
    )
    played = []
    found = run_pack(resident, recipes, tmp_path / "graphs", prepare=lambda pack: played.append(pack._pass))
    assert played[0]._recorded is not None
    assert played[0]._recorded._recordings
    monkeypatch.setattr(type(played[0]), "_may_record", lambda *_: False)
    plain = run_pack(resident, recipes, tmp_path / "plain")
    for number in recipes:
        assert found[number].losses == pytest.approx(plain[number].losses, rel=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_pass_on_a_gpu_never_waits(shipped_model, instruct_file, tmp_path):
    """CUDA itself raises when the host waits in the middle of a pass."""
    resident = Resident(
        ModelSpec(path=str(shipped_model), device="cuda"), DataSpec(path=str(instruct_file), max_length=96), RECIPE
    )

    def strict(pack):
        compute = pack._pass.forward_backward

        def watched(*arguments, **options):
            torch.cuda.set_sync_debug_mode("error")
            try:
                return compute(*arguments, **options)
            finally:
                torch.cuda.set_sync_debug_mode("default")

        pack._pass.forward_backward = watched
        pack._pass._may_record = lambda *_: False

    assert run_trial(resident, RECIPE, tmp_path, prepare=strict).outcome.state == "completed"
