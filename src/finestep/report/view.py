"""ReportView: everything that the page of a study shows, as one frozen value; it writes no file and draws nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field

from finestep.errors import BadInput
from finestep.report import wording
from finestep.report.basin import Basin, basin_finding, build_basin
from finestep.report.batch_map import BatchMap, build_maps, map_finding
from finestep.report.curves import EMA_SHARE, Curve, build_curves, curves_finding, gradient_finding
from finestep.report.measured import Verdict, final_loss, lower_elsewhere, seed_noise, verdict
from finestep.result import LabelAnswer, RowAnswer, Spent
from finestep.trial import KL_TO_BASE, EvalRecord, StepRecord, Trial, TrialState

SHOWN_CURVES = 6
MOST_METRIC_COLUMNS = 3


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class Figure(_Value):
    """One number of the header: what it is, the number, and what it is made of."""

    name: str
    value: str
    detail: str = ""


class StateCount(_Value):
    """How many trials ended in one way."""

    state: TrialState
    words: str
    number: int


class Row(_Value):
    """One trial in the table; texts as shown, and values to sort by."""

    number: int
    stage: str
    why: str
    learning_rate: str
    learning_rate_value: float
    batch: str
    batch_value: int
    fidelity: str
    fidelity_value: float
    loss: str
    loss_value: float | None
    metrics: tuple[str, ...]
    state: TrialState
    state_words: str
    reason: str
    elapsed: str
    elapsed_s: float
    is_best: bool
    is_baseline: bool


class Answered(_Value):
    """A validation row: what was asked, what the tuned model answers, and what the data say."""

    asked: str
    answer: str
    expected: str


class Findings(_Value):
    """The titles of the sections: what each figure says, in words."""

    basin: str
    map: str
    curves: str
    gradients: str
    table: str


class ReportView(_Value):
    """The whole page as plain values."""

    title: str
    command: str
    headline: str
    unsettled: str = Field("", description="What a search has not settled, and how to go on; empty when it has.")
    is_search: bool = Field(description="Several runs may be compared; False for the one run of `train`.")
    num_logged: int = Field(description="Trials with a step or evaluation log; more of them than curves may be drawn.")
    verdict: Verdict
    figures: tuple[Figure, ...] = Field(description="The best run's numbers; empty without one.")
    spent: tuple[Figure, ...] = Field(description="What the study cost.")
    counts: tuple[StateCount, ...]
    findings: Findings
    basin: Basin
    maps: tuple[BatchMap, ...]
    curves: tuple[Curve, ...]
    ema_share: float = Field(description="Span of the moving average as a share of a run's steps.")
    metric_names: tuple[str, ...]
    rows: tuple[Row, ...]
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    answers: tuple[Answered, ...] = ()

    def charts_json(self) -> str:
        """What the page's script draws, as JSON without NaN, in the same bytes each time."""
        data = {
            "basin": self.basin.model_dump(mode="json"),
            "maps": [item.model_dump(mode="json") for item in self.maps],
            "curves": [curve.model_dump(mode="json") for curve in self.curves],
            "ema_share": self.ema_share,
        }
        return json.dumps(data, allow_nan=False, separators=(",", ":"))


def build_view(
    *,
    title: str,
    command: str,
    trials: Sequence[Trial],
    steps: Mapping[int, Sequence[StepRecord]],
    evaluations: Mapping[int, Sequence[EvalRecord]],
    facts: Mapping[str, str | int | float],
    baseline: int | None,
    best: int | None,
    notes: Sequence[str],
    spent: Spent | None = None,
    unsettled: str | None = None,
    answers: Sequence[RowAnswer] = (),
) -> ReportView:
    """The report of a study from its trials and their logs.

    `steps` and `evaluations` go by trial number; `baseline` and `best` are trial numbers. Without `spent`,
    tokens and time are summed over the trials.

    Raises:
        BadInput: `best` has no loss that counts, or a number belongs to no trial.
    """
    numbered = {trial.number: trial for trial in trials}
    first, winner = _trial(numbered, baseline, "baseline"), _trial(numbered, best, "best")
    if winner is not None and final_loss(winner) is None:
        raise BadInput("`best` must be a trial with a finite validation loss", value=best, place="report")
    noise = seed_noise(trials)
    compared = verdict(winner, first, noise)
    curves = build_curves(trials, steps, evaluations, shown=_shown(trials, winner, first))
    maps = build_maps(trials)
    metric_names = tuple(sorted({name for trial in trials if trial.outcome for name in trial.outcome.metrics}))
    counts, lower = _counts(trials), lower_elsewhere(trials, winner)
    return ReportView(
        title=title,
        command=command,
        headline=_headline(winner, trials),
        unsettled=unsettled or "",
        is_search=not _is_one_training(trials),
        num_logged=sum(bool(steps.get(number) or evaluations.get(number)) for number in numbered),
        verdict=compared,
        figures=tuple(_best_figures(winner, compared)) if winner else (),
        spent=tuple(_spent_figures(trials, spent)),
        counts=counts,
        findings=Findings(
            basin=basin_finding(trials, winner, lower),
            map=map_finding(maps),
            curves=curves_finding(curves, winner),
            gradients=gradient_finding(curves, winner),
            table=f"{wording.runs(len(trials))}: {_count_words(counts)}" if trials else "No run was started",
        ),
        basin=build_basin(trials, best=winner, baseline=first, is_lowest=lower is None),
        maps=maps,
        curves=curves,
        ema_share=EMA_SHARE,
        metric_names=_metric_heads(metric_names),
        rows=tuple(_row(trial, metric_names, best, baseline) for trial in trials),
        facts=tuple((wording.name(key), wording.fact(value)) for key, value in facts.items()),
        notes=tuple(notes),
        answers=tuple(_answered(one) for one in answers),
    )


def _answered(one: RowAnswer) -> Answered:
    if isinstance(one, LabelAnswer):
        return Answered(asked=one.text, answer=one.predicted, expected=one.true)
    return Answered(asked=one.prompt, answer=one.answer, expected=one.expected)


def _trial(numbered: Mapping[int, Trial], number: int | None, name: str) -> Trial | None:
    if number is None:
        return None
    if number not in numbered:
        raise BadInput(f"`{name}` must be the number of a trial of the study", value=number, place="report")
    return numbered[number]


def _shown(trials: Sequence[Trial], best: Trial | None, baseline: Trial | None) -> frozenset[int]:
    chosen = [trial.number for trial in (best, baseline) if trial is not None]
    fidelity = best.fidelity if best else 1.0
    ranked = sorted(
        (trial for trial in trials if final_loss(trial) is not None),
        key=lambda trial: (trial.fidelity != fidelity, final_loss(trial), trial.number),
    )
    fallen = [trial for trial in trials if trial.state == "diverged"][:1]
    order = [*chosen, *(trial.number for trial in fallen), *(trial.number for trial in ranked)]
    order += [trial.number for trial in trials]
    return frozenset(list(dict.fromkeys(order))[:SHOWN_CURVES])


def _headline(best: Trial | None, trials: Sequence[Trial]) -> str:
    if best is not None:
        rate, batch = wording.learning_rate(best.recipe.learning_rate), best.recipe.effective_batch_size
        verb = "Trained" if _is_one_training(trials) else "Train"
        return f"{verb} at learning rate {rate} with an effective batch of {batch}"
    if not trials:
        return "No run was started"
    if all(trial.state == "diverged" for trial in trials):
        return "Every run diverged: search at lower learning rates"
    if any(trial.state == "running" for trial in trials):
        return "No run has ended with a result yet"
    return "No run ended with a result: see the reasons in the table"


def _is_one_training(trials: Sequence[Trial]) -> bool:
    """True for the one run of `train`, which was not searched for."""
    return len(trials) == 1 and trials[0].stage == "training"


def _spent_figures(trials: Sequence[Trial], spent: Spent | None) -> list[Figure]:
    outcomes = [trial.outcome for trial in trials if trial.outcome]
    tokens = spent.tokens if spent else sum(outcome.num_train_tokens for outcome in outcomes)
    elapsed_s = spent.elapsed_s if spent else sum(outcome.elapsed_s for outcome in outcomes)
    figures = []
    if tokens:
        figures.append(Figure(name="training tokens", value=wording.count(tokens)))
    if elapsed_s:
        figures.append(Figure(name="" if spent else "summed over runs", value=wording.duration(elapsed_s)))
    if spent is not None and not _is_one_training(trials):
        most = spent.budget_full_runs
        name = "full runs" if most is None else f"of at most {wording.count(most)} full runs"
        figures.append(Figure(name=name, value=wording.count(spent.full_runs)))
    return figures


def _best_figures(best: Trial, compared: Verdict) -> list[Figure]:
    before = best.outcome.base_eval_loss if best.outcome else None
    untrained = f"before training {wording.loss(before)}" if before is not None else ""
    return [
        Figure(
            name="Learning rate",
            value=wording.learning_rate(best.recipe.learning_rate),
            detail=f"peak, {best.recipe.schedule.name} schedule, method {best.recipe.method}",
        ),
        Figure(name="Effective batch", value=str(best.recipe.effective_batch_size), detail=batch_product(best)),
        Figure(name="Validation loss", value=wording.loss(final_loss(best)), detail=untrained),
        Figure(name="Against the baseline", value=compared.figure, detail=compared.sentence),
    ]


def batch_product(trial: Trial) -> str:
    """The effective batch as micro x accumulation x devices; a remainder is said."""
    recipe = trial.recipe
    micro = (trial.outcome.micro_batch_size if trial.outcome else None) or recipe.micro_batch_size
    if micro is None:
        return "micro-batch not recorded"
    accumulation = recipe.accumulation_steps(micro)
    text = f"{micro} micro × {accumulation} accumulation × {recipe.num_devices} device" + (
        "s" if recipe.num_devices > 1 else ""
    )
    exact = micro * accumulation * recipe.num_devices == recipe.effective_batch_size
    return text if exact else f"{text}, the last micro-batch smaller"


def _counts(trials: Sequence[Trial]) -> tuple[StateCount, ...]:
    numbers = {state: sum(trial.state == state for trial in trials) for state in wording.STATE_WORDS}
    return tuple(
        StateCount(state=state, words=wording.STATE_WORDS[state], number=number)
        for state, number in numbers.items()
        if number
    )


def _count_words(counts: Sequence[StateCount]) -> str:
    return ", ".join(f"{count.number} {count.words}" for count in counts)


def _row(trial: Trial, metric_names: Sequence[str], best: int | None, baseline: int | None) -> Row:
    outcome, recipe = trial.outcome, trial.recipe
    reached = outcome.eval_loss if outcome else None
    return Row(
        number=trial.number,
        stage=trial.stage,
        why=trial.why,
        learning_rate=wording.learning_rate(recipe.learning_rate),
        learning_rate_value=recipe.learning_rate,
        batch=str(recipe.effective_batch_size),
        batch_value=recipe.effective_batch_size,
        fidelity=wording.share(trial.fidelity),
        fidelity_value=trial.fidelity,
        loss=wording.loss(reached),
        loss_value=reached if reached is not None and math.isfinite(reached) else None,
        metrics=tuple(_metric_cells(outcome.metrics if outcome else {}, metric_names)),
        state=trial.state,
        state_words=wording.STATE_WORDS[trial.state],
        reason=outcome.reason if outcome else "",
        elapsed=wording.duration(outcome.elapsed_s if outcome else None),
        elapsed_s=outcome.elapsed_s if outcome and math.isfinite(outcome.elapsed_s) else 0.0,
        is_best=trial.number == best,
        is_baseline=trial.number == baseline,
    )


def _metric_heads(names: Sequence[str]) -> tuple[str, ...]:
    """A column each, or one for all of them but the distance from the base, which is compared with a limit."""
    own = [wording.name(name) for name in names if len(names) <= MOST_METRIC_COLUMNS or name == KL_TO_BASE]
    return tuple(own) if len(own) == len(names) else (*own, "metrics")


def _metric_cells(metrics: Mapping[str, float], names: Sequence[str]) -> list[str]:
    single = [name for name in names if len(names) <= MOST_METRIC_COLUMNS or name == KL_TO_BASE]
    cells = [wording.loss(metrics.get(name)) for name in single]
    rest = [f"{name} {wording.loss(metrics[name])}" for name in names if name in metrics and name not in single]
    return cells if len(single) == len(names) else [*cells, ", ".join(rest) or wording.NONE]
