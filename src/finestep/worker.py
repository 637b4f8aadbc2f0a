"""The worker: `python -m finestep.worker request.json`, the only door to torch. It speaks `protocol.py` on its standard streams.

It holds the base and the data and takes trial after trial. It never decides what to try.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from finestep.disk import append_line, fault_of, json_text, make_folder
from finestep.errors import FinestepError, WorkerFailed, cause_words
from finestep.executors.spoken import Line, Silent, be_quiet, complaint
from finestep.protocol import Emit, EventKind, Record, SessionRequest
from finestep.ready import Machine, Ready, SharePlan
from finestep.study_layout import EVALUATIONS, NOTES, STEPS
from finestep.survey.installed import TRAINING, check_installed, leave_out_bitsandbytes
from finestep.train.inbox import STOP, Inbox, SharedInbox
from finestep.train.siblings import end_with_first, is_first, start_siblings

if TYPE_CHECKING:
    from finestep.train.lane import Lane
    from finestep.train.membership import Fallen
    from finestep.train.model import Placement
    from finestep.train.ranks import Ranks
    from finestep.train.resident import Resident

LOCK_WAIT_S = 120.0
RECORD_FILES = {"step": STEPS, "evaluation": EVALUATIONS}
"""Written here and not by the controller: what is in the pipe when a controller dies would be lost."""


def main(arguments: list[str] | None = None) -> int:
    """Serve one session; the exit code is 0 after a clean end, 2 after an error that a user can act on."""
    path = (arguments if arguments is not None else sys.argv[1:])[0]
    be_quiet()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: STOP.set())
    line = Line(unheard=STOP.set)
    try:
        request = SessionRequest.model_validate_json(Path(path).read_text(encoding="utf-8"))
        if request.num_devices > 1 and request.purpose == "train":
            _with_siblings(path, request)
        _serve(request, line)
    except ValidationError as error:
        line.send(
            "error", {"error": "BadInput", "text": f"the session request is not valid: {error.errors()[0]['msg']}"}
        )
        return 2
    except FinestepError as error:
        line.send("error", complaint(error))
        return error.exit_code
    except Exception as error:
        with contextlib.suppress(OSError):
            traceback.print_exc()
        fault = fault_of(error) or WorkerFailed(cause_words(error))
        line.send("error", complaint(fault))
        return fault.exit_code
    return 0


def _with_siblings(path: str, request: SessionRequest) -> None:
    """Be one of the processes of a group: the first starts the others."""
    if not is_first():
        end_with_first()
    elif "WORLD_SIZE" not in os.environ:
        start_siblings(path, request.num_devices)


def _serve(request: SessionRequest, line: Line) -> None:
    check_installed(TRAINING, needed_for="training")
    if request.recipe.method != "qlora":
        leave_out_bitsandbytes()
    if request.purpose == "inspect":
        line.send("ready", _inspect(request))
        return
    if request.num_devices > 1:
        with _sole_worker(Path(request.study_dir), request.worker) if is_first() else contextlib.nullcontext():
            _train_together(request, line)
        return
    inbox = Inbox()
    if request.worker > 1:
        _load_libraries()
        if not inbox.wait():
            return
    with _sole_worker(Path(request.study_dir), request.worker):
        _train(request, line, inbox)


def _load_libraries() -> None:
    """What takes seconds and little memory: a further worker is started ahead, and takes base and data only when it has a trial."""
    import peft  # noqa: F401

    from finestep.train import loop, resident  # noqa: F401


@contextmanager
def _sole_worker(study_dir: Path, number: int) -> Iterator[None]:
    """One worker of each number a study: workers whose controller died may still be writing their checkpoints.

    The first waits for all of them, and the others start after it.
    """
    from filelock import FileLock, Timeout

    mine = FileLock(str(study_dir / ("worker.lock" if number == 1 else f"worker-{number}.lock")))
    try:
        mine.acquire(timeout=LOCK_WAIT_S)
        for other in sorted(study_dir.glob("worker-*.lock")) if number == 1 else ():
            with FileLock(str(other)).acquire(timeout=LOCK_WAIT_S):
                pass
    except Timeout:
        raise WorkerFailed(f"another worker still holds {study_dir}; wait for it or end it") from None
    try:
        yield
    finally:
        mine.release()


def _inspect(request: SessionRequest) -> Ready:
    from finestep.train.longest_row import longest_row
    from finestep.train.model import context_length, load_tokenizer
    from finestep.train.tokens import prepare_data

    data = prepare_data(
        request.data,
        load_tokenizer(request.model),
        context_length=context_length(request.model),
        longest=longest_row(request.model, request.recipe),
    )
    return Ready(card=data.card)


def _train_together(request: SessionRequest, line: Line) -> None:
    """As one of several devices; only the first one speaks."""
    from finestep.train.ranks import open_ranks

    ranks, placement = open_ranks(request)
    if placement.device.type == "cpu" and request.num_threads is None:
        request = request.model_copy(update={"num_threads": max(1, (os.cpu_count() or 1) // ranks.world)})
    try:
        _train(
            request,
            line if ranks.rank == 0 else Silent(unheard=STOP.set),
            SharedInbox(ranks),
            placement=placement,
            ranks=ranks,
        )
    finally:
        ranks.close()


def _train(
    request: SessionRequest,
    line: Line,
    inbox: Inbox,
    *,
    placement: Placement | None = None,
    ranks: Ranks | None = None,
) -> None:
    import torch

    from finestep.train.devices import ALONE
    from finestep.train.evaluate import check_metrics
    from finestep.train.kept_plan import kept_plan
    from finestep.train.loop import Pack
    from finestep.train.resident import Resident

    warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")
    if request.num_threads:
        torch.set_num_threads(request.num_threads)
    check_metrics(request.metrics)
    devices = ranks or ALONE
    resident = Resident(
        request.model,
        request.data,
        request.recipe,
        retention=request.retention,
        placement=placement,
        devices=devices,
    )
    plan = kept_plan(request, resident) if devices.rank == 0 else SharePlan()
    plan = plan if ranks is None else SharePlan.model_validate_json(ranks.text_of_first(plan.model_dump_json()))
    line.send("ready", Ready(card=resident.data.card, machine=_machine(resident), sharing=plan))
    pack = Pack(
        resident,
        emit=_recorder(inbox.folders, line) if devices.rank == 0 else lambda *_, **__: None,
        should_stop=inbox.should_stop,
        take=inbox.take,
        is_stopped=inbox.stopped.__contains__,
        metrics=request.metrics,
        num_lanes=plan.num_lanes,
        rows_together=plan.rows,
        row_limit=request.micro_batch_limit,
        end_to_end=plan.end_to_end,
    )
    while inbox.wait():
        for lane in pack.run():
            _end(lane, line, request, inbox.hashes)


def _recorder(folders: dict[int, Path], line: Line) -> Emit:
    """Writes records where the store reads them, and sends them."""

    def emit(kind: EventKind, data: Record, *, trial: int) -> None:
        if isinstance(data, BaseModel) and kind in RECORD_FILES:
            make_folder(folders[trial])
            append_line(folders[trial] / RECORD_FILES[kind], data.model_dump_json())
        elif kind == "note" and isinstance(data, dict):
            make_folder(folders[trial])
            append_line(folders[trial] / NOTES, json_text(data))
        line.send(kind, data, trial=trial)

    return emit


def _end(lane: Lane | Fallen, line: Line, request: SessionRequest, hashes: dict[int, str]) -> None:
    """Keep what a trial leaves behind, then say how it ended."""
    from finestep.train.left_behind import join_end, keep_end
    from finestep.train.membership import Fallen

    if not isinstance(lane, Fallen) and lane.outcome is None:
        line.send("interrupted", {"step": lane.progress.step}, trial=lane.number)
    elif isinstance(line, Silent):
        join_end(lane)
    else:
        line.send("finished", keep_end(lane, request, asked=hashes[lane.number]), trial=lane.number)


def _machine(resident: Resident) -> Machine:
    import torch

    device = resident.placement.device
    model = resident.base
    return Machine(
        num_parameters=sum(value.numel() for value in model.parameters()),
        model_type=getattr(model.config, "model_type", ""),
        device=str(device),
        device_name=torch.cuda.get_device_name(device) if device.type == "cuda" else "",
        dtype=str(resident.placement.weights_dtype).removeprefix("torch."),
        num_threads=torch.get_num_threads(),
    )


if __name__ == "__main__":
    os._exit(main())  # taking torch apart would take half a second
