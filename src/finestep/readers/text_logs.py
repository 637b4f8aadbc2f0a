"""Logs in text: dictionaries printed by the Hugging Face Trainer, torchtune's disk logger, and lines of names and numbers.

Progress bars glued to a row, carriage returns and rows cut by a kill are normal here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path

from finestep.diagnosis.training_log import TrainingLog
from finestep.readers.column_names import role_of
from finestep.readers.json_logs import add_alike, decoded, rows_of
from finestep.readers.limits import MAX_NAMES, MAX_ROW_CHARS
from finestep.readers.litgpt_logs import is_printed, read_printed
from finestep.readers.row_table import RowTable
from finestep.readers.text_pairs import pairs_of, read_pairs
from finestep.readers.text_stream import batches, lines
from finestep.readers.text_tables import read_table, table_header

_PRINTED_ROW = re.compile(r"\{\s*['\"][^{}]{1,20000}\}")
_ROW_STARTS, LONGEST_ROW = ("{'", '{"'), 20000
_BARE_WORD = re.compile(r"(?<=[:\s,\[])(-?)(nan|inf|None|True|False)(?=[\s,}\]])")
_BAR = (
    r"(?:^|(?<=[}A]))\s*(?:Train(?:ing)?:\s+)?\d{1,3}%\|[^|\n]{0,200}\|\s*(?P<done>\d{1,9})/(?P<total>\d{1,9})"
    r" \[[^\]\n]{0,60}(?:it/s|s/it|\d\d<[\d:?]+\])"
)
"""A progress bar of training: one of tokenising counts examples, one of loading or of validation has a name of its own."""
_ROW_OR_BAR = re.compile(rf"(?P<row>{_PRINTED_ROW.pattern})|{_BAR}")
_TORCHTUNE_BAR = re.compile(r"^(\d+)\|(\d+)\|Loss: ([-\d.eE+]+|nan|inf)")
_TORCHTUNE = re.compile(r"^Step (\d+) \| ")
_ON_THE_WAY = re.compile(r" - ETA: .*\bloss: |\bepoch \d+ - iter \d+/\d+ - loss ")
_END_OF_EPOCH = re.compile(r"\d[mu]?s(?:/(?:step|epoch|sample))? - loss: |\bEPOCH \d+ done: loss ")
_ECHO = re.compile(r"callbacks?\b|\bINFO\b|>> ?$")
"""What stands before the copy of a printed row that LLaMA-Factory's logger makes."""
MANY_TIMES = 6
FEWEST_ROWS = 3
"""Rows below which another way of reading is tried as well."""
_WORDS = {"nan": "NaN", "inf": "Infinity", "None": "null", "True": "true", "False": "false"}


def read_text(path: Path) -> list[TrainingLog]:
    """A terminal's output or a text log, whatever its kind; the kind is found from the first megabyte of lines."""
    stream = lines(path)
    first = list(_first_lines(stream))
    reader, format_name = _reader_for(first)
    table = RowTable()
    reader(chain(first, stream), table)
    if reader is not read_pairs and table.num_rows < FEWEST_ROWS:
        # Dictionaries that are printed in passing are not the log: perhaps its lines of pairs are.
        other = RowTable()
        read_pairs(lines(path), other)
        table, format_name = (other, "text log") if other.num_rows > table.num_rows else (table, format_name)
    return table.logs(name=path.name, source=str(path), format=format_name)


def _first_lines(stream: Iterator[str]) -> Iterator[str]:
    size = 0
    for line in islice(stream, 20000):
        yield line
        size += len(line)
        if size > MAX_ROW_CHARS:
            return


def _reader_for(first: list[str]) -> tuple[Callable[[Iterator[str], RowTable], None], str]:
    rows = [line for line in first if _PRINTED_ROW.search(line)]
    if any(_says_something(text) for line in rows[:200] for text in _PRINTED_ROW.findall(line)):
        if _are_rows_elsewhere(first, rows):
            return _read_both, "text log"
        has_plain = _num_that_speak(rows, is_echo=False) >= _num_that_speak(rows, is_echo=True)
        return (_read_printed_once if has_plain else _read_printed_rows), "Hugging Face Trainer output"
    if any(_TORCHTUNE.match(line) for line in first):
        return _read_torchtune, "torchtune disk log"
    if any(_TORCHTUNE_BAR.match(line) for line in first):
        return _read_torchtune_bar, "torchtune output"
    if any(is_printed(line) for line in first):
        return read_printed, "litgpt output"
    header = table_header(first)
    if header is not None:
        return (lambda stream, table: read_table(header, stream, table)), "table in text"
    return _read_final_pairs if _says_means_on_the_way(first) else read_pairs, "text log"


def _says_means_on_the_way(first: list[str]) -> bool:
    """True where an epoch is told many times on its way, as a mean since its start, and once at its end (Keras, flair): only the ends are
    comparable."""
    return any(_ON_THE_WAY.search(line) for line in first) and any(_END_OF_EPOCH.search(line) for line in first)


def _read_final_pairs(stream: Iterator[str], table: RowTable) -> None:
    read_pairs((line for line in stream if not _ON_THE_WAY.search(line)), table)


def _num_that_speak(rows: list[str], *, is_echo: bool) -> int:
    """Rows that hold a loss, behind a logger's prefix or without one."""
    chosen = (line for line in rows if _is_echo(line) == is_echo)
    return sum(any(_says_something(text) for text in _PRINTED_ROW.findall(line)) for line in islice(chosen, 200))


def _are_rows_elsewhere(first: list[str], rows: list[str]) -> bool:
    """True when lines of pairs with a loss are many times as many as printed dictionaries, which then are the evaluations."""
    needed = MANY_TIMES * len(rows)
    lines_of_pairs = (line for line in first if "{" not in line and "oss" in line and _holds_a_loss(line))
    return sum(1 for _ in islice(lines_of_pairs, needed)) >= needed


def _holds_a_loss(line: str) -> bool:
    return any(role.slot == "loss" and role.split == "train" for _, _, role in pairs_of(line[:2000]))


def _read_both(stream: Iterator[str], table: RowTable) -> None:
    """Lines of pairs, and dictionaries among them."""

    def plain_lines() -> Iterator[str]:
        for line in stream:
            printed = [_decode_printed(text) for text in _PRINTED_ROW.findall(line)] if "{" in line else []
            found = [row for row in printed if isinstance(row, dict)]
            table.add_many(found)
            if not found:
                yield line

    read_pairs(plain_lines(), table)


def _says_something(text: str) -> bool:
    """True when a printed dictionary holds a loss, a rate or the like; settings that are printed hold none."""
    row = _decode_printed(text)
    slots = {role.slot for key in row if (role := role_of(str(key)))} if isinstance(row, dict) else set()
    # A reward without a loss or a counter is that of one answer, printed in passing.
    return bool(slots & {"loss", "grad_norm"}) or {"reward"} < slots


def _is_echo(line: str) -> bool:
    """True for the copy of a row behind a logger's prefix."""
    at = line.index("{")
    return at > 0 and bool(_ECHO.search(line[max(0, at - 120) : at]))


def _read_printed_once(stream: Iterator[str], table: RowTable) -> None:
    """Rows that are printed twice, once by a logger: the logger's copies are left out."""
    _read_printed_rows((line for line in stream if "{" not in line or not _is_echo(line)), table)


def _read_printed_rows(stream: Iterator[str], table: RowTable) -> None:
    printed = _with_bars(stream, table)
    for chosen in iter(lambda: list(islice(printed, 400)), []):
        steps = [step for _, step in chosen]
        if not any(steps) and not table.notes and add_alike([text for text, _ in chosen], table, _decode_printed):
            continue
        if sum(step is not None for step in steps) <= len(steps) / 2:
            steps = [None] * len(steps)  # a bar that stands behind few of the rows says nothing of the others
        rows: list[dict[str, object] | None] = []
        for texts in batches([[text for text, _ in chosen]]):
            rows += rows_of(texts, _decode_printed)
        table.num_skipped += rows.count(None)
        whole = [_at_step(row, steps[index]) for index, row in enumerate(rows) if row is not None]
        for run in _at_summaries(whole, table):
            table.add_many(run)
        if table.is_full:
            return


def _at_summaries(rows: list[dict[str, object]], table: RowTable) -> Iterator[list[dict[str, object]]]:
    """The rows in parts that end with the Trainer's last row of a run; what comes after it belongs to the next run."""
    part: list[dict[str, object]] = []
    for row in rows:
        if table.notes and not part and "loss" in row:
            table.mark_new_run()
            table.notes = []
        part.append(row)
        if "train_runtime" in row and "loss" not in row:
            yield part
            part, table.notes = [], ["the file holds the final row of at least one run"]
    yield part


def _with_bars(stream: Iterator[str], table: RowTable) -> Iterator[tuple[str, int | None]]:
    """Printed rows with the step at which the progress bar stands right behind them, where it is drawn anew after each.

    On the way steps that were left out are counted.
    """
    waiting: str | None = None
    for line in stream:
        if "OVERFLOW" in line and "kipping" in line:
            table.count_skipped(line.count("OVERFLOW"))
        if "{" not in line and "/" not in line:
            continue
        if _is_row_alone(line):  # As most lines of a long log are, and much sooner told than searched for.
            if waiting is not None:
                yield waiting, None
            waiting = line
            continue
        for found in _ROW_OR_BAR.finditer(line):
            if found["row"] is not None:
                if waiting is not None:
                    yield waiting, None
                waiting = found["row"]
                continue
            done, total = int(found["done"]), int(found["total"])
            table.see_bar(done, total)
            if waiting is not None:
                yield waiting, done
                table.context.setdefault("max_steps", total)
                waiting = None
    if waiting is not None:
        yield waiting, None


def _is_row_alone(line: str) -> bool:
    """True when a line is a printed row and nothing else."""
    return (
        line[:2] in _ROW_STARTS
        and line[-1] == "}"
        and len(line) < LONGEST_ROW
        and line.count("{") == line.count("}") == 1
    )


def _at_step(row: dict[str, object], step: int | None) -> dict[str, object]:
    """The row with a step of the bar, unless it has one, or counts none."""
    has_own = any((role := role_of(str(key))) is not None and role.slot == "step" for key in row)
    return row if step is None or not step or has_own else {**row, "step": step}


def printed_rows(line: str) -> list[dict[str, object]]:
    """The dictionaries that a trainer has printed on a line.

    >>> printed_rows("  5%| 1/21 [00:02] {'loss': '7.151', 'epoch': '0.08'}")
    [{'loss': '7.151', 'epoch': '0.08'}]
    """
    found = (_decode_printed(text) for text in _PRINTED_ROW.findall(line)) if "{" in line else ()
    return [row for row in found if isinstance(row, dict)]


def _decode_printed(text: str) -> object:
    """The value of Python's own notation of dictionaries, as far as logs need it."""
    if any(word in text for word in _WORDS):
        text = _BARE_WORD.sub(lambda match: match.group(1) + _WORDS[match.group(2)], text).replace("-NaN", "NaN")
    return decoded(text.replace("'", '"'))


def _read_torchtune_bar(stream: Iterator[str], table: RowTable) -> None:
    """The bar of torchtune is drawn many times a step, and says its loss each time."""
    last = 0
    for line in stream:
        found = _TORCHTUNE_BAR.match(line)
        if found and int(found.group(2)) != last:
            last = int(found.group(2))
            table.add({"step": last, "loss": found.group(3), "epoch": found.group(1)})
        if table.is_full:
            return


def _read_torchtune(stream: Iterator[str], table: RowTable) -> None:
    for line in stream:
        match = _TORCHTUNE.match(line)
        if match:
            pairs = (word.partition(":")[::2] for word in line[match.end() : MAX_ROW_CHARS].split()[:MAX_NAMES])
            table.add({"step": match.group(1), **dict(pairs)})
        if table.is_full:
            return
