"""Where the values of a row stand in the flat arrays of a table, and how those become a matrix."""

from __future__ import annotations

from array import array

import numpy as np

from finestep.diagnosis.training_log import TRAIN_COLUMNS, Column
from finestep.readers.limits import MISSING

NUM_COMMON = TRAIN_COLUMNS.index("elapsed_s") + 1
STEP_RANK, LOSS_RANK = NUM_COMMON, NUM_COMMON + 1
WIDTH = NUM_COMMON + 2
SLOTS = {name: index if index < NUM_COMMON else index + 2 for index, name in enumerate(TRAIN_COLUMNS)}
"""Places of the columns: the common ones, two for the ranks of names, and then those of preference and reinforcement learning,
which are kept apart because most logs have none of them."""
NUM_EXTRA = len(TRAIN_COLUMNS) - NUM_COMMON
STEP, LOSS, EPOCH, RATE = (SLOTS[name] for name in ("step", "loss", "epoch", "learning_rate"))
GUESS_RANK = 900
ROUNDED_ZERO, FEW_NEGATIVE = 1e-3, 0.05
"""Size of a loss that may be a rounded zero; share of rows of one sign that is no accident."""


def as_matrix(flat: array[float]) -> Column:
    """The rows of a table, one a line, over the same memory."""
    return np.frombuffer(flat, dtype=np.float64).reshape(-1, WIDTH) if flat else np.empty((0, WIDTH))


def with_extra(matrix: Column, extra: array[float]) -> Column:
    """The matrix, and beside it the columns of preference and reinforcement learning when there are any."""
    if not extra:
        return matrix
    rows = np.frombuffer(extra, dtype=np.float64).reshape(-1, 1 + NUM_EXTRA)
    beside = np.full((len(matrix), NUM_EXTRA), MISSING)
    beside[rows[:, 0].astype(int)] = rows[:, 1:]
    return np.hstack([matrix, beside])


def choose_alias(matrix: Column, slot: int, rank_slot: int) -> Column:
    """Keep one name's values in a column: the best-ranked one that is not rare beside the most frequent."""
    ranks = matrix[:, rank_slot]
    if len(ranks) and ranks.min() == ranks.max():
        return matrix
    filled = ~np.isnan(matrix[:, slot]) & ~np.isnan(ranks)
    found, counts = np.unique(ranks[filled], return_counts=True)
    if len(found) > 1 and found[-1] == GUESS_RANK:
        found, counts = found[:-1], counts[:-1]
    if len(found) > 0:
        chosen = found[counts >= 0.2 * counts.max()][0]
        matrix[filled & (ranks != chosen), slot] = np.nan
    return matrix


def is_told(rows: Column) -> np.ndarray:
    """The rows with a loss; those with a reward in a log of rewards alone."""
    has_loss = ~np.isnan(rows[:, LOSS])
    reward = SLOTS["reward"]
    return ~np.isnan(rows[:, reward]) if reward < rows.shape[1] and not has_loss.any() else has_loss


def takes_both_signs(loss: Column) -> bool:
    """True for a series that no cross entropy can be: rows of both signs beyond what rounding makes of zeros, as the surrogate losses of
    policy gradients have them."""
    finite = loss[np.isfinite(loss)]
    if not len(finite):
        return False
    zero = min(ROUNDED_ZERO, 0.1 * float(np.abs(finite).max()))
    return bool((finite < -zero).mean() > FEW_NEGATIVE < (finite > zero).mean())
