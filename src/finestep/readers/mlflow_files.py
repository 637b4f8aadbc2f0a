"""MLflow's old file store: `<run>/metrics/<name>`, lines of `<milliseconds> <value> <step>`."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from finestep.diagnosis.training_log import TrainingLog
from finestep.readers.limits import MAX_FILES, MAX_ROWS, number
from finestep.readers.row_table import RowTable
from finestep.readers.text_stream import lines


def is_run_folder(path: Path) -> bool:
    """True for a run's folder of the file store."""
    return (path / "metrics").is_dir() and ((path / "meta.yaml").is_file() or (path / "params").is_dir())


def read_run_folder(path: Path) -> list[TrainingLog]:
    """One run; a metric's name is its path below `metrics/`."""
    table, root = RowTable(), path / "metrics"
    for file in sorted(islice((each for each in root.rglob("*") if each.is_file()), MAX_FILES)):
        name = file.relative_to(root).as_posix()
        for line in islice(lines(file), MAX_ROWS):
            parts = line.split()
            if len(parts) == 3:
                table.add({"step": number(parts[2]), name: number(parts[1])})
            elif parts:
                table.num_skipped += 1
    return _sorted_logs(table, path)


def _sorted_logs(table: RowTable, path: Path) -> list[TrainingLog]:
    return table.logs(name=path.name, source=str(path), format="MLflow file store")
