"""Task metrics beside the validation loss: which one counts, which way is better, and where it was best; it judges no run."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from finestep.diagnosis.training_log import Column, EvalSeries

_HIGHER = (
    "exact_match", "f1", "accuracy", "bleu", "rouge", "auc", "mcc", "matthews", "pearson", "spearman", "meteor", "chrf", "pass@", "map",
    "iou", "dice", "recall", "precision", "score", "acc", "ndcg", "hits", "mrr",
)  # fmt: skip
_LOWER = ("wer", "cer", "ter", "mae", "rmse", "mse", "eer")
_NEGATED = frozenset({"negative", "neg"})
"""Words of an error that is logged with its sign changed, so that higher is better."""
_NO_TASK = ("token_accuracy", "rewards/", "logps", "logits", "perplexity")
"""Names that follow the loss, or belong to preference learning."""
_OVER_ALL = frozenset({"overall", "micro", "macro", "weighted", "mean", "avg", "average", "all", "total"})
SAME = 0.005
"""Part of a metric's range up to its best value within which two values are as good as equal."""


@dataclass(frozen=True)
class MetricCurve:
    """The task metric of the main validation set; finite values only."""

    name: str
    is_higher_better: bool
    first: float
    best: float
    last: float
    best_step: float
    last_step: float
    num_after_best: int
    steps: Column
    values: Column

    def error_cut_since(self, step: float) -> float:
        """Share of the errors that were left at a step and are gone at the end; negative when there are more.

        Errors are what is missing to 1 (or to 100), or the value itself where lower is better.
        """
        then = float(self.values[min(int(np.searchsorted(self.steps, step)), len(self.values) - 1)])
        # Scores come as shares or in per cent, which only their size tells.
        is_error = not self.is_higher_better or self.values.max() <= 0.0
        top = 0.0 if is_error else 1.0 if self.values.max() <= 1.0 else 100.0
        before, now = abs(top - then), abs(top - self.last)
        return 1 - now / before if before > 0 else 0.0

    @property
    def is_best_at_end(self) -> bool:
        """True when the last value is the best, or as good as it."""
        return abs(self.best - self.last) <= SAME * max(abs(self.best), abs(self.best - self.first), 1e-12)

    @property
    def loss_since_best(self) -> float:
        """Relative loss of quality since the best value."""
        return abs(self.best - self.last) / max(abs(self.best), 1e-12)


def metric_curve(series: EvalSeries | None) -> MetricCurve | None:
    """The metric that counts, by the order of names above; None when none was logged twice."""
    if series is None:
        return None
    ranked = sorted((rank, not _is_overall(name), name) for name in series.metrics if (rank := _rank(name)) is not None)
    for (_, is_higher), _, name in ranked:
        curve = _curve(name, is_higher, series.step, series.metrics[name])
        if curve is not None:
            return curve
    return None


def _is_overall(name: str) -> bool:
    """True for a metric over all classes, beside which those of single classes say little."""
    words = set(name.replace("/", "_").replace("-", "_").split("_"))
    return bool(words & _OVER_ALL) or len(words - {"score", "eval"}) == 1


def _rank(name: str) -> tuple[int, bool] | None:
    if any(word in name for word in _NO_TASK):
        return None
    # Error rates are whole words: `wer` is also a part of `power`.
    words = name.replace("/", "_").replace("-", "_").split("_")
    for place, known in enumerate(_LOWER):
        if known in words:
            return place, bool(_NEGATED & set(words))
    for place, known in enumerate(_HIGHER):
        if known in name:
            return place, True
    return None


def _curve(name: str, is_higher: bool, step: Column, values: Column) -> MetricCurve | None:
    known = np.isfinite(values)
    x, at = values[known], step[known]
    if len(x) < 2 or math.isclose(float(x.min()), float(x.max())):
        return None
    best = int(np.argmax(x) if is_higher else np.argmin(x))
    return MetricCurve(
        name,
        is_higher,
        float(x[0]),
        float(x[best]),
        float(x[-1]),
        float(at[best]),
        float(at[-1]),
        len(x) - 1 - best,
        at,
        x,
    )
