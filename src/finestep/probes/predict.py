"""Peak memory of a training step for any micro-batch, from four shadow steps: two depths by two numbers of rows.

At every moment of a step the live bytes are a + b L + c m + d L m in depth L and rows m, because layers and rows are alike. So four
small steps give every moment at every size, and the peak is the highest of their lines.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from finestep.probe import Lever, MemoryCase, MemoryCurve, MemoryLine, Prediction
from finestep.probes.live_storages import CATEGORIES, Timeline
from finestep.probes.shadow import Shadow
from finestep.rules.memory_lines import upper_lines

if TYPE_CHECKING:
    from transformers import PretrainedConfig

FEW_ROWS, MORE_ROWS = 2, 4
"""Memory of two rows is predicted, not of one: PyTorch gives some tensors of a single row as views, which take no memory, and copies them
where there are more rows."""
CHUNKS_SEEN = 3


class Predictor:
    """Shadows of one model at two depths; answers for any length and lever."""

    def __init__(self, config: PretrainedConfig, case: MemoryCase):
        self._num_layers = config.get_text_config().num_hidden_layers
        self._depths = _depths(config)
        self._shadows = [Shadow(config, case, num_layers=depth) for depth in self._depths]
        self._case = case

    def curve(self, length: int, *, lever: Lever, loss_tokens: int | None = None) -> MemoryCurve:
        """Memory over the micro-batch of rows of `length` tokens, of which `loss_tokens` carry loss (None: all)."""
        rows = _rows(length if loss_tokens is None else loss_tokens, lever)
        seen = [
            [_by_phase(shadow.step(count, length, lever=lever, loss_tokens=loss_tokens)) for count in rows]
            for shadow in self._shadows
        ]
        lines = [line for phase in seen[0][0] for line in self._lines(phase, seen, rows)]
        return MemoryCurve(lever=lever, length=length, lines=tuple(upper_lines(lines)))

    def num_parameters(self) -> tuple[int, int]:
        """(of the model, trained) parameters at full depth."""
        counts = np.array([shadow.num_parameters() for shadow in self._shadows], dtype=float)
        low, high = self._depths
        whole = counts[1] + (counts[1] - counts[0]) / (high - low) * (self._num_layers - high)
        return round(whole[0]), round(whole[1])

    def _lines(
        self, phase: str, seen: Sequence[Sequence[dict[str, np.ndarray]]], rows: tuple[int, int]
    ) -> list[MemoryLine]:
        parts = [[timeline.get(phase) for timeline in shallow] for shallow in seen]
        if any(part is None for depth in parts for part in depth):
            return []
        if len({len(part) for depth in parts for part in depth}) > 1:  # type: ignore[arg-type]
            parts = [[part[part.sum(axis=1).argmax()][None] for part in depth] for depth in parts]  # type: ignore[index,union-attr]
        low, high = self._depths
        shallow, deep = np.array(parts[0], dtype=float), np.array(parts[1], dtype=float)
        whole = deep + (deep - shallow) / (high - low) * (self._num_layers - high)
        slope_EC = (whole[1] - whole[0]) / (rows[1] - rows[0])
        fixed_EC = whole[0] - slope_EC * rows[0]
        best = _candidates(fixed_EC.sum(axis=1), slope_EC.sum(axis=1))
        return [_line(phase, fixed_EC[event], slope_EC[event]) for event in best]


def predict(
    config: PretrainedConfig, case: MemoryCase, *, length: int, levers: Sequence[Lever], loss_tokens: int | None = None
) -> Prediction:
    """The curves of a model for several settings of the levers."""
    started = time.monotonic()
    predictor = Predictor(config, case)
    curves = tuple(predictor.curve(length, lever=lever, loss_tokens=loss_tokens) for lever in levers)
    total, trained = predictor.num_parameters()
    return Prediction(
        case=case,
        num_parameters=total,
        num_trained=trained,
        curves=curves,
        elapsed_s=round(time.monotonic() - started, 2),
    )


def _depths(config: PretrainedConfig) -> tuple[int, int]:
    """Two depths whose layers repeat as the whole model's do (Gemma: five sliding windows, then a whole one)."""
    kinds = getattr(config.get_text_config(), "layer_types", None) or []
    period = next((p for p in range(1, len(kinds)) if all(a == b for a, b in zip(kinds, kinds[p:], strict=False))), 1)
    step = period * max(1, -(-2 // period))
    return step, 2 * step


def _rows(loss_tokens: int, lever: Lever) -> tuple[int, int]:
    """So many rows that chunked losses have a few chunks already."""
    few = FEW_ROWS
    if lever.chunk_tokens:
        few = max(few, -(-CHUNKS_SEEN * lever.chunk_tokens // max(loss_tokens, 1)))
    return few, few * MORE_ROWS // FEW_ROWS


def _by_phase(timeline: Timeline) -> dict[str, np.ndarray]:
    """Events by phase, [events, categories]."""
    names = np.array(timeline.phases)
    return {name: timeline.bytes_EC[names == name] for name in dict.fromkeys(timeline.phases)}


def _candidates(fixed_E: np.ndarray, slope_E: np.ndarray) -> list[int]:
    """Events that are the highest of their phase at some number of rows (looked for on a grid of powers of two)."""
    return sorted({int((fixed_E + slope_E * 2.0**power).argmax()) for power in range(0, 21)})


def _line(phase: str, fixed_C: np.ndarray, slope_C: np.ndarray) -> MemoryLine:
    return MemoryLine(
        phase=phase,
        fixed={name: round(float(value)) for name, value in zip(CATEGORIES, fixed_C, strict=True)},
        per_row={name: round(float(value), 1) for name, value in zip(CATEGORIES, slope_C, strict=True)},
    )
