"""What a pack does when memory is short: fewer trials a pass, then a loss in chunks, fewer rows, layers computed twice.

The cheapest way comes first. The steps in the making begin anew, so trajectories stay the same.
"""

from __future__ import annotations

from finestep.train.lane import Lane
from finestep.train.levers import relieve
from finestep.train.membership import Membership
from finestep.train.memory import release_memory
from finestep.train.resident import Resident

NO_ROW_FITS = "even a micro-batch of 1 does not fit"
FEW_ROWS = 4
"""Micro-batches smaller than this waste a device more than computing layers twice does."""


def make_smaller(members: Membership, resident: Resident) -> None:
    """Take less memory from the next pass on, or end the last trial when nothing is left to do."""
    # First, because gradients of the step that failed are part of what must be given back.
    members.rewind()
    release_memory(resident.placement.device)
    if len(members.lanes) > 1:
        _park_half(members)
        return
    lane = members.lanes[0]
    micro = lane.progress.micro_batch_size
    if words := relieve(resident, recompute=micro <= FEW_ROWS):
        lane.emit("note", {"text": f"out of memory: {words}; the same step again"})
    elif micro == 1:
        lane.fail(NO_ROW_FITS, state="out_of_memory")
    else:
        _halve_micro_batch(members, lane)


def _park_half(members: Membership) -> None:
    kept = len(members.lanes) // 2
    members.park_all_but(kept)
    members.row_limit = kept * members.micro_batch_size()
    text = f"out of memory: {kept} trials share a pass from now on; the others wait, no step is lost"
    members.lanes[0].emit("note", {"text": text})


def _halve_micro_batch(members: Membership, lane: Lane) -> None:
    micro = lane.progress.micro_batch_size = lane.progress.micro_batch_size // 2
    members.row_limit = micro
    lane.emit(
        "note",
        {
            "text": f"out of memory: micro-batch {micro}, accumulation {lane.recipe.accumulation_steps(micro)}; "
            "the same step again",
            "micro_batch_limit": micro,
        },
    )
