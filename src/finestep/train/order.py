"""Which rows come when: a pure function of seed and position, so that resuming continues it exactly.

The order does not depend on the batch size: trials with other batches see the same rows in the same order.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from finestep.recipe import Recipe


@lru_cache(maxsize=8)
def epoch_order(num_rows: int, *, seed: int, epoch: int) -> np.ndarray:
    """A permutation of the rows, [num_rows]."""
    order = np.random.default_rng([seed, epoch]).permutation(num_rows)
    order.setflags(write=False)
    return order


class Order:
    """The rows of every optimizer step of one run."""

    def __init__(self, lengths: np.ndarray, recipe: Recipe, *, fidelity: float = 1.0):
        self.lengths = lengths
        self._seed = recipe.seed
        self.batch_size = recipe.effective_batch_size
        self.num_rows_to_see = rows_to_see(lengths, recipe, fidelity=fidelity)
        self.num_steps = math.ceil(self.num_rows_to_see / self.batch_size)

    def rows_of_step(self, step: int) -> np.ndarray:
        """Rows of optimizer step `step`, counted from 1; the last step may have fewer."""
        first = (step - 1) * self.batch_size
        last = min(step * self.batch_size, self.num_rows_to_see)
        num_rows = len(self.lengths)
        return np.array([self._row(position, num_rows) for position in range(first, last)], dtype=np.int64)

    def micro_batches(self, rows: np.ndarray, micro_batch_size: int, *, window: int | None = None) -> list[np.ndarray]:
        """Cut the rows of a step into micro-batches of like length, longest first.

        The loss is a sum over the whole step, so how it is cut never changes the result, only the padding. With `window`, rows
        are sorted within windows of that many, so that trials with other effective batches see the same micro-batches.
        """
        out = []
        for start in range(0, len(rows), window or len(rows)):
            part = rows[start : start + (window or len(rows))]
            by_length = part[np.argsort(-self.lengths[part], kind="stable")]
            out += [by_length[at : at + micro_batch_size] for at in range(0, len(part), micro_batch_size)]
        return out

    def _row(self, position: int, num_rows: int) -> int:
        return int(epoch_order(num_rows, seed=self._seed, epoch=position // num_rows)[position % num_rows])


def rows_to_see(lengths: np.ndarray, recipe: Recipe, *, fidelity: float) -> int:
    """Rows that a run of this budget takes in, at least one."""
    if recipe.num_train_tokens is not None:
        rows = recipe.num_train_tokens / float(lengths.mean())
    else:
        rows = recipe.num_epochs * len(lengths)
    return max(1, round(rows * fidelity))
