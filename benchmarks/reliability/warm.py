"""Processes of finestep without their imports: Python and its libraries are loaded once, and every process is a fork of that.

A worker imports torch, transformers and PEFT for ten seconds of processor and trains a small study for five. Whoever starts hundreds
of them would measure Python's imports. Inside `warm`, a command `python -m finestep...` is handed to `launcher` instead: it gives its
arguments, its folder, its environment and its standard streams to a server that has everything imported; the server forks, and the
fork runs the module as `python -m` would. The launcher lives exactly as long: it passes signals on, ends as the fork ended, and when
it is killed, so is the fork. What a signal meets while Python imports is left to runs without this.
"""

from __future__ import annotations

import array
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

LIBRARIES = {
    "controller": ("optuna.storages._rdb.storage", "alembic.command", "scipy.stats", "jinja2", "rich.console"),
    "worker": (
        "torch",
        "bitsandbytes",
        "transformers",
        "peft",
        "finestep.train.loop",
        "finestep.train.resident",
        "finestep.worker",
    ),
}
"""What a server has imported; the controller never sees torch, and its server does not either."""
MODULES = {
    "finestep": "controller",
    "finestep.worker": "worker",
    "finestep.saved": "worker",
    "finestep.probes": "worker",
    "tests.flows.kill_target": "controller",
    "tests.flows.steer_target": "controller",
    "tests.train.on_devices": "worker",
}
"""The server that has imported what a module needs."""
RARELY = (200_000, 50, 50)
"""Thresholds of the garbage collector. At Python's own a process of torch and pydantic looks for garbage for a tenth of its time."""
START_S = 300.0
"""Longest wait for a server that loads its libraries."""
LAUNCHER = """#!{python} -IS
import json, os, signal, socket, sys, array
arguments = sys.argv[1:]
kind = {modules!r}[arguments[1]]
child = waiting = None
def forward(number, frame):
    global waiting
    if child: os.kill(child, number)
    else: waiting = number
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP): signal.signal(number, forward)
door = socket.socket(socket.AF_UNIX)
door.connect({folder!r} + "/" + kind)
job = json.dumps(dict(arguments=arguments, folder=os.getcwd(), environment=dict(os.environ))).encode("utf-8", "surrogateescape")
door.sendmsg([len(job).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
door.sendall(job)
child = int.from_bytes(door.recv(8), "big")
if waiting: os.kill(child, waiting)
code = int.from_bytes(door.recv(8), "big", signed=True)
if code < 0:
    signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
    os.kill(os.getpid(), -code)
os._exit(code)
"""


def serve(folder: Path, kind: str, model: str) -> None:
    """Import, then fork for whoever asks, until this process is killed."""
    for name in LIBRARIES[kind]:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
    for name in _own_modules() if kind == "controller" else ():
        with contextlib.suppress(ModuleNotFoundError):  # a tracker's package, say, that is not installed here
            importlib.import_module(name)
    if kind == "worker":  # tables that transformers builds when it first loads a model
        importlib.import_module("transformers").AutoModelForCausalLM.from_pretrained(model)
    gc.collect()
    gc.freeze()  # no fork looks through what was imported, which would also copy it
    gc.set_threshold(*RARELY)
    door = socket.socket(socket.AF_UNIX)
    door.bind(str(folder / f"{kind}.making"))
    door.listen(64)
    os.rename(folder / f"{kind}.making", folder / kind)
    callers: dict[int, tuple[socket.socket, int]] = {}
    waits = select.poll()
    waits.register(door, select.POLLIN)
    while True:
        for found, _ in waits.poll():
            if found == door.fileno():
                caller, _ = door.accept()
                child = _fork(caller, folder)
                if child is None:
                    caller.close()
                    continue
                watch = os.pidfd_open(child)
                callers[watch] = callers[caller.fileno()] = (caller, child)
                waits.register(watch, select.POLLIN)
                waits.register(caller, select.POLLIN)
            elif found in callers:
                caller, child = callers[found]
                if found == caller.fileno():  # the launcher is gone: its process goes with it
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
                    waits.unregister(found)
                    continue
                code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                with contextlib.suppress(OSError):
                    caller.sendall(code.to_bytes(8, "big", signed=True))
                waits.unregister(found)
                with contextlib.suppress(KeyError):
                    waits.unregister(caller)
                del callers[found], callers[caller.fileno()]
                os.close(found)
                caller.close()


def _own_modules() -> list[str]:
    """What of finestep a controller may import: all but the floor of torch, and what needs libraries of its own."""
    import finestep

    left_out = ("train", "probes", "worker", "saved", "agents", "integrations")
    found = pkgutil.walk_packages(finestep.__path__, "finestep.", onerror=lambda _: None)
    return [one.name for one in found if one.name.split(".")[1] not in left_out and not one.name.endswith("__main__")]


def _fork(caller: socket.socket, folder: Path) -> int | None:
    """A process that runs what the caller asks for; its number. None for a caller that was killed before it could ask."""
    head, rights, _, _ = caller.recvmsg(8, socket.CMSG_SPACE(3 * 4))
    if not rights:
        return None
    streams = array.array("i")
    streams.frombytes(rights[0][2])
    size, job = int.from_bytes(head, "big"), b""
    while len(job) < size:
        if not (part := caller.recv(size - len(job))):
            return None
        job += part
    child = os.fork()
    if child:
        for stream in streams:
            os.close(stream)
        with contextlib.suppress(OSError):  # a caller that is gone is noticed below
            caller.sendall(child.to_bytes(8, "big"))
        return child
    try:
        for place, stream in enumerate(streams):
            os.dup2(stream, place)
        os.closerange(3, 4096)
        _become(json.loads(job.decode("utf-8", "surrogateescape")), folder)
    except SystemExit as end:
        _flush()
        os._exit(end.code if isinstance(end.code, int) else 1 if end.code else 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        _flush()
        os._exit(1)
    _flush()
    os._exit(0)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def _become(job: dict, folder: Path) -> None:
    """Be `python -m MODULE ...` in the caller's folder and environment."""
    import runpy

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environment"])
    sys.path[0] = job["folder"]  # as `python -m` does; and what a new process would read from its environment
    sys.path[1:1] = [one for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one and one not in sys.path]
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
    if "torch" in sys.modules:  # the variable is read when the library is loaded, which it was before
        sys.modules["torch"].set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    _reroute(folder)
    _, module, *sys.argv[1:] = job["arguments"]
    sys.modules.pop(module, None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


class Servers:
    """The two servers, each started when it is first needed.

    Args:
        folder: of their doors and of the launcher.
        model: that the worker's server loads once.
        environment: that they start in.
    """

    def __init__(self, folder: Path, *, model: Path, environment: dict[str, str]):
        from finestep.executors.process import worker_environment

        self._folder, self._model = folder.absolute(), model
        # One thread: a fork of a process whose OpenMP has started others would wait for them for ever.
        quiet = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1"}
        self._environment = {**worker_environment(), **environment, **quiet}
        self._running: list[subprocess.Popen[bytes]] = []
        self._folder.mkdir(parents=True, exist_ok=True)
        launcher = self._folder / "python"
        launcher.write_text(LAUNCHER.format(python=sys.executable, folder=str(self._folder), modules=MODULES))
        launcher.chmod(0o755)
        for kind in LIBRARIES:
            (self._folder / kind).unlink(missing_ok=True)

    def begin(self) -> None:
        """Start both, unless they run, and do not wait for them."""
        for kind in LIBRARIES if not self._running else ():
            command = [sys.executable, "-m", "benchmarks.reliability.warm", str(self._folder), kind, str(self._model)]
            root = Path(__file__).parent.parent.parent
            self._running.append(subprocess.Popen(command, env=self._environment, cwd=root))

    def start(self) -> None:
        """Start both and wait for them, unless they run."""
        self.begin()
        while not _are_open(self._folder):
            if any(one.poll() is not None for one in self._running):
                raise SystemExit("a server ended at its start")
            time.sleep(0.05)

    def close(self) -> None:
        """End both, and with them every fork."""
        for server in self._running:
            server.kill()
            server.wait()


def _are_open(folder: Path) -> bool:
    return all((folder / kind).exists() for kind in LIBRARIES)


def _await(folder: Path) -> None:
    """Wait for servers that another process starts."""
    until = time.monotonic() + START_S
    while not _are_open(folder):
        if time.monotonic() > until:
            raise SystemExit(f"no server opened its door in {folder}")
        time.sleep(0.05)


CAN_FORK = hasattr(os, "pidfd_open")
"""Linux."""


@contextlib.contextmanager
def warm(folder: Path, environment: dict[str, str], *, model: Path) -> Iterator[None]:
    """Within it, commands `python -m finestep...` that this process starts are forks."""
    servers = Servers(folder, model=model, environment=environment)
    try:
        with _rerouted(folder, servers.start):
            yield
    finally:
        servers.close()


@contextlib.contextmanager
def warmed(folder: Path) -> Iterator[None]:
    """As `warm`, by the servers of another process, whose doors are in `folder`."""
    with _rerouted(folder, lambda: _await(folder)):
        yield


@contextlib.contextmanager
def _rerouted(folder: Path, ready: Callable[[], None]) -> Iterator[None]:
    before = subprocess.Popen.__init__
    try:
        _reroute(folder.absolute(), ready)
        yield
    finally:
        subprocess.Popen.__init__ = before  # type: ignore[method-assign]


def _reroute(folder: Path, ready: Callable[[], None] = lambda: None) -> None:
    """Let `subprocess` hand commands of finestep to the launcher; what passes on more than its standard streams stays as it is."""
    before = subprocess.Popen.__init__
    launcher = str(folder / "python")

    def begin(self: subprocess.Popen, args: object, *more: object, **options: object) -> None:  # type: ignore[type-arg]
        plain = not any(options.get(name) for name in ("pass_fds", "preexec_fn", "shell", "executable"))
        if plain and not more and isinstance(args, list) and (wanted := _own_command(args)):
            ready()
            args = [launcher, *wanted]
        before(self, args, *more, **options)  # type: ignore[arg-type]

    subprocess.Popen.__init__ = begin  # type: ignore[method-assign, assignment]


def _own_command(args: Sequence[object]) -> list[str]:
    """What follows `python` in a command of finestep; empty for any other."""
    first, *rest = map(str, args)
    if first == str(Path(sys.executable).parent / "finestep"):
        return ["-m", "finestep", *rest]
    return rest if first == sys.executable and rest[:1] == ["-m"] and rest[1:] and rest[1] in MODULES else []


if __name__ == "__main__":
    serve(Path(sys.argv[1]), *sys.argv[2:])
