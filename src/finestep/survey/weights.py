"""The files of a checkpoint, judged without loading them: is it whole, and can its weights be trained?

It reads headers and small JSON files only, so that `recommend` and `tune` refuse the same folders with the same words.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from finestep.disk import refuse_special
from finestep.errors import BadInput

MAX_HEADER_BYTES = 100 * 2**20
INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
POINTER_OF_LFS = b"version https://git-lfs"
TRAINABLE_AFTER_UNPACKING = ("mxfp4", "fp8")
"""Ways of packing weights that transformers can turn back into bfloat16 while it loads them."""

SEQ2SEQ_LAW = "sequence-to-sequence models (T5, BART, ...) are outside of what finestep trains on text"
SEQ2SEQ_NEXT_STEP = (
    "take a decoder-only model, or let your own trainer do it under `finestep tune --command` (docs/any_trainer.md)"
)


class TensorHeader(NamedTuple):
    """Shape and dtype of a tensor by the header of its file."""

    shape: list[int]
    dtype: str


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model's weights, without those of an adapter."""
    return sorted(file for file in folder.glob("*.safetensors") if not file.name.startswith("adapter_"))


def tensor_headers(file: Path) -> dict[str, TensorHeader]:
    """Every tensor of a safetensors file by its name, from its header alone.

    Raises:
        BadInput: the file is cut off, is a pointer of Git LFS, or is no safetensors file.
    """
    refuse_special(file)
    try:
        with file.open("rb") as handle:
            first = handle.read(8)
            if len(first) == 8 and POINTER_OF_LFS.startswith(first):
                raise _pointer(file)
            (length,) = struct.unpack("<Q", first)
            if length > MAX_HEADER_BYTES:
                raise ValueError("its header is too long")
            header = json.loads(handle.read(length))
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        wanted = 8 + length + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        tensors = {name: _header_of(entry) for name, entry in entries.items()}
    except BadInput:
        raise
    except (
        OSError,
        ValueError,
        struct.error,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        RecursionError,
    ) as error:
        raise BadInput(
            "not a valid safetensors file",
            value=str(error)[:80] or type(error).__name__,
            place=str(file),
            next_step="was the download complete? Download this file again",
        ) from None
    if (found := file.stat().st_size) < wanted:
        raise BadInput(
            f"the weights are cut off: the file must have {wanted:,} bytes",
            value=found,
            place=str(file),
            next_step="download this file again",
        )
    return tensors


def _header_of(entry: Mapping[str, object]) -> TensorHeader:
    shape, dtype = entry["shape"], entry["dtype"]
    if (
        not isinstance(shape, list)
        or not isinstance(dtype, str)
        or not all(type(length) is int and 0 <= length < 2**48 for length in shape)
    ):
        raise ValueError("a tensor without a shape or a dtype")
    return TensorHeader(shape, dtype)


def check_weights(folder: Path) -> None:
    """Raise BadInput for weights that are missing in part or damaged; a folder without any safetensors passes.

    Raises:
        BadInput: a file of the index is missing, is cut off, or is a pointer of Git LFS.
    """
    for file in _indexed_files(folder):
        if not file.is_file():
            raise BadInput(
                f"a part of the weights is missing: {INDEX} names it",
                value=file.name,
                place=str(folder),
                next_step="download this file, then run the same command again",
            )
    for file in weight_files(folder):
        tensor_headers(file)


def refuse_packed_weights(config: Mapping[str, object], place: str) -> None:
    """Raise BadInput where a checkpoint holds quantised weights that cannot be trained.

    Raises:
        BadInput: GPTQ, AWQ, bitsandbytes, compressed-tensors, HQQ and their like.
    """
    packed = config.get("quantization_config") or config.get("compression_config")
    if not isinstance(packed, Mapping):
        return
    name = str(packed.get("quant_method") or packed.get("quant_library") or "unknown")
    if name.lower() in TRAINABLE_AFTER_UNPACKING:
        return
    raise BadInput(
        "the weights must not be quantised: finestep trains from the original checkpoint",
        value=name,
        place=place,
        next_step="give the unquantised model; --method qlora quantises it to 4 bits while loading",
    )


def refuse_gguf(path: Path) -> None:
    """Raise BadInput for a GGUF file, or a folder that holds nothing else.

    Raises:
        BadInput: it is GGUF.
    """
    is_file = path.is_file() and path.suffix.lower() == ".gguf"
    is_folder = path.is_dir() and not (path / "config.json").exists() and any(path.glob("*.gguf"))
    if is_file or is_folder:
        raise BadInput(
            "GGUF weights are packed for inference and cannot be trained",
            value=path.name,
            next_step="give the folder or Hub name of the original model (config.json and *.safetensors)",
        )


def _pointer(file: Path) -> BadInput:
    return BadInput(
        "the weights are a pointer of Git LFS, not the file itself",
        place=str(file),
        next_step="run `git lfs pull` in that folder, or download the file",
    )


def _indexed_files(folder: Path) -> Iterator[Path]:
    """The files that the index of a sharded checkpoint names."""
    index = folder / INDEX
    if not index.is_file():
        return
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise BadInput(
            "the index of the weights cannot be read",
            value=type(error).__name__,
            place=str(index),
            next_step="download this file again",
        ) from None
    for name in sorted(str(name) for name in names):
        yield folder / name
