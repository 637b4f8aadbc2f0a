"""A log of finestep's own study: what the study knows of the run, so that its diagnosis and the study's card say the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finestep.diagnosis.catalogue import found
from finestep.diagnosis.training_log import TrainingLog
from finestep.diagnosis.verdict import Diagnosis
from finestep.finding import Finding
from finestep.flows.known_run import Told

TRIALS, STUDY_FILE, RESULT_FILE = "trials", "study.json", "result.json"
OF_THE_RATE = frozenset(
    {
        "learning_rate_too_low",
        "rate_below_usual",
        "rate_far_below_usual",
        "rate_above_usual",
        "unstable",
        "stuck_high_rate",
    }
)
"""Findings that ask for another rate. A study that is settled has tried those: it knows better than one curve does."""


@dataclass(frozen=True)
class OwnTrial:
    """One trial of a study: its recipe's facts, whether it is the chosen one, and what the study believes of the rate at its batch."""

    method: str
    model: str | None
    rank: int | None
    usual_rate: tuple[float, float, float] | None = None
    is_chosen: bool = False
    is_settled: bool = False
    num_epochs: float | None = None

    def told(self, told: Told) -> Told:
        """What the user says, and what the study says where the user says nothing."""
        here = self.model if self.model is not None and Path(self.model).exists() else None
        return Told(told.method or self.method, told.model or here, told.rank or self.rank)

    def informs(self, log: TrainingLog) -> TrainingLog:
        """The log with the study's own interval as the usual rate, where it has one."""
        if self.usual_rate is None:
            return log
        return replace(log, context=replace(log.context, usual_rate=self.usual_rate, usual_method=None))

    def agrees(self, run: Diagnosis) -> Diagnosis:
        """The diagnosis without what the study has refuted by trying it."""
        if not (self.is_chosen and self.is_settled):
            return run
        kept = tuple(finding for finding in run.findings if finding.code not in OF_THE_RATE)
        if len(kept) == len(run.findings):
            return run
        words = "The study tried rates on both sides of this one, and they were worse."
        findings = kept or (found("healthy", words, advice="keep this rate"),)
        label = run.label if run.findings[0] in kept else _label_of(findings[0])
        return replace(run, findings=findings, label=label)


def _label_of(finding: Finding) -> Any:
    from finestep.diagnosis.catalogue import CATALOGUE

    return CATALOGUE[finding.code].label


def own_trial(log: Path) -> OwnTrial | None:
    """What the study around a log says; None for logs of other trainers."""
    folder = (log if log.is_dir() else log.parent).absolute()
    if folder.parent.name != TRIALS or not folder.name.isdigit():
        return None
    study = _values(folder.parent.parent / STUDY_FILE)
    spec = study.get("spec")
    if not isinstance(spec, dict) or not isinstance(spec.get("recipe"), dict):
        return None
    return trial_of(spec, _values(folder.parent.parent / RESULT_FILE), number=int(folder.name))


def trial_of(spec: Mapping[str, Any], result: Mapping[str, Any], *, number: int) -> OwnTrial:
    """A trial by its number, from the study's specification and its results as they stand."""
    recipe, answer = spec["recipe"], result.get("answer") or {}
    best = result.get("best") or {}
    row: Mapping[str, Any] = next((one for one in result.get("trials") or () if one.get("trial") == number), {})
    batch = row.get("effective_batch_size")
    believed = next((one for one in answer.get("trade_offs") or () if one["effective_batch_size"] == batch), None)
    rate = believed["learning_rate"] if believed else None
    return OwnTrial(
        method=recipe.get("method", "lora"),
        model=(spec.get("model") or {}).get("path"),
        rank=(recipe.get("lora") or {}).get("rank"),
        usual_rate=(rate["value"], rate["low"], rate["high"]) if rate else None,
        is_chosen=best.get("trial") == number,
        is_settled=bool(answer.get("settled")),
        num_epochs=recipe.get("num_epochs"),
    )


def _values(path: Path) -> dict[str, Any]:
    try:
        found_values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found_values if isinstance(found_values, dict) else {}


def finding_words(report: Mapping[str, Any] | None) -> str | None:
    """The finding on the chosen trial, for the card and the page; a run that ended on its way down gains from length, not from a rate."""
    if not report:
        return None
    if report["code"] == "undertrained" and report.get("num_epochs"):
        longer = f"{2 * report['num_epochs']:g}"
        return f"still falling at the end: a longer run would gain more than another rate (`--epochs {longer}`)"
    text = report["meaning"]
    return f"{text} {report['advice'][:1].upper()}{report['advice'][1:]}." if report["advice"] else text
