"""Processes of finestep without their imports: Python and its libraries are loaded once, and every process is a fork of that.

A worker imports torch, transformers and PEFT for ten seconds of processor and trains a small study for five. A gate that starts
hundreds of them would measure Python's imports. Here `launcher` takes the place of `python`: it hands its arguments, its folder, its
environment and its standard streams to a server that has everything imported; the server forks, and the fork runs the module as
`python -m` would. The launcher lives exactly as long: it passes signals on, ends as the fork ended, and when it is killed, so is
the fork. What a signal meets while Python imports is left to runs without this.
"""

from __future__ import annotations

import array
import contextlib
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
from collections.abc import Iterator
from pathlib import Path

from finestep.survey.installed import leave_out_bitsandbytes

LIBRARIES = {
    "controller": ("optuna.storages._rdb.storage", "alembic.command", "scipy.stats", "jinja2", "rich.console"),
    "worker": ("torch", "transformers", "peft", "finestep.train.loop", "finestep.train.resident", "finestep.worker"),
}
"""What a server has imported; the controller never sees torch, and its server does not either."""
LAUNCHER = """#!{python} -IS
import json, os, signal, socket, sys, array
arguments = sys.argv[1:]
kind = "worker" if arguments[:1] == ["-m"] and arguments[1] in ("finestep.worker", "finestep.saved") else "controller"
if arguments[:2] != ["-m", arguments[1] if len(arguments) > 1 else ""] or not arguments[1].startswith("finestep"):
    os.execv({python!r}, [{python!r}, *arguments])
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
    if kind == "worker":
        leave_out_bitsandbytes()
    for name in LIBRARIES[kind]:
        importlib.import_module(name)
    for name in _own_modules() if kind == "controller" else ():
        with contextlib.suppress(ModuleNotFoundError):  # a tracker's package, say, that is not installed here
            importlib.import_module(name)
    if kind == "worker":  # tables that transformers builds when it first loads a model
        importlib.import_module("transformers").AutoModelForCausalLM.from_pretrained(model)
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
                child = _fork(caller)
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


def _fork(caller: socket.socket) -> int | None:
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
        _become(json.loads(job.decode("utf-8", "surrogateescape")))
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


def _become(job: dict) -> None:
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
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
    sys.executable = os.environ["WARM_PYTHON"]
    _, module, *sys.argv[1:] = job["arguments"]
    sys.modules.pop(module, None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


@contextlib.contextmanager
def warm(folder: Path, environment: dict[str, str], *, model: Path) -> Iterator[Path]:
    """The two servers, and the launcher that takes the place of `python`."""
    from finestep.executors.process import worker_environment

    folder.mkdir(parents=True, exist_ok=True)
    launcher = folder / "python"
    launcher.write_text(LAUNCHER.format(python=sys.executable, folder=str(folder)))
    launcher.chmod(0o755)
    environment = {**worker_environment(), **environment, "TRANSFORMERS_VERBOSITY": "error"}
    servers = []
    try:
        for kind in LIBRARIES:
            (folder / kind).unlink(missing_ok=True)
            command = [sys.executable, "-m", "benchmarks.reliability.warm", str(folder), kind, str(model)]
            servers.append(subprocess.Popen(command, env=environment))
            while not (folder / kind).exists():
                if servers[-1].poll() is not None:
                    raise SystemExit(f"the {kind} server ended at its start")
                time.sleep(0.1)
        os.environ["WARM_PYTHON"] = str(launcher)
        yield launcher
    finally:
        for server in servers:
            server.kill()
            server.wait()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), *sys.argv[2:])
