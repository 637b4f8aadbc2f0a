"""What people should know about their data, in words: rows that were cut, text that no example holds, how sure an accuracy is."""

from __future__ import annotations

from finestep.ready import DataCard
from finestep.survey.split import accuracy_error

KEPT_WORDS = ("not used: ", "left out", "is the same in all")
"""A note on the data with one of these stands on the card and in the report too."""
SHARES_OF_ROWS = {"accuracy": None, "exact_match": 128}
"""Metrics that are a share of rows, and the most rows that they are measured on."""


def data_notes(card: DataCard) -> list[str]:
    """Rows cut, left out or continued, and the error of an accuracy: what figures of the card mean."""
    notes = [text for text in (_cut(card), _left_out(card), _continued(card)) if text]
    if card.accuracy_error:
        rows, points = card.facts.num_eval_rows or 0, 100 * card.accuracy_error
        notes.append(f"an accuracy of {rows:,} validation rows has a standard error of up to {points:.1f} points")
    return notes


def result_notes(card: DataCard) -> list[str]:
    """What belongs on the card and the report: text that was not used, and rows that were cut or left out."""
    notes = [text for text in (_cut(card), _left_out(card)) if text]
    return notes + [note for note in card.notes if any(words in note for words in KEPT_WORDS)]


def error_words(name: str, value: float, num_eval_rows: int | None) -> str:
    """What stands behind a metric that is a share of rows: its standard error, and the number of rows."""
    if name not in SHARES_OF_ROWS or not num_eval_rows or not 0 <= value <= 1:
        return ""
    rows = min(num_eval_rows, SHARES_OF_ROWS[name] or num_eval_rows)
    return f" \u00b1 {accuracy_error(rows, value):.2g} (standard error, {rows:,} rows)"


def _cut(card: DataCard) -> str:
    count = card.num_cut
    if not count:
        return ""
    share = count / max(count, (card.facts.num_rows or 0) + card.num_left_out)
    return (
        f"{count:,} rows ({share:.1%}) are cut at {card.max_length:,} tokens, the longest has {card.longest:,}: "
        "--max-length changes it, up to what the model reads"
    )


def _left_out(card: DataCard) -> str:
    count = card.num_left_out
    return (
        f"{count:,} rows are left out: nothing of their answer lies within {card.max_length:,} tokens" if count else ""
    )


def _continued(card: DataCard) -> str:
    count = card.num_continued
    return f"{count:,} texts longer than {card.max_length:,} tokens go on in further rows" if count else ""
