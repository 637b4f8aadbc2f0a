"""What a study leaves behind: the tuned model, the recipe, the report, and the same in figures for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from finestep.disk import json_text, remove, write_whole
from finestep.errors import BadInput
from finestep.flows.data_words import result_notes
from finestep.flows.next_command import next_command
from finestep.flows.own_trial import finding_words, trial_of
from finestep.flows.placed_model import MODEL, place_model
from finestep.flows.saved import saved_part
from finestep.flows.tune import apply_proposal, runs_spent, time_spent_s
from finestep.flows.with_result import write_config
from finestep.recipe import Recipe
from finestep.report.page import render_page
from finestep.report.view import build_view
from finestep.search.answer import Answer
from finestep.search.forgetting import forgetting_sentence, second_best
from finestep.search.further_fields import tuned_values
from finestep.search.leader import leader
from finestep.search.strategy import Proposal
from finestep.store.recipe_file import write_recipe
from finestep.store.study_files import RESULT, StudyFiles
from finestep.study import Budget, StudySpec
from finestep.trial import Trial

STEPS = "steps.jsonl"
RECIPE, REPORT = "recipe.yaml", "report.html"


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
    card: Mapping[str, Any],
    facts: Mapping[str, Any],
    answer: Answer | None = None,
    writes: Writes = Writes.ALL,
) -> dict[str, Any]:
    """Write the files of a study as it stands, and answer with its figures (also in `result.json`).

    `answer` is what the search believes; it chooses the trial. Without one, the lowest loss does.
    """
    trials = store.trials()
    best = chosen_trial(store.spec, trials, answer)
    note = None
    if writes is not Writes.ALL:
        pass
    elif best is not None:
        note = place_model(store, best)
        comments = _recipe_comments(store.spec)
        write_recipe(
            store.folder / RECIPE, final_recipe(best), comments=comments, header=_recipe_header(store.spec, best)
        )
    elif answer is not None and answer.learning_rate is not None:
        write_recipe(
            store.folder / RECIPE, predicted_recipe(store.spec, answer), header=f"Found by finestep: {answer.sentence}."
        )
    result = _summarised(store, trials, command=command, budget=budget, best=best, answer=answer)
    if store.spec.framework is not None and best is not None and writes is Writes.ALL:
        config = write_config(store, best, answer)
        result["paths"] |= {"config": str(config)} if config is not None else {}
        result["paths"].pop("recipe", None)
    result["objective"] = {"name": store.spec.objective, "goal": store.spec.goal, "prefer": store.spec.prefer}
    result["forgetting"] = _forgetting(store.spec, trials, best)
    result["start"] = store.spec.start.model_dump() if store.spec.start else None
    result["facts"] = describe(store, card, facts)
    result["finding"] = _finding(store, best, result)
    result["data"] = {"notes": result_notes(card), "num_eval_rows": card.get("facts", {}).get("num_eval_rows")}
    model = result["paths"].get("model")
    result |= saved_part(store.trial_folder(best.number) if best else None, Path(model) if model else None)
    result["model_note"] = note
    if writes is not Writes.NOTHING:
        render_report(store, trials, result, command=command)
        write_whole(store.folder / RESULT, json_text(result, indent=1))
    return result


def _finding(store: StudyFiles, best: Trial | None, result: Mapping[str, Any]) -> dict[str, Any] | None:
    """What `finestep diagnose` says of the chosen trial; None when there is none, or its records cannot be read."""
    from finestep.flows.diagnose import diagnose_file

    log = store.trial_folder(best.number) / STEPS if best is not None else None
    if best is None or log is None or not log.exists():
        return None
    own = trial_of(json.loads(store.spec.model_dump_json()), result, number=best.number)
    try:
        report = diagnose_file(log, own=own)
    except BadInput:
        return None
    verdict = report.verdict
    return {
        "code": verdict.code,
        "label": report.label,
        "meaning": verdict.meaning,
        "advice": verdict.advice,
        "num_epochs": own.num_epochs,
    }


def _forgetting(spec: StudySpec, trials: Sequence[Trial], best: Trial | None) -> dict[str, Any] | None:
    """Limit, where the chosen trial ended, and what to say when none ended within it; None when it was not watched."""
    if spec.retention is None:
        return None
    limit, outcome = spec.retention.max_forgetting, best.outcome if best is not None else None
    return {
        "limit": limit,
        "kl_at_end": outcome.kl_at_end if outcome else None,
        "sentence": forgetting_sentence(trials, limit) if limit is not None else "",
    }


def drop_other_models(store: StudyFiles, result: Mapping[str, Any]) -> None:
    """After the end of a study: only the chosen trial's weights stay."""
    best = result["best"]
    for trial in store.trials():
        if best is not None and trial.number != best["trial"] and trial.state != "running":
            remove(store.trial_folder(trial.number) / "model")


def chosen_trial(spec: StudySpec, trials: Sequence[Trial], answer: Answer | None) -> Trial | None:
    """The answer's trial; without an answer, the leader by the study's objective. When every trial ended over the limit of
    forgetting, the best that passed through a state within it."""
    if answer is None:
        return leader(spec, trials) or second_best(trials)
    chosen = next((trial for trial in trials if trial.number == answer.trial), None)
    return second_best(trials) if chosen is None and answer.learning_rate is None else chosen


def predicted_recipe(spec: StudySpec, answer: Answer) -> Recipe:
    """The recipe of an answer that no full-length trial stands for yet."""
    assert answer.learning_rate is not None
    proposal = Proposal(
        learning_rate=answer.learning_rate,
        effective_batch_size=answer.effective_batch_size or spec.recipe.effective_batch_size,
        stage="answer",
        changes=answer.changes,
    )
    return apply_proposal(spec.recipe, proposal)


def _summarised(
    store: StudyFiles,
    trials: Sequence[Trial],
    *,
    command: str,
    budget: Budget,
    best: Trial | None,
    answer: Answer | None,
) -> dict[str, Any]:
    """Baseline, best, what measured better than it, what the search believes, trials, what was spent, and where things are."""
    spec, folder = store.spec, store.folder
    baseline, first = baseline_trial(trials), leader(spec, trials)
    paths = {"study": str(folder), "report": str(folder / REPORT)}
    if (folder / RECIPE).exists():
        paths["recipe"] = str(folder / RECIPE)
    if best is not None and (folder / MODEL).is_dir():
        paths["model"] = str(folder / MODEL)
    return {
        "baseline": _figures(spec, baseline) if baseline else None,
        "best": _figures(spec, best) if best else None,
        "leader": _figures(spec, first) if first and best and first.number != best.number else None,
        "answer": json.loads(answer.model_dump_json()) if answer else None,
        "settled": answer.settled if answer else None,
        "next_command": next_command(command, budget) if answer and not answer.settled else None,
        "trials": [_figures(spec, trial) for trial in trials],
        "spent": {
            "full_runs": round(
                runs_spent(trials, num_epochs=spec.recipe.num_epochs, fixed_share=_fixed_share(store)), 3
            ),
            "budget_full_runs": budget.full_runs,
            "tokens": sum(trial.outcome.num_train_tokens for trial in trials if trial.outcome),
            "elapsed_s": round(time_spent_s(trials, store.known_ready().get("pack", {})), 1),
        },
        "paths": paths,
        "command": command,
    }


def _fixed_share(store: StudyFiles) -> float:
    """What another trainer needs for a run of any length, of a full run's time."""
    return float(store.known_ready().get("pack", {}).get("fixed_share", 0.0))


def baseline_trial(trials: Sequence[Trial]) -> Trial | None:
    """The trial of the conservative default, if it was run to a result."""
    return next((trial for trial in trials if trial.stage == "baseline" and trial.ranks), None)


def final_recipe(trial: Trial) -> Any:
    """The recipe of a finished trial, with the micro-batch that memory allowed."""
    micro = trial.outcome.micro_batch_size if trial.outcome else None
    return (
        trial.recipe.changed(micro_batch_size=min(micro, trial.recipe.effective_batch_size)) if micro else trial.recipe
    )


def describe(store: StudyFiles, card: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, str | int | float]:
    """Facts for the report: model, data, machine, versions."""
    spec, data = store.spec, card.get("facts", {})
    out: dict[str, Any] = {
        "model": spec.model.path,
        "data": spec.data.path,
        "method": spec.recipe.method,
        "strategy": spec.strategy,
        "seed": spec.recipe.seed,
    }
    for name in (
        "format",
        "num_rows",
        "num_eval_rows",
        "num_tokens",
        "num_trained_tokens",
        "length_p50",
        "length_max",
        "num_labels",
    ):
        if data.get(name) is not None:
            out[f"data {name.replace('num_', '').replace('_', ' ')}"] = data[name]
    out |= {name.replace("_", " "): value for name, value in facts.items() if value not in (None, "")}
    return out


def render_report(store: StudyFiles, trials: Sequence[Trial], result: Mapping[str, Any], *, command: str) -> None:
    """Draw the page of the study from its records."""
    best, baseline = result["best"], baseline_trial(trials)
    view = build_view(
        title=f"finestep: {store.spec.name}",
        command=command,
        trials=trials,
        steps={trial.number: store.steps(trial.number) for trial in trials},
        evaluations={trial.number: store.evaluations(trial.number) for trial in trials},
        facts=result["facts"],
        baseline=baseline.number if baseline else None,
        best=best["trial"] if best else None,
        notes=report_notes(result),
        answers=result["answers"],
        spent=result["spent"],
        unsettled=unsettled_words(result),
    )
    write_whole(store.folder / REPORT, render_page(view))


def passed_over(result: Mapping[str, Any]) -> str | None:
    """The trial that measured better than the chosen one, and why it was not taken; None without one."""
    best, first, objective = result["best"], result.get("leader"), result["objective"]
    if first is None:
        return None
    value = first["eval_loss"] if objective["name"] == "eval_loss" else first["metrics"].get(objective["name"])
    name = "loss" if objective["name"] == "eval_loss" else objective["name"].replace("_", " ")
    smaller = first["learning_rate"] > best["learning_rate"]
    why = "of equals, the smaller learning rate" if smaller else "this one is expected to be as good, and faster"
    return f"trial {first['trial']}: {name} {value:.4g}, no better beyond the noise; {why}"


def unsettled_words(result: Mapping[str, Any]) -> str | None:
    """Between which rates the best one lies, and how to go on; None for a study that is settled, or that was no search."""
    if result.get("settled") is not False:
        return None
    answer = result["answer"]
    rows = (
        row["learning_rate"]
        for row in answer["trade_offs"]
        if row["effective_batch_size"] == answer["effective_batch_size"]
    )
    rate = next(rows, None)
    text = "not settled" if rate is None else f"not settled: between {rate['low']:.1e} and {rate['high']:.1e}"
    onward = result.get("next_command")
    return text if onward is None else f"{text}; go on with `{onward}`"


def report_notes(result: Mapping[str, Any]) -> list[str]:
    """What the search believes, in sentences for the page."""
    answer, said = result.get("answer"), (result.get("forgetting") or {}).get("sentence")
    notes = [_whole_sentence(note) for note in (result.get("data") or {}).get("notes", [])]
    notes += [_whole_sentence(said)] if said else []
    if diagnosed := finding_words(result.get("finding")):
        notes.append(_whole_sentence(diagnosed.rstrip(".")))
    if over := passed_over(result):
        notes.append(_whole_sentence(f"not taken: {over}"))
    if result.get("saved"):
        notes.append(_whole_sentence(result["saved"]["sentence"]))
    if result.get("use"):
        notes.append(f"The tuned model is in {result['use']['folder']}; its README.md has the lines that load it.")
    if not answer:
        return notes
    notes += [] if said and answer["learning_rate"] is None else [_whole_sentence(answer["sentence"])]
    for row in answer["trade_offs"]:
        rate, speed = row["learning_rate"], row["tokens_per_second"]
        pace = f", {speed:,.0f} tokens a second" if speed else ""
        excess = f", expected loss {row['excess_percent']:.2g} % above the best batch" if answer["settled"] else ""
        notes.append(
            f"Batch {row['effective_batch_size']}: best learning rate {rate['value']:.2g} ({rate['low']:.2g} to "
            f"{rate['high']:.2g}){excess}{pace}."
        )
    return notes


def _whole_sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + "."


def _figures(spec: StudySpec, trial: Trial) -> dict[str, Any]:
    outcome, recipe = trial.outcome, final_recipe(trial)
    micro = recipe.micro_batch_size or recipe.effective_batch_size
    return {
        "trial": trial.number,
        "stage": trial.stage,
        "state": trial.state,
        "fidelity": trial.fidelity,
        "learning_rate": recipe.learning_rate,
        "effective_batch_size": recipe.effective_batch_size,
        "micro_batch_size": micro,
        "accumulation_steps": recipe.accumulation_steps(micro),
        "num_devices": recipe.num_devices,
        "tuned": tuned_values(spec.tuned, trial),
        "eval_loss": outcome.eval_loss if outcome else None,
        "base_eval_loss": outcome.base_eval_loss if outcome else None,
        "metrics": dict(outcome.metrics) if outcome else {},
        "kl_at_end": outcome.kl_at_end if outcome else None,
        "forgets_too_much": outcome.forgets_too_much if outcome else False,
        "reason": outcome.reason if outcome else "",
        "log": outcome.log if outcome else None,
        "num_train_tokens": outcome.num_train_tokens if outcome else 0,
        "seconds": outcome.elapsed_s if outcome else 0.0,
    }


def _recipe_header(spec: StudySpec, best: Trial) -> str:
    assert best.outcome is not None
    text = f"Found by finestep: trial {best.number}, validation loss {best.outcome.eval_loss:.4f}"
    value = best.outcome.metrics.get(spec.objective)
    return text + (f", {spec.objective} {value:.4g}." if value is not None else ".")


def _recipe_comments(spec: StudySpec) -> dict[str, str]:
    """Where the fields come from that the start has set."""
    start = spec.start
    return {name: f"from {start.why}: {one.why}" for name, one in start.fields.items()} if start else {}
