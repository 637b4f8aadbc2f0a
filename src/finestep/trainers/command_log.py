"""The rate in the log of a user's own command beside the one it was told; read where the command leaves a log that we can read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from finestep.errors import BadInput, FinestepError
from finestep.readers.open_logs import find_logs, read_logs

OUT_FOLDER = re.compile(r"""['"]?\bout(?:put)?_dir['"]?\s*[=:]\s*(?:PosixPath\()?['"]?([^\s'",()]+)""")
"""A program that prints its settings names its output folder."""
HIGHER = 1.02
LOWER = 0.5
"""Of the rate that was asked for: below, warmup and thin logs cannot be the reason."""
FEWEST_ROWS = 5
MOST_FILES = 20


def refuse_another_rate(folder: Path, asked: float, *, output: str, since: float) -> list[float]:
    """The losses in the command's log, once its rate was seen to be the one that was asked for; empty when there is no log.

    Args:
        folder: of the trial.
        output: what the command printed.
        since: when it was started; older files are not its own.

    Raises:
        BadInput: the log says another rate.
    """
    losses: list[float] = []
    for path in _logs(folder, output, since):
        try:
            logs = read_logs(path)
        except FinestepError:
            continue
        for log in logs:
            rates = log.train.learning_rate[np.isfinite(log.train.loss) & np.isfinite(log.train.learning_rate)]
            _compare(rates, asked, path)
            found = log.train.loss[np.isfinite(log.train.loss)].tolist()
            losses = max(losses, found, key=len)
    return losses


def _compare(rates: np.ndarray, asked: float, path: Path) -> None:
    if not len(rates):
        return
    peak = float(rates.max())
    if peak > asked * HIGHER or (len(rates) >= FEWEST_ROWS and peak < asked * LOWER):
        raise BadInput(
            f"the command was told to train at learning rate {asked:.4g}, and its log says {peak:.4g}: it was not used",
            place=str(path),
            next_step="fix the command (one whole config file a trial is safest, `--with`); if it scales the rate on purpose, "
            "give --no-check-log",
        )


def _logs(folder: Path, output: str, since: float) -> Iterator[Path]:
    """Logs in the trial's folder, and in the output folder that the program says it uses."""
    named = [Path(name).expanduser() for name in OUT_FOLDER.findall(output)[:MOST_FILES]]
    seen: set[Path] = set()
    for place in (folder, *dict.fromkeys(path for path in named if path.is_dir())):
        try:
            found = find_logs(str(place))
        except FinestepError:
            continue
        for path in found[:MOST_FILES]:
            real = path.resolve()
            if real not in seen and path.is_file() and path.stat().st_mtime >= since - 1:
                seen.add(real)
                yield path
