"""The files that a study leaves behind: the tuned model, its recipe, the report, and the same in figures for machines."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path

from finestep.answer import Answer
from finestep.disk import remove, write_whole
from finestep.errors import BadInput
from finestep.flows.next_command import next_command
from finestep.flows.own_trial import trial_of
from finestep.ready import DataCard, Ready
from finestep.result import (
    ChosenFinding,
    DataSummary,
    Forgetting,
    Paths,
    Spent,
    Standing,
    StudyGoal,
    StudyResult,
    TrialFigures,
)
from finestep.search.forgetting import forgetting_sentence
from finestep.search.further_fields import tuned_values
from finestep.search.leader import leader
from finestep.store.recipe_file import write_recipe
from finestep.store.study_files import StudyFiles
from finestep.studies.choose import baseline_trial, chosen_trial, final_recipe, predicted_recipe
from finestep.studies.data_words import result_notes
from finestep.studies.memory_words import memory_words
from finestep.studies.page import write_page
from finestep.studies.placed_model import place_model
from finestep.studies.progress import progress_of
from finestep.studies.saved_check import how_to_load, known_check
from finestep.studies.spent import time_spent_s
from finestep.studies.with_result import config_path, write_config
from finestep.study import Budget, StudySpec
from finestep.study_layout import MODEL, RECIPE, REPORT, RESULT, STEPS
from finestep.trial import Trial

DATA_FACTS = (
    "format",
    "num_rows",
    "num_eval_rows",
    "num_tokens",
    "num_trained_tokens",
    "length_p50",
    "length_max",
    "num_labels",
)
"""Facts of the data that the report shows."""


class Writes(Enum):
    """What may be written into a study's folder."""

    ALL = "all"
    PAGE = "page"
    """Only the page and the figures: another process works on the study."""
    NOTHING = "nothing"


def write_results(
    store: StudyFiles,
    *,
    command: str,
    budget: Budget,
    ready: Ready | None = None,
    answer: Answer | None = None,
    facts: dict[str, str | int | float] | None = None,
    writes: Writes = Writes.ALL,
) -> StudyResult:
    """Write the files of a study as it stands, and answer with its figures (also in `result.json`).

    Args:
        ready: what the trainer found; None: it is not known any more.
        answer: what the search believes, which chooses the trial; None: the lowest loss does.
        facts: what the report shows of model, data and machine; None: by `ready`.
    """
    trials = store.trials()
    best = chosen_trial(store.spec, trials, answer)
    note = _write_model_and_recipe(store, best, answer) if writes is Writes.ALL else None
    standing = _standing(store, trials, command=command, budget=budget, best=best, answer=answer)
    card = ready.card if ready is not None else DataCard()
    paths = _paths(store.folder, best)
    if store.spec.framework is not None and best is not None:
        paths = _with_own_config(store, paths, best, answer, writes)
    reloaded = known_check(store.trial_folder(best.number)) if best is not None and paths.model else None
    result = StudyResult(
        **dict(standing),
        paths=paths,
        forgetting=_forgetting(store.spec, trials, best),
        start=store.spec.search.start,
        facts=describe(store, ready) if facts is None else {**describe(store, ready), **facts},
        finding=_finding(store, best, standing),
        data=DataSummary(notes=tuple(result_notes(card)), num_eval_rows=card.facts.num_eval_rows),
        memory=memory_words(store.trial_folder(best.number)) if best is not None else (),
        saved=reloaded.check if reloaded else None,
        answers=reloaded.answers if reloaded else (),
        use=how_to_load(Path(paths.model).resolve()) if paths.model else None,
        model_note=note,
    )
    if writes is not Writes.NOTHING:
        write_page(store, trials, result)
        write_whole(store.folder / RESULT, result.as_json(indent=1))
    return result


def _write_model_and_recipe(store: StudyFiles, best: Trial | None, answer: Answer | None) -> str | None:
    """The chosen trial's model and recipe, or the recipe that is predicted; what to say when the model is damaged."""
    spec, file = store.spec, store.folder / RECIPE
    if best is not None:
        note = place_model(store, best)
        write_recipe(file, final_recipe(best), comments=_recipe_comments(spec), header=_recipe_header(spec, best))
        return note
    if answer is not None and answer.learning_rate is not None:
        write_recipe(file, predicted_recipe(spec, answer), header=f"Found by finestep: {answer.sentence}.")
    return None


def _finding(store: StudyFiles, best: Trial | None, standing: Standing) -> ChosenFinding | None:
    """What `finestep diagnose` says of the chosen trial; None when there is none, or its records cannot be read."""
    from finestep.flows.diagnose import diagnose_file

    log = store.trial_folder(best.number) / STEPS if best is not None else None
    if best is None or log is None or not log.exists():
        return None
    own = trial_of(store.spec, standing, number=best.number, outcome=best.outcome)
    try:
        report = diagnose_file(log, own=own)
    except BadInput:
        return None
    verdict = report.verdict
    return ChosenFinding(
        code=verdict.code,
        label=report.label,
        meaning=verdict.meaning,
        advice=verdict.advice,
        num_epochs=own.num_epochs,
    )


def _forgetting(spec: StudySpec, trials: Sequence[Trial], best: Trial | None) -> Forgetting | None:
    """Limit, where the chosen trial ended, and what to say when none ended within it; None when it was not watched."""
    if spec.retention is None:
        return None
    limit, outcome = spec.retention.max_forgetting, best.outcome if best is not None else None
    return Forgetting(
        limit=limit,
        kl_at_end=outcome.forgetting.kl_at_end if outcome else None,
        sentence=forgetting_sentence(trials, limit) if limit is not None else "",
    )


def drop_other_models(store: StudyFiles, result: StudyResult) -> None:
    """After the end of a study: only the chosen trial's weights stay."""
    for trial in store.trials():
        if result.best is not None and trial.number != result.best.trial and trial.state != "running":
            remove(store.trial_folder(trial.number) / MODEL)


def _standing(
    store: StudyFiles,
    trials: Sequence[Trial],
    *,
    command: str,
    budget: Budget,
    best: Trial | None,
    answer: Answer | None,
) -> Standing:
    """Baseline, best, what measured better than it, what the search believes, trials, and what was spent."""
    spec, ready = store.spec, store.known_ready()
    baseline, first = baseline_trial(trials), leader(spec, trials)
    sharing = (ready or Ready()).sharing
    return Standing(
        objective=StudyGoal(name=spec.objective, goal=spec.goal, prefer=spec.search.prefer),
        baseline=_figures(store, baseline) if baseline else None,
        best=_figures(store, best) if best else None,
        leader=_figures(store, first) if first and best and first.number != best.number else None,
        answer=answer.stated() if answer else None,
        settled=answer.settled if answer else None,
        next_command=_next_command(trials, answer, command, budget),
        trials=tuple(_figures(store, trial) for trial in trials),
        spent=Spent(
            full_runs=round(progress_of(store, trials).spent(), 3),
            budget_full_runs=budget.full_runs,
            tokens=sum(trial.outcome.cost.num_train_tokens for trial in trials if trial.outcome),
            elapsed_s=round(time_spent_s(trials, sharing), 1),
        ),
        command=command,
    )


def _next_command(trials: Sequence[Trial], answer: Answer | None, command: str, budget: Budget) -> str | None:
    """What goes on: the same command with trials that are under way, a larger budget with a study that is not settled."""
    if answer is None or answer.settled:
        return None
    return command if any(trial.state == "running" for trial in trials) else next_command(command, budget)


def _with_own_config(store: StudyFiles, paths: Paths, best: Trial, answer: Answer | None, writes: Writes) -> Paths:
    """After `--with`: the user's own config with the found values stands in the place of our recipe."""
    config = write_config(store, best, answer) if writes is Writes.ALL else config_path(store)
    return paths.model_copy(update={"recipe": None, "config": str(config) if config and config.exists() else None})


def _paths(folder: Path, best: Trial | None) -> Paths:
    recipe, model = folder / RECIPE, folder / MODEL
    return Paths(
        study=str(folder),
        report=str(folder / REPORT),
        recipe=str(recipe) if recipe.exists() else None,
        model=str(model) if best is not None and model.is_dir() else None,
    )


def describe(store: StudyFiles, ready: Ready | None) -> dict[str, str | int | float]:
    """Facts for the report: model, data, machine, versions."""
    spec = store.spec
    out: dict[str, str | int | float] = {
        "model": spec.model.path,
        "data": spec.data.path,
        "method": spec.recipe.method,
        "strategy": spec.search.strategy,
        "seed": spec.recipe.seed,
    }
    if ready is None:
        return out
    for name in DATA_FACTS:
        value = getattr(ready.card.facts, name)
        if value is not None:
            out[f"data {name.replace('num_', '').replace('_', ' ')}"] = value
    return out | {name.replace("_", " "): value for name, value in ready.machine.known().items()}


def _figures(store: StudyFiles, trial: Trial) -> TrialFigures:
    outcome, recipe, spec = trial.outcome, final_recipe(trial), store.spec
    micro = recipe.first_micro_batch()
    return TrialFigures(
        trial=trial.number,
        stage=trial.stage,
        asked_by=trial.asked_by,
        is_baseline=trial.is_baseline,
        state=trial.state,
        fidelity=trial.fidelity,
        learning_rate=recipe.learning_rate,
        effective_batch_size=recipe.effective_batch_size,
        micro_batch_size=micro,
        accumulation_steps=recipe.accumulation_steps(micro),
        num_devices=recipe.num_devices,
        tuned=tuned_values(spec.search.tuned, trial),
        eval_loss=outcome.eval_loss if outcome else None,
        base_eval_loss=outcome.base_eval_loss if outcome else None,
        metrics=dict(outcome.metrics) if outcome else {},
        kl_at_end=outcome.forgetting.kl_at_end if outcome else None,
        forgets_too_much=outcome.forgets_too_much if outcome else False,
        reason=outcome.reason if outcome else "",
        stopped_by_hand=outcome.by_hand if outcome else False,
        log=outcome.log if outcome else None,
        folder=str(store.trial_folder(trial.number)),
        num_train_tokens=outcome.cost.num_train_tokens if outcome else 0,
        seconds=outcome.cost.elapsed_s if outcome else 0.0,
    )


def _recipe_header(spec: StudySpec, best: Trial) -> str:
    assert best.outcome is not None
    text = f"Found by finestep: trial {best.number}, validation loss {best.outcome.eval_loss:.4f}"
    value = best.outcome.metrics.get(spec.objective)
    return text + (f", {spec.objective} {value:.4g}." if value is not None else ".")


def _recipe_comments(spec: StudySpec) -> dict[str, str]:
    """Where the fields come from that the start has set."""
    start = spec.search.start
    return {name: f"from {start.why}: {one.why}" for name, one in start.fields.items()} if start else {}
