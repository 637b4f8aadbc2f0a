"""An adapter merged into its base: a whole model, written aside, loaded again, and held against the adapter."""

from __future__ import annotations

import gc
import os
import shutil
from pathlib import Path

import torch

from finestep.disk import beside, writing
from finestep.errors import BadInput
from finestep.saved.load import Loaded, load_saved
from finestep.saved_model import ADAPTER_CONFIG, FILE, Loading, SavedModel, TrainedOn
from finestep.store.model_card import write_card

PROBE_TOKENS = 24
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.02}
"""Largest difference of a logit over their spread: a merged weight is rounded once more to its precision."""


def merge(folder: Path, saved: SavedModel, out: Path) -> dict[str, object]:
    """Write the merged model to `out`, which must not exist; how far its logits are from the adapter's, over their spread.

    Raises:
        BadInput: the adapter cannot be merged, or what was written does not compute the same.
    """
    from transformers import AutoTokenizer

    partial = beside(out)
    model = load_saved(folder, saved)
    wanted = _probe(model)
    try:
        whole = model.merge_and_unload()
    except (ValueError, NotImplementedError, RuntimeError, AttributeError) as error:
        raise BadInput("PEFT must be able to merge the adapter", value=str(error)[:160], place=str(folder)) from None
    try:
        with writing(partial):
            whole.save_pretrained(str(partial), safe_serialization=True)
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=saved.loading.trust_remote_code)
        tokenizer.save_pretrained(str(partial))
        del model, whole
        gc.collect()
        merged = saved.model_copy(update={"merged": True})
        difference = _difference(_probe(load_saved(partial, merged)), wanted)
        limit = TOLERANCE.get(saved.loading.dtype, TOLERANCE["bfloat16"])
        if not difference <= limit:
            raise BadInput(
                f"the merged model must compute what the adapter does, within {limit:g} of the logits' spread",
                value=f"{difference:.2g}",
                place=str(folder),
                next_step="nothing was written; load the adapter instead",
            )
        write_card(partial, merged, name=out.name)
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return {"out": str(out), "difference": difference, "limit": limit}


def foreign_adapter(folder: Path) -> SavedModel | None:
    """What can be known of an adapter that another trainer has written; None where its task is not known."""
    import json

    from finestep.recipe import Recipe

    config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    if config.get("task_type") != "CAUSAL_LM" or not config.get("base_model_name_or_path"):
        return None
    return SavedModel(
        method="lora",
        loading=Loading(
            auto_class="AutoModelForCausalLM",
            base=config["base_model_name_or_path"],
            revision=config.get("revision"),
            dtype="auto",
        ),
        recipe=Recipe(method="lora"),
        trained_on=TrainedOn(data=f"not known: the adapter has no {FILE}"),
    )


@torch.no_grad()
def _probe(model: Loaded) -> torch.Tensor:
    """Logits of one fixed row, fp32, on the CPU."""
    size = model.get_input_embeddings().weight.shape[0]
    ids_1S = torch.arange(7, 7 + 13 * PROBE_TOKENS, 13, device=model.device)[None] % size
    return model(input_ids=ids_1S, attention_mask=torch.ones_like(ids_1S)).logits.float().cpu()


def _difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    spread = max(wanted.std().item(), 1e-6)
    return (found - wanted).abs().max().item() / spread
