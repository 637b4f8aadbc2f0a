"""A study's card and `diagnose` on its runs say the same, whatever one curve alone would suggest."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from finestep.answer import Answer, TradeOff
from finestep.diagnosis.catalogue import found
from finestep.diagnosis.pairing import pairing_findings
from finestep.estimate import Estimate
from finestep.flows.diagnose import diagnose_file
from finestep.flows.own_trial import finding_words, own_trial, trial_of
from finestep.recipe import Recipe
from finestep.result import ChosenFinding, StudyResult, TrialFigures
from finestep.study import ModelSpec
from finestep.trial import Outcome
from tests.flows.studies import spec

RATE = 1e-4


def study(path, *, settled: bool, rate: float = RATE, loss_at=lambda step: 3.0 - step / 100) -> object:
    """A study of one trial on disk: its specification, its result, and a log."""
    folder = path / "trials" / "0000"
    folder.mkdir(parents=True)
    asked = spec(model=ModelSpec(path="Llama-3.1-8B"), recipe=Recipe(method="full", num_epochs=2.0))
    (path / "study.json").write_text(json.dumps({"spec": json.loads(asked.model_dump_json())}))
    believed = Estimate(value=RATE, low=RATE / 2, high=RATE * 2, unit="", source="measured here")
    row = TradeOff(effective_batch_size=16, learning_rate=believed, excess_percent=0.0)
    answer = Answer(trial=0, learning_rate=RATE, settled=settled, trade_offs=(row,), sentence="trial 0")
    trial = TrialFigures(
        trial=0,
        state="completed",
        learning_rate=rate,
        effective_batch_size=16,
        micro_batch_size=16,
        accumulation_steps=1,
        eval_loss=1.0,
    )
    (path / "result.json").write_text(StudyResult(best=trial, trials=(trial,), answer=answer).as_json())
    rows = [
        {"step": step, "num_steps": 100, "loss": loss_at(step), "learning_rate": rate, "epoch": step / 50}
        for step in range(1, 101)
    ]
    log = folder / "log.jsonl"
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return log


def test_the_studys_interval_is_the_usual_rate(tmp_path):
    """1e-4 is far above what is usual for full fine-tuning of 8B, but it is what this study found."""
    own = own_trial(study(tmp_path, settled=True))
    assert (own.method, own.usual_rate, own.is_chosen, own.is_settled) == (
        "full",
        (RATE, RATE / 2, RATE * 2),
        True,
        True,
    )
    codes = {finding.code for finding in diagnose_file(study(tmp_path / "again", settled=True)).findings}
    assert not codes & {"rate_above_usual", "rate_far_below_usual", "rate_below_usual"}


def test_a_trial_far_from_the_studys_best_is_told_so(tmp_path):
    report = diagnose_file(study(tmp_path, settled=True, rate=RATE / 60, loss_at=lambda step: 3.0 - step / 1000))
    said = [finding for finding in report.findings if finding.code.startswith("rate_")]
    assert [finding.code for finding in said] in (["rate_below_usual"], ["rate_far_below_usual"]) or not said
    assert not trial_of(spec(), StudyResult(), number=0).is_chosen


def test_what_only_the_trainer_could_measure_is_in_the_verdict(tmp_path):
    """A page said of one trial both that it was healthy and that its answers do not follow their prompts."""
    log = study(tmp_path, settled=True)
    unrelated = pairing_findings(0.001, 0.002)
    outcome = Outcome(state="completed", eval_loss=1.0, findings=tuple(unrelated))
    (log.parent / "outcome.json").write_text(outcome.model_dump_json())
    codes = [finding.code for finding in diagnose_file(log).findings]
    assert codes[0] == "answers_unrelated"
    assert "healthy" not in codes


@pytest.mark.parametrize(("settled", "code"), [(True, "healthy"), (False, "learning_rate_too_low")])
def test_a_settled_study_is_not_sent_to_another_rate(tmp_path, settled, code):
    log = study(tmp_path, settled=settled)
    run = diagnose_file(log).runs[0]
    doubted = replace(run, label="lr_too_low", findings=(found("learning_rate_too_low", "Too low.", advice="x3"),))
    agreed = own_trial(log).agrees(doubted)
    assert agreed.findings[0].code == code
    assert agreed.label == ("healthy" if settled else "lr_too_low")


def test_a_run_that_is_still_falling_gains_from_length():
    words = finding_words(ChosenFinding(code="undertrained", label="undertrained", meaning="", num_epochs=2.0))
    assert words == "still falling at the end: a longer run would gain more than another rate (`--epochs 4`)"
    assert finding_words(None) is None


def test_other_logs_are_nobodys_trial(tmp_path):
    (tmp_path / "log.jsonl").write_text("{}\n")
    assert own_trial(tmp_path / "log.jsonl") is None
