"""The card at the end of a study: the answer first, then what it cost and where everything is."""

from __future__ import annotations

import shlex
from collections import Counter

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from finestep import wording
from finestep.answer import Answer, TradeOff
from finestep.flows.own_trial import finding_words
from finestep.language.catalogue import asked_language, translated
from finestep.plain_text import plain_lines, shortened
from finestep.result import Spent, StudyResult, TrialFigures
from finestep.search.further_fields import value_words
from finestep.studies.data_words import error_words
from finestep.studies.words import as_good, passed_over, unsettled_words
from finestep.trial import BASE_GENERAL_PERPLEXITY, GENERAL_PERPLEXITY, KL_TO_BASE

OF_FORGETTING = frozenset({KL_TO_BASE, GENERAL_PERPLEXITY, BASE_GENERAL_PERPLEXITY})
"""Metrics that have a row of their own together."""
NEARLY_AS_GOOD_PERCENT = 1.0
MOST_CHARACTERS = 160
"""Of a text in the card."""


def print_card(console: Console, result: StudyResult) -> None:
    """Print the answer of a study; says clearly when there is none."""
    best, answer = result.best, result.answer
    if best is None and answer is not None and answer.learning_rate:
        body, title = _shown_text(_predicted(result, answer)), Text(_said(_predicted_title(answer)))
        console.print(Panel(body, title=title, border_style="yellow", title_align="left"))
        return
    if best is None:
        body = _shown_text(_no_answer(result))
        console.print(Panel(body, title=_said("no answer"), border_style="red", title_align="left"))
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _rows(result, best):
        table.add_row(_shown_text(name), _shown_text(text))
    console.print(Panel(table, title=Text(_said(_title(best))), border_style="green", title_align="left", expand=False))
    if rows := _answer_rows(result):
        answers = Table.grid(padding=(0, 2))
        answers.add_column(style="dim", no_wrap=True)
        answers.add_column(overflow="fold")
        for name, text in rows:
            answers.add_row(_said(name), Text(plain_lines(text)))
        number = len(result.answers)
        title = Text(_said(f"{number} validation row{'s' * (number > 1)}, and what the saved model makes of them"))
        console.print(Panel(answers, title=title, border_style="dim", title_align="left", expand=False))


def _shown_text(text: Text | str) -> Text:
    """Text in the asked language, never as markup, without control characters."""
    if isinstance(text, str):
        return Text(plain_lines(_said(text)))
    return Text(plain_lines(_said(text.plain)), style=text.style)


def _said(text: str) -> str:
    """The text line by line in the language of `--lang` or `$FINESTEP_LANG`."""
    language = asked_language()
    return "\n".join(translated(line, language) for line in text.split("\n"))


def _answer_rows(result: StudyResult) -> list[tuple[str, str]]:
    """Of each row what was asked, what the model answers, and what the data say."""
    rows: list[tuple[str, str]] = []
    for one in result.answers:
        rows += [(name, shortened(str(text), MOST_CHARACTERS)) for name, text in one]
        rows.append(("", ""))
    return rows[:-1]


def _use_rows(result: StudyResult) -> list[tuple[str, Text | str]]:
    """Whether what is saved is what was measured, and the line that loads it."""
    rows: list[tuple[str, Text | str]] = []
    if (saved := result.saved) is not None:
        style = {True: "", False: "bold red", None: "yellow"}[saved.agrees]
        rows.append(("checked", Text(saved.sentence, style=style)))
    if (use := result.use) is not None:
        near = repr(wording.near(use.folder))
        loads = [line.replace(repr(use.folder), near) for line in use.load if repr(use.folder) in line]
        rows.append(("use it", loads[0] if loads else "see README.md in its folder"))
        if use.merge is not None:
            rows.append(("merge", f"finestep merge {shlex.quote(wording.near(use.folder))}"))
    return rows


def _title(best: TrialFigures) -> str:
    return f"learning rate {wording.learning_rate(best.learning_rate)} x effective batch {best.effective_batch_size}"


def _rows(result: StudyResult, best: TrialFigures) -> list[tuple[str, Text | str]]:
    paths = result.paths
    places = {"model": paths.model, "recipe": paths.recipe, "config": paths.config, "report": paths.report}
    rows: list[tuple[str, Text | str]] = [
        ("batch", best.batch_words),
        *([("with", value_words(best.tuned))] if best.tuned else []),
        ("validation", Text(_validation(result, best), style="bold")),
    ]
    rows += [
        (name.replace("_", " "), f"{value:.4g}{error_words(name, value, result.data.num_eval_rows)}")
        for name, value in best.metrics.items()
        if name not in OF_FORGETTING
    ]
    rows += _passed_over(result) + _forgetting(result, best) + _belief(result) + _diagnosis(result)
    rows += [
        *(("data", note) for note in result.data.notes),
        *(("memory", words) for words in result.memory),
        ("trials", _outcomes(result)),
        ("spent", _spent(result.spent)),
        *((name, wording.near(place)) for name, place in places.items() if place),
        *([("model", Text(result.model_note, style="bold red"))] if result.model_note else []),
        *_use_rows(result),
        ("again", result.command),
    ]
    return rows


def _passed_over(result: StudyResult) -> list[tuple[str, Text | str]]:
    said = {"not taken": passed_over(result), "as good": as_good(result)}
    return [(name, text) for name, text in said.items() if text]


def _forgetting(result: StudyResult, best: TrialFigures) -> list[tuple[str, Text | str]]:
    """How far from the base the chosen trial ended, the limit, and that none kept it."""
    seen = result.forgetting
    if seen is None or seen.kl_at_end is None:
        return []
    now, before = best.metrics.get(GENERAL_PERPLEXITY), best.metrics.get(BASE_GENERAL_PERPLEXITY)
    general = f"; perplexity of general text {now:.4g}, before {before:.4g}" if now and before else ""
    limit = f"; at most {seen.limit:g} allowed" if seen.limit is not None else ""
    rows: list[tuple[str, Text | str]] = [
        ("forgetting", f"ends {seen.kl_at_end:.3g} nats a token from the base{limit}{general}")
    ]
    warning = Text(f"{seen.sentence}\nkept here: {best.reason}", style="yellow")
    return [*rows, ("", warning)] if seen.sentence else rows


def _diagnosis(result: StudyResult) -> list[tuple[str, Text | str]]:
    """What `finestep diagnose` says of the chosen trial."""
    said = finding_words(result.finding)
    return [("diagnosis", said)] if said else []


def _spent(spent: Spent) -> str:
    tokens = f"{wording.count(spent.tokens)} tokens, " if spent.tokens else ""
    return f"{spent.full_runs:.1f} full runs, {tokens}{wording.duration(spent.elapsed_s)}"


def _belief(result: StudyResult) -> list[tuple[str, Text | str]]:
    """How sure the search is: the interval of the best rate, the expected regret, and what other batch sizes would give."""
    answer = result.answer
    if answer is None or not answer.trade_offs:
        return []
    rows: list[tuple[str, Text | str]] = []
    if said := unsettled_words(result):
        rows.append(("not settled", Text(said.removeprefix("not settled: "), style="yellow")))
    elif (rate := answer.rate) is not None:
        text, ran = (
            f"between {wording.learning_rate(rate.low)} and {wording.learning_rate(rate.high)} at this batch (80 %)",
            answer.learning_rate,
        )
        if ran is not None and not rate.low <= ran <= rate.high:
            text += f"; {wording.learning_rate(ran)} is the best of those that ran"
        rows.append(("best rate", text))
    if answer.expected_regret is not None:
        text = f"expected {wording.percent(answer.expected_regret)} above the best"
        gain = answer.expected_gain
        rows.append(
            ("regret", text + (f"; one more full run would gain {wording.percent(gain)}" if gain is not None else ""))
        )
    rows.append(("by batch", "\n".join(_trade_off(row, settled=answer.settled) for row in _shown(answer))))
    return rows


def _shown(answer: Answer) -> list[TradeOff]:
    """Batch sizes next to the chosen one, and those that are nearly as good."""
    batch = answer.effective_batch_size or 0
    return [
        row
        for row in answer.trade_offs
        if (row.excess_percent is not None and row.excess_percent <= NEARLY_AS_GOOD_PERCENT)
        or batch / 2 <= row.effective_batch_size <= 2 * batch
    ]


def _trade_off(row: TradeOff, *, settled: bool) -> str:
    speed = row.tokens_per_second
    text = f"{row.effective_batch_size:>4}: {wording.learning_rate(row.learning_rate.value)}"
    text += f"  +{wording.percent(row.excess_percent)}" if settled and row.excess_percent is not None else ""
    return text + (f"  {wording.count(speed)} tokens/s" if speed else "")


def _predicted_title(answer: Answer) -> str:
    rate = answer.learning_rate or 0.0
    return f"learning rate {wording.learning_rate(rate)} x effective batch {answer.effective_batch_size} (predicted)"


def _predicted(result: StudyResult, answer: Answer) -> str:
    lines = [
        answer.sentence,
        "no run at full length was made: train the recipe, or go on with: "
        + (result.next_command or "a larger --budget"),
    ]
    places = {"recipe": result.paths.recipe, "report": result.paths.report}
    lines += [f"{name:<7} {wording.near(place)}" for name, place in places.items() if place]
    return "\n".join(lines)


def _validation(result: StudyResult, best: TrialFigures) -> str:
    baseline, reached = result.baseline, best.eval_loss
    text = f"loss {wording.loss(reached)}"
    if baseline is not None and baseline.trial != best.trial:
        gain = "" if reached is None or baseline.eval_loss is None else wording.gain(reached, baseline.eval_loss)
        text += (
            f"; the baseline {wording.learning_rate(baseline.learning_rate)} x {baseline.effective_batch_size} has "
            f"{wording.loss(baseline.eval_loss)} ({gain})"
        )
    elif baseline is not None and len(result.trials) > 1:
        text += "; the baseline itself is the best"
    if best.base_eval_loss is not None:
        text += f"; before training {wording.loss(best.base_eval_loss)}"
    return text


def _outcomes(result: StudyResult) -> str:
    counts = Counter(wording.STATE_WORDS[trial.state] for trial in result.trials)
    return f"{len(result.trials)}: " + ", ".join(f"{number} {state}" for state, number in counts.most_common())


def _no_answer(result: StudyResult) -> str:
    if not result.trials:
        return "no trial was run: the budget allows none"
    report = f"report: {wording.near(result.paths.report)}"
    if result.forgetting is not None and result.forgetting.sentence:
        return f"{result.forgetting.sentence}\n{report}"
    reasons = Counter(trial.reason or trial.state for trial in result.trials)
    lines = [f"{number} x {reason}" for reason, number in reasons.most_common(4)]
    lines += [f"log: {wording.near(log)}" for log in dict.fromkeys(trial.log for trial in result.trials) if log]
    return "no trial ended with a result:\n  " + "\n  ".join(lines) + f"\n{report}"
