"""Memory as seen from a running trial: was that an out-of-memory error, and how much is in use."""

from __future__ import annotations

import gc
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import ParamSpec, TypeVar

import numpy as np
import torch

Found = TypeVar("Found")
Given = ParamSpec("Given")

OUT_OF_MEMORY_WORDS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "defaultcpuallocator",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)


def is_out_of_memory(error: BaseException) -> bool:
    """True for CUDA's, MPS's and the CPU allocator's ways to say it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in OUT_OF_MEMORY_WORDS)


def unless_out_of_memory(
    compute: Callable[Given, Found], *arguments: Given.args, **options: Given.kwargs
) -> Found | None:
    """What `compute` gives; None when memory was too short. The error is over then, and with it what its frames held."""
    try:
        return compute(*arguments, **options)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    return None


def release_memory(device: torch.device) -> None:
    """Give back what the failed step held."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def in_parts_that_fit(
    compute: Callable[[np.ndarray], Found], batches: Sequence[np.ndarray], device: torch.device
) -> Iterator[tuple[np.ndarray, Found]]:
    """(rows, what `compute` makes of them) for all batches, in their order; where memory is short, from then on half as many at a time.

    Raises:
        RuntimeError: not even one row fits.
    """
    waiting, most = deque(batches), max(map(len, batches), default=1)
    while waiting:
        rows = waiting.popleft()
        if len(rows) > most:
            waiting.extendleft([rows[most:], rows[:most]])
            continue
        found = compute(rows) if len(rows) == 1 else unless_out_of_memory(compute, rows)
        if found is not None:
            yield rows, found
            continue
        release_memory(device)
        most = len(rows) // 2
        waiting.appendleft(rows)


def peak_memory_bytes(device: torch.device) -> int | None:
    """Largest memory so far: the allocator's on CUDA, the process's resident size on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return _peak_resident_bytes()


def _peak_resident_bytes() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
