"""What a trial leaves behind on disk: its model and its outcome, written before anybody is told; its checkpoints go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finestep.disk import make_folder, remove, write_whole
from finestep.errors import FinestepError
from finestep.protocol import SessionRequest
from finestep.study_layout import CHECKPOINTS, MODEL, OUTCOME
from finestep.train.faults import logged_cause, raise_machine_fault
from finestep.train.membership import Fallen
from finestep.train.saved_files import save_trial
from finestep.trial import Outcome

if TYPE_CHECKING:
    from finestep.train.lane import Lane


def keep_end(lane: Lane | Fallen, request: SessionRequest, *, asked: str) -> Outcome:
    """Write what is left of a trial that has ended, and answer with how it ended.

    The order matters: a controller that dies between two of these writes finds the outcome only when the model is whole.

    Args:
        asked: the hash of what the trial was asked to run.
    """
    assert lane.outcome is not None
    outcome = lane.outcome
    if not isinstance(lane, Fallen) and outcome.eval_loss is not None:
        outcome = _with_model(lane, outcome, request)
    if outcome.state == "failed":
        outcome = outcome.model_copy(update={"log": request.log})
    outcome = outcome.model_copy(update={"recipe_hash": asked})
    make_folder(lane.folder)
    write_whole(lane.folder / OUTCOME, outcome.model_dump_json())
    remove(lane.folder / CHECKPOINTS)
    return outcome


def join_end(lane: Lane | Fallen) -> None:
    """On another device than the first: give one's parts of the model that the first one writes."""
    if not isinstance(lane, Fallen) and lane.outcome is not None and lane.outcome.eval_loss is not None:
        lane.resident.whole_weights(lane.recipe)


def _with_model(lane: Lane, outcome: Outcome, request: SessionRequest) -> Outcome:
    """The outcome of a trial whose model is on disk; a failure where it cannot be written."""
    try:
        save_trial(lane, lane.folder, request)
    except FinestepError:
        raise
    except Exception as error:
        raise_machine_fault(error, lane.folder)
        return Outcome(state="failed", reason=f"the tuned model could not be saved: {logged_cause(error)}")
    return outcome.model_copy(update={"model_dir": MODEL})
