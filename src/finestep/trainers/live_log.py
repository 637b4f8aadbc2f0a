"""What a framework has said since one last looked: rows of training and evaluation, and what it says of rows, steps and batch.

It reads files that still grow, each byte once, and judges nothing.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from finestep.readers.column_names import role_of
from finestep.readers.limits import number
from finestep.readers.text_logs import printed_rows
from finestep.trainers.framework import Framework
from finestep.trainers.frameworks import log_every
from finestep.trainers.plan import TrialPlan

NUM_ROWS = re.compile(r"Num (?:train )?examples\s*[=:]\s*([\d,]+)")
NUM_STEPS = re.compile(r"Total (?:optimization )?steps\s*[=:]\s*([\d,]+)")
BATCH = re.compile(r"Total (?:train )?batch size[^=\n]*=\s*([\d,]+)|\bglobal_batch_size=(\d+)")
BAR = re.compile(r"(?<![\d.])(\d{1,9})/(\d{1,9}) \[")
BESIDE_A_LOSS = frozenset({"learning_rate", "grad_norm", "epoch"})
"""A dictionary with a loss and none of these is no row of a log."""
MOST_LINE = 1 << 20


@dataclass(frozen=True)
class TrainRow:
    """A logged step. NaN = the row does not say."""

    step: int
    loss: float
    learning_rate: float = math.nan
    grad_norm: float = math.nan
    num_tokens: float = math.nan


@dataclass(frozen=True)
class EvalRow:
    """An evaluation: all its numbers under the names that the framework gives them."""

    step: int
    values: Mapping[str, float]


@dataclass
class Said:
    """What a framework said of its run."""

    num_rows: int | None = None
    num_steps: int | None = None
    batch: int | None = None


@dataclass
class GrowingText:
    """A text file that another process appends to; a torn last line waits for its end."""

    path: Path
    _at: int = 0
    _rest: bytes = b""

    def lines(self) -> Iterator[str]:
        """The lines that are new and whole; a carriage return ends one too, as progress bars do."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._at)
                data = file.read()
        except OSError:
            return
        self._at += len(data)
        *whole, self._rest = (self._rest + data).replace(b"\r", b"\n").split(b"\n")
        if len(self._rest) > MOST_LINE:
            self._rest = b""
        for line in whole:
            if line:
                yield line[:MOST_LINE].decode("utf-8", errors="replace")

    def last(self) -> Iterator[str]:
        """What is left when nothing more will come: the last line may have no end."""
        yield from self.lines()
        if self._rest:
            yield self._rest.decode("utf-8", errors="replace")
            self._rest = b""


@dataclass
class LiveLog:
    """The log of one running trial.

    Args:
        printed: the file that takes its standard output and errors.
    """

    framework: Framework
    plan: TrialPlan
    printed: Path
    said: Said = field(default_factory=Said)
    _text: GrowingText = field(init=False)
    _files: dict[Path, GrowingText | int] = field(default_factory=dict)
    _bar: int = 0
    _num_trained: int = 0
    _last: dict[str, object] | None = None

    def __post_init__(self) -> None:
        self._text = GrowingText(self.printed)

    def rows(self, *, is_over: bool = False) -> list[TrainRow | EvalRow]:
        """Rows that are new since the last call."""
        found: list[TrainRow | EvalRow] = []
        for line in self._text.last() if is_over else self._text.lines():
            self._hear(line)
            if not self.framework.written.logs:
                found += self._rows_of(printed_rows(line))
        for pattern in self.framework.written.logs:
            for path in sorted(Path(self.plan.output).glob(pattern)):
                found += self._csv(path) if path.suffix == ".csv" else self._json_lines(path, is_over=is_over)
        return found

    def _hear(self, line: str) -> None:
        for name, pattern in (("num_rows", NUM_ROWS), ("num_steps", NUM_STEPS), ("batch", BATCH)):
            if (match := pattern.search(line)) is not None and getattr(self.said, name) is None:
                text = next(group for group in match.groups() if group)
                setattr(self.said, name, int(text.replace(",", "")))
        for done, total in BAR.findall(line):
            if int(total) == (self.said.num_steps or self.plan.num_steps):
                self._bar = int(done)

    def _json_lines(self, path: Path, *, is_over: bool) -> list[TrainRow | EvalRow]:
        text = self._files.setdefault(path, GrowingText(path))
        assert isinstance(text, GrowingText)
        rows = []
        for line in text.last() if is_over else text.lines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            rows += [row] if isinstance(row, dict) else []
        return self._rows_of(rows)

    def _csv(self, path: Path) -> list[TrainRow | EvalRow]:
        """Rows of a table that its writer writes anew when a column is added: the first so many are known.

        While it is written anew it is short for a moment, and its last line may be torn.
        """
        try:
            whole = path.read_text(encoding="utf-8", errors="replace").rpartition("\n")[0]
            table = list(csv.DictReader(io.StringIO(whole)))
        except (OSError, csv.Error):
            return []
        known = self._files.get(path, 0)
        assert isinstance(known, int)
        self._files[path] = max(known, len(table))
        return self._rows_of([{key: value for key, value in row.items() if value} for row in table[known:]])

    def _rows_of(self, rows: list[dict[str, object]]) -> list[TrainRow | EvalRow]:
        return [found for row in rows if (found := self._row(row)) is not None]

    def _row(self, row: Mapping[str, object]) -> TrainRow | EvalRow | None:
        """The row in our words; None for a summary, for settings that were printed, and for the copy of a row behind a logger."""
        if row == self._last:
            return None
        self._last = dict(row)
        values = {str(key): value for key, value in row.items() if not isinstance(value, dict | list | bool)}
        evaluated = {key: number(value) for key, value in values.items() if _is_evaluated(key)}
        evaluated = {key: value for key, value in evaluated.items() if not math.isnan(value)}
        if any(key.endswith("loss") for key in evaluated):
            return EvalRow(self._step(values, default=self.plan.num_steps), evaluated)
        slots = {role.slot: number(values[key]) for key in values if (role := role_of(key)) and role.split == "train"}
        if "loss" not in slots or "train_runtime" in values or not slots.keys() & BESIDE_A_LOSS:
            return None
        step = self._optimizer_step(values)
        if step is None:
            return None
        self._num_trained += 1
        others = (slots.get(name, math.nan) for name in ("learning_rate", "grad_norm", "num_tokens"))
        return TrainRow(step, slots["loss"], *others)

    def _optimizer_step(self, values: Mapping[str, object]) -> int | None:
        """The optimizer step of a training row; None for a row of a micro-batch that ends no step."""
        if self.framework.written.counts == "micro-batches":
            done = number(values.get("iter"))
            passes = self.plan.accumulation
            return int(done) // passes if done > 0 and int(done) % passes == 0 else None
        return self._step(values, default=(self._num_trained + 1) * log_every(self.plan.num_steps))

    def _step(self, values: Mapping[str, object], *, default: int) -> int:
        for name in ("global_step/max_steps", "current_steps", "global_step"):
            text = str(values.get(name, "")).partition("/")[0]
            if text.isdecimal():
                return int(text)
        is_training = "loss" in values
        return default if is_training or not self._bar else min(self._bar, self.plan.num_steps) or default


def _is_evaluated(name: str) -> bool:
    """Whether a column is a result on validation rows."""
    return name.startswith(("eval_", "eval/", "val_", "val/")) and not re.search(
        r"runtime|per_second|_time$|steps$", name
    )
