"""What the page says beside the trials: how sure the search is, what was seen, how the result is used, where it comes from."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from finestep.diagnosis.catalogue import CATALOGUE, LABEL_WORDS, shown_evidence
from finestep.export.registry import EXPORTERS
from finestep.finding import Finding
from finestep.flows.data_words import SHARES_OF_ROWS
from finestep.report.told import Interval, RunFinding, Told, Use
from finestep.search.belief import BelievedCurve
from finestep.store.study_dates import study_dates
from finestep.store.study_files import OPTUNA_FILE, StudyFiles, read_study_file
from finestep.survey.split import accuracy_error
from finestep.trial import Trial

MOST_BELIEVED = 300
"""Trials beyond which the expected curve is not drawn: the runs themselves show the basin, and its cost grows with their cube."""
VERSIONS = ("finestep", "torch", "transformers", "peft")


def told_of(
    result: Mapping[str, Any],
    trials: Sequence[Trial],
    *,
    belief: Sequence[BelievedCurve] = (),
    rows: int | None = None,
    is_own: bool = True,
) -> Told:
    """The page's sentences from a study's result.

    Args:
        belief: what the search expects of every rate, where it was asked.
        rows: validation rows behind a metric.
        is_own: finestep trained, and not another trainer's command.
    """
    answer, best, objective = result.get("answer") or {}, result["best"], result["objective"]
    predicted = None
    if best is None and answer.get("learning_rate"):
        predicted = (answer["learning_rate"], answer["effective_batch_size"])
    return Told(
        objective=objective["name"],
        goal=objective["goal"],
        is_own=is_own,
        settled=result.get("settled"),
        predicted=predicted,
        intervals=tuple(_intervals(answer)),
        expected_regret=answer.get("expected_regret"),
        expected_gain=answer.get("expected_gain"),
        belief=tuple(belief),
        metric_errors=_errors(best["metrics"] if best else {}, rows),
        findings=tuple(_findings(result, trials)),
        data_notes=tuple(_sentence(note) for note in (result.get("data") or {}).get("notes", [])),
        use=_use(result, is_own=is_own),
    )


def _intervals(answer: Mapping[str, Any]) -> list[Interval]:
    return [
        Interval(
            batch=row["effective_batch_size"],
            value=row["learning_rate"]["value"],
            low=row["learning_rate"]["low"],
            high=row["learning_rate"]["high"],
            excess_percent=row["excess_percent"] if answer.get("settled") else None,
            tokens_per_second=row["tokens_per_second"],
        )
        for row in answer.get("trade_offs") or ()
    ]


def _errors(metrics: Mapping[str, float], rows: int | None) -> dict[str, tuple[float, int]]:
    """Standard errors of metrics that are shares of rows."""
    found = {}
    for name, most in SHARES_OF_ROWS.items():
        if rows and name in metrics and 0 <= metrics[name] <= 1:
            number = min(rows, most or rows)
            found[name] = (accuracy_error(number, metrics[name]), number)
    return found


def _findings(result: Mapping[str, Any], trials: Sequence[Trial]) -> list[RunFinding]:
    """What the whole log of the chosen run says, then what the monitor said of each run while it trained."""
    found, best, seen = result.get("finding"), result["best"], set()
    said = []
    if found and best:
        seen.add((best["trial"], found["code"]))
        whole = Finding(
            code=found["code"],
            severity=CATALOGUE[found["code"]].severity,
            meaning=found["meaning"],
            advice=found["advice"],
        )
        said.append(_told(best["trial"], whole))
    for trial in trials:
        for one in trial.outcome.findings if trial.outcome else ():
            if (trial.number, one.code) not in seen:
                said.append(_told(trial.number, one))
    return said


def _told(trial: int, finding: Finding) -> RunFinding:
    kind = CATALOGUE.get(finding.code)
    return RunFinding(
        trial=trial,
        label=LABEL_WORDS[kind.label] if kind else finding.code.replace("_", " "),
        severity=finding.severity,
        meaning=finding.meaning,
        advice=_sentence(finding.advice),
        evidence=dict(shown_evidence(finding)),
    )


def _use(result: Mapping[str, Any], *, is_own: bool) -> Use:
    paths, use, saved = result["paths"], result.get("use") or {}, result.get("saved") or {}
    recipe = paths.get("recipe", "")
    facts = result.get("facts") or {}
    export = ["finestep", "export", recipe, "--to", "hf"]
    for name in ("model", "data"):
        known = facts.get(name) if is_own else None
        export += [f"--{name}", str(known)] if known else []
    return Use(
        load=tuple(use.get("load", ())),
        merge=use.get("merge", ""),
        recipe=recipe,
        export=shlex.join(export) if recipe else "",
        formats=tuple(name for name in EXPORTERS if name != "hf") if recipe else (),
        next=result.get("next_command") or "",
        again=result.get("command") or "",
        saved=_sentence(saved.get("sentence", "")),
        agrees=saved.get("agrees"),
    )


OF_DATA = {
    "data format": "format of the data",
    "data rows": "rows to train on",
    "data eval rows": "rows to validate on",
    "data tokens": "tokens a pass",
    "data trained tokens": "of them trained",
    "data length p50": "tokens of the middle row",
    "data length max": "tokens of the longest row",
    "data labels": "labels",
}
"""Names of the facts of the data, in words of a reader."""
OF_MACHINE = {
    "num parameters": "parameters",
    "model type": "kind of model",
    "device": "device",
    "device name": "name of the device",
    "dtype": "numbers in",
    "num threads": "CPU threads",
}

OF_OTHERS, UNNAMED = ("method",), "external"


def provenance(store: StudyFiles, facts: Mapping[str, Any]) -> dict[str, str | int | float]:
    """The facts of the page: what was trained on what, how, on which machine, when, and with which versions."""
    mark = read_study_file(store.folder).get("fingerprint") or {}
    recipe, known = store.spec.recipe, dict(facts)
    told: dict[str, Any] = {name: known.pop(name, None) for name in ("model", "data", "method", "strategy", "seed")}
    if store.spec.trainer is not None:  # the command decides, and finestep does not know
        told = {name: said for name, said in told.items() if name not in OF_OTHERS and said != UNNAMED}
    told |= {said: known.pop(name, None) for name, said in OF_DATA.items()}
    cut = (store.known_ready().get("card") or {}).get("max_length")
    told["rows are cut at"] = f"{cut:,} tokens" if isinstance(cut, int) else None
    told["passes over the data in a full run"] = f"{recipe.num_epochs:g}"
    told["lengths of the runs"] = _lengths(store.trials())
    told |= {said: known.pop(name, None) for name, said in OF_MACHINE.items()}
    told |= known
    begun, ended = study_dates(store.folder / OPTUNA_FILE)
    told |= {"first run begun": begun, "last run ended": ended}
    told |= {f"version of {name}": mark.get(f"version_{name}") for name in VERSIONS}
    told["version of python"] = mark.get("python")
    return {name: value for name, value in told.items() if value not in (None, "")}


def _lengths(trials: Sequence[Trial]) -> str:
    shares = sorted({trial.fidelity for trial in trials}, reverse=True)
    return ", ".join(f"{100 * share:.3g} %" for share in shares[:6])


def _sentence(words: str) -> str:
    """With a capital and a full stop."""
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", "?", "`")) else ".") if words else ""
