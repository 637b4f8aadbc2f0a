"""The first thing on the page: the answer with its doubt, and the few numbers that stand beside it; sentences, no drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from finestep import wording
from finestep.report.measured import Verdict, final_loss
from finestep.report.told import Interval, Told
from finestep.trial import Trial

LEADING = ("accuracy", "macro_f1", "exact_match")
"""Metrics that say more to a reader than a loss does."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class Tile(_Value):
    """One number: what it is, the number, its error, and what it is made of."""

    name: str
    value: str
    error: str = ""
    detail: str = ""


class Headline(_Value):
    """The answer in a sentence, and how sure it is."""

    headline: str
    tag: Literal["settled", "unsettled", "predicted", "none", ""]
    doubt: tuple[str, ...] = ()
    next: str = ""


def headline(best: Trial | None, trials: Sequence[Trial], told: Told) -> Headline:
    """What to train, and between which rates the best one lies; per cents only where they were earned."""
    if best is None and told.predicted is not None:
        return _predicted(told)
    if best is None:
        return Headline(headline=_nothing(trials), tag="" if _is_running(trials) else "none", next=told.use.next)
    rate, batch = wording.learning_rate(best.recipe.learning_rate), best.recipe.effective_batch_size
    if is_one_training(trials):
        return Headline(headline=f"Trained at learning rate {rate} with an effective batch of {batch}", tag="")
    tag: Literal["settled", "unsettled", ""] = (
        "" if told.settled is None else "settled" if told.settled else "unsettled"
    )
    return Headline(
        headline=f"Train at learning rate {rate} with an effective batch of {batch}",
        tag=tag,
        doubt=tuple(_doubt(best, told)),
        next="" if told.settled else told.use.next,
    )


def _predicted(told: Told) -> Headline:
    assert told.predicted is not None
    rate, batch = told.predicted
    where = _interval_words(_interval(told, batch))
    return Headline(
        headline=f"Predicted best: learning rate {wording.learning_rate(rate)} with an effective batch of {batch}",
        tag="predicted",
        doubt=(*where, "No run of full length has ended, so nothing shows yet how good it is."),
        next=told.use.next,
    )


def _doubt(best: Trial, told: Told) -> list[str]:
    interval = _interval(told, best.recipe.effective_batch_size)
    said = _interval_words(interval)
    rate = best.recipe.learning_rate
    if interval and not interval.low * 0.999 <= rate <= interval.high * 1.001:
        said.append(f"{wording.learning_rate(rate)} lies outside, and is the best of those that ran.")
    if told.settled is False:
        said.append("The best full run does not stand between worse ones yet, so no per cent is stated.")
    elif told.expected_regret is not None:
        gain = told.expected_gain
        more = f"; one more full run would gain about {gain:.2g} %" if gain is not None else ""
        said.append(f"This run is expected to lie {told.expected_regret:.2g} % above the best there is{more}.")
    return said


def _interval(told: Told, batch: int) -> Interval | None:
    return next((one for one in told.intervals if one.batch == batch), None)


def _interval_words(interval: Interval | None) -> list[str]:
    if interval is None:
        return []
    low, high = wording.learning_rate(interval.low), wording.learning_rate(interval.high)
    return [f"The best learning rate at this batch lies between {low} and {high} (80 % sure)."]


def _nothing(trials: Sequence[Trial]) -> str:
    if not trials:
        return "No run was started"
    if all(trial.state == "diverged" for trial in trials):
        return "Every run diverged: search at lower learning rates"
    if _is_running(trials):
        return "No run has ended with a result yet"
    return "No run ended with a result: see the reasons in the table"


def _is_running(trials: Sequence[Trial]) -> bool:
    return any(trial.state == "running" for trial in trials)


def is_one_training(trials: Sequence[Trial]) -> bool:
    """True for the one run of `train`, which was not searched for."""
    return len(trials) == 1 and trials[0].stage == "training"


def tiles(best: Trial, baseline: Trial | None, compared: Verdict, told: Told, *, batch: str) -> list[Tile]:
    """The chosen run's numbers: metrics that a reader knows first, then loss, gain and batch."""
    before = best.outcome.base_eval_loss if best.outcome else None
    untrained = f"before training {wording.loss(before)}" if before is not None else ""
    shown = [
        *_metric_tiles(best, baseline, told),
        Tile(name="Validation loss", value=wording.loss(final_loss(best)), detail=untrained),
        Tile(name="Against the usual default", value=compared.figure, detail=compared.sentence),
        Tile(name="Effective batch", value=str(best.recipe.effective_batch_size), detail=batch),
    ]
    return shown[:4] if len(shown) > 4 else shown


def _metric_tiles(best: Trial, baseline: Trial | None, told: Told) -> list[Tile]:
    metrics = best.outcome.metrics if best.outcome else {}
    wanted = dict.fromkeys((told.objective, *LEADING))
    names = [name for name in wanted if name in metrics and math.isfinite(metrics[name])]
    return [_metric_tile(name, metrics[name], baseline, told) for name in names[:2]]


def _metric_tile(name: str, value: float, baseline: Trial | None, told: Told) -> Tile:
    error, rows = told.metric_errors.get(name, (None, 0))
    before = baseline.outcome.metrics.get(name) if baseline and baseline.outcome else None
    parts = [f"± is the standard error of {rows:,} rows"] if error is not None else []
    parts += [f"the usual default has {before:.4g}"] if before is not None else []
    return Tile(
        name=metric_name(name),
        value=f"{value:.4f}" if abs(value) < 1000 else f"{value:.4g}",
        error=f"± {error:.2g}" if error is not None else "",
        detail="; ".join(parts),
    )


def metric_name(name: str) -> str:
    """A metric as a heading.

    >>> metric_name("macro_f1"), metric_name("exact_match")
    ('Macro F1', 'Exact match')
    """
    return {"macro_f1": "Macro F1"}.get(name) or wording.name(name).capitalize()
