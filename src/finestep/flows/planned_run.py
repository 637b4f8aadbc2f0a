"""The run that somebody's config describes: its batch, rows, steps and passes, each with how it is known; it judges nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

from finestep.facts import DataFacts, HardwareFacts
from finestep.foreign.config import ForeignConfig


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """None = neither the file nor the data say."""

    batch: int | None
    micro: int | None
    accumulation: int | None
    devices: int
    devices_from: str
    """file, gpu (as the user named it) or assumed."""
    rows: int | None
    steps: int | None
    epochs: float | None

    @property
    def product(self) -> str:
        """The batch in full."""
        if not (self.micro and self.accumulation):
            return f"effective batch {self.batch}"
        rows, devices = f"{self.micro} row{'s' * (self.micro > 1)}", f"{self.devices} device{'s' * (self.devices > 1)}"
        return f"effective batch {self.batch} = {rows} x {self.accumulation} accumulation x {devices}"


def planned_run(config: ForeignConfig, data: DataFacts | None, gpu: HardwareFacts | None) -> PlannedRun:
    """What the file decides, the data fill in, and `--gpu` says of the devices."""
    devices, source = _devices(config, gpu)
    micro, accumulation = _whole(config.value("micro_batch_size")), _whole(config.value("accumulation_steps"))
    batch = _whole(config.value("effective_batch_size"))
    if batch is None and micro:
        accumulation = accumulation or 1
        batch = micro * accumulation * devices
    elif batch and micro:
        accumulation = accumulation or max(1, batch // (micro * devices))
    rows = _rows(config, data)
    steps, epochs = _whole(config.length.max_steps), config.length.num_epochs
    if steps is None:
        epochs = config.value("num_epochs") if epochs is None else epochs
        steps = math.ceil(rows * epochs / batch) if rows and epochs and batch else None
    else:
        epochs = steps * batch / rows if rows and batch else None
    return PlannedRun(batch, micro, accumulation, devices, source, rows, steps, epochs)


def _devices(config: ForeignConfig, gpu: HardwareFacts | None) -> tuple[int, str]:
    if config.batch.num_devices:
        return config.batch.num_devices, "file"
    return (gpu.num_devices, "gpu") if gpu is not None and gpu.num_devices > 1 else (1, "assumed")


def _rows(config: ForeignConfig, data: DataFacts | None) -> int | None:
    """Training rows: those of the data, at most as many as the file allows, less its validation rows."""
    known = data.num_rows if data else None
    rows = (
        min(known, config.length.max_samples)
        if known and config.length.max_samples
        else known or config.length.max_samples
    )
    if rows is None:
        return None
    kept = config.length.num_eval_rows or (round(rows * config.length.eval_share) if config.length.eval_share else 0)
    return max(1, rows - kept) if known is None or config.length.max_samples else rows


def _whole(value: float | None) -> int | None:
    return int(value) if value and value > 0 else None
