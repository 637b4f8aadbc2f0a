"""What the page says beside the trials: how sure the search is, what was seen, how the result is used, where it comes from."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from finestep.answer import Answer
from finestep.diagnosis.catalogue import CATALOGUE, LABEL_WORDS, shown_evidence
from finestep.export.registry import EXPORTERS
from finestep.finding import Finding
from finestep.report.told import Interval, RunFinding, Told, Use
from finestep.result import StudyResult
from finestep.search.belief import BelievedCurve
from finestep.store.study_dates import study_dates
from finestep.store.study_files import StudyFiles, read_study_file
from finestep.studies.data_words import SHARES_OF_ROWS
from finestep.study_layout import DATABASE
from finestep.survey.split import accuracy_error
from finestep.trial import Trial

VERSIONS = ("finestep", "torch", "transformers", "peft")
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
"""What another trainer decides, and what stands for a model and data that were not named."""


def told_of(
    result: StudyResult, trials: Sequence[Trial], *, belief: Sequence[BelievedCurve] = (), is_own: bool = True
) -> Told:
    """The page's sentences from a study's result.

    Args:
        belief: what the search expects of every rate, where it was asked.
        is_own: finestep trained, and not another trainer's command.
    """
    answer, best = result.answer, result.best
    predicted = None
    if best is None and answer is not None and answer.learning_rate and answer.effective_batch_size:
        predicted = (answer.learning_rate, answer.effective_batch_size)
    return Told(
        objective=result.objective.name,
        goal=result.objective.goal,
        is_own=is_own,
        settled=result.settled,
        predicted=predicted,
        intervals=tuple(_intervals(answer)),
        expected_regret=answer.expected_regret if answer else None,
        expected_gain=answer.expected_gain if answer else None,
        belief=tuple(belief),
        metric_errors=_errors(best.metrics if best else {}, result.data.num_eval_rows),
        findings=tuple(_findings(result, trials)),
        data_notes=tuple(_sentence(note) for note in result.data.notes),
        use=_use(result, is_own=is_own),
    )


def _intervals(answer: Answer | None) -> list[Interval]:
    return [
        Interval(
            batch=row.effective_batch_size,
            value=row.learning_rate.value,
            low=row.learning_rate.low,
            high=row.learning_rate.high,
            excess_percent=row.excess_percent,
            tokens_per_second=row.tokens_per_second,
        )
        for row in (answer.trade_offs if answer else ())
    ]


def _errors(metrics: Mapping[str, float], rows: int | None) -> dict[str, tuple[float, int]]:
    """Standard errors of metrics that are shares of rows."""
    found = {}
    for name, most in SHARES_OF_ROWS.items():
        if rows and name in metrics and 0 <= metrics[name] <= 1:
            number = min(rows, most or rows)
            found[name] = (accuracy_error(number, metrics[name]), number)
    return found


def _findings(result: StudyResult, trials: Sequence[Trial]) -> list[RunFinding]:
    """What the whole log of the chosen run says, then what the monitor said of each run while it trained."""
    found, best = result.finding, result.best
    said: list[RunFinding] = []
    if found is not None and best is not None:
        kind = CATALOGUE.get(found.code)
        severity = kind.severity if kind else "notice"
        whole = Finding(code=found.code, severity=severity, meaning=found.meaning, advice=found.advice)
        said.append(_told(best.trial, whole))
    for trial in trials:
        for one in trial.outcome.findings if trial.outcome else ():
            is_same = found is not None and best is not None and (trial.number, one.code) == (best.trial, found.code)
            said += [] if is_same else [_told(trial.number, one)]
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


def _use(result: StudyResult, *, is_own: bool) -> Use:
    use, saved, recipe = result.use, result.saved, result.paths.recipe
    export = ["finestep", "export", recipe or "", "--to", "hf"]
    for name in ("model", "data"):
        known = result.facts.get(name) if is_own else None
        export += [f"--{name}", str(known)] if known else []
    return Use(
        load=use.load if use else (),
        merge=(use.merge or "") if use else "",
        recipe=recipe or "",
        export=shlex.join(export) if recipe else "",
        formats=tuple(name for name in EXPORTERS if name != "hf") if recipe else (),
        next=result.next_command or "",
        again=result.command,
        saved=_sentence(saved.sentence) if saved else "",
        agrees=saved.agrees if saved else None,
    )


def provenance(
    store: StudyFiles, facts: Mapping[str, str | int | float], trials: Sequence[Trial]
) -> dict[str, str | int | float]:
    """The facts of the page: what was trained on what, how, on which machine, when, and with which versions."""
    mark = read_study_file(store.folder).fingerprint
    known: dict[str, str | int | float | None] = dict(facts)
    told = {name: known.pop(name, None) for name in ("model", "data", "method", "strategy", "seed")}
    if store.spec.trainer is not None:  # the command decides, and finestep does not know
        told = {name: said for name, said in told.items() if name not in OF_OTHERS and said != UNNAMED}
    told |= {said: known.pop(name, None) for name, said in OF_DATA.items()}
    ready = store.known_ready()
    cut = ready.card.max_length if ready else None
    told["rows are cut at"] = f"{cut:,} tokens" if cut else None
    told["passes over the data in a full run"] = f"{store.spec.recipe.num_epochs:g}"
    told["lengths of the runs"] = _lengths(trials)
    told |= {said: known.pop(name, None) for name, said in OF_MACHINE.items()}
    told |= known
    begun, ended = study_dates(store.folder / DATABASE)
    told |= {"first run begun": begun, "last run ended": ended}
    told |= {f"version of {name}": mark.get(f"version_{name}") for name in VERSIONS}
    told["version of python"] = mark.get("python")
    return {name: value for name, value in told.items() if value is not None and value != ""}


def _lengths(trials: Sequence[Trial]) -> str:
    shares = sorted({trial.fidelity for trial in trials}, reverse=True)
    return ", ".join(f"{100 * share:.3g} %" for share in shares[:6])


def _sentence(words: str) -> str:
    """With a capital and a full stop."""
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", "?", "`")) else ".") if words else ""
