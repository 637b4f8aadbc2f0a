"""What stands beside a trial's saved weights: what they are and how they load, and rows on which a reload can be checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finestep.disk import new_folder, write_whole
from finestep.protocol import SessionRequest
from finestep.saved_model import CAUSAL, CLASSIFIER, CONFIG, CheckRows, Loading, Sample, SavedModel, TrainedOn
from finestep.store.model_card import write_card
from finestep.study import DataSpec, ModelSpec
from finestep.study_layout import CHECK_ROWS, MODEL
from finestep.survey.adapter_files import absolute_name, point_at_own_base
from finestep.train.checkpoint import seal
from finestep.train.evaluate import prompt_and_answer
from finestep.train.token_rows import TokenRows

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from finestep.train.lane import Lane

NUM_CHECKED = 32
NUM_SHOWN = 3
LONGEST_START = 32
"""Of a row of plain text, at most so many tokens are the prompt that is shown."""


def save_trial(lane: Lane, folder: Path, session: SessionRequest) -> None:
    """The weights with all that a user needs to load them; beside them the rows on which a reload is checked."""
    final, values = folder / MODEL, lane.values()
    needed = sum(value.numel() * value.element_size() for value in values.values())
    with new_folder(final, needed_bytes=needed) as partial:
        lane.resident.save_tuned(lane.recipe, values, str(partial))
        point_at_own_base(partial, final)
        _allow_cache(partial)
        name = Path(session.study_dir).resolve().name
        write_card(partial, describe(lane, lane.resident.model_spec, session.data), name=name)
        if (rows := check_rows(lane)) is not None:
            write_whole(folder / CHECK_ROWS, rows.model_dump_json())
        seal(partial)


def checked_rows(num_rows: int) -> np.ndarray:
    """Which validation rows a reload is checked on: evenly spread, for files may be sorted."""
    return np.unique(np.linspace(0, num_rows - 1, min(NUM_CHECKED, num_rows)).round().astype(np.int64))


def check_rows(lane: Lane) -> CheckRows | None:
    """The rows with what was measured on them with the weights that are kept; None when the trial has no such figures."""
    rows, sums = lane.resident.data.evaluation, lane.progress.best_sums
    chosen = checked_rows(len(rows))
    if len(sums) != len(chosen):
        return None
    classes = () if rows.classes is None else tuple(int(rows.classes[row]) for row in chosen)
    return CheckRows(
        ids=tuple(tuple(rows.ids[_tokens_of(rows, row)].tolist()) for row in chosen),
        trained=() if classes else tuple(tuple(rows.trained[_tokens_of(rows, row)].tolist()) for row in chosen),
        classes=classes,
        sums=tuple(sums),
        units=tuple(rows.num_loss_units([row]) for row in chosen),
        samples=_samples(rows, chosen),
    )


def describe(lane: Lane, model: ModelSpec, data: DataSpec) -> SavedModel:
    """What the folder of a trial's weights holds."""
    outcome, resident = lane.outcome, lane.resident
    assert outcome is not None
    assert outcome.eval_loss is not None
    figures = {"eval_loss": outcome.eval_loss}
    if outcome.base_eval_loss is not None:
        figures["base_eval_loss"] = outcome.base_eval_loss
    return SavedModel(
        method=lane.recipe.method,
        loading=Loading(
            auto_class=_auto_class(resident.base, is_classifier=bool(lane.resident.data.label_names)),
            base=absolute_name(model.path),
            revision=model.revision,
            dtype=str(resident.placement.weights_dtype).removeprefix("torch."),
            autocast=resident.placement.autocast,
            trust_remote_code=model.trust_remote_code,
        ),
        labels=lane.resident.data.label_names,
        trained_on=TrainedOn(
            data=data.path,
            num_rows=len(lane.resident.data.train),
            num_eval_rows=len(lane.resident.data.evaluation),
            max_length=lane.resident.data.max_length,
        ),
        recipe=lane.recipe,
        figures={**figures, **outcome.metrics},
    )


def _allow_cache(folder: Path) -> None:
    """Training switches the cache of keys and values off; who writes text with the saved model needs it on."""
    path = folder / CONFIG
    if not path.is_file():
        return
    config = json.loads(path.read_text(encoding="utf-8"))
    for part in (config, config.get("text_config") or {}):
        if part.get("use_cache") is False:
            part["use_cache"] = True
    write_whole(path, json.dumps(config, indent=2, sort_keys=True) + "\n")


def _auto_class(model: PreTrainedModel, *, is_classifier: bool) -> str:
    """The class of transformers that loads this one."""
    import transformers

    if is_classifier:
        return CLASSIFIER
    config = type(model.config)
    for name in (CAUSAL, "AutoModelForImageTextToText"):
        mapping = getattr(transformers, name)._model_mapping
        # asked by the config: going through all classes would import every model that transformers knows
        known = mapping.get(config, ())
        if type(model) in (known if isinstance(known, tuple) else (known,)):
            return name
    return CAUSAL


def _tokens_of(rows: TokenRows, row: int) -> slice:
    return slice(rows.offsets[row], rows.offsets[row + 1])


def _samples(rows: TokenRows, chosen: np.ndarray) -> tuple[Sample, ...]:
    """The first, the middle and the last of the rows, each with the place where its answer begins."""
    places = sorted({0, len(chosen) // 2, len(chosen) - 1})[:NUM_SHOWN]
    if rows.classes is not None:
        return tuple(Sample(row=place, prompt_end=0, answer_end=0) for place in places)
    found = []
    for place in places:
        prompt, answer = prompt_and_answer(rows, int(chosen[place]))
        start, end = len(prompt), len(prompt) + len(answer)
        if start <= 1:  # plain text: its beginning is the prompt
            start = max(1, min(end // 2, LONGEST_START))
        found.append(Sample(row=place, prompt_end=start, answer_end=end))
    return tuple(found)
