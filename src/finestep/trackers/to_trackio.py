"""trackio: a run a trial in the project `$TRACKIO_PROJECT`, else named after the study; `trackio show` opens it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import trackio
from trackio.run import Run as OpenRun
from trackio.sqlite_storage import SQLiteStorage

from finestep.trackers.sink import Point, Run, Sink, Value


class TrackioSink(Sink):
    """Writes through trackio's client."""

    one_at_a_time = True

    def __init__(self, folder: Path, study: str):
        self._project = os.environ.get("TRACKIO_PROJECT") or study
        self._space = os.environ.get("TRACKIO_SPACE_ID")
        self._run: OpenRun | None = None

    def open(self, run: Run) -> int:
        name = _name(run)
        known = 0 if self._space else SQLiteStorage.get_max_step_for_run(self._project, name) or 0
        self._run = trackio.init(
            project=self._project,
            name=name,
            group=run.group,
            config={key: value for key, value in run.config.items() if value is not None},
            space_id=self._space,
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        return known

    def log(self, run: Run, points: Sequence[Point]) -> None:
        assert self._run is not None
        for point in points:
            self._run.log(dict(point.values), step=point.step)

    def end(self, run: Run, summary: Mapping[str, Value]) -> None:
        assert self._run is not None
        values = {f"outcome/{name}": value for name, value in summary.items()}
        self._run.log(values, step=int(summary.get("num_steps") or 0))
        self._run.finish()
        self._run = None

    def flush(self) -> None:
        """The client sends by itself; `finish` waits for it."""

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()


def _name(run: Run) -> str:
    """One name a trial: trackio finds a run by it."""
    return f"{run.name} ({run.key[:6]})"
