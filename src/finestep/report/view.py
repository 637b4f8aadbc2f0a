"""ReportView: everything that the page of a study shows, as one frozen value; it writes no file and draws nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from pydantic import BaseModel, ConfigDict, Field

from finestep import wording
from finestep.errors import BadInput
from finestep.report.basin import Basin, basin_finding, build_basin
from finestep.report.batch_map import BatchMap, build_maps, map_finding
from finestep.report.curves import EMA_SHARE, Curve, build_curves, curves_finding, gradient_finding
from finestep.report.hero import Headline, Tile, headline, is_one_training, tiles
from finestep.report.measured import Verdict, final_loss, lower_elsewhere, metric_verdict, seed_noise, verdict
from finestep.report.told import Told
from finestep.result import LabelAnswer, RowAnswer, Spent
from finestep.trial import EvalRecord, StepRecord, Trial, TrialState

SHOWN_CURVES = 6
MOST_REASONS = 400
"""Trials whose reasons the page keeps; the chosen one, the baseline and the last ones are among them."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class Figure(_Value):
    """One number: what it is, and the number."""

    name: str
    value: str


class StateCount(_Value):
    """How many trials ended in one way."""

    state: TrialState
    words: str
    number: int


class Row(_Value):
    """One trial in the table of a page without scripts."""

    number: int
    learning_rate: str
    batch: str
    fidelity: str
    loss: str
    state_words: str
    reason: str
    is_best: bool


class Answered(_Value):
    """A validation row: what was asked, what the tuned model answers, and what the data say."""

    asked: str
    answer: str
    expected: str


class Titles(_Value):
    """The titles of the sections: what each figure says, in words."""

    basin: str
    runs: str
    map: str
    curves: str
    gradients: str
    diagnosis: str
    answers: str
    use: str
    provenance: str


class Header(_Value):
    """What the page is about, and how it is shown."""

    title: str
    language: str = Field("", description="`en` or `zh`; empty: the browser's.")
    live: bool = Field(False, description="The study runs, and the page is served with news.")
    is_search: bool = Field(description="Several runs may be compared; False for the one run of `train`.")


class Charts(_Value):
    """What is drawn, with the sentences below it."""

    basin: Basin
    basin_about: tuple[str, ...]
    maps: tuple[BatchMap, ...]
    curves: tuple[Curve, ...]
    curves_about: tuple[str, ...]


class Table(_Value):
    """The trials, and which of their reasons the page keeps."""

    trials: tuple[Trial, ...]
    kept_reasons: frozenset[int] = Field(description="Numbers of the trials whose reasons the page keeps.")
    lost: tuple[str, ...] = Field((), description="What the page leaves out, because the study is large.")


class ReportView(_Value):
    """The whole page as plain values."""

    header: Header
    verdict: Headline
    compared: Verdict
    tiles: tuple[Tile, ...] = Field(description="The chosen run's numbers; empty without one.")
    spent: tuple[Figure, ...] = Field(description="What the study cost.")
    counts: tuple[StateCount, ...]
    titles: Titles
    told: Told
    table: Table
    charts: Charts
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    answers: tuple[Answered, ...] = ()

    @cached_property
    def rows(self) -> list[Row]:
        """The trials as texts, in their order."""
        return [_row(trial, self.charts.basin.best) for trial in self.table.trials]


def build_view(
    *,
    title: str,
    trials: Sequence[Trial],
    steps: Mapping[int, Sequence[StepRecord]],
    evaluations: Mapping[int, Sequence[EvalRecord]],
    facts: Mapping[str, str | int | float],
    baseline: int | None,
    best: int | None,
    notes: Sequence[str],
    spent: Spent | None = None,
    told: Told | None = None,
    answers: Sequence[RowAnswer] = (),
    language: str = "",
    live: bool = False,
) -> ReportView:
    """The report of a study from its trials and their logs.

    `steps` and `evaluations` go by trial number; `baseline` and `best` are trial numbers. Without `spent`, tokens and
    time are summed over the trials.

    Raises:
        BadInput: `best` has no loss that counts, or a number belongs to no trial.
    """
    numbered, said = {trial.number: trial for trial in trials}, told or Told()
    first, winner = _trial(numbered, baseline, "baseline"), _trial(numbered, best, "best")
    if winner is not None and final_loss(winner) is None:
        raise BadInput("`best` must be a trial with a finite validation loss", value=best, place="report")
    compared = metric_verdict(winner, first, said) or verdict(winner, first, seed_noise(trials))
    curves = build_curves(trials, steps, evaluations, shown=_shown(trials, winner, first), is_own=said.is_own)
    beside = _beside_others(trials, winner)
    maps, kept = build_maps(beside), _kept(trials, winner, first)
    num_logged = sum(bool(steps.get(number) or evaluations.get(number)) for number in numbered)
    return ReportView(
        header=Header(title=title, language=language, live=live, is_search=not is_one_training(trials)),
        verdict=headline(winner, trials, said),
        compared=compared,
        tiles=tuple(tiles(winner, first, compared, said, batch=batch_product(winner))) if winner else (),
        spent=tuple(_spent_figures(trials, spent)),
        counts=_counts(trials),
        titles=_titles(trials, winner, maps=maps, curves=curves, num_answers=len(answers), told=said),
        told=said,
        table=Table(trials=tuple(trials), kept_reasons=kept, lost=tuple(_lost(len(trials), len(kept)))),
        charts=Charts(
            basin=build_basin(beside, best=winner, baseline=first, is_lowest=lower_elsewhere(trials, winner) is None),
            basin_about=tuple(_basin_about(said)),
            maps=maps,
            curves=curves,
            curves_about=tuple(_curves_about(len(curves), num_logged)),
        ),
        facts=tuple((wording.name(key), wording.fact(value)) for key, value in facts.items()),
        notes=tuple(notes),
        answers=tuple(_answered(one) for one in answers),
    )


def _titles(
    trials: Sequence[Trial],
    winner: Trial | None,
    *,
    maps: Sequence[BatchMap],
    curves: Sequence[Curve],
    num_answers: int,
    told: Told,
) -> Titles:
    counts = _counts(trials)
    return Titles(
        basin=basin_finding(
            trials,
            winner,
            lower_elsewhere(trials, winner),
            metric=None if told.objective == "eval_loss" else told.objective,
        ),
        runs=f"{wording.runs(len(trials))}: {_count_words(counts)}" if trials else "No run was started",
        map=map_finding(maps),
        curves=curves_finding(curves, winner),
        gradients=gradient_finding(curves, winner),
        diagnosis="Diagnosis: nothing odd was seen" if not told.findings else "Diagnosis: what was seen in the runs",
        answers=f"What the tuned model answers to {num_answers} validation rows",
        use="Use it",
        provenance="Where these numbers come from",
    )


def _basin_about(told: Told) -> list[str]:
    said = [
        "Each point is a run: its result over its highest learning rate. Runs without a result stand above the plot."
    ]
    if told.intervals:
        said.append("The shaded strip is where the best rate is believed to be, with 80 % probability.")
    if told.belief and told.settled:
        said.append(
            "The curve is the result that the search expects at each rate, with the range that 80 % of it lies in."
        )
    elif told.belief:
        said.append("The dashed curve is what the search expects; it is a guess until the study is settled.")
    return said


def _curves_about(drawn: int, logged: int) -> list[str]:
    said = [
        f"Training loss as a moving average over {100 * EMA_SHARE:.0f} % of a run's steps; the raw loss stands faintly "
        "behind it for the runs in colour. Rings are evaluations on the validation rows; a cross is where a number stopped being one."
    ]
    return said + ([f"Curves of {drawn:,} of {logged:,} runs are kept in this page."] if logged > drawn else [])


def _lost(number: int, kept: int) -> list[str]:
    return [f"Why a run was tried and how it ended is kept for {kept:,} of {number:,} runs."] if kept < number else []


def _beside_others(trials: Sequence[Trial], winner: Trial | None) -> list[Trial]:
    """Trials whose results stand beside each other: what one measured that was stopped by hand is not the end of its schedule."""
    return [trial for trial in trials if trial is winner or not trial.is_stopped_by_hand]


def _kept(trials: Sequence[Trial], winner: Trial | None, first: Trial | None) -> frozenset[int]:
    """Of very many trials, the chosen ones, the best of the rest by loss, and the last."""
    chosen = [trial.number for trial in (winner, first) if trial is not None]
    ranked = sorted((t for t in trials if final_loss(t) is not None), key=lambda t: (-t.fidelity, final_loss(t)))
    order = [*chosen, *(t.number for t in ranked[: MOST_REASONS // 2]), *(t.number for t in reversed(trials))]
    return frozenset(list(dict.fromkeys(order))[:MOST_REASONS])


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
    running = [trial.number for trial in trials if trial.state == "running"]
    fallen = [trial for trial in trials if trial.state == "diverged"][:1]
    order = [*chosen, *running, *(trial.number for trial in fallen), *(trial.number for trial in ranked)]
    order += [trial.number for trial in trials]
    return frozenset(list(dict.fromkeys(order))[: SHOWN_CURVES + len(running)])


def _spent_figures(trials: Sequence[Trial], spent: Spent | None) -> list[Figure]:
    outcomes = [trial.outcome for trial in trials if trial.outcome]
    tokens = spent.tokens if spent else sum(outcome.cost.num_train_tokens for outcome in outcomes)
    elapsed_s = spent.elapsed_s if spent else sum(outcome.cost.elapsed_s for outcome in outcomes)
    figures = []
    if tokens:
        figures.append(Figure(name="training tokens", value=wording.count(tokens)))
    if elapsed_s:
        figures.append(Figure(name="" if spent else "summed over runs", value=wording.duration(elapsed_s)))
    if spent is not None and not is_one_training(trials):
        most = spent.budget_full_runs
        name = "full runs" if most is None else f"of at most {wording.count(most)} full runs"
        figures.append(Figure(name=name, value=wording.count(spent.full_runs)))
    return figures


def batch_product(trial: Trial) -> str:
    """The effective batch as micro x accumulation x devices; a remainder is said."""
    recipe = trial.recipe
    micro = (trial.outcome.cost.micro_batch_size if trial.outcome else None) or recipe.micro_batch_size
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


def _row(trial: Trial, best: int | None) -> Row:
    outcome, recipe = trial.outcome, trial.recipe
    reached = outcome.eval_loss if outcome else None
    return Row(
        number=trial.number,
        learning_rate=wording.learning_rate(recipe.learning_rate),
        batch=str(recipe.effective_batch_size),
        fidelity=wording.share(trial.fidelity),
        loss=wording.loss(reached),
        state_words=wording.STATE_WORDS[trial.state],
        reason=outcome.reason if outcome else "",
        is_best=trial.number == best,
    )
