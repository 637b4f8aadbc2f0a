"""Batches of rows, laid out on the host and sent to the device in one copy. It knows no model and never shuffles.

A GPU that computes short rows waits for its host: each copy from pageable memory, and each look at a tensor's values, stops the
host until the device has caught up. So all that a pass needs, down to the places that carry loss, is computed here with numpy.

Shapes: N rows, S tokens of the longest row, L lanes, K places that carry loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from finestep.train.token_rows import TokenRows

NO_LOSS = -100
"""What PyTorch's cross entropy leaves out."""


@dataclass(frozen=True)
class Batch:
    """Padded tensors; `labels_NS` is -100 where there is no loss (already in place, shifted by the loss)."""

    ids_NS: torch.Tensor
    attention_NS: torch.Tensor
    labels_NS: torch.Tensor | None = None
    classes_N: torch.Tensor | None = None
    types_NS: torch.Tensor | None = None
    """For two texts of a classifier: which of them a token belongs to."""
    kept_K: torch.Tensor | None = None
    """Places in the flat batch whose next token carries loss; of several lanes equally many each."""
    targets_K: torch.Tensor | None = None
    """The token that should follow each of them; -100 fills a lane up."""
    units_L: torch.Tensor | None = None
    """What the loss of each lane is divided by."""
    positions_NS: torch.Tensor | None = None
    """Of rows that hold several texts end to end: the place of each token in its text."""
    texts_NS: torch.Tensor | None = None
    """Of such rows: the number of the text that each token belongs to."""


def collate(rows: TokenRows, chosen: Sequence[int] | np.ndarray, *, pad_id: int, device: torch.device) -> Batch:
    """Pad the chosen rows on the right to the longest of them."""
    return _sent(_padded(rows, chosen, pad_id=pad_id, spare_N=np.zeros(len(chosen), dtype=bool)), 1, device, fill=False)


def collate_lanes(
    rows: TokenRows,
    lanes: Sequence[np.ndarray],
    *,
    pad_id: int,
    device: torch.device,
    units: Sequence[int] | None = None,
    rounded: Callable[[int], int] | None = None,
) -> tuple[Batch, list[int]]:
    """(one batch of the rows of all lanes, lane after lane; how many loss units each lane has in it).

    Every lane gets as many rows as the longest; what is filled up carries no loss.

    Args:
        units: what the loss of each lane will be divided by; it travels with the batch.
        rounded: rounds the length of rows and the places with loss up, so that few shapes come back often.
    """
    # A device may have no rows in this pass: one that carries no loss stands in, and the pass is made all the same.
    most = max(1, *(len(chosen) for chosen in lanes))
    filled = np.concatenate([np.resize(chosen, most) for chosen in lanes])
    spare_N = np.concatenate([np.arange(most) >= len(chosen) for chosen in lanes])
    arrays = _padded(rows, filled, pad_id=pad_id, spare_N=spare_N, rounded=rounded or int)
    if units is not None:
        arrays["units_L"] = np.asarray(units, dtype=np.int64)
    batch = _sent(arrays, len(lanes), device, fill=True, rounded=rounded or int)
    return batch, [rows.num_loss_units(chosen) for chosen in lanes]


def collate_end_to_end(
    rows: TokenRows,
    lanes: Sequence[np.ndarray],
    *,
    pad_id: int,
    device: torch.device,
    units: Sequence[int] | None = None,
) -> tuple[Batch, list[int]]:
    """As `collate_lanes`, with no padding between texts: a lane is one row that holds its texts end to end.

    Only the end of a lane is filled up, to the tokens of the longest lane. The model must be told where texts begin
    (`end_to_end.py` proves that it listens).
    """
    longest = max(1, *(int(rows.lengths[chosen].sum()) for chosen in lanes))
    shape = (len(lanes), longest)
    arrays = {"ids_NS": np.full(shape, pad_id, dtype=np.int64), "attention_NS": np.zeros(shape, dtype=np.int64)}
    arrays["labels_NS"] = np.full(shape, NO_LOSS, dtype=np.int64)
    arrays["positions_NS"], arrays["texts_NS"] = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for lane, chosen in enumerate(lanes):
        end = 0
        for number, row in enumerate(chosen):
            first, last = rows.offsets[row], rows.offsets[row + 1]
            here = (lane, slice(end, end + last - first))
            end += int(last - first)
            ids = arrays["ids_NS"][here] = rows.ids[first:last].astype(np.int64)
            arrays["attention_NS"][here], arrays["texts_NS"][here] = 1, number
            arrays["positions_NS"][here] = np.arange(last - first)
            # The first token of a text follows nothing: the token before it belongs to another text.
            arrays["labels_NS"][here] = np.where(rows.trained[first:last], ids, NO_LOSS)
            arrays["labels_NS"][lane, here[1].start] = NO_LOSS
        arrays["texts_NS"][lane, end:] = len(chosen)
        arrays["positions_NS"][lane, end:] = np.arange(longest - end)
    if units is not None:
        arrays["units_L"] = np.asarray(units, dtype=np.int64)
    return _sent(arrays, len(lanes), device, fill=True), [rows.num_loss_units(chosen) for chosen in lanes]


def _padded(
    rows: TokenRows,
    chosen: Sequence[int] | np.ndarray,
    *,
    pad_id: int,
    spare_N: np.ndarray,
    rounded: Callable[[int], int] = int,
) -> dict[str, np.ndarray]:
    """The fields of a batch by name; rows of `spare_N` are there for their shape alone."""
    longest = rounded(int(max(rows.offsets[row + 1] - rows.offsets[row] for row in chosen)))
    shape = (len(chosen), longest)
    arrays = {"ids_NS": np.full(shape, pad_id, dtype=np.int64), "attention_NS": np.zeros(shape, dtype=np.int64)}
    if rows.classes is not None:
        arrays["classes_N"] = np.where(spare_N, NO_LOSS, rows.classes[np.asarray(chosen)])
    else:
        arrays["labels_NS"] = np.full(shape, NO_LOSS, dtype=np.int64)
    if rows.types is not None:
        arrays["types_NS"] = np.zeros(shape, dtype=np.int64)
    for place, row in enumerate(chosen):
        start, end = rows.offsets[row], rows.offsets[row + 1]
        here = (place, slice(0, end - start))
        arrays["ids_NS"][here] = rows.ids[start:end]
        arrays["attention_NS"][here] = 1
        if rows.types is not None:
            arrays["types_NS"][here] = rows.types[start:end]
        if rows.classes is None and not spare_N[place]:
            # From the padded ids: the rows' own are unsigned, and -100 would wrap around.
            arrays["labels_NS"][here] = np.where(rows.trained[start:end], arrays["ids_NS"][here], NO_LOSS)
    return arrays


def _sent(
    arrays: dict[str, np.ndarray],
    num_lanes: int,
    device: torch.device,
    *,
    fill: bool,
    rounded: Callable[[int], int] = int,
) -> Batch:
    if "labels_NS" in arrays:
        kept_K, targets_K = places_with_loss(arrays["labels_NS"])
        if fill:
            tokens = arrays["labels_NS"].size // num_lanes
            kept_K, targets_K = fill_lanes(kept_K, targets_K, tokens, num_lanes, rounded=rounded)
        arrays |= {"kept_K": kept_K, "targets_K": targets_K}
    return Batch(**send(arrays, device))


def places_with_loss(labels_NS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(places in the flat batch whose next token carries loss, these next tokens)."""
    next_NS = np.full_like(labels_NS, NO_LOSS)
    next_NS[:, :-1] = labels_NS[:, 1:]
    kept_K = np.flatnonzero(next_NS != NO_LOSS)
    return kept_K, next_NS.reshape(-1)[kept_K]


def fill_lanes(
    kept_K: np.ndarray,
    targets_K: np.ndarray,
    tokens_a_lane: int,
    num_lanes: int,
    *,
    rounded: Callable[[int], int] = int,
) -> tuple[np.ndarray, np.ndarray]:
    """The same with equally many places in each lane, so that one sum along rows gives the loss of every lane.

    What is filled up points at the lane's first token and carries no loss: a lane never reads another lane's token, whose value
    might be no number.
    """
    # Rows of a lane lie one after the other in the flat batch, so that a place tells its lane by division.
    lane_K = kept_K // tokens_a_lane
    counts_L = np.bincount(lane_K, minlength=num_lanes)
    most = rounded(max(int(counts_L.max()), 1))
    kept_LM = np.repeat(np.arange(num_lanes, dtype=np.int64) * tokens_a_lane, most).reshape(num_lanes, most)
    targets_LM = np.full((num_lanes, most), NO_LOSS, dtype=np.int64)
    is_used_LM = np.arange(most) < counts_L[:, None]
    kept_LM[is_used_LM], targets_LM[is_used_LM] = kept_K, targets_K
    return kept_LM.reshape(-1), targets_LM.reshape(-1)


def send(arrays: Mapping[str, np.ndarray], device: torch.device) -> dict[str, torch.Tensor]:
    """Integer arrays as tensors on the device, all in one copy; the host does not wait for it."""
    total = sum(values.size for values in arrays.values())
    buffer = torch.empty(total, dtype=torch.int64, pin_memory=device.type == "cuda")
    flat = buffer.numpy()
    places: dict[str, slice] = {}
    start = 0
    for name, values in arrays.items():
        places[name] = slice(start, start + values.size)
        flat[places[name]] = values.reshape(-1)
        start += values.size
    there = buffer.to(device, non_blocking=True)
    return {name: there[place].view(arrays[name].shape) for name, place in places.items()}
