"""Passes of packed adapters as CUDA graphs: recorded once for a shape, checked against the plain pass, then played without launches.

A short row costs its launches, thousands of them, each about as long as a kernel that does nothing. A graph launches them all at once.
It reads its inputs from fixed places and adds gradients to fixed rows (`row_buffers.py` keeps addresses while trials come and go).
Anything that goes wrong ends in the plain pass, with one note.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch

from finestep.rules.recorded_passes import PassKey, Recordings
from finestep.train.adapters import AdapterRows
from finestep.train.batch import Batch
from finestep.train.memory import is_out_of_memory

if TYPE_CHECKING:
    from torch.cuda import _POOL_HANDLE

WARM_UP_PASSES = 2
"""Libraries choose their kernels and take their workspaces in the first passes, which must not be recorded."""
SHARE_OF_FREE_MEMORY = 0.5
Compute = Callable[[Batch], torch.Tensor]
"""Losses [lanes] of a batch; its gradients are added to the rows."""


@dataclass(frozen=True)
class Recording:
    """A graph, the batch that it reads, and the losses that it writes."""

    graph: torch.cuda.CUDAGraph
    batch: Batch
    losses: torch.Tensor


class RecordedPasses:
    """The recordings of one pack.

    Args:
        note: told once, in words, when passes stay plain.
    """

    def __init__(self, device: torch.device, *, note: Callable[[str], None]):
        self._device, self._note = device, note
        self._book = Recordings(free_bytes=_free_bytes(device))
        self._recordings: dict[PassKey, Recording] = {}
        self._needed: dict[PassKey, int] = {}
        """What a plain pass of each shape has taken at most, which a recording of it keeps reserved."""
        self._pool: _POOL_HANDLE | None = None
        self._has_told = False

    def losses(self, batch: Batch, rows: AdapterRows, compute: Compute) -> torch.Tensor:
        """Losses of the batch, [lanes], and gradients in the rows: played, recorded, or computed plainly."""
        key = key_of(batch, rows)
        action = self._book.action(key, needed_bytes=self._needed.get(key, 0))
        self._drop_what_the_book_forgot()
        if action == "play":
            recording = self._recordings[key]
            copy_into(recording.batch, batch)
            recording.graph.replay()
            return recording.losses.clone()
        if action == "record":
            return self._record(key, batch, rows, compute)
        before = _allocated(self._device)
        losses = compute(batch)
        self._needed[key] = max(0, _peak(self._device) - before)
        return losses

    def release(self) -> bool:
        """Give the memory of all recordings back; False when there are none."""
        had = bool(self._recordings)
        self._book.drop_all()
        self._recordings, self._pool = {}, None
        return had

    def _record(self, key: PassKey, batch: Batch, rows: AdapterRows, compute: Compute) -> torch.Tensor:
        """The losses of the plain pass; and if a recording gives the same, it is there from now on.

        Warming up adds gradients like any other pass: they are put back to what they were before each try.
        """
        grads = rows.buffers.rows("grad")
        before = grads.clone()
        losses = compute(batch)
        plain = grads.clone()
        reserved = _reserved(self._device)
        try:
            recording = self._recorded(batch, compute, grads, before)
            grads.copy_(before)
            recording.graph.replay()
            played = (recording.losses.clone(), grads.clone())
            grads.copy_(before)
            again = (compute(batch), grads.clone())
            fault = None if same_as_plain(played, (losses, plain), again) else "its losses or gradients differ"
        except Exception as error:
            if is_out_of_memory(error):
                self.release()
            fault = " ".join(str(error).split())[:120] or type(error).__name__
        grads.copy_(plain)
        if fault is not None:
            self._book.refuse(key)
            self._tell(fault)
            return losses
        self._recordings[key] = recording
        # What a graph needs stays reserved for it, although nothing in it is allocated between two plays.
        grown = _reserved(self._device) - reserved
        for gone in self._book.keep(key, num_bytes=grown):
            del self._recordings[gone]
        return losses

    def _recorded(self, batch: Batch, compute: Compute, grads: torch.Tensor, before: torch.Tensor) -> Recording:
        static = own_copy(batch)
        stream = torch.cuda.Stream(self._device)
        # CUDA records what happens on a stream; warming up on the same one would leave its own work in the recording.
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_PASSES):
                compute(static)
                grads.copy_(before)
        torch.cuda.current_stream(self._device).wait_stream(stream)
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            losses = compute(static)
        return Recording(graph, static, losses)

    def _drop_what_the_book_forgot(self) -> None:
        for key in [key for key in self._recordings if key not in self._book.kept]:
            del self._recordings[key]

    def _tell(self, fault: str) -> None:
        if not self._has_told:
            self._note(f"a pass could not be recorded ({fault}): such passes are computed plainly")
        self._has_told = True


def key_of(batch: Batch, rows: AdapterRows) -> PassKey:
    """The shape of a batch and the addresses of the rows."""
    lanes = len(rows.keys)
    assert batch.kept_K is not None
    return PassKey(
        lanes,
        batch.ids_NS.shape[0] // lanes,
        batch.ids_NS.shape[1],
        batch.kept_K.shape[0] // lanes,
        rows.buffers.generation,
    )


def own_copy(batch: Batch) -> Batch:
    """A batch with tensors of its own, whose addresses stay."""
    copies = {one.name: getattr(batch, one.name) for one in fields(batch)}
    return replace(batch, **{name: value.clone() for name, value in copies.items() if value is not None})


def copy_into(static: Batch, batch: Batch) -> None:
    """Let a recording read this batch, which has the same shapes."""
    for one in fields(batch):
        place, value = getattr(static, one.name), getattr(batch, one.name)
        if place is not None and value is not None:
            place.copy_(value, non_blocking=True)


Pair = tuple[torch.Tensor, torch.Tensor]


def same_as_plain(played: Pair, plain: Pair, again: Pair) -> bool:
    """True when losses and gradients of a recording are those of the plain pass.

    They are equal to the last bit, unless the plain pass itself is not: some kernels add in an order that changes from call to
    call. Then a recording may differ by what two plain passes differ by, and no more.
    """
    for mine, first, second in zip(played, plain, again, strict=True):
        if torch.equal(mine, first):
            continue
        allowed = (second - first).abs().max()
        if not bool((mine - first).abs().max() <= 2 * allowed):
            return False
    return True


def _free_bytes(device: torch.device) -> int | None:
    """What recordings may take: half of what is free when the pack begins, so that evaluations still fit."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return int(SHARE_OF_FREE_MEMORY * free)


def _allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def _reserved(device: torch.device) -> int:
    return torch.cuda.memory_reserved(device) if device.type == "cuda" else 0


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
