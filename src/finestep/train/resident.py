"""The resident base: loaded once, put back into its initial state for every trial.

For LoRA the base stays frozen and trials are rows of adapters on it; for method `full` the initial weights are restored in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from finestep.errors import BadInput
from finestep.recipe import Recipe
from finestep.study import DataSpec, ModelSpec, RetentionSpec
from finestep.survey.adapter_files import adapter_folder
from finestep.train.adapter_family import AdapterFamily, find_family
from finestep.train.adapters import AdapterRows
from finestep.train.behaviour import (
    check_forward,
    check_ids,
    draws_random_numbers,
    in_words,
    looks_ahead,
    outside_of_text,
)
from finestep.train.devices import ALONE, Devices
from finestep.train.end_to_end import why_padded
from finestep.train.evaluate import Evaluation
from finestep.train.forgetting import ForgettingWatch, read_general_text
from finestep.train.independence import padding_changes_loss
from finestep.train.longest_row import longest_row
from finestep.train.loss import TokenLoss
from finestep.train.model import Placement, based_on, choose_placement, context_length, load_model, load_tokenizer
from finestep.train.new_weights import reset_new
from finestep.train.plain_base import PlainBase, copies
from finestep.train.saving import save_model
from finestep.train.sharding import shard, tied
from finestep.train.tokens import TrainingData, prepare_data
from finestep.train.trial_rows import TrialRows, Values
from finestep.train.whole_model import WholeModel, load_trained, trained

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


class Resident:
    """Tokenizer, data and model of a study, shared by all its trials.

    The base is in one of two states: a plain model (PEFT's, for an adapter), which `begin` gives, or the base of a pack of trials,
    which `open_rows` gives. Each call ends the other state.

    Args:
        placement: where and in which precision to compute; None: what suits the device.
        devices: those that train each trial together.
    """

    def __init__(
        self,
        model: ModelSpec,
        data: DataSpec,
        recipe: Recipe,
        *,
        retention: RetentionSpec | None = None,
        placement: Placement | None = None,
        devices: Devices = ALONE,
    ):
        self.devices = devices
        self.model_spec = based_on(model)
        self.adapter = adapter_folder(model.path)
        self.placement = placement or choose_placement(model, recipe)
        self.tokenizer = load_tokenizer(model)
        self.data: TrainingData = prepare_data(
            data, self.tokenizer, context_length=context_length(model), longest=longest_row(model, recipe)
        )
        self._known = _Known()
        self.base, self.new_names, self.notes = load_model(self.model_spec, self.data, recipe, self.placement)
        self.outside = self._look_at_base()
        self.token_loss = TokenLoss(self.base, self.placement)
        with in_words(self.base):
            is_padding_seen = padding_changes_loss(self.base, self.token_loss, self.data)
        if is_padding_seen:
            self.token_loss.one_length_at_a_time = True
            self.notes.append(
                "its answers change with the padding behind a row: rows of one length are computed at a time"
            )
        self.forgetting_watch = self._watch(retention)
        self._plain = PlainBase(self.base, self.outside)
        self._rows: AdapterRows | WholeModel | None = None
        if recipe.method != "full" and (note := self.family(recipe).targets.note):
            self.notes.append(note)
        card = self.data.card.with_notes(*(f"model: {note}" for note in self.notes))
        self.data = replace(self.data, card=card)
        if devices.is_sharded:
            self._shard(recipe)

    def _look_at_base(self) -> list[str]:
        """Try the model on a few tokens; the parts that text never reaches, which stay frozen.

        Raises:
            BadInput: its forward pass fails, it looks ahead, or the data's ids go beyond its embeddings.
        """
        base, computing = self.base.eval(), self.placement.computing
        check_ids(base, max(int(rows.ids.max(initial=0)) for rows in (self.data.train, self.data.evaluation)))
        check_forward(base, computing=computing)
        if not self.data.label_names and looks_ahead(base, computing=computing):
            raise BadInput(
                "training on next tokens needs a model that cannot see later ones; here a later token changes earlier answers",
                value=base.config.model_type,
                next_step="an encoder learns from rows with a text and a label; a model that reads its prompt in both directions "
                "is outside of what finestep trains",
            )
        self._known.has_dropout, fault = draws_random_numbers(base, computing=computing)
        if fault:
            self.notes.append(f"a pass in training mode fails ({fault}): it trains as it is evaluated, without dropout")
        outside = outside_of_text(base, computing=computing)
        if outside:
            self.notes.append(f"only the text part is trained; {', '.join(outside[:4])} stay as they are")
        return outside

    def _shard(self, recipe: Recipe) -> None:
        """Cut the base over the devices; all that needs it as a plain model has been found out before.

        Raises:
            BadInput: its kind of training is not known to be right in parts.
        """
        if recipe.method == "qlora" or self.data.label_names:
            raise BadInput(
                "a base in parts is built for `full` and `lora` on texts",
                value=recipe.method if recipe.method == "qlora" else "labels",
                place="--sharding",
                next_step="leave out `--sharding`, so that each device holds the whole model",
            )
        self._to_base()
        self.base.requires_grad_(recipe.method == "full")
        shard(self.base, self.placement.device)

    def family(self, recipe: Recipe) -> AdapterFamily:
        """Where the adapters of recipes like this one go, and whether several of them can share a forward pass."""
        key = (recipe.method, recipe.lora.target_modules, recipe.lora.dropout > 0)
        if key not in self._known.families:
            with self._rows_aside():
                self._to_base()
                self._known.families[key] = find_family(
                    self.base,
                    recipe,
                    data=self.data,
                    token_loss=self.token_loss,
                    new_names=self.new_names,
                    outside=self.outside,
                    adapter=self.adapter,
                )
        return self._known.families[key]

    def begin(self, recipe: Recipe) -> PreTrainedModel | PeftModel:
        """The plain model in the initial state of `recipe`: its seed, its method, its adapter; equal recipes start equal."""
        if recipe.method != "full":
            self.family(recipe)
        self._to_base()
        if self.new_names:
            reset_new(self.base, self.new_names, seed=recipe.seed)
        if recipe.method == "full":
            return self._plain.whole()
        return self._plain.adapted(recipe, self.family(recipe).targets, is_classifier=bool(self.data.label_names))

    def initial_values(self, recipe: Recipe) -> Values:
        """The trained tensors before the first step by their names in a saved adapter or model; of adapters copies."""
        if recipe.method == "full":
            return trained(self.begin(recipe))
        key = _start_of(recipe)
        if key not in self._known.initial:
            with self._rows_aside():
                self._known.initial[key] = copies(self.begin(recipe))
        return self._known.initial[key]

    def open_rows(self, recipe: Recipe, *, room: int = 1) -> AdapterRows | WholeModel:
        """An empty pack on the base, for trials with the method and the target layers of `recipe`.

        Args:
            room: trials to make room for at once.
        """
        if recipe.method == "full":
            self._rows = WholeModel(self.begin(recipe), devices=self.devices)
        elif not self.family(recipe).shares_a_pass:
            model = self.begin(recipe)
            self._known.initial[_start_of(recipe)] = copies(model)
            self._rows = WholeModel(model, devices=self.devices)
        else:
            self._to_base()
            self._rows = AdapterRows(
                self.base,
                self.placement.device,
                dropout=recipe.lora.dropout,
                dtype=self.placement.rows_dtype,
                room=room,
                devices=self.devices,
            )
            self.token_loss.is_native = self.placement.native_rows
        return self._rows

    def base_evaluation(self, recipe: Recipe, compute: Callable[[], Evaluation]) -> Evaluation:
        """The evaluation of the initial state, which only the seed of a new head can change; computed once."""
        key = recipe.seed if self.new_names else None
        if key not in self._known.base_losses:
            self._known.base_losses[key] = compute()
        return self._known.base_losses[key]

    @property
    def max_forgetting(self) -> float | None:
        """Most KL from the base at the end that the study allows, nats a token."""
        return self.forgetting_watch.max_forgetting if self.forgetting_watch else None

    def forgetting(self, rows: TrialRows, number: int) -> dict[str, float]:
        """How far the trial has moved from the base on general text; nothing when that is not watched."""
        watch = self.forgetting_watch
        if watch is None:
            return {}
        with rows.only(number):
            found = watch.measure(self.base, self.token_loss.computing)
        return dict(zip(found, self.devices.of_first(np.array(list(found.values()))).tolist(), strict=True))

    def _watch(self, spec: RetentionSpec | None) -> ForgettingWatch | None:
        if spec is None:
            return None
        if self.data.label_names:
            raise BadInput(
                "watching what is forgotten needs a model that writes text; a classifier writes nothing", value="labels"
            )
        text = read_general_text(Path(spec.text_path))
        watch = ForgettingWatch(
            text,
            self.tokenizer,
            self.placement,
            vocabulary_size=self.base.config.get_text_config().vocab_size,
            max_forgetting=spec.max_forgetting,
        )
        watch.learn_base(self.base, self.token_loss.computing)
        return watch

    def tuned(self, recipe: Recipe, values: Values) -> PreTrainedModel | PeftModel:
        """The plain model with these trained tensors; of method `full` the model as it stands, with `values` in place."""
        model = self._plain.model if recipe.method == "full" else self.begin(recipe)
        load_trained(model, values)
        return model

    def save_tuned(self, recipe: Recipe, values: Values, folder: str) -> None:
        """Write a tuned model: a PEFT adapter (with every new module) or a whole model, and the tokenizer beside it."""
        with self._rows_aside():
            model = self.tuned(recipe, values)
            save_model(
                model,
                Path(folder),
                base=self.model_spec,
                new_names=set(self.new_names),
                is_classifier=bool(self.data.label_names),
                whole=self.whole_weights(recipe),
            )
        self.tokenizer.save_pretrained(folder)

    def whole_weights(self, recipe: Recipe) -> dict[str, torch.Tensor] | None:
        """All weights of a model in parts, put together on the first device; all devices must call it. None: they are whole."""
        if not self.devices.is_sharded or recipe.method != "full":
            return None
        named = self.base.state_dict()
        same = tied(named)
        whole = self.devices.whole({name: value for name, value in named.items() if same.get(name, name) == name})
        return {name: whole[same.get(name, name)] for name in named}

    def why_alone(self, recipe: Recipe) -> str | None:
        """Why a trial cannot share a forward pass with others, or None when it can."""
        if recipe.method == "full":
            return "full fine-tuning changes the base, so every trial needs its own"
        if self.token_loss.one_length_at_a_time:
            return "its answers change with the padding behind a row"
        return self.why_random(recipe) or self.family(recipe).why_alone

    def why_padded(self) -> str | None:
        """Why rows must be padded to one length, or None where they may be laid end to end; tried once, on the base."""
        if self._known.padded is None:
            with self._rows_aside():
                self._to_base()
                self._known.padded = (why_padded(self.base, self.token_loss, self.data),)
        return self._known.padded[0]

    def why_random(self, recipe: Recipe) -> str | None:
        """Why a pass in training mode draws random numbers, or None when it does not."""
        if self._known.has_dropout or (recipe.lora.dropout and recipe.method != "full"):
            return "its dropout draws are shared by all rows of a batch"
        return None

    @contextmanager
    def _rows_aside(self) -> Iterator[None]:
        """Inside, the base is free for a plain model; afterwards the pack is on it again."""
        rows = self._rows
        if not isinstance(rows, AdapterRows):
            yield
            return
        # The layers only: the rows themselves stay, so that training goes on where it was.
        rows.uninstall()
        try:
            yield
        finally:
            self._to_base()
            self._rows = rows
            self.token_loss.is_native = self.placement.native_rows
            rows.install()

    def _to_base(self) -> None:
        """Back to the base as it was loaded."""
        self.token_loss.is_native = False
        if self._rows is not None:
            self._rows.uninstall()
            self._rows = None
        self._plain.put_back()


@dataclass
class _Known:
    """What was found out once and holds for the whole study."""

    families: dict[object, AdapterFamily] = field(default_factory=dict)
    initial: dict[object, dict[str, torch.Tensor]] = field(default_factory=dict)
    base_losses: dict[object, Evaluation] = field(default_factory=dict)
    padded: tuple[str | None] | None = None
    has_dropout: bool = False


def lora_scale(recipe: Recipe) -> float:
    """The factor of an adapter's output: alpha / rank, or alpha / sqrt(rank) for rsLoRA (arXiv 2312.03732)."""
    return recipe.lora.alpha / (math.sqrt(recipe.lora.rank) if recipe.lora.use_rslora else recipe.lora.rank)


def _start_of(recipe: Recipe) -> object:
    """What the initial values of an adapter depend on."""
    return (recipe.method, recipe.lora.rank, recipe.lora.target_modules, recipe.lora.dropout > 0, recipe.seed)
