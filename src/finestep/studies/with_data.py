"""The rows of somebody's config, split once for all trials and written as the framework reads them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finestep.disk import make_folder, write_whole
from finestep.errors import BadInput
from finestep.export.llama_factory import CHAT
from finestep.export.rows import Row as ExportRow
from finestep.export.rows import chat_rows, litgpt_rows, trl_rows
from finestep.flows.export import export_data
from finestep.foreign.config import ForeignConfig
from finestep.study import DataSpec
from finestep.survey.rows import read_rows
from finestep.survey.split import num_eval_rows
from finestep.trainers.data_places import Rows, files_for, rows_of
from finestep.trainers.framework import Framework

FEWEST_ROWS = 8
ASKED = ("system", "prompt", "instruction", "input", "question", "query")
"""Columns that ask."""


@dataclass(frozen=True)
class PreparedRows:
    """What the config must say, how many rows there are, and what to tell the user. None = the framework knows."""

    settings: Mapping[str, object]
    num_rows: int | None = None
    num_eval_rows: int | None = None
    note: str = ""


def prepared_rows(
    framework: Framework,
    config: ForeignConfig,
    tree: dict[str, object],
    *,
    base: Path,
    folder: Path,
    data: DataSpec | None,
) -> PreparedRows:
    """Split what the config names, or the data that the user gives instead, into two files of `folder`.

    Raises:
        BadInput: there is nothing to validate on.
    """
    rows = rows_of(framework, tree, base)
    if data is not None:
        return _of_data(framework, config, rows, tree, folder, data)
    if rows.files:
        train, held_out = 0, 0
        for index, file in enumerate(rows.files):
            found = [row for _, row in read_rows(str(file))]
            one, other = _split(found, file, share=None)
            _write(rows, folder, index, one, other)
            train, held_out = train + len(one), held_out + len(other)
        for name, text in rows.extra(folder).items():
            write_whole(folder / name, text)
        names = ", ".join(file.name for file in rows.files)
        note = f"rows: {train:,} of {names} to train on, {held_out:,} held out, the same for all trials"
        return PreparedRows(rows.settings(folder), train, held_out, note)
    if rows.has_evaluation:
        return PreparedRows({}, note=rows.note or "rows: as the file names them, its own validation rows with them")
    if framework.validation.own_split is not None:
        place = ".".join(map(str, framework.validation.own_split))
        return PreparedRows(
            {place: 0.1}, note=f"rows: {rows.note or 'not here'}; {framework.words} holds a tenth out (`{place}`)"
        )
    return PreparedRows({}, note=f"rows: {rows.note or 'as the file names them'}")


def _of_data(
    framework: Framework, config: ForeignConfig, rows: Rows, tree: dict[str, object], folder: Path, data: DataSpec
) -> PreparedRows:
    """Rows that the user names instead of the config's own: answers are written in the framework's format, pairs as they are."""
    single = _places_for_data(framework, rows, folder, is_supervised=config.is_supervised)
    if single is None:
        raise BadInput(
            f"`--data` has no place in this file for {framework.words}",
            value=data.path,
            next_step="name the rows in the config, and leave `--data` out",
        )
    if config.is_supervised and framework.name != "hf":
        found = export_data(data, config.model or "")
        if found is None:
            raise BadInput("data must be a local file or folder", value=data.path, place="--data")
        train, held_out = found.train, found.evaluation
        one = _in_format(framework, train, has_template=found.has_template)
        other = _in_format(framework, held_out, has_template=found.has_template)
    else:
        table = [row for _, row in read_rows(data.path, limit=data.max_rows)]
        if data.eval_path:
            one, other = table, [row for _, row in read_rows(data.eval_path)]
        else:
            one, other = _split(table, Path(data.path), share=data.eval_fraction)
    _write(single, folder, 0, one, other)
    for name, text in single.extra(folder).items():
        write_whole(folder / name, text)
    note = f"rows: {len(one):,} of {Path(data.path).name} to train on, {len(other):,} held out, the same for all trials"
    return PreparedRows(single.settings(folder), len(one), len(other), note)


def _places_for_data(framework: Framework, rows: Rows, folder: Path, *, is_supervised: bool) -> Rows | None:
    """Where one pair of files goes in a framework's config."""
    match framework.name:
        case "trl":
            settings = {"dataset_name": str(folder), "datasets": []}
            return Rows(settings=lambda _: settings, evaluation="test.jsonl")
        case "ms-swift":
            names = {"dataset": [str(folder / "train.jsonl")], "val_dataset": [str(folder / "eval.jsonl")]}
            return Rows(settings=lambda _: {**names, "split_dataset_ratio": 0.0})
        case "litgpt":
            data = {"class_path": "litgpt.data.JSON", "init_args": {"json_path": str(folder), "mask_prompt": True}}
            own = rows.settings(folder) or {"data": data}
            return Rows(settings=lambda _: own, train="train.json", evaluation="val.json", as_list=True)
        case "llamafactory" if is_supervised:
            return _llama_factory_chat(folder)
        case "axolotl" if is_supervised:
            train, held_out = (
                {"path": str(folder / name), "ds_type": "json", "type": "chat_template"} for name in _FILES
            )
            own = {"datasets": [train], "test_datasets": [{**held_out, "split": "train"}], "val_set_size": 0.0}
            return Rows(settings=lambda _: own)
        case "unsloth":
            return Rows(settings=lambda _: {"data.local_dataset": [str(folder / "train.jsonl")]})
        case "hf":
            return rows if rows.files else None
    return None


_FILES = ("train.jsonl", "eval.jsonl")


def _llama_factory_chat(folder: Path) -> Rows:
    info = {"train": {"file_name": _FILES[0], **CHAT}, "held_out": {"file_name": _FILES[1], **CHAT}}
    settings = {"dataset": "train", "eval_dataset": "held_out", "dataset_dir": str(folder)}
    return Rows(settings=lambda _: settings, extra=lambda _: {"dataset_info.json": json.dumps(info, indent=2) + "\n"})


def _in_format(framework: Framework, rows: Sequence[ExportRow], *, has_template: bool) -> list[dict[str, object]]:
    if framework.name == "trl":
        return trl_rows(rows, has_template=has_template)
    if framework.name == "litgpt":
        return litgpt_rows(rows, by_style=False)
    return chat_rows(rows)


def _split(
    rows: list[dict[str, object]], place: Path, *, share: float | None
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """(rows to train on, rows held out), by what the rows hold: the same file is split the same way everywhere."""
    if len(rows) < FEWEST_ROWS:
        raise BadInput(f"the data must have at least {FEWEST_ROWS} rows", value=len(rows), place=str(place))
    texts = [json.dumps(_asked(row), sort_keys=True, ensure_ascii=False, default=str) for row in rows]
    ranks = [hashlib.sha256(text.encode("utf-8", "backslashreplace")).digest() for text in texts]
    limit = sorted(set(ranks))[: num_eval_rows(len(rows), share)][-1]
    held = [rank <= limit for rank in ranks]
    if all(held):
        raise BadInput("the rows must not all be the same: no split is possible", value=len(rows), place=str(place))
    return (
        [row for row, out in zip(rows, held, strict=True) if not out],
        [row for row, out in zip(rows, held, strict=True) if out],
    )


def _asked(row: dict[str, object]) -> object:
    """What a row asks, so that no prompt stands on both sides; the whole row where that cannot be told."""
    return [row[name] for name in ASKED if row.get(name)] or row


def _write(rows: Rows, folder: Path, index: int, train: Sequence[object], held_out: Sequence[object]) -> None:
    make_folder(folder)
    for path, own in zip(files_for(rows, folder, index), (train, held_out), strict=True):
        if rows.as_list:
            text = json.dumps(list(own), ensure_ascii=False, indent=0) + "\n"
        else:
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in own)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_whole(path, text)
