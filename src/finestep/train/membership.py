"""Who shares the pass: trials that wait, trials that train, and those that fell before they had a row. It trains nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from finestep.errors import FinestepError
from finestep.protocol import TrialRequest
from finestep.recipe import Recipe
from finestep.train.faults import is_device_lost, logged_cause, raise_machine_fault
from finestep.train.lane import Lane
from finestep.train.memory import is_out_of_memory
from finestep.train.resident import Resident
from finestep.train.trial_rows import TrialRows
from finestep.trial import Outcome


@dataclass(frozen=True)
class Fallen:
    """A trial that failed before it had a row of the pack."""

    number: int
    folder: Path
    outcome: Outcome


class Membership:
    """The trials of a pack.

    Args:
        new_lane: makes a trial of a request.
        num_lanes: at most this many trials share a forward pass.
        rows_together: rows of each trial in a shared pass; None: its micro-batch.
        row_limit: rows of a forward pass that memory is known to allow.

    Attributes:
        lanes: those that train, in the order of their rows.
        waiting: requests, and trials that had to give up their row.
        fallen: those that failed on the way in.
    """

    def __init__(
        self,
        resident: Resident,
        new_lane: Callable[[TrialRequest], Lane],
        *,
        num_lanes: int,
        rows_together: int | None,
        row_limit: int | None,
    ):
        self._resident, self._new_lane = resident, new_lane
        self.num_lanes, self.rows_together, self.row_limit = num_lanes, rows_together, row_limit
        self.lanes: list[Lane] = []
        self.waiting: deque[TrialRequest | Lane] = deque()
        self.fallen: list[Fallen] = []
        self.rows: TrialRows | None = None

    def fill(self, take: Callable[[], TrialRequest | None]) -> bool:
        """Take in what waits while there is room; False when nothing is left to train."""
        self._hear(take)
        while len(self.lanes) < self._room():
            candidate = next((one for one in self.waiting if self._may_join(one)), None)
            if candidate is None:
                break
            self.waiting.remove(candidate)
            self._admit(candidate)
            self._hear(take)  # what has come meanwhile begins with this one
        return bool(self.lanes)

    def _hear(self, take: Callable[[], TrialRequest | None]) -> None:
        while (request := take()) is not None:
            self.waiting.append(request)

    def micro_batch_size(self) -> int:
        """Rows of each trial in the next pass."""
        return self._rows_in_company() if len(self.lanes) > 1 else self.lanes[0].progress.micro_batch_size

    def park_all_but(self, kept: int) -> None:
        """From now on so many trials share a pass; the others wait."""
        self.num_lanes = kept
        # From the last, so that those who wait come back in the order in which they left.
        for lane in reversed(self.lanes[kept:]):
            lane.park()
            self.waiting.appendleft(lane)
        del self.lanes[kept:]

    def drop_ended(self, lane: Lane) -> None:
        """Take a trial that has ended out of the pack."""
        self.lanes.remove(lane)
        lane.leave()

    def rewind(self) -> None:
        """Forget the steps in the making, with their gradients."""
        for lane in self.lanes:
            lane.step_in_making.rewind()
            if self.rows is not None:
                self.rows.zero_grad(lane.number)

    def _rows_in_company(self) -> int:
        allowed = min(lane.progress.micro_batch_size for lane in self.lanes)
        return min(allowed, self.rows_together or allowed)

    def _addresses(self) -> int:
        """Rows to make room for at once: on a GPU all, so that a recorded pass outlives who joins and leaves."""
        return self.num_lanes if self._resident.placement.device.type == "cuda" else 1

    def _room(self) -> int:
        if not self.lanes or self.row_limit is None:
            return self.num_lanes
        return min(self.num_lanes, max(1, self.row_limit // self._rows_in_company()))

    def _may_join(self, candidate: TrialRequest | Lane) -> bool:
        return not self.lanes or (
            _family(self.lanes[0].recipe) == _family(candidate.recipe)
            and all(self._resident.why_alone(recipe) is None for recipe in (self.lanes[0].recipe, candidate.recipe))
        )

    def _admit(self, candidate: TrialRequest | Lane) -> None:
        """Give a trial its row; what raises on the way ends this trial alone."""
        try:
            if not self.lanes or self.rows is None:
                self.rows = self._resident.open_rows(candidate.recipe, room=self._addresses())
            lane = candidate if isinstance(candidate, Lane) else self._new_lane(candidate)
            lane.join(self.rows)
        except FinestepError:
            raise
        except Exception as error:
            if is_out_of_memory(error) or is_device_lost(error):
                raise
            raise_machine_fault(error, Path(candidate.folder))
            outcome = Outcome(state="failed", reason=logged_cause(error))
            # It may have taken its row before something else of it raised.
            if self.rows is not None and candidate.number in self.rows.keys:
                self.rows.leave(candidate.number)
            self.fallen.append(Fallen(candidate.number, Path(candidate.folder), outcome))
            return
        self.lanes.append(lane)


def _family(recipe: Recipe) -> object:
    """Trials of one family adapt the same layers of the same base."""
    return (recipe.method, recipe.lora.target_modules)
