"""What runs on a node of a Ray cluster: a scratch folder, the workers of `local.py` in it, and their events, numbered and kept.

An event is told again and again until it is acknowledged, so that a network that fails for a moment loses nothing. What a trial
leaves on this node's disk travels with the event that announces it. It knows nothing of a study or of other nodes.
"""

from __future__ import annotations

import contextlib
import platform
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path
from queue import Empty, SimpleQueue

from filelock import FileLock, Timeout

from finestep.cluster.cargo import Cargo, folder_bytes, newest, packed, unpack_plain
from finestep.disk import write_whole
from finestep.errors import FinestepError, WorkerLost
from finestep.executors.local import LocalExecutor
from finestep.executors.spoken import complaint
from finestep.protocol import Event, SessionRequest, TrialRequest
from finestep.study_layout import CHECK_ROWS, CHECKPOINTS, MODEL, PLAN, trial_folder
from finestep.survey.fingerprint import VERSIONED, installed_version, model_hash

TOLD_AT_ONCE = 500
"""Events of one answer, at most."""
SCRATCH, HELD = "finestep-node-", "held.lock"
ORPHANED_AFTER_S = 600.0
"""A worker whose actor is gone needs a moment for its last checkpoint."""
Told = tuple[int, str, Cargo]
"""(number, event as JSON, files)."""


class NodeWorker:
    """The workers of one place in a cluster.

    Args:
        most_bytes: a checkpoint that is larger stays on the node.
    """

    def __init__(self, name: str, most_bytes: int):
        remove_orphans(Path(tempfile.gettempdir()))
        self._scratch = Path(tempfile.mkdtemp(prefix=SCRATCH))
        self._lock = FileLock(self._scratch / HELD)
        self._lock.acquire()
        self._folder = self._scratch / name
        self._folder.mkdir()
        self._most_bytes = most_bytes
        self._asked: SimpleQueue[TrialRequest] = SimpleQueue()
        self._stopped: set[int] = set()
        self._kept: list[Told] = []
        self._number = self._pressing = 0
        self._news = threading.Condition()
        self._is_over = False
        self._executor: LocalExecutor | None = None

    def describe(self, model: str) -> dict[str, str]:
        """What must agree with the machine of the study, and the name of this one."""
        versions = {f"version_{name}": found for name in VERSIONED if (found := installed_version(name))}
        python = ".".join(platform.python_version_tuple()[:2])
        return {"node": socket.gethostname(), "python": python, "model_sha256": model_hash(model), **versions}

    def start(self, session: str, data: dict[str, Cargo], plan: str | None) -> tuple[str, str | None]:
        """(`Ready` or the complaint as an event, how trials share this kind of node) once model and data are loaded.

        Args:
            data: files of the study by the field of the session that names them.
            plan: how trials share a node of this kind, where another one has measured it.
        """
        if plan is not None:
            write_whole(self._folder / PLAN, plan)
        request = self._at_home(SessionRequest.model_validate_json(session), data)
        self._executor = LocalExecutor(request, folder=self._folder)
        event = self._started()
        if event.kind == "ready":
            threading.Thread(target=self._serve, daemon=True, name="node").start()
        place = self._folder / PLAN
        return event.model_dump_json(), place.read_text(encoding="utf-8") if place.is_file() else None

    def submit(self, line: str, files: Cargo) -> None:
        """Take a trial, with the checkpoint that it goes on from."""
        request = TrialRequest.model_validate_json(line)
        folder = trial_folder(self._folder, request.number)
        shutil.rmtree(folder, ignore_errors=True)
        unpack_plain(folder, files)
        self._asked.put(request.model_copy(update={"folder": str(folder)}))

    def poll(self, after: int, wait_s: float, gather_s: float = 0.0) -> list[Told]:
        """What has happened since event `after`, which is forgotten here with all before it; waits for something to tell.

        Args:
            gather_s: where there are only steps to tell, wait so long for more of them: whoever asks a thousand nodes would answer
                nothing else.
        """
        until = time.monotonic() + gather_s
        with self._news:
            self._kept = [told for told in self._kept if told[0] > after]
            if not self._kept:
                self._news.wait(wait_s)
            while self._kept and self._pressing <= after and (left := until - time.monotonic()) > 0:
                self._news.wait(left)
            return self._kept[:TOLD_AT_ONCE]

    def stop(self) -> None:
        """Ask for checkpoints and an end."""
        if self._executor is not None:
            self._executor.stop()

    def stop_trial(self, number: int) -> None:
        """End one trial with what it has shown; calls may overtake each other, so that it is remembered."""
        self._stopped.add(number)
        if self._executor is not None:
            self._executor.stop_trial(number)

    def end(self) -> None:
        """End the workers, and leave nothing behind on this node."""
        self._is_over = True
        if self._executor is not None:
            self._executor.kill()
            self._executor.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _at_home(self, session: SessionRequest, data: dict[str, Cargo]) -> SessionRequest:
        """The session with the paths of this node."""
        places = {}
        for field, files in data.items():
            folder = self._scratch / "data" / field
            unpack_plain(folder, files)
            # one file stands for itself, several for their folder
            places[field] = str(folder / next(iter(files)) if len(files) == 1 else folder)
        spec = session.data.model_copy(update={name: places[name] for name in ("path", "eval_path") if name in places})
        retention = session.retention
        if retention is not None and "text_path" in places:
            retention = retention.model_copy(update={"text_path": places["text_path"]})
        changes = {"study_dir": str(self._folder), "worker": 1, "data": spec, "retention": retention}
        changes["spread"] = session.spread.model_copy(update={"cluster": None})
        return session.model_copy(update=changes)

    def _started(self) -> Event:
        assert self._executor is not None
        try:
            ready = self._executor.start()
        except WorkerLost as lost:
            return Event(kind="died", data={"reason": lost.what})
        except FinestepError as error:
            return Event(kind="error", data=complaint(error))
        return Event(kind="ready", data={} if ready is None else ready.model_dump())

    def _serve(self) -> None:
        """Hand trials to the workers and keep what they say; the executor is used from this thread alone."""
        assert self._executor is not None
        while not self._is_over:
            with contextlib.suppress(Empty):
                self._hand_over(self._asked.get(timeout=0.2))
            for event in self._executor.events():
                self._keep(event)
                while not self._asked.empty():
                    self._hand_over(self._asked.get())
                if event.kind in ("died", "error"):
                    again = self._started()
                    if again.kind != "ready":
                        self._keep(again)
                        return

    def _hand_over(self, request: TrialRequest) -> None:
        assert self._executor is not None
        self._executor.submit(request)
        if request.number in self._stopped:
            self._executor.stop_trial(request.number)

    def _keep(self, event: Event) -> None:
        if event.kind == "idle":
            return
        files: Cargo = {}
        if event.trial is not None and event.kind in ("checkpoint", "finished"):
            files, event = self._files(event, trial_folder(self._folder, event.trial))
        with self._news:
            self._number += 1
            if event.kind != "step":
                self._pressing = self._number
            self._kept.append((self._number, event.model_dump_json(), files))
            self._news.notify_all()

    def _files(self, event: Event, folder: Path) -> tuple[Cargo, Event]:
        if event.kind == "finished":
            return packed(folder, [MODEL, CHECK_ROWS], put=_put), event
        checkpoint = newest(folder)
        if checkpoint is None:
            return {}, event
        size = folder_bytes(checkpoint)
        if size > self._most_bytes:
            return {}, event.model_copy(update={"data": {**event.data, "stays_bytes": size}})
        return packed(folder, [f"{CHECKPOINTS}/{checkpoint.name}"], put=_put), event


def remove_orphans(place: Path) -> None:
    """Take away the scratch folders of actors that were killed, which could not do it themselves; what is held by one stays."""
    for lock in place.glob(f"{SCRATCH}*/{HELD}"):
        with contextlib.suppress(OSError, Timeout):
            if time.time() - lock.stat().st_mtime > ORPHANED_AFTER_S:
                with FileLock(lock, timeout=0):
                    shutil.rmtree(lock.parent, ignore_errors=True)


def _put(part: bytes) -> object:
    """Into the store of Ray, which small files never need."""
    import ray

    return ray.put(part)
