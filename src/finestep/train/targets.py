"""Where an adapter goes: the layers of this very model that PEFT can adapt, found by attaching and trying.

Default is every linear layer, as the papers on LoRA advise (arXiv 2305.14314, section 4), and the experts of a mixture
where PEFT adapts them. What cannot be attached, or does not compute, gives way to fewer layers, and this is said.
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from finestep.errors import BadInput
from finestep.recipe import Recipe
from finestep.train.memory import is_out_of_memory
from finestep.train.whole_model import trained

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


NOT_IN_A_STATE_SPACE_MIXER = ("out_proj", "conv1d")
"""Layers that PEFT refuses in Mamba and its kin: their kernels read these weights without calling the layer."""
ORDINARY_HOMES = ("torch.", "transformers.pytorch_utils", "bitsandbytes.")
"""Packages whose linear layers PEFT knows."""
ATTENTION = re.compile(r"attn|attention", flags=re.IGNORECASE)
PLAIN_LORA = re.compile(r"\.lora_[AB]\.")
ROUTER = re.compile(r"router|gate$", flags=re.IGNORECASE)


@dataclass(frozen=True)
class Targets:
    """Layers for an adapter.

    Attributes:
        names: what PEFT is told: "all-linear", or names of layers.
        excluded: a regular expression of modules that get no adapter, or None.
        saved: modules that are trained and saved whole beside the adapter.
        note: what a user should know about the choice; empty when it is simply every linear layer.
        continues: folder of an adapter that goes on, whose layers and values are taken; None: a fresh one.
    """

    names: str | tuple[str, ...]
    excluded: str | None
    saved: tuple[str, ...]
    note: str = ""
    continues: str | None = None


def attach(base: PreTrainedModel, recipe: Recipe, targets: Targets, *, is_classifier: bool) -> PeftModel:
    """PEFT's model: `base` with a fresh adapter of `recipe` in it, drawn from its seed, or with the one that goes on.

    Raises:
        BadInput: the adapter that should go on does not fit the base or the labels.
    """
    import peft

    base.requires_grad_(False)
    if targets.continues is not None:
        return _continued(base, targets.continues)
    config = peft.LoraConfig(
        r=recipe.lora.rank,
        lora_alpha=recipe.lora.alpha,  # type: ignore[arg-type]
        lora_dropout=recipe.lora.dropout,
        use_rslora=recipe.lora.use_rslora,
        target_modules=targets.names if isinstance(targets.names, str) else list(targets.names),
        exclude_modules=targets.excluded,
        modules_to_save=list(targets.saved) or None,
        task_type="SEQ_CLS" if is_classifier else "CAUSAL_LM",
    )
    torch.manual_seed(recipe.seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You have passed exclude_modules")
        adapted = peft.get_peft_model(base, config)
    assert isinstance(adapted, peft.PeftModel)
    return adapted


def _continued(base: PreTrainedModel, folder: str) -> PeftModel:
    import peft

    try:
        return peft.PeftModel.from_pretrained(base, folder, is_trainable=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise BadInput(
            "the adapter must fit its base and the labels of the data",
            value=" ".join(str(error).split())[:160],
            place=folder,
        ) from None


Structure = list[tuple[torch.nn.Module, dict[str, torch.nn.Module | None]]]
"""Every module of a model with its children."""


def structure_of(base: torch.nn.Module) -> Structure:
    """What `detach` needs to put a base back as it is now."""
    return [(module, dict(module._modules)) for module in base.modules()]


def detach(base: PreTrainedModel, structure: Structure) -> None:
    """Take an adapter out of the base, also one that PEFT has put in only half.

    PEFT's own `unload` leaves the trained copy of a module that is saved whole in the base, so that the next trial would
    start from the head of the last one.
    """
    for module, children in structure:
        module._modules.clear()
        module._modules.update(children)
    if hasattr(base, "peft_config"):
        del base.peft_config


def find_targets(
    base: PreTrainedModel,
    recipe: Recipe,
    *,
    saved: Sequence[str],
    outside: Sequence[str],
    is_classifier: bool,
    works: Callable[[PeftModel], str | None],
    has_weights: bool = True,
) -> Targets:
    """The first choice of layers that attaches and computes.

    Args:
        saved: modules that are trained whole; no adapter goes into them.
        outside: parts of the model that text does not pass (a vision tower); no adapter goes there either.
        works: from PEFT's model to what is wrong with it, or None.
        has_weights: False for a shadow without numbers, which cannot be written and read.

    Raises:
        BadInput: the user's own choice does not attach, or no choice does.
    """
    excluded = _any_of([*saved, *outside])
    faults: list[str] = []
    for names, note in _choices(base, recipe, excluded):
        if faults and not recipe.lora.target_modules:
            note = f"{note} ({faults[-1]})" if note else note
        candidate = Targets(names, excluded, tuple(saved), note)
        fault = _fault(base, recipe, candidate, is_classifier=is_classifier, works=works)
        if fault is None:
            lost = lost_on_reload(base, recipe, candidate, is_classifier=is_classifier) if has_weights else []
            if not lost:
                return candidate
            candidate = _without(candidate, lost, saved=[*saved, *outside])
            fault = _fault(base, recipe, candidate, is_classifier=is_classifier, works=works)
            if fault is None:
                return candidate
            fault = f"PEFT would not load them again, and without them {fault}"
        faults.append(fault)
    if recipe.lora.target_modules:
        raise BadInput(
            "`lora.target_modules` must name layers that PEFT can adapt in this model",
            value=list(recipe.lora.target_modules),
            place=type(base).__name__,
            next_step=f"leave it out to let finestep choose ({faults[-1]})",
        )
    raise BadInput(
        "no layer of this model can carry a LoRA adapter",
        value=faults[-1] if faults else "it has no linear layers",
        place=type(base).__name__,
        next_step="use --method full",
    )


def _choices(
    base: PreTrainedModel, recipe: Recipe, excluded: str | None
) -> Iterator[tuple[str | tuple[str, ...], str]]:
    """What to try, the widest first, each with what is to be said when it is taken."""
    if recipe.lora.target_modules:
        yield recipe.lora.target_modules, ""
        return
    yield "all-linear", ""
    linear = [name for name in _linear_layers(base) if not (excluded and re.fullmatch(excluded, name))]
    ordinary = tuple(
        name
        for name in linear
        if name.rpartition(".")[2] not in NOT_IN_A_STATE_SPACE_MIXER and _is_ordinary(base.get_submodule(name))
    )
    if ordinary and len(ordinary) < len(linear):
        left_out = sorted({name.rpartition(".")[2] for name in linear if name not in ordinary})
        yield ordinary, f"the adapter is on all linear layers but {', '.join(left_out)}"
    attention = tuple(name for name in linear if ATTENTION.search(name) and not ROUTER.search(name))
    if attention:
        yield attention, "the adapter is on the attention layers alone; PEFT cannot adapt the others here"


def _linear_layers(base: PreTrainedModel) -> list[str]:
    from transformers.pytorch_utils import Conv1D

    head = base.get_output_embeddings()
    return [
        name
        for name, module in base.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    ]


def _is_ordinary(module: torch.nn.Module) -> bool:
    """False for a layer with a forward pass of its own (a grouped product), which PEFT's adapters do not follow."""
    return "forward" not in vars(type(module)) or type(module).__module__.startswith(ORDINARY_HOMES)


def _fault(
    base: PreTrainedModel,
    recipe: Recipe,
    candidate: Targets,
    *,
    is_classifier: bool,
    works: Callable[[PeftModel], str | None],
) -> str | None:
    """Why this choice cannot be used, in a clause, or None. It leaves the base as it was."""
    structure = structure_of(base)
    try:
        return works(attach(base, recipe, candidate, is_classifier=is_classifier))
    except (ValueError, TypeError, RuntimeError, AttributeError, KeyError, NotImplementedError, MemoryError) as error:
        if is_out_of_memory(error):
            return "they do not fit into memory"
        return f"PEFT says: {' '.join(str(error).split())[:120]}"
    finally:
        detach(base, structure)


def lost_on_reload(base: PreTrainedModel, recipe: Recipe, targets: Targets, *, is_classifier: bool) -> list[str]:
    """Modules whose adapter PEFT does not find again in its own file; it leaves the base as it was.

    PEFT renames tensors while it loads, as transformers renames weights of some checkpoints, and a name that ends up
    nowhere is dropped without a word. So an adapter is written and read once before anything is trained.
    """
    import peft

    structure = structure_of(base)
    try:
        with tempfile.TemporaryDirectory(prefix="finestep-") as folder:
            model = attach(base, recipe, targets, is_classifier=is_classifier)
            written = {name: value.detach().clone() for name, value in trained(model).items()}
            model.save_pretrained(folder)
            detach(base, structure)
            read = dict(peft.PeftModel.from_pretrained(base, folder, is_trainable=True).named_parameters())
            lost = [name for name, value in written.items() if name not in read or not torch.equal(value, read[name])]
    finally:
        detach(base, structure)
    paths = {name.partition(".lora_")[0].removeprefix("base_model.model.") for name in lost if ".lora_" in name}
    return sorted(paths)


def _without(targets: Targets, lost: Sequence[str], *, saved: Sequence[str]) -> Targets:
    """The same choice without layers that PEFT would lose, and the note that says so."""
    note = f"no adapter is on {', '.join(sorted({path.rpartition('.')[0] for path in lost})[:3])}: PEFT would not load it again"
    return replace(targets, excluded=_any_of([*saved, *lost]), note=f"{targets.note}; {note}" if targets.note else note)


def can_share_a_pass(model: PeftModel) -> bool:
    """True when each trained tensor of PEFT's model belongs to a linear layer, as rows of adapters need it."""
    from peft.tuners.lora.layer import Conv2d, Embedding, LoraLayer, ParamWrapper

    for module in model.modules():
        if isinstance(module, ParamWrapper | Embedding | Conv2d):
            return False
        if isinstance(module, LoraLayer) and len(set(module.r.values())) != 1:
            return False
    return all(PLAIN_LORA.search(name) or _is_linear_part(model, name) for name in trained(model))


def _is_linear_part(model: PeftModel, name: str) -> bool:
    return isinstance(model.get_submodule(name.rpartition(".")[0]), torch.nn.Linear)


def _any_of(names: Sequence[str]) -> str | None:
    """A regular expression for these modules and all inside them."""
    if not names:
        return None
    return rf"(?:{'|'.join(re.escape(name) for name in names)})(?:\..*)?"
