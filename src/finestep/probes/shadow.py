"""A model of a config and one training step of it, without weights and without work (fake tensors), or real for comparison.

The forward pass, the loss, the adapters and the optimizer are the ones that training uses; only the numbers are missing.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from finestep.errors import BadInput
from finestep.probe import Lever, MemoryCase
from finestep.probes.live_storages import GRADIENTS, OPTIMIZER, WEIGHTS, LiveStorages, Timeline
from finestep.probes.twins import EightBitAdamW, FourBitLinear, quantise
from finestep.recipe import OptimizerGroup, Recipe
from finestep.survey.weights import SEQ2SEQ_LAW, SEQ2SEQ_NEXT_STEP
from finestep.train.adapters import AdapterRows
from finestep.train.batch import Batch
from finestep.train.checkpointing import checkpoint_layers, checkpointable_layers, keep_activations
from finestep.train.loss import TokenLoss
from finestep.train.model import Placement
from finestep.train.new_weights import trained_whole
from finestep.train.targets import attach, can_share_a_pass, detach, find_targets, structure_of
from finestep.train.update import UpdatePlan
from finestep.train.whole_model import WholeModel, trained

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CPU = torch.device("cpu")


class Shadow:
    """A model of `num_layers` layers that takes training steps, with `lanes` trials in each.

    Args:
        config: a transformers config; its depth is replaced.
        weightless: fake tensors, whose steps cost no memory and little time; else random weights and real steps.
    """

    def __init__(
        self, config: PretrainedConfig, case: MemoryCase, *, num_layers: int, lanes: int = 1, weightless: bool = True
    ):
        self._mode: AbstractContextManager[object] = FakeTensorMode() if weightless else contextlib.nullcontext()
        self._case, self.num_layers, self._lanes = case, num_layers, lanes
        self._tracker = LiveStorages(vocabulary_size=getattr(config.get_text_config(), "vocab_size", None))
        model, shapes = _build(with_depth(config, num_layers), case, device="meta" if weightless else "cpu")
        with self._mode:
            if weightless:
                _materialise(model)
            self._prepare(model, shapes)

    def _prepare(self, model: PreTrainedModel, shapes: dict[str, torch.Size]) -> None:
        self.model = model.eval()
        placement = Placement(
            CPU, DTYPES[self._case.weights_dtype], self._case.autocast, native_rows=_is_native(self._case)
        )
        self._loss = TokenLoss(model, placement)
        self._is_alone = not shapes
        self._loss.is_native = placement.native_rows and not self._is_alone
        self._rows: AdapterRows | WholeModel = (
            WholeModel(model) if self._is_alone else AdapterRows(model, CPU, dtype=placement.rows_dtype)
        )
        for lane in range(self._lanes):
            values = {name: torch.zeros(shape) for name, shape in shapes.items()} or trained(model)
            self._rows.join(lane, values, scale=1.0)
        self._trained = list(trained(model).values())
        self._plan = UpdatePlan(OptimizerGroup(), (), num_steps=1, learning_rate=1e-6)
        self._eight_bit = EightBitAdamW(self._trained) if self._case.optimizer == "adamw_8bit" else None
        self._watch_layers(checkpointable_layers(model))
        for value in self._trained:
            value.register_post_accumulate_grad_hook(self._gradient_arrived)
        self._first_update()

    def step(self, rows: int, length: int, *, lever: Lever, loss_tokens: int | None = None) -> Timeline:
        """The history of live bytes in one step over `rows` rows a trial, of which `loss_tokens` each carry loss (None: all)."""
        with self._mode, _without_numbers(), self._levered(lever):
            inputs = self._inputs(rows, length, loss_tokens or length - 1)
            batch, kept, labels_K = inputs
            self._tracker.hold([batch.ids_NS, batch.attention_NS, kept, labels_K], WEIGHTS)
            self._tracker.restart()
            with self._tracker:
                self._take_step(*inputs)
            return self._tracker.timeline()

    def plain_step(self, rows: int, length: int, *, lever: Lever) -> None:
        """The same step without a look at memory."""
        with self._levered(lever):
            self._take_step(*self._inputs(rows, length, length - 1))

    def static_bytes(self) -> int:
        """What is there between steps: weights, buffers, rows of adapters and optimizer state."""
        tensors = [
            *self.model.parameters(),
            *self.model.buffers(),
            *self._state(),
            *self._kept_gradients(),
            *self._shown(),
        ]
        return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}.values())

    def num_parameters(self) -> tuple[int, int]:
        """(of the model, trained) parameters, without adapters in the first; weights in 4 bits count as what they stand for."""
        packed = [m for m in self.model.modules() if isinstance(m, FourBitLinear)]
        more = sum(m.in_features * m.out_features - m.weight.numel() for m in packed)
        total = more + sum(value.numel() for value in self.model.parameters())
        mine = sum(value.numel() for value in self._trained)
        return total if self._case.method == "full" else total - mine, mine // self._lanes

    def _take_step(self, batch: Batch, kept: torch.Tensor, labels_K: torch.Tensor) -> None:
        """What `train/shared_pass.py` and `train/loop.py` do, without what needs numbers."""
        self._tracker.phase = "forward"
        if batch.classes_N is not None:
            each = torch.nn.functional.cross_entropy(
                self._loss.class_logits(self.model, batch), batch.classes_N, reduction="none"
            )
        else:
            each = self._loss.each_of_tokens(self.model, batch.ids_NS, kept, labels_K)
        losses = each.view(self._lanes, -1).sum(1) / len(each)
        loss = losses.sum()
        self._tracker.phase = "backward:head"
        loss.backward()
        self._rows.after_pass()
        losses = losses.detach()
        del each, loss
        self._tracker.phase = "optimizer"
        self._update(losses)

    def _update(self, losses: torch.Tensor) -> None:
        self._rows.add_losses(losses)
        if self._eight_bit is not None:
            self._eight_bit.step()
        else:
            # Fake tensors have no numbers to read; all that needs memory is done by then.
            with contextlib.suppress(DataDependentOutputException):
                self._rows.update(dict.fromkeys(range(self._lanes), self._plan))
        for lane in range(self._lanes):
            self._rows.zero_grad(lane)

    def _inputs(self, rows: int, length: int, loss_tokens: int) -> tuple[Batch, torch.Tensor, torch.Tensor]:
        rows = rows * self._lanes
        ids_NS = torch.ones(rows, length, dtype=torch.long)
        classes_N = None if self._case.num_labels is None else torch.zeros(rows, dtype=torch.long)
        kept = torch.arange(rows * loss_tokens)
        return Batch(ids_NS, torch.ones_like(ids_NS), None, classes_N), kept, torch.ones_like(kept)

    def _first_update(self) -> None:
        """Adam's moments exist from the first update on."""
        if self._is_alone:
            for value in self._trained:
                value.grad = torch.zeros_like(value)
        self._moments: list[torch.Tensor] = []
        if isinstance(self._rows, AdapterRows):
            self._moments = [self._rows.buffers.rows(name) for name in ("first", "second")]
        elif self._eight_bit is None:
            self._moments = [one for piece in self._rows.slices(self._plan) for one in (piece.first, piece.second)]
        self._update(torch.zeros(self._lanes))
        self._tracker.hold([*self.model.parameters(), *self.model.buffers(), *self._shown()], WEIGHTS)
        self._tracker.hold(self._kept_gradients(), GRADIENTS)
        self._tracker.hold(self._state(), OPTIMIZER)

    def _kept_gradients(self) -> list[torch.Tensor]:
        """Gradients that stay between steps: those of adapters are zeroed, not dropped."""
        kept = [value.grad for value in self._trained if value.grad is not None]
        return [*kept, self._rows.buffers.low()[1]] if isinstance(self._rows, AdapterRows) else kept

    def _shown(self) -> list[torch.Tensor]:
        """Adapters as the pass sees them, where that is not their own precision."""
        return [self._rows.buffers.low()[0]] if isinstance(self._rows, AdapterRows) else []

    def _state(self) -> list[torch.Tensor]:
        if self._eight_bit is not None:
            return [tensor for state in self._eight_bit.state.values() for tensor in state.values()]
        return self._moments

    def _gradient_arrived(self, parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        self._tracker.hold([parameter.grad], GRADIENTS)

    def _watch_layers(self, layers: list[torch.nn.Module]) -> None:
        """Let the phase follow the layers: from the bottom, `b0`, `b1`, ...; the upper half from the top, ..., `t1`, `t0`."""
        for place, layer in enumerate(layers):
            from_top = len(layers) - 1 - place
            name = f"b{place}" if place < len(layers) // 2 else f"t{from_top}"
            layer.register_forward_pre_hook(lambda *_, name=name: self._enter(f"forward:{name}"))
            layer.register_forward_hook(lambda _, __, out, name=name, last=not from_top: self._leave(out, name, last))

    def _enter(self, phase: str) -> None:
        self._tracker.phase = phase

    def _leave(self, out: torch.Tensor | tuple[torch.Tensor, ...], name: str, last: bool) -> None:
        if last:
            self._enter("loss")
        hidden = out[0] if isinstance(out, tuple) else out
        if hidden.requires_grad:
            hidden.register_hook(lambda _: self._enter(f"backward:{name}"))

    @contextlib.contextmanager
    def _levered(self, lever: Lever) -> Iterator[None]:
        self._loss.chunk_tokens = lever.chunk_tokens
        if lever.checkpointing:
            checkpoint_layers(self.model)
        try:
            yield
        finally:
            keep_activations(self.model)


@contextlib.contextmanager
def _without_numbers() -> Iterator[None]:
    """Two ways of transformers that need numbers are replaced by ones that need shapes alone.

    It looks for several texts in one row, and would assume the worst of fake positions; and it takes a grouped product of
    experts that knows no fake float32, where its own fallback does.
    """
    from transformers import masking_utils
    from transformers.integrations import moe

    replaced = (
        (masking_utils, "find_packed_sequence_indices", lambda position_ids: None),
        (moe, "_can_use_grouped_mm", lambda *_, **__: False),
    )
    originals = [(place, name, getattr(place, name, None), new) for place, name, new in replaced]
    try:
        for place, name, original, new in originals:
            if original is not None:
                setattr(place, name, new)
        yield
    finally:
        for place, name, original, _ in originals:
            if original is not None:
                setattr(place, name, original)


def with_depth(config: PretrainedConfig, num_layers: int) -> PretrainedConfig:
    """A copy of `config` with another depth; lists that describe layer by layer are cut to it, or repeated."""
    changed = copy.deepcopy(config)
    inner = changed.get_text_config()
    depth = inner.num_hidden_layers
    for name, value in list(vars(inner).items()):
        if isinstance(value, list) and len(value) == depth:
            setattr(inner, name, (value * -(-num_layers // depth))[:num_layers])
    inner.num_hidden_layers = num_layers
    return changed


def _is_native(case: MemoryCase) -> bool:
    """As `train/model.choose_placement` decides whether packed adapters compute without autocast."""
    return case.weights_dtype == "bfloat16" and case.method == "lora"


def _build(config: PretrainedConfig, case: MemoryCase, *, device: str) -> tuple[PreTrainedModel, dict[str, torch.Size]]:
    """(the model as `train/resident.py` makes it, but from the config alone; the shapes of an adapter that can be a row).

    Where rows of adapters cannot stand for PEFT's (experts of a mixture), PEFT's adapter is in the model and there are no shapes.
    """
    import transformers

    dtype = DTYPES[case.weights_dtype]
    if case.num_labels is not None:
        config.num_labels = case.num_labels
        config.pad_token_id = 0 if config.pad_token_id is None else config.pad_token_id
    with torch.device(device):
        model = getattr(transformers, _auto_class(config, case)).from_config(config, dtype=dtype)
        if case.method == "qlora":
            quantise(model, torch.bfloat16)
            _to_float32(model)
        if case.method == "full":
            return model.requires_grad_(True), {}
        return model, _adapter_shapes(model, case)


def _auto_class(config: PretrainedConfig, case: MemoryCase) -> str:
    """As `train/model.py` chooses it.

    Raises:
        BadInput: transformers has no such head for this type of model.
    """
    import transformers

    names: tuple[str, ...] = ("AutoModelForCausalLM", "AutoModelForImageTextToText")
    if case.num_labels is not None:
        names = ("AutoModelForSequenceClassification",)
    elif config.is_encoder_decoder:
        raise BadInput(SEQ2SEQ_LAW, value=config.model_type, next_step=SEQ2SEQ_NEXT_STEP)
    for name in names:
        if type(config) in getattr(transformers, name)._model_mapping:
            return name
    raise BadInput("transformers has no class for this model and task", value=config.model_type)


def _to_float32(model: torch.nn.Module) -> None:
    """PEFT's preparation of a quantised base: everything that is not in 4 bits goes to float32."""
    for parameter in model.parameters():
        if parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()


def _adapter_shapes(model: PreTrainedModel, case: MemoryCase) -> dict[str, torch.Size]:
    recipe = Recipe.model_validate(
        {"method": "lora", "lora": {"rank": case.rank, "target_modules": case.target_modules}}
    )
    is_classifier = case.num_labels is not None
    targets = find_targets(
        model,
        recipe,
        saved=trained_whole(model, [], is_classifier=is_classifier),
        outside=_other_parts(model),
        is_classifier=is_classifier,
        works=lambda _: None,
        has_weights=False,
    )
    structure = structure_of(model)
    adapted = attach(model, recipe, targets, is_classifier=is_classifier)
    if not can_share_a_pass(adapted):
        return {}
    shapes = {name: value.shape for name, value in trained(adapted).items()}
    detach(model, structure)
    model.requires_grad_(False)
    return shapes


def _other_parts(model: PreTrainedModel) -> list[str]:
    """Children of a multimodal model beside its language model and its head: no text passes them, and nothing runs here to see it."""
    if model.config.get_text_config() is model.config:
        return []
    language, head = model.get_decoder(), model.get_output_embeddings()
    path = next(name for name, module in model.named_modules() if module is language)
    parent = path.rpartition(".")[0]
    beside = model.get_submodule(parent).named_children()
    prefix = f"{parent}." if parent else ""
    return [f"{prefix}{name}" for name, module in beside if module is not language and module is not head]


def _materialise(model: torch.nn.Module) -> None:
    """Fake CPU tensors for the meta tensors of a model; tied ones stay tied."""
    made: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, value in module._parameters.items():
            if value is not None:
                fake = torch.empty(value.shape, dtype=value.dtype, device=CPU)
                made.setdefault(id(value), torch.nn.Parameter(fake, requires_grad=value.requires_grad))
                module._parameters[name] = made[id(value)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=CPU)
