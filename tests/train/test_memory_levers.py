"""Chunked cross entropy and checkpointing save memory and leave a trial's trajectory as it was."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from finestep.errors import BadInput
from finestep.recipe import Recipe
from finestep.train.batch import collate
from finestep.train.checkpointing import checkpoint_layers, is_checkpointed, keep_activations
from finestep.train.levers import relieve
from finestep.train.loss import TokenLoss
from finestep.train.model import Placement
from finestep.train.resident import lora_scale
from finestep.train.whole_model import trained
from tests.train.runs import largest_difference, make_resident

PLACEMENT = Placement(torch.device("cpu"), torch.float32, False)
SHAPE = {
    "vocab_size": 500,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def train(resident, recipe, *, chunk=None, checkpointing=False, num_steps=6, rows=8):
    """(losses, weights) of a few plain steps through the engine's model, loss and rows."""
    resident.token_loss.chunk_tokens = None
    resident.open_rows(recipe).join(0, resident.initial_values(recipe), scale=lora_scale(recipe))
    model = resident.base.eval()
    if chunk:
        resident.token_loss.cut_into_chunks(model, chunk)
    if checkpointing:
        assert checkpoint_layers(model) > 0
    values = trained(model)
    adam = torch.optim.AdamW(values.values(), lr=recipe.learning_rate, eps=1e-6)
    data, losses = resident.data, []
    for step in range(num_steps):
        chosen = range(step * rows, (step + 1) * rows)
        batch = collate(data.train, list(chosen), pad_id=data.pad_id, device=torch.device("cpu"))
        loss = resident.token_loss.sum(model, batch) / data.train.num_loss_units(list(chosen))
        loss.backward()
        adam.step()
        adam.zero_grad(set_to_none=True)
        losses.append(loss.item())
    keep_activations(model)
    resident.token_loss.chunk_tokens = None
    return losses, {name: value.detach().clone() for name, value in values.items()}


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_trajectory_stays_the_same(method, shipped_model, instruct_file):
    recipe = Recipe(method=method, learning_rate=2e-4 if method == "lora" else 2e-5)
    resident = make_resident(shipped_model, instruct_file, recipe)
    losses, weights = train(resident, recipe)
    assert losses[-1] != losses[0]
    for levers in ({"chunk": 64}, {"checkpointing": True}, {"chunk": 100, "checkpointing": True}):
        other_losses, other_weights = train(resident, recipe, **levers)
        assert other_losses == pytest.approx(losses, abs=1e-5), levers
        assert largest_difference(other_weights, weights) < 1e-5, levers


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("llama", {"tie_word_embeddings": True}),
        ("gemma2", {"head_dim": 16, "final_logit_softcapping": 5.0}),
        ("cohere", {"logit_scale": 0.2}),
        ("granite", {"logits_scaling": 8.0}),
    ],
)
@pytest.mark.parametrize("frozen", [False, True])
def test_gradients_are_exact_whatever_a_model_does_to_its_logits(kind, more, frozen):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SHAPE, **more)).eval()
    if frozen:
        model.get_output_embeddings().requires_grad_(False)
        model.get_input_embeddings().requires_grad_(not more.get("tie_word_embeddings"))
    token_loss = TokenLoss(model, PLACEMENT)
    ids, places, labels = torch.randint(0, 500, (4, 60)), torch.arange(20, 190), torch.randint(0, 500, (170,))

    def loss_and_gradients():
        model.zero_grad(set_to_none=True)
        loss = token_loss.each_of_tokens(model, ids, places, labels).sum() / 170
        loss.backward()
        return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    loss, whole = loss_and_gradients()
    token_loss.cut_into_chunks(model, 64)
    cut_loss, cut = loss_and_gradients()
    assert cut_loss == pytest.approx(loss, abs=1e-5)
    assert largest_difference(cut, whole) < 1e-5


def test_tokens_may_weigh_differently_when_the_head_is_frozen():
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SHAPE)).eval()
    model.get_output_embeddings().requires_grad_(False)
    token_loss = TokenLoss(model, PLACEMENT)
    ids, places, labels = torch.randint(0, 500, (3, 60)), torch.arange(170), torch.randint(0, 500, (170,))
    weights = torch.rand(170)

    def gradient():
        model.zero_grad(set_to_none=True)
        (weights * token_loss.each_of_tokens(model, ids, places, labels)).sum().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    whole = gradient()
    token_loss.cut_into_chunks(model, 64)
    assert largest_difference(gradient(), whole) < 1e-4


def test_a_model_that_does_something_else_to_its_logits_is_refused():
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SHAPE)).eval()
    token_loss = TokenLoss(model, PLACEMENT)
    model.config.logit_scale = 3.0
    with pytest.raises(BadInput, match="the model's own loss"):
        token_loss.cut_into_chunks(model, 64)
    assert token_loss.chunk_tokens is None


def test_checkpointing_works_in_evaluation_mode_and_can_be_switched_off():
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SHAPE)).eval()
    calls = []
    layer = model.model.layers[0]
    layer.mlp.gate_proj.register_forward_hook(lambda *_: calls.append(1))
    assert checkpoint_layers(model) == checkpoint_layers(model) == 2
    model(input_ids=torch.ones(1, 4, dtype=torch.long)).logits.sum().backward()
    assert len(calls) == 2, "once forward, once again backward"
    with torch.no_grad():
        model(input_ids=torch.ones(1, 4, dtype=torch.long))
    assert len(calls) == 3
    keep_activations(model)
    assert not is_checkpointed(layer)
    model(input_ids=torch.ones(1, 4, dtype=torch.long)).logits.sum().backward()
    assert len(calls) == 4


def test_dropout_repeats_in_the_second_computation():
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("gpt2", vocab_size=300, n_embd=32, n_layer=2, n_head=2)
    )
    model.train()

    def gradient(switch):
        switch(model)
        torch.manual_seed(3)
        model.zero_grad(set_to_none=True)
        model(input_ids=torch.ones(2, 8, dtype=torch.long)).logits.square().mean().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    plain = gradient(keep_activations)
    assert largest_difference(gradient(checkpoint_layers), plain) < 1e-6


def test_a_model_without_such_layers_is_refused():
    with pytest.raises(BadInput, match="layers that transformers can checkpoint"):
        checkpoint_layers(torch.nn.Linear(2, 2))


def test_levers_are_pulled_one_after_the_other_and_said(shipped_model, instruct_file):
    recipe = Recipe()
    resident = make_resident(shipped_model, instruct_file, recipe)
    resident.open_rows(recipe).join(0, resident.initial_values(recipe), scale=lora_scale(recipe))
    assert relieve(resident).startswith("cross entropy for 4096 tokens at a time")
    assert "gradient checkpointing of 2 layers" in relieve(resident)
    assert relieve(resident) is None, "nothing is left"


def test_a_classifier_has_no_logits_to_cut(encoder_model, label_file):
    recipe = Recipe(method="full")
    resident = make_resident(encoder_model, label_file, recipe)
    resident.open_rows(recipe).join(0, resident.initial_values(recipe), scale=1.0)
    assert "gradient checkpointing" in relieve(resident)
    assert relieve(resident) is None
