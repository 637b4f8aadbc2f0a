"""SwanLab: a run a trial, grouped by study. Without a key it is written offline; `swanlab sync` sends it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import swanlab

from finestep.trackers.sink import Point, Run, Sink, Value


class SwanLabSink(Sink):
    """Writes through SwanLab's client, which holds one run a process."""

    one_at_a_time = True

    def __init__(self, folder: Path, study: str):
        self._folder, self._study = folder.resolve() / "swanlog", study
        self._is_open = False
        has_key = os.environ.get("SWANLAB_API_KEY") or (Path.home() / ".swanlab" / ".netrc").exists()
        self._mode = os.environ.get("SWANLAB_MODE") or ("online" if has_key else "offline")

    def open(self, run: Run) -> int:
        swanlab.init(
            project=os.environ.get("SWANLAB_PROJECT") or "finestep",
            name=run.name,
            group=run.group,
            job_type="answer" if run.number < 0 else "trial",
            config={key: value for key, value in run.config.items() if value is not None},
            log_dir=str(self._folder),
            mode=self._mode,
            id=run.key,
            resume="allow",
        )
        self._is_open = True
        return 0

    def log(self, run: Run, points: Sequence[Point]) -> None:
        for point in points:
            swanlab.log(dict(point.values), step=point.step)

    def end(self, run: Run, summary: Mapping[str, Value]) -> None:
        numbers = {
            f"outcome/{name}": float(value)
            for name, value in summary.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        swanlab.log(numbers, step=int(summary.get("num_steps") or 0))
        swanlab.finish()
        self._is_open = False

    def flush(self) -> None:
        """The client writes by itself."""

    def close(self) -> None:
        if self._is_open:
            swanlab.finish()
