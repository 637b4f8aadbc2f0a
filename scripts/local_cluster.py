"""A Ray cluster of several nodes on one machine, each in a network namespace of its own, to try what happens when a node is lost.

    python scripts/local_cluster.py up [--nodes 2] [--cpus 1]   # a head without CPUs, and nodes a, b, ...
    python scripts/local_cluster.py run COMMAND ...             # in the head's namespace; the cluster is ray://10.77.0.1:6379
    python scripts/local_cluster.py kill b                      # all processes of a node, at once
    python scripts/local_cluster.py kill gcs                    # the head is lost, the study's own machine is not
    python scripts/local_cluster.py cut b 30                    # no network for 30 s
    python scripts/local_cluster.py node b                      # start a node (again)
    python scripts/local_cluster.py down

It needs root, and a machine that allows network namespaces; elsewhere it says so and ends with code 3. Several raylets on one address
are no substitute: Ray takes them for one machine, and the loss of one confuses the others. The nodes share one file system. So a
program in the namespace of a node takes the head's address for its own, by `auto` too, and data that it sends out never arrive:
start studies with `run`. Real machines have a file system each.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HEAD, SERVER = "head", "gcs"
BRIDGE, PREFIX, PORT = "fsbridge", "10.77.0", 6379
NOT_ALLOWED = 3
STATE = Path(tempfile.gettempdir()) / "finestep-local-cluster"
STORE_BYTES = 150 * 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("up", "run", "kill", "cut", "node", "down"))
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    if why := not_allowed():
        print(f"network namespaces are not allowed here: {why}", file=sys.stderr)
        return NOT_ALLOWED
    match asked.action:
        case "up":
            options = argparse.ArgumentParser()
            options.add_argument("--nodes", type=int, default=2)
            options.add_argument("--cpus", type=int, default=1)
            wanted = options.parse_args(asked.rest)
            up(wanted.nodes, wanted.cpus)
        case "run":
            return subprocess.call(["ip", "netns", "exec", space(HEAD), *asked.rest], env=environment())
        case "kill":
            kill(asked.rest[0])
        case "cut":
            cut(asked.rest[0], float(asked.rest[1]))
        case "node":
            start_node(asked.rest[0])
        case "down":
            down()
    return 0


def not_allowed() -> str | None:
    """Why namespaces cannot be made, or None."""
    if os.geteuid() != 0:
        return "it needs root"
    if shutil.which("ip") is None:
        return "the command `ip` is missing"
    probe = subprocess.run(["ip", "netns", "add", "fsprobe"], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", "fsprobe"], capture_output=True, check=False)
    return probe.stderr.strip() or None if probe.returncode else None


def up(nodes: int, cpus: int) -> None:
    """The bridge, the head, and the nodes one after the other."""
    down()
    STATE.mkdir(parents=True, exist_ok=True)
    (STATE / "cpus").write_text(str(cpus))
    ip("link", "add", BRIDGE, "type", "bridge")
    ip("link", "set", BRIDGE, "up")
    names = [HEAD, *(chr(ord("a") + number) for number in range(nodes))]
    for name in names:
        connect(name)
    ray(HEAD, "--head", f"--port={PORT}", "--num-cpus=0", "--include-dashboard=false")
    wait_for_head()
    for number, name in enumerate(names[1:], start=1):
        start_node(name)
        wait_for_nodes(number)  # nodes share a folder for their sockets, and two at once take the same names
    print(f"ray://{address(HEAD)}:{PORT} with {nodes} nodes of {cpus} CPU")


def connect(name: str) -> None:
    """A namespace with a cable to the bridge."""
    inner, outer = f"fsi{name}", f"fso{name}"
    ip("netns", "add", space(name))
    ip("link", "add", outer, "type", "veth", "peer", "name", inner, "netns", space(name))
    ip("link", "set", outer, "master", BRIDGE, "up")
    for words in (
        ("link", "set", "lo", "up"),
        ("addr", "add", f"{address(name)}/24", "dev", inner),
        ("link", "set", inner, "up"),
    ):
        ip("-n", space(name), *words)


def start_node(name: str) -> None:
    """A node with CPUs that joins the head."""
    cpus = (STATE / "cpus").read_text()
    ray(name, f"--address={address(HEAD)}:{PORT}", f"--num-cpus={cpus}")


def ray(name: str, *options: str) -> None:
    """`ray start` in a namespace; it stays in the foreground of a process that the namespace knows."""
    log = (STATE / f"{name}.log").open("ab")
    folder = STATE / f"ray-{name}"
    words = ["start", *options, f"--node-ip-address={address(name)}", f"--object-store-memory={STORE_BYTES}", "--block"]
    if "--head" in options:
        words.append(f"--temp-dir={folder}")
    subprocess.Popen(
        ["ip", "netns", "exec", space(name), sys.executable, "-m", "ray.scripts.scripts", *words],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment(),
        start_new_session=True,
    )


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_raylet_start_wait_time_s": "240",
        "RAY_worker_niceness": "0",
    }


def wait_for_head(seconds: float = 90.0) -> None:
    """Until something listens at the head's port."""
    until = time.monotonic() + seconds
    code = f"import socket; socket.create_connection(('{address(HEAD)}', {PORT}), 2)"
    while time.monotonic() < until:
        if (
            subprocess.run(
                ["ip", "netns", "exec", space(HEAD), sys.executable, "-c", code], capture_output=True, check=False
            ).returncode
            == 0
        ):
            return
        time.sleep(1)
    raise SystemExit(f"the head did not start; see {STATE / 'head.log'}")


def wait_for_nodes(count: int, seconds: float = 120.0) -> None:
    """Until so many nodes have joined; on a busy machine that takes a minute."""
    code = (
        "import logging, sys, time, ray\n"
        f"ray.init('{address(HEAD)}:{PORT}', log_to_driver=False, logging_level=logging.ERROR)\n"
        f"until = time.time() + {seconds}\n"
        f"while sum(node['Alive'] for node in ray.nodes()) < {count + 1} and time.time() < until: time.sleep(1)\n"
        f"sys.exit(sum(node['Alive'] for node in ray.nodes()) < {count + 1})\n"
    )
    command = ["ip", "netns", "exec", space(HEAD), sys.executable, "-c", code]
    if subprocess.run(command, env=environment(), stdout=subprocess.DEVNULL, check=False).returncode:
        raise SystemExit(f"not all nodes have joined; see {STATE}")


def kill(name: str) -> None:
    """End every process of a node at once, as a machine that loses its power; `gcs`: the head's server alone, the study stays."""
    if name == SERVER:
        listed = [pid for pid in pids(HEAD) if b"gcs_server" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    else:
        listed = pids(name)
    for pid in listed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def cut(name: str, seconds: float) -> None:
    """Take the cable out for a while."""
    ip("link", "set", f"fso{name}", "down")
    time.sleep(seconds)
    ip("link", "set", f"fso{name}", "up")


def down() -> None:
    """End the processes of all namespaces of this script, by their numbers, and take the namespaces away."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout.split()
    for name in [one.removeprefix("fs-") for one in listed if one.startswith("fs-")]:
        kill(name)
        # A namespace goes when its last process has; its cable would still be there when the next one is laid.
        subprocess.run(["ip", "link", "del", f"fso{name}"], capture_output=True, check=False)
        ip("netns", "del", space(name))
    subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True, check=False)
    shutil.rmtree(STATE, ignore_errors=True)


def pids(name: str) -> list[int]:
    listed = subprocess.run(["ip", "netns", "pids", space(name)], capture_output=True, text=True, check=False)
    return [int(one) for one in listed.stdout.split()]


def space(name: str) -> str:
    return f"fs-{name}"


def address(name: str) -> str:
    return f"{PREFIX}.{1 if name == HEAD else 2 + ord(name) - ord('a')}"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


if __name__ == "__main__":
    raise SystemExit(main())
