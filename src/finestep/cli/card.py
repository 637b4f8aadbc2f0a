"""The card at the end of a study: the answer first, then what it cost and where everything is."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from finestep.cli import words
from finestep.flows.data_words import error_words
from finestep.flows.own_trial import finding_words
from finestep.flows.result import passed_over, unsettled_words
from finestep.plain_text import plain_lines, shortened
from finestep.search.further_fields import value_words
from finestep.trial import BASE_GENERAL_PERPLEXITY, GENERAL_PERPLEXITY, KL_TO_BASE

OF_FORGETTING = frozenset({KL_TO_BASE, GENERAL_PERPLEXITY, BASE_GENERAL_PERPLEXITY})
"""Metrics that have a row of their own together."""
NEARLY_AS_GOOD_PERCENT = 1.0
MOST_CHARACTERS = 160
"""Of a text in the card."""


def print_card(console: Console, result: Mapping[str, Any]) -> None:
    """Print the answer of a study; says clearly when there is none."""
    best, answer = result["best"], result.get("answer") or {}
    if best is None and answer.get("learning_rate"):
        body, title = _shown_text(_predicted(result)), Text(_predicted_title(answer))
        console.print(Panel(body, title=title, border_style="yellow", title_align="left"))
        return
    if best is None:
        body = _shown_text(_no_answer(result))
        console.print(Panel(body, title="no answer", border_style="red", title_align="left"))
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _rows(result):
        table.add_row(_shown_text(name), _shown_text(text))
    console.print(Panel(table, title=Text(_title(best)), border_style="green", title_align="left", expand=False))
    if rows := _answer_rows(result):
        answers = Table.grid(padding=(0, 2))
        answers.add_column(style="dim", no_wrap=True)
        answers.add_column(overflow="fold")
        for name, text in rows:
            answers.add_row(name, _shown_text(text))
        number = len(result["answers"])
        title = Text(f"{number} validation row{'s' * (number > 1)}, and what the saved model makes of them")
        console.print(Panel(answers, title=title, border_style="dim", title_align="left", expand=False))


def _shown_text(text: Text | str) -> Text:
    """Text as it is, never as markup, without control characters."""
    if isinstance(text, str):
        return Text(plain_lines(text))
    return Text(plain_lines(text.plain), style=text.style)


def _answer_rows(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Of each row what was asked, what the model answers, and what the data say."""
    rows: list[tuple[str, str]] = []
    for one in result.get("answers") or ():
        names = ("text", "predicted", "true") if "predicted" in one else ("prompt", "answer", "expected")
        rows += [(name, shortened(one[name], MOST_CHARACTERS)) for name in names]
        rows.append(("", ""))
    return rows[:-1]


def _use_rows(result: Mapping[str, Any]) -> list[tuple[str, Text | str]]:
    """Whether what is saved is what was measured, and the line that loads it."""
    rows: list[tuple[str, Text | str]] = []
    if saved := result.get("saved"):
        style = {True: "", False: "bold red", None: "yellow"}[saved["agrees"]]
        rows.append(("checked", Text(saved["sentence"], style=style)))
    if use := result.get("use"):
        near = repr(words.near(use["folder"]))
        loads = [line.replace(repr(use["folder"]), near) for line in use["load"] if repr(use["folder"]) in line]
        rows.append(("use it", loads[0] if loads else "see README.md in its folder"))
        if "merge" in use:
            rows.append(("merge", f"finestep merge {shlex.quote(words.near(use['folder']))}"))
    return rows


def _title(best: Mapping[str, Any]) -> str:
    return f"learning rate {words.rate(best['learning_rate'])} x effective batch {best['effective_batch_size']}"


def _rows(result: Mapping[str, Any]) -> list[tuple[str, Text | str]]:
    best, spent, paths = result["best"], result["spent"], result["paths"]
    rows: list[tuple[str, Text | str]] = [
        (
            "batch",
            f"{best['effective_batch_size']} = micro-batch {best['micro_batch_size']} x {best['accumulation_steps']} accumulated "
            f"x {best['num_devices']} device" + ("s" if best["num_devices"] > 1 else ""),
        ),
        *([("with", value_words(best["tuned"]))] if best["tuned"] else []),
        ("validation", Text(_validation(result), style="bold")),
    ]
    num_eval_rows = (result.get("data") or {}).get("num_eval_rows")
    rows += [
        (name.replace("_", " "), f"{value:.4g}{error_words(name, value, num_eval_rows)}")
        for name, value in best["metrics"].items()
        if name not in OF_FORGETTING
    ]
    rows += _passed_over(result) + _forgetting(result) + _belief(result) + _diagnosis(result)
    rows += [
        *(("data", note) for note in (result.get("data") or {}).get("notes", [])),
        ("trials", _outcomes(result)),
        ("spent", _spent(spent)),
        *((name, words.near(paths[name])) for name in ("model", "recipe", "config", "report") if name in paths),
        *([("model", Text(result["model_note"], style="bold red"))] if result.get("model_note") else []),
        *_use_rows(result),
        ("again", result["command"]),
    ]
    return rows


def _passed_over(result: Mapping[str, Any]) -> list[tuple[str, Text | str]]:
    said = passed_over(result)
    return [("not taken", said)] if said else []


def _forgetting(result: Mapping[str, Any]) -> list[tuple[str, Text | str]]:
    """How far from the base the chosen trial ended, the limit, and that none kept it."""
    seen = result.get("forgetting")
    if not seen or seen["kl_at_end"] is None:
        return []
    metrics = result["best"]["metrics"]
    now, before = metrics.get(GENERAL_PERPLEXITY), metrics.get(BASE_GENERAL_PERPLEXITY)
    general = f"; perplexity of general text {now:.4g}, before {before:.4g}" if now and before else ""
    limit = f"; at most {seen['limit']:g} allowed" if seen["limit"] is not None else ""
    rows: list[tuple[str, Text | str]] = [
        ("forgetting", f"ends {seen['kl_at_end']:.3g} nats a token from the base{limit}{general}")
    ]
    reason = result["best"]["reason"]
    return rows + ([("", Text(f"{seen['sentence']}\nkept here: {reason}", style="yellow"))] if seen["sentence"] else [])


def _diagnosis(result: Mapping[str, Any]) -> list[tuple[str, Text | str]]:
    """What `finestep diagnose` says of the chosen trial."""
    said = finding_words(result.get("finding"))
    return [("diagnosis", said)] if said else []


def _spent(spent: Mapping[str, Any]) -> str:
    tokens = f"{words.size(spent['tokens'])} tokens, " if spent["tokens"] else ""
    return f"{spent['full_runs']:.1f} full runs, {tokens}{words.duration(spent['elapsed_s'])}"


def _belief(result: Mapping[str, Any]) -> list[tuple[str, Text | str]]:
    """How sure the search is: the interval of the best rate, the expected regret, and what other batch sizes would give."""
    answer = result.get("answer")
    if not answer or not answer["trade_offs"]:
        return []
    chosen = next(
        (row for row in answer["trade_offs"] if row["effective_batch_size"] == answer["effective_batch_size"]), None
    )
    rows: list[tuple[str, Text | str]] = []
    if said := unsettled_words(result):
        rows.append(("not settled", Text(said.removeprefix("not settled: "), style="yellow")))
    elif chosen is not None:
        rate, ran = chosen["learning_rate"], answer["learning_rate"]
        text = f"between {words.rate(rate['low'])} and {words.rate(rate['high'])} at this batch (80 %)"
        if not rate["low"] <= ran <= rate["high"]:
            text += f"; {words.rate(ran)} is the best of those that ran"
        rows.append(("best rate", text))
    if answer["expected_regret"] is not None:
        text = f"expected {words.percent(answer['expected_regret'])} above the best"
        gain = answer["expected_gain"]
        rows.append(
            ("regret", text + (f"; one more full run would gain {words.percent(gain)}" if gain is not None else ""))
        )
    rows.append(("by batch", "\n".join(_trade_off(row, settled=answer["settled"]) for row in _shown(answer))))
    return rows


def _shown(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Batch sizes next to the chosen one, and those that are nearly as good."""
    batch = answer["effective_batch_size"] or 0
    return [
        row
        for row in answer["trade_offs"]
        if row["excess_percent"] <= NEARLY_AS_GOOD_PERCENT or batch / 2 <= row["effective_batch_size"] <= 2 * batch
    ]


def _trade_off(row: Mapping[str, Any], *, settled: bool) -> str:
    speed = row["tokens_per_second"]
    text = f"{row['effective_batch_size']:>4}: {words.rate(row['learning_rate']['value'])}"
    text += f"  +{words.percent(row['excess_percent'])}" if settled else ""
    return text + (f"  {words.size(speed)} tokens/s" if speed else "")


def _predicted_title(answer: Mapping[str, Any]) -> str:
    return f"learning rate {words.rate(answer['learning_rate'])} x effective batch {answer['effective_batch_size']} (predicted)"


def _predicted(result: Mapping[str, Any]) -> str:
    lines = [
        f"{result['answer']['sentence']}",
        "no run at full length was made: train the recipe, or go on with: "
        + (result.get("next_command") or "a larger --budget"),
    ]
    lines += [
        f"{name:<7} {words.near(result['paths'][name])}" for name in ("recipe", "report") if name in result["paths"]
    ]
    return "\n".join(lines)


def _validation(result: Mapping[str, Any]) -> str:
    best, baseline = result["best"], result["baseline"]
    text = f"loss {words.loss(best['eval_loss'])}"
    if baseline and baseline["trial"] != best["trial"]:
        text += (
            f"; the baseline {words.rate(baseline['learning_rate'])} x {baseline['effective_batch_size']} has "
            f"{words.loss(baseline['eval_loss'])} ({words.gain(best['eval_loss'], baseline['eval_loss'])})"
        )
    elif baseline and len(result["trials"]) > 1:
        text += "; the baseline itself is the best"
    if best.get("base_eval_loss") is not None:
        text += f"; before training {words.loss(best['base_eval_loss'])}"
    return text


def _outcomes(result: Mapping[str, Any]) -> str:
    counts = Counter(words.STATE_WORDS[trial["state"]] for trial in result["trials"])
    return f"{len(result['trials'])}: " + ", ".join(f"{number} {state}" for state, number in counts.most_common())


def _no_answer(result: Mapping[str, Any]) -> str:
    if not result["trials"]:
        return "no trial was run: the budget allows none"
    if sentence := (result.get("forgetting") or {}).get("sentence"):
        return f"{sentence}\nreport: {words.near(result['paths']['report'])}"
    reasons = Counter(trial["reason"] or trial["state"] for trial in result["trials"])
    lines = [f"{number} x {reason}" for reason, number in reasons.most_common(4)]
    lines += [f"log: {words.near(log)}" for log in dict.fromkeys(trial.get("log") for trial in result["trials"]) if log]
    return (
        "no trial ended with a result:\n  " + "\n  ".join(lines) + f"\nreport: {words.near(result['paths']['report'])}"
    )
