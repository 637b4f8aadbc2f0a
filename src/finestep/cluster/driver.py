"""`python -m finestep.cluster.driver session.json`: speaks `protocol.py` as a worker does, and trains on the nodes of a Ray cluster.

Ray lives behind a process, as torch does: what it prints, its signal handlers and its end when a cluster is lost never reach the
process that holds the study. Everything here happens in one thread; only standard input is read in another.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from pathlib import Path
from queue import Empty, SimpleQueue

from finestep.cluster.crew import Crew
from finestep.cluster.places import LOOK_AT_HEAD_S, Cluster
from finestep.disk import fault_of
from finestep.errors import EnvironmentFault, FinestepError, WorkerFailed, cause_words
from finestep.executors.spoken import Line, complaint
from finestep.protocol import SessionRequest, TrialRequest
from finestep.study_layout import READY

END = '{"kind": "end"}'
ENVIRONMENT = {
    # A driver that `uv run` has started would change the interpreter of every worker.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # The environment of the nodes is the user's; Ray shall not hide GPUs from a worker that asked for none.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def main(arguments: list[str] | None = None) -> int:
    """Serve one session; the exit code is 0 after a clean end, else that of the error that was told."""
    os.environ.update(ENVIRONMENT)
    asked = _listen()
    line = Line(unheard=lambda: asked.put(END))
    path = (arguments if arguments is not None else sys.argv[1:])[0]
    try:
        request = SessionRequest.model_validate_json(Path(path).read_text(encoding="utf-8"))
        assert request.spread.cluster is not None
        cluster = Cluster(
            request.spread.cluster,
            model=request.model.path,
            device=request.model.device,
            num_devices=request.num_devices,
            was_there=(Path(request.study_dir) / READY).is_file(),
        )
        threading.Thread(target=_watch_head, args=(cluster, line), daemon=True, name="head").start()
        _serve(Crew(request, cluster, line), asked)
    except FinestepError as error:
        line.send("error", complaint(error))
        return error.exit_code
    except Exception as error:
        fault = fault_of(error) or WorkerFailed(cause_words(error))
        line.send("error", complaint(fault))
        raise
    return 0


def _serve(crew: Crew, asked: SimpleQueue[str]) -> None:
    """Hear what is asked, look at what has happened, until the end is asked for."""
    crew.hire()
    try:
        while True:
            with contextlib.suppress(Empty):
                while True:
                    message = json.loads(asked.get_nowait())
                    match message.get("kind"):
                        case "trial":
                            crew.trials.submit(TrialRequest.model_validate(message))
                        case "stop_trial":
                            crew.stop_trial(int(message["trial"]))
                        case _:
                            crew.stop()
            if crew.is_done:
                return
            crew.look()
    finally:
        crew.end()


def _watch_head(cluster: Cluster, line: Line) -> None:
    """End when the head is lost: calls of Ray wait for it, so that the main thread may be stuck, and after a minute Ray ends all."""
    while True:
        try:
            cluster.check_head()
        except EnvironmentFault as lost:
            line.send("error", complaint(lost))
            os._exit(lost.exit_code)
        time.sleep(LOOK_AT_HEAD_S)


def _listen() -> SimpleQueue[str]:
    """Lines of standard input, from a thread; its end asks for the end."""
    asked: SimpleQueue[str] = SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            asked.put(line)
        asked.put(END)

    threading.Thread(target=read, daemon=True, name="inbox").start()
    return asked


if __name__ == "__main__":
    code = 1
    try:
        code = main()
    finally:
        sys.stderr.flush()
        os._exit(code)  # Ray's own end may wait for a cluster that is gone
