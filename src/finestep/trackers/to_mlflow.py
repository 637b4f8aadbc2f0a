"""MLflow: a run a trial, in `$MLFLOW_TRACKING_URI` or a SQLite file in the study's folder.

MLflow keeps a point once by its run, name, step and time, all of which are the same when it is sent again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from finestep.trackers.sink import Point, Run, Value

VARIABLE, KEY = "MLFLOW_TRACKING_URI", "finestep.key"
MOST_AT_ONCE = 900
LONGEST = 5000


class MlflowSink:
    """Writes through MLflow's client."""

    one_at_a_time = False

    def __init__(self, folder: Path, study: str):
        self._client = MlflowClient(os.environ.get(VARIABLE) or f"sqlite:///{folder.resolve() / 'mlflow.db'}")
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or study
        found = self._client.get_experiment_by_name(name)
        place = None if os.environ.get(VARIABLE) else (folder.resolve() / "mlflow").as_uri()
        self._experiment = found.experiment_id if found else self._client.create_experiment(name, place)
        self._runs: dict[int, str] = {}

    def open(self, run: Run) -> int:
        found = self._client.search_runs([self._experiment], f"tags.`{KEY}` = '{run.key}'", max_results=1)
        if found:
            self._runs[run.number] = found[0].info.run_id
            self._client.update_run(self._runs[run.number], status="RUNNING")
            return 0
        tags = {KEY: run.key, "finestep.group": run.group}
        made = self._client.create_run(
            self._experiment, start_time=_ms(run.began) or None, tags=tags, run_name=run.name
        )
        self._runs[run.number] = made.info.run_id
        params = [Param(name, str(value)[:LONGEST]) for name, value in run.config.items() if value is not None]
        self._client.log_batch(self._runs[run.number], params=params[:100])
        return 0

    def log(self, run: Run, points: Sequence[Point]) -> None:
        metrics = [
            Metric(name, value, _ms(point.at), point.step) for point in points for name, value in point.values.items()
        ]
        for first in range(0, len(metrics), MOST_AT_ONCE):
            self._client.log_batch(self._runs[run.number], metrics=metrics[first : first + MOST_AT_ONCE])

    def end(self, run: Run, summary: Mapping[str, Value]) -> None:
        state = summary.get("state", "completed")
        self._summary(run, summary)
        ended = _ms(run.began + float(summary.get("elapsed_s") or 0.0)) or None
        status = "FINISHED" if state in ("completed", "stopped") else "FAILED"
        self._client.set_terminated(self._runs.pop(run.number), status=status, end_time=ended)

    def answer(self, run: Run, summary: Mapping[str, Value]) -> None:
        self.open(run)
        self._summary(run, summary)
        self._client.set_terminated(self._runs.pop(run.number))

    def flush(self) -> None:
        """Every call has arrived when it returns."""

    def close(self) -> None:
        """Nothing is held open."""

    def _summary(self, run: Run, summary: Mapping[str, Value]) -> None:
        at = _ms(run.began + float(summary.get("elapsed_s") or 0.0))
        numbers = [
            Metric(f"outcome/{name}", float(value), at, int(summary.get("num_steps") or 0))
            for name, value in summary.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        ]
        tags = [RunTag(f"finestep.{name.replace('/', '.')}", str(value)[:LONGEST]) for name, value in summary.items()]
        self._client.log_batch(self._runs[run.number], metrics=numbers, tags=tags)


def _ms(seconds: float) -> int:
    return int(1000 * seconds)
