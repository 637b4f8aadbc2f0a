"""The other processes of a trial that spans several devices, started by the first one and ended with it. It knows no torch.

They get the variables that `torchrun` sets (RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT). Each reads its standard
input, a pipe that the first process holds open and never writes to: its end means that the first one is gone.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time

RANK, WORLD = "RANK", "WORLD_SIZE"
GRACE_S = 5.0
"""What the first process has to say of the same fault itself, before the end of another one ends it."""


def is_first() -> bool:
    """True for the process that speaks with the controller."""
    return int(os.environ.get(RANK, "0")) == 0


def start_siblings(request_file: str, count: int) -> list[subprocess.Popen[bytes]]:
    """Make this process the first of `count`, and start the others; one that fails takes this process with it."""
    names = {WORLD: str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    os.environ.update({**names, RANK: "0", "LOCAL_RANK": "0"})
    siblings = [
        subprocess.Popen(
            [sys.executable, "-m", "finestep.worker", request_file],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**os.environ, RANK: str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(1, count)
    ]
    for rank, sibling in enumerate(siblings, start=1):
        threading.Thread(target=_watch, args=(sibling, rank), daemon=True, name=f"sibling {rank}").start()
    return siblings


def end_with_first() -> None:
    """In another process than the first: end at once when the first one is gone."""

    def read() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=read, daemon=True, name="first process").start()


def _watch(sibling: subprocess.Popen[bytes], rank: int) -> None:
    """While others wait in a message for a process that is gone, nothing would happen for minutes."""
    if code := sibling.wait():
        time.sleep(GRACE_S)
        print(f"the process of device {rank} ended with code {code}", file=sys.stderr, flush=True)
        os._exit(1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
