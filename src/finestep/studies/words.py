"""What a result says in sentences: for the card in the terminal and for the page alike."""

from __future__ import annotations

import math

from finestep.result import StudyResult, TrialFigures


def passed_over(result: StudyResult) -> str | None:
    """The trial that measured better than the chosen one, and why it was not taken; None without one."""
    if result.leader is None or result.best is None:
        return None
    said = _value_words(result, result.leader)
    return f"trial {result.leader.trial}: {said}, no better beyond the noise; this one is expected to be as good, and faster"


def as_good(result: StudyResult) -> str | None:
    """The trial with a smaller rate that is worse by less than the noise; None without one."""
    number = result.answer.as_good if result.answer else None
    found = next((one for one in result.trials if one.trial == number), None)
    if found is None:
        return None
    said = _value_words(result, found)
    return f"trial {number} at learning rate {found.learning_rate:.1e}: {said}, worse by less than the noise"


def _value_words(result: StudyResult, trial: TrialFigures) -> str:
    name = result.objective.name
    if name == "eval_loss":
        return f"loss {trial.eval_loss:.4g}"
    return f"{name.replace('_', ' ')} {trial.metrics.get(name, math.nan):.4g}"


def unsettled_words(result: StudyResult) -> str | None:
    """Between which rates the best one lies, and how to go on; None for a study that is settled, or that was no search."""
    if result.settled is not False or result.answer is None:
        return None
    rate = result.answer.rate
    text = "not settled" if rate is None else f"not settled: between {rate.low:.1e} and {rate.high:.1e}"
    onward = result.next_command
    return text if onward is None else f"{text}; go on with `{onward}`"


def report_notes(result: StudyResult) -> list[str]:
    """What the page says at its end, in sentences: what was forgotten and passed over, where the model is, the answer."""
    answer, said = result.answer, result.forgetting.sentence if result.forgetting else ""
    notes = [said]
    if over := passed_over(result):
        notes.append(f"not taken: {over}")
    if near := as_good(result):
        notes.append(f"as good: {near}")
    notes += result.memory
    if result.use is not None:
        notes.append(f"The tuned model is in {result.use.folder}; its README.md has the lines that load it")
    if answer is not None and not (said and answer.learning_rate is None):
        notes.append(answer.sentence)
    return [_whole_sentence(note) for note in notes if note]


def _whole_sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + "."
