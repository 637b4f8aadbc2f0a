"""TensorBoard: an event file a trial under `tensorboard/`, with its recipe for the HParams tab."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from finestep.readers.tensorboard_events import last_step
from finestep.trackers.sink import Point, Run, Sink, Value

LONGEST = 500


class TensorBoardSink(Sink):
    """Writes event files."""

    one_at_a_time = False

    def __init__(self, folder: Path, study: str):
        self._folder, self._writers = folder / "tensorboard", dict[int, EventFileWriter]()

    def open(self, run: Run) -> int:
        place = self._folder / ("answer" if run.number < 0 else f"trial-{run.number:04d}")
        known = last_step(place)
        self._writers[run.number] = EventFileWriter(str(place))
        if known is None:
            self._add(run, 0, run.began, _hparams(run))
        return known or 0

    def log(self, run: Run, points: Sequence[Point]) -> None:
        for point in points:
            values = [Summary.Value(tag=name, simple_value=value) for name, value in point.values.items()]
            self._add(run, point.step, point.at, Summary(value=values))

    def end(self, run: Run, summary: Mapping[str, Value]) -> None:
        numbers = {name: float(v) for name, v in summary.items() if isinstance(v, int | float)}
        values = [Summary.Value(tag=f"outcome/{name}", simple_value=value) for name, value in numbers.items()]
        step = int(summary.get("num_steps") or 0)
        self._add(run, step, run.began + float(summary.get("elapsed_s") or 0.0), Summary(value=values))
        self._writers.pop(run.number).close()

    def flush(self) -> None:
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()

    def _add(self, run: Run, step: int, at: float, summary: Summary) -> None:
        self._writers[run.number].add_event(Event(wall_time=at, step=step, summary=summary))


def _hparams(run: Run) -> Summary:
    """The recipe as the HParams tab reads it; TensorBoard's own function for this needs TensorFlow."""
    start = SessionStartInfo(group_name=run.key, start_time_secs=run.began)
    for name, value in run.config.items():
        place = start.hparams[name]
        if isinstance(value, bool):
            place.bool_value = value
        elif isinstance(value, int | float):
            place.number_value = value
        elif value is not None:
            place.string_value = str(value)[:LONGEST]
    content = HParamsPluginData(version=metadata.PLUGIN_DATA_VERSION, session_start_info=start)
    plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=content.SerializeToString())
    told = SummaryMetadata(plugin_data=plugin)
    value = Summary.Value(tag=metadata.SESSION_START_INFO_TAG, metadata=told, tensor=metadata.NULL_TENSOR)
    return Summary(value=[value])
