"""A Ray cluster as finestep sees it: is it there, which places it has for a worker, and what a lost call means. It runs no trial."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from finestep.errors import BadInput, EnvironmentFault
from finestep.protocol import ClusterRequest
from finestep.survey.installed import check_installed

Actor = Any
"""A handle of Ray, whose methods are those of the class that it was made of, each with `.remote`."""
Reference = Any
"""What Ray will know later."""
Module = Any
"""Ray itself, many of whose functions have no types."""
Node = Mapping[str, Any]
REACHABLE_S = 20.0
HEAD_LOST_S = 20.0
"""Ray ends its driver after 60 s without a head; by then the study must know."""
LOOK_AT_HEAD_S = 5.0
MOST_HOME_BYTES = 2 * 10**9
"""A larger checkpoint stays on its node."""


@dataclass(frozen=True)
class Place:
    """Room for one worker: a GPU (or several) of a node, or a node without any."""

    node: str
    host: str
    number: int
    num_gpus: int
    num_cpus: int

    @property
    def name(self) -> str:
        """For a person: the host, and which of its GPUs' workers this is."""
        return f"{self.host} #{self.number + 1}" if self.number else self.host


@dataclass
class Cluster:
    """A connection to a cluster.

    Args:
        model: as the study names it.
        device: auto, cpu or cuda: what a worker needs.
        num_devices: GPUs of one worker.
        was_there: the study has trained on it before: what does not answer is lost, and not a wrong address.
    """

    asked: ClusterRequest
    model: str
    device: str
    num_devices: int
    was_there: bool = False
    _head: tuple[str, int] | None = None
    _head_seen: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        check_installed(("ray",), needed_for="`--on ray://`", extra="ray")
        import logging

        address = self.asked.address
        if address != "auto":
            _check_reachable(address, was_there=self.was_there)
        import ray

        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True)
        except (ConnectionError, RuntimeError, ValueError) as error:
            if self.was_there:
                raise lost_cluster(address, "its head does not answer") from None
            raise BadInput(
                "`--on` needs a Ray cluster that this machine belongs to",
                value=f"ray://{address} ({' '.join(str(error).split())[:160]})",
                next_step="`ray start --head` here, or `ray start --address=HEAD:6379 --num-cpus=0` to join one without working for it",
            ) from None
        self.ray: Module = ray
        self._head = _host_and_port(ray.get_runtime_context().gcs_address)

    def places(self) -> list[Place]:
        """All places that living nodes have, whether or not they are free.

        Raises:
            BadInput: no node can ever hold a worker; a request to Ray would wait for ever.
        """
        nodes = [node for node in self.ray.nodes() if node["Alive"]]
        wants_gpus = self.device == "cuda" or (self.device == "auto" and any(_gpus(node) for node in nodes))
        if not wants_gpus:
            return [place for node in nodes for place in _cpu_places(node)]
        found = [place for node in nodes for place in _gpu_places(node, self.num_devices)]
        if not found:
            most = max(map(_gpus, nodes), default=0)
            raise BadInput(
                f"no node of the cluster has {self.num_devices} GPUs for one trial",
                value=f"the largest has {most}",
                next_step="lower --devices-per-trial" if most else "add a node with GPUs, or use --device cpu",
            )
        return found

    def actor(self, kind: type, place: Place, *arguments: object) -> Actor:
        """Start an actor on a node, asynchronously; Ray restarts nothing, for it would lose trials silently."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        options = {
            "num_cpus": place.num_cpus,
            "num_gpus": place.num_gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": 8,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(place.node, soft=False),
        }
        started: Actor = self.ray.remote(**options)(kind).remote(*arguments)
        return started

    def check_head(self) -> None:
        """Look whether the head still answers.

        Raises:
            EnvironmentFault: it has not for a while. The study can go on later.
        """
        now = time.monotonic()
        if self._head is None:
            return
        try:
            with socket.create_connection(self._head, timeout=3):
                self._head_seen = now
        except OSError:
            if now - self._head_seen > HEAD_LOST_S:
                raise lost_cluster(self.asked.address, "its head does not answer any more") from None

    def is_blip(self, error: BaseException) -> bool:
        """True for what may be over in a moment: the actor cannot be reached now."""
        return isinstance(error, self.ray.exceptions.ActorUnavailableError | self.ray.exceptions.GetTimeoutError)

    def why_lost(self, error: BaseException) -> str:
        """What became of an actor, in words."""
        if isinstance(error, self.ray.exceptions.OutOfMemoryError):
            return "the machine was out of memory"
        text = " ".join(str(error).split())
        for sign, words in (
            ("node", "its node is gone"),
            ("out of memory", "the machine was out of memory"),
        ):
            if sign in text.lower():
                return words
        return f"{type(error).__name__}: {text[:160]}"


def lost_cluster(address: str, why: str) -> EnvironmentFault:
    """The end of a study whose cluster is gone; the same command goes on."""
    return EnvironmentFault(
        f"the cluster is gone ({why})", place=f"ray://{address}", next_step="the same command goes on when it is back"
    )


def _gpus(node: Node) -> int:
    return int(node["Resources"].get("GPU", 0))


def _gpu_places(node: Node, each: int) -> Iterator[Place]:
    for number in range(_gpus(node) // each):
        yield Place(node["NodeID"], _host(node), number, each, 0)


def _cpu_places(node: Node) -> Iterator[Place]:
    """One a node: the worker there finds out by itself how to use the cores. A node that offers no CPU is not for work."""
    cores = int(node["Resources"].get("CPU", 0))
    if cores:
        yield Place(node["NodeID"], _host(node), 0, 0, cores)


def _host(node: Node) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


def _host_and_port(address: str) -> tuple[str, int] | None:
    host, _, port = address.rpartition(":")
    return (host, int(port)) if port.isdecimal() and host else None


def _check_reachable(address: str, *, was_there: bool) -> None:
    """A cluster that does not answer is told in seconds; Ray itself would try for minutes.

    Raises:
        BadInput: nothing answers there.
        EnvironmentFault: nothing answers there any more.
    """
    place = _host_and_port(address)
    if place is None:
        raise BadInput(
            "`--on` takes ray://auto or ray://HOST:PORT", value=f"ray://{address}", next_step="e.g. ray://10.0.0.1:6379"
        )
    until = time.monotonic() + REACHABLE_S
    while True:
        try:
            with socket.create_connection(place, timeout=5):
                return
        except OSError as error:
            if time.monotonic() > until and was_there:
                raise lost_cluster(address, f"its head does not answer: {error}") from None
            if time.monotonic() > until or isinstance(error, socket.gaierror):
                raise BadInput(
                    "nothing answers at the address of the cluster",
                    value=f"ray://{address}: {error}",
                    next_step="see on the head: `ray status`; the port is 6379 unless `ray start --port` says another",
                ) from None
        time.sleep(1)
