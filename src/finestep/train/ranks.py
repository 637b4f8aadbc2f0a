"""The devices of a trial as a group of processes, one a device: what they tell each other. It knows no model and no optimizer.

Gradients are summed and never averaged: each process has divided by the tokens of the whole step already, which it counts from the
rows without asking. Gradients travel by NCCL between GPUs, and by gloo between CPUs; what the loop agrees on travels by gloo, so
that a GPU is not made to wait for it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from finestep.protocol import SessionRequest
from finestep.rules.sharding import holds_whole
from finestep.survey.model import model_facts
from finestep.train.devices import Found, GroupLost
from finestep.train.model import Placement, choose_placement
from finestep.train.sharding import gathered

BUCKET_NUMBERS = 16 * 2**20
"""Numbers of one message, at most: 64 MB of copies in float32."""
News = Callable[[], tuple[bool, list[bytes]]]
"""(is a stop wanted, every line that was heard so far), as this process knows it."""


class Ranks:
    """A group of processes that train the same trials.

    Args:
        device: where this process computes.
        is_sharded: each will hold a part of the base only.

    Attributes:
        news: what this process has heard; asked whenever the group meets.
        tell: called on every process with the lines that are new to all.
        stops: one of them wants an end.
    """

    def __init__(self, device: torch.device, *, is_sharded: bool = False):
        import torch.distributed as dist

        self._dist, self._device, self.is_sharded = dist, device, is_sharded
        with _or_lost():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
            self._small = dist.new_group(backend="gloo") if device.type == "cuda" else dist.group.WORLD
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.news: News = lambda: (False, [])
        self.tell: Callable[[bytes], object] = lambda line: None
        self.stops = False
        self._num_told = 0
        self._clock = time.monotonic()

    def meet(self, found: Found = Found.FINE) -> Found:
        """One small message; a second one only where something was heard."""
        stops, lines = self.news()
        mine = torch.tensor([int(found), int(stops), len(lines), time.monotonic()], dtype=torch.float64)
        with _or_lost():
            self._dist.all_reduce(mine, op=self._dist.ReduceOp.MAX, group=self._small)
        worst, stop, heard, self._clock = mine.tolist()
        self.stops = self.stops or bool(stop)
        if heard > self._num_told:
            for line in self._lines(lines[self._num_told : int(heard)]):
                self.tell(line)
            self._num_told = int(heard)
        return Found(int(worst))

    def now(self) -> float:
        """The clock at the last meeting."""
        return self._clock

    def mine(self, rows: np.ndarray) -> np.ndarray:
        """Every `world`-th row. Rows of a micro-batch are sorted by length, so that all devices get long and short ones."""
        return rows[self.rank :: self.world]

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """Sums in place: a few large messages, and none of the size of a whole model."""
        bucket: list[torch.Tensor] = []
        for tensor in tensors:
            if bucket and sum(one.numel() for one in bucket) + tensor.numel() > BUCKET_NUMBERS:
                self._add_up(bucket)
                bucket = []
            bucket.append(tensor)
        if bucket:
            self._add_up(bucket)

    def total(self, values: np.ndarray) -> np.ndarray:
        """The sum over the processes, in float64."""
        summed = torch.from_numpy(np.array(values, dtype=np.float64))
        with _or_lost():
            self._dist.all_reduce(summed, group=self._small)
        return summed.numpy().astype(values.dtype)

    def of_first(self, values: np.ndarray) -> np.ndarray:
        """The values of process 0."""
        told = torch.from_numpy(np.array(values, dtype=np.float64))
        with _or_lost():
            self._dist.broadcast(told, src=0, group=self._small)
        return told.numpy().astype(values.dtype)

    def norm(self, parts: torch.Tensor) -> torch.Tensor:
        """The root of the summed squares."""
        squares = parts.float().square()
        with _or_lost():
            self._dist.all_reduce(squares)
        return squares.sqrt()

    def whole(self, named: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """Tensor after tensor, so that no device ever holds more than one whole tensor."""
        with _or_lost():
            return {name: gathered(value, keep=self.rank == 0) for name, value in named.items()}

    def text_of_first(self, text: str) -> str:
        """A text of process 0."""
        (told,) = self._lines([text.encode()])
        return told.decode()

    def close(self) -> None:
        """Leave the group."""
        if self._dist.is_initialized():
            self._dist.destroy_process_group()

    def _add_up(self, tensors: list[torch.Tensor]) -> None:
        with _or_lost():
            if len(tensors) == 1 and tensors[0].is_contiguous():
                self._dist.all_reduce(tensors[0])
                return
            flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
            self._dist.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def _lines(self, lines: list[bytes]) -> list[bytes]:
        """Lines of process 0, on all."""
        data = b"\n".join(lines)
        size = torch.tensor([len(data)])
        with _or_lost():
            self._dist.broadcast(size, src=0, group=self._small)
            text = torch.zeros(int(size), dtype=torch.uint8)
            if self.rank == 0 and data:
                text.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
            self._dist.broadcast(text, src=0, group=self._small)
        return text.numpy().tobytes().split(b"\n")


def open_ranks(request: SessionRequest) -> tuple[Ranks, Placement]:
    """(the group that the environment of this process names, as torchrun does; where this process computes)."""
    placement = choose_placement(request.model, request.recipe)
    if placement.device.type == "cuda":
        # From here on "cuda" means this process's own device, wherever it stands.
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    return Ranks(placement.device, is_sharded=_in_parts(request, placement.device)), placement


def _in_parts(request: SessionRequest, device: torch.device) -> bool:
    """Whether each device shall hold a part of the base; a CPU that is not asked to holds all of it."""
    wanted = request.spread.sharding
    if wanted != "auto" or device.type != "cuda":
        return wanted == "on"
    size = model_facts(request.model.path).num_parameters
    memory = torch.cuda.get_device_properties(device).total_memory
    return size is not None and not holds_whole(size, method=request.recipe.method, memory_bytes=memory)


@contextmanager
def _or_lost() -> Iterator[None]:
    """A message that does not come through: the group is of no use any more."""
    try:
        yield
    except RuntimeError as error:
        words = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise GroupLost(f"another device of this trial is gone: {words}") from error
