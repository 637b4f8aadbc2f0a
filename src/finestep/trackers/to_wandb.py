"""Weights & Biases: a run a trial, grouped by study. Without a key it is written offline; `wandb sync` sends it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import wandb

from finestep.trackers.sink import Point, Run, Sink, Value


class WandbSink(Sink):
    """Writes through W&B's client."""

    one_at_a_time = False

    def __init__(self, folder: Path, study: str):
        self._folder, self._study = folder.resolve(), study
        self._runs: dict[int, wandb.Run] = {}
        says_mode = bool(os.environ.get("WANDB_MODE"))
        self._mode: Literal["offline"] | None = None if says_mode or _has_key() else "offline"

    def open(self, run: Run) -> int:
        self._runs[run.number] = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "finestep",
            id=run.key,
            name=run.name,
            group=run.group,
            job_type="answer" if run.number < 0 else "trial",
            config=dict(run.config),
            dir=str(self._folder),
            mode=self._mode,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, save_code=False),
        )
        return int(self._runs[run.number].step or 0)

    def log(self, run: Run, points: Sequence[Point]) -> None:
        for point in points:
            self._runs[run.number].log(dict(point.values), step=point.step)

    def end(self, run: Run, summary: Mapping[str, Value]) -> None:
        done = self._runs.pop(run.number)
        done.summary.update(dict(summary))
        done.finish(exit_code=0 if summary.get("state", "completed") in ("completed", "stopped") else 1)

    def flush(self) -> None:
        """The client's own process holds what was logged."""

    def close(self) -> None:
        for run in self._runs.values():
            run.finish()


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return "wandb" in (Path.home() / ".netrc").read_text(encoding="utf-8")
    except (OSError, RuntimeError):
        return False
