"""A running trial's records as they come: steps, evaluations and notes, each line read once."""

from __future__ import annotations

import math
from pathlib import Path

from finestep.plain_text import plain_lines
from finestep.store.tail import Tail, number, whole
from finestep.studies.progress import PACE_STEPS, Made
from finestep.study_layout import EVALUATIONS, NOTES, STEPS


class Course:
    """What one running trial has shown so far.

    Attributes:
        rows: (step, training tokens, loss, seconds) of each step, the newest last.
        is_over: the trial has ended, so that its curve is the report's now.
    """

    def __init__(self, folder: Path):
        self._steps, self._evaluations = Tail(folder / STEPS), Tail(folder / EVALUATIONS)
        self._notes = Tail(folder / NOTES)
        self.rows: list[tuple[int, int, float, float]] = []
        self.eval_loss: float | None = None
        self.memory_bytes: int | None = None
        self.notes: list[str] = []
        self.is_over = False

    @property
    def step(self) -> int:
        return self.rows[-1][0] if self.rows else 0

    @property
    def loss(self) -> float | None:
        return self.rows[-1][2] if self.rows else None

    def look(self) -> None:
        """Read what is new; a step that is made again after a resume is not drawn twice."""
        for record in self._steps.read():
            step, loss = record.get("step"), number(record.get("loss"))
            if not isinstance(step, int) or step <= self.step:
                continue
            tokens = (self.rows[-1][1] if self.rows else 0) + whole(record.get("num_tokens"))
            self.rows.append((step, tokens, math.nan if loss is None else loss, number(record.get("elapsed_s")) or 0.0))
            memory = record.get("peak_memory_bytes")
            self.memory_bytes = memory if isinstance(memory, int) else self.memory_bytes
        for record in self._evaluations.read():
            self.eval_loss = number(record.get("eval_loss"))
        self.notes += [plain_lines(str(one.get("text", "")))[:400] for one in self._notes.read()]

    def made(self) -> Made:
        """How far it is."""
        tokens = self.rows[-1][1] if self.rows else 0
        return Made(step=self.step, num_tokens=tokens, loss=self.loss, step_s=(self.pace() or {}).get("step_s"))

    def pace(self) -> dict[str, float] | None:
        """Seconds a step and tokens a second over the last steps; None before there are two."""
        last = self.rows[-PACE_STEPS:]
        if len(last) < 2 or last[-1][3] <= last[0][3]:
            return None
        seconds = last[-1][3] - last[0][3]
        return {
            "step_s": seconds / (last[-1][0] - last[0][0]),
            "tokens_per_second": (last[-1][1] - last[0][1]) / seconds,
        }
