"""Which tensors are alive at every operation of a training step, by what they hold; it computes nothing itself.

The stock tracker of torch.distributed cannot be used: it hooks every parameter, and a frozen one refuses ("cannot register a hook on a
tensor that doesn't require gradient").
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CATEGORIES = ("weights", "gradients", "optimizer", "activations", "logits", "temporaries")
WEIGHTS, GRADIENTS, OPTIMIZER, ACTIVATIONS, LOGITS, TEMPORARIES = range(6)
CREATED_IN = {"forward": ACTIVATIONS, "loss": ACTIVATIONS, "backward": TEMPORARIES, "optimizer": TEMPORARIES}
ACCUMULATES = torch.ops.aten.add.Tensor


@dataclass(frozen=True)
class Timeline:
    """Live bytes after every operation: `phases` names what the step was doing, `bytes_EC` is [events, categories]."""

    phases: tuple[str, ...]
    bytes_EC: np.ndarray

    @property
    def peak_bytes(self) -> int:
        """Largest sum over the categories."""
        return int(self.bytes_EC.sum(axis=1).max())


class LiveStorages(TorchDispatchMode):
    """Follows the storages that operations make, from birth to death, by weak references.

    Set `phase` to "forward", "loss", "backward" or "optimizer", with any suffix, while the step goes on.
    """

    def __init__(self, *, vocabulary_size: int | None = None):
        super().__init__()  # type: ignore[no-untyped-call]
        self.phase = "forward"
        self._vocabulary_size = vocabulary_size
        self._category: dict[int, int] = {}
        self._size: dict[int, int] = {}
        self._references: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._live = np.zeros(len(CATEGORIES), dtype=np.int64)
        self._phases: list[str] = []
        self._levels: list[np.ndarray] = []
        self._deferred = False

    def hold(self, tensors: Iterable[torch.Tensor], category: int) -> None:
        """Count tensors that exist already, or count them under another name from now on."""
        for tensor in tensors:
            self._add(tensor, category, again=True)

    def restart(self) -> None:
        """Forget the history; what lives still counts."""
        self._phases, self._levels, self._deferred = [], [], False

    def timeline(self) -> Timeline:
        """What was seen since the start."""
        self._note()
        return Timeline(tuple(self._phases), np.array(self._levels))

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        if self._deferred:
            self._note()
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor, self._kind(tensor))
        # Autograd adds two gradients of one tensor in place when nobody else holds the first; it does not for fake tensors, but
        # then drops the first at once. Looking one operation later sees what a real run would hold.
        self._deferred = func is ACCUMULATES and self.phase.startswith("backward")
        if not self._deferred:
            self._note()
        return out

    def _note(self) -> None:
        self._phases.append(self.phase)
        self._levels.append(self._live.copy())
        self._deferred = False

    def _kind(self, tensor: torch.Tensor) -> int:
        kind = CREATED_IN[self.phase.partition(":")[0]]
        is_logits = tensor.ndim >= 2 and tensor.shape[-1] == self._vocabulary_size
        return LOGITS if is_logits and kind != WEIGHTS else kind

    def _add(self, tensor: torch.Tensor, category: int, *, again: bool = False) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._category:
            if again and self._category[key] != category:
                self._live[self._category[key]] -= self._size[key]
                self._live[category] += self._size[key]
                self._category[key] = category
            return
        self._category[key], self._size[key] = category, storage.nbytes()
        self._live[category] += storage.nbytes()
        self._references[key] = weakref.ref(storage, partial(self._remove, key))

    def _remove(self, key: int, _: object) -> None:
        self._live[self._category.pop(key)] -= self._size.pop(key)
        del self._references[key]
