"""Many kinds of models: the first loss is transformers' own, and what is saved and loaded by others is what was measured."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from finestep.errors import BadInput
from finestep.recipe import Recipe
from finestep.train.lane_plan import plan_lanes
from tests.architectures.zoo import config_of, save_model
from tests.train.runs import make_resident, run_pack

DENSE = [
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3_text",
    "phi",
    "phi3",
    "gpt2",
    "gptj",
    "gpt_neox",
    "opt",
]
DENSE += ["bloom", "falcon", "glm4", "olmo2", "smollm3", "granite", "cohere", "stablelm"]
HYBRID = [
    "qwen3_5_text",
    "qwen3_next",
    "bamba",
    "zamba2",
    "falcon_h1",
    "mamba",
    "mamba2",
    "jamba",
    "rwkv",
    "lfm2",
    "nemotron_h",
]
EXPERTS = [
    "qwen3_moe",
    "mixtral",
    "olmoe",
    "deepseek_v2",
    "deepseek_v3",
    "glm4_moe",
    "gpt_oss",
    "granitemoe",
    "llama4_text",
]
EXPERTS += ["phimoe", "laguna"]
MULTIMODAL = ["gemma3", "qwen3_vl", "mistral3", "llava"]
ENCODERS = [
    "bert",
    "roberta",
    "distilbert",
    "deberta",
    "deberta-v2",
    "electra",
    "albert",
    "mpnet",
    "modernbert",
    "convbert",
]
ENCODERS += ["longformer", "mobilebert", "rembert", "big_bird", "data2vec-text", "ernie", "xlnet"]
VARIANTS = {"tied": {"tie_word_embeddings": True}, "dropout": {"attention_dropout": 0.2}, "bf16": {"dtype": "bfloat16"}}
REFUSALS = (
    "transformers has no classification head",
    "this data needs a causal language model",
    "training on next tokens needs a model that cannot see later ones",
    "sequence-to-sequence models",
)
QUICK = {"llama", "gpt2", "qwen3_moe", "deepseek_v3", "gpt_oss", "gemma3", "qwen3_vl", "jamba", "mamba", "falcon_h1"}
QUICK |= {"qwen3_5_text", "laguna", "bert", "distilbert", "deberta", "deberta-v2", "albert", "convbert", "longformer"}
"""In `make test` with every task; the others are `long`."""
SAME = 1e-4


def _marked(names: list[str]) -> list[Any]:
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in names]


@pytest.fixture(scope="module")
def tokenizer(shipped_model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(shipped_model)


@pytest.fixture(scope="module")
def chat(instruct_file, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("chat") / "chat.jsonl"
    path.write_text("".join(instruct_file.read_text(encoding="utf-8").splitlines(keepends=True)[:32]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def labels(tmp_path_factory) -> Path:
    """Texts of one to nine words with one of three labels."""
    draw, path = random.Random(0), tmp_path_factory.mktemp("labels") / "labels.csv"
    words = {"joy": "happy", "grief": "rain", "rage": "shout"}
    rows = [f"{' '.join([word] * draw.randint(1, 9))} {n},{label}" for n in range(12) for label, word in words.items()]
    path.write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    return path


def recipe_of(method: str, rate: float) -> Recipe:
    return Recipe.model_validate(
        {
            "method": method,
            "learning_rate": rate,
            "effective_batch_size": 4,
            "micro_batch_size": 4,
            "num_epochs": 0.5,
            "evaluation": {"num_evaluations": 1},
            "lora": {"rank": 4, "alpha": 8},
        }
    )


@torch.no_grad()
def plain_loss(model: Any, rows: Any) -> float:
    """What transformers gives, row by row and without padding, in nats a token or a label."""
    model.eval()
    total = units = 0.0
    for row in range(len(rows)):
        start, end = rows.offsets[row], rows.offsets[row + 1]
        ids = torch.tensor(rows.ids[start:end].astype("int64"))[None]
        if rows.classes is not None:
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float()
            wanted = torch.tensor([int(rows.classes[row])])
        else:
            kept = torch.tensor(rows.trained[start + 1 : end])
            logits, wanted = model(input_ids=ids).logits[0, :-1].float()[kept], ids[0, 1:][kept]
        total += torch.nn.functional.cross_entropy(logits, wanted, reduction="sum").item()
        units += len(wanted)
    return total / units


def load_as_a_user(folder: Path, *, is_classifier: bool, method: str) -> Any:
    """With the classes of transformers and PEFT for this kind of folder, in the precision that was measured (as its README says)."""
    import peft
    import transformers

    if is_classifier and method == "lora":
        return peft.AutoPeftModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    if is_classifier:
        return transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    if method == "lora":
        try:
            return peft.AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        except ValueError:  # a vision-language model has no causal class: base and adapter are loaded one by one
            base = peft.PeftConfig.from_pretrained(folder).base_model_name_or_path
            return peft.PeftModel.from_pretrained(
                transformers.AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32), folder
            )
    config = transformers.AutoConfig.from_pretrained(folder)
    is_causal = type(config) in transformers.AutoModelForCausalLM._model_mapping
    kind = transformers.AutoModelForCausalLM if is_causal else transformers.AutoModelForImageTextToText
    model, info = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"]
    return model


def check(model_dir: Path, data: Path, tmp_path: Path, *, method: str, may_refuse: bool = False) -> None:
    """Train, save, load as a user does, and compare; or the refusal is one of the few that are documented."""
    with contextlib.ExitStack() as stack:
        if may_refuse and not _has_label_head(model_dir):
            refused = stack.enter_context(pytest.raises(BadInput))
        resident = make_resident(model_dir, data, recipe_of(method, 1e-3))
    if may_refuse and not _has_label_head(model_dir):
        assert str(refused.value).startswith(REFUSALS)
        return
    is_classifier = bool(resident.data.label_names)
    if not is_classifier:
        untouched = load_base(model_dir)
        assert plain_loss(untouched, resident.data.evaluation) == pytest.approx(
            base_loss := _base_loss(resident, method), rel=SAME, abs=SAME
        ), base_loss
    plan = plan_lanes(resident, recipe_of(method, 1e-3), asked=2, most_lanes=2, row_limit=None)
    rates = {0: 2e-3, 1: 5e-3} if method == "lora" else {0: 1e-3}
    runs = run_pack(resident, {n: recipe_of(method, rate) for n, rate in rates.items()}, tmp_path, lanes=plan.num_lanes)
    for number, rate in rates.items():
        outcome = runs[number].outcome
        assert outcome.eval_loss is not None, outcome.reason
        assert outcome.eval_loss != outcome.base_eval_loss, "training changes the loss"
        folder = tmp_path / f"saved-{number}"
        if method == "full":
            resident.tuned(recipe_of(method, rate), runs[number].weights)
        resident.save_tuned(recipe_of(method, rate), runs[number].weights, str(folder))
        loaded = load_as_a_user(folder, is_classifier=is_classifier, method=method)
        assert plain_loss(loaded, resident.data.evaluation) == pytest.approx(outcome.eval_loss, rel=SAME, abs=SAME)
        if is_classifier:
            assert loaded.config.id2label == dict(enumerate(resident.data.label_names))


def _has_label_head(folder: Path) -> bool:
    import transformers

    kind = type(transformers.AutoConfig.from_pretrained(folder))
    return kind in transformers.AutoModelForSequenceClassification._model_mapping


def load_base(folder: Path) -> Any:
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    is_causal = type(config) in transformers.AutoModelForCausalLM._model_mapping
    kind = transformers.AutoModelForCausalLM if is_causal else transformers.AutoModelForImageTextToText
    return kind.from_pretrained(folder, dtype=torch.float32)


def _base_loss(resident: Any, method: str) -> float:
    from finestep.train.evaluate import evaluate

    resident.begin(recipe_of(method, 1e-3))
    return evaluate(resident.base, resident.data, resident.token_loss)[0]


@pytest.mark.parametrize("model_type", _marked(DENSE + HYBRID + EXPERTS + MULTIMODAL))
def test_lora_on_conversations(model_type, tokenizer, chat, tmp_path):
    check(save_model(model_type, tmp_path / "base", tokenizer=tokenizer), chat, tmp_path, method="lora")


@pytest.mark.parametrize("model_type", _marked(ENCODERS + DENSE + EXPERTS))
def test_lora_on_labels(model_type, tokenizer, labels, tmp_path):
    folder = save_model(model_type, tmp_path / "base", tokenizer=tokenizer)
    check(folder, labels, tmp_path, method="lora", may_refuse=True)


@pytest.mark.parametrize("model_type", _marked(DENSE + HYBRID + EXPERTS + MULTIMODAL))
def test_full_on_conversations(model_type, tokenizer, chat, tmp_path):
    check(save_model(model_type, tmp_path / "base", tokenizer=tokenizer), chat, tmp_path, method="full")


@pytest.mark.parametrize("model_type", _marked(ENCODERS))
def test_full_on_labels(model_type, tokenizer, labels, tmp_path):
    check(save_model(model_type, tmp_path / "base", tokenizer=tokenizer), labels, tmp_path, method="full")


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_of_a_llama(name, tokenizer, chat, tmp_path):
    check(save_model("llama", tmp_path / "base", tokenizer=tokenizer, **VARIANTS[name]), chat, tmp_path, method="lora")


@pytest.mark.parametrize("model_type", ["bert", "electra", "data2vec-text", "xlnet", "bart", "t5"])
def test_what_sees_later_tokens_is_refused_for_text(model_type, tokenizer, chat, tmp_path):
    folder = save_model(model_type, tmp_path / "base", tokenizer=tokenizer)
    with pytest.raises(BadInput) as refused:
        make_resident(folder, chat, recipe_of("lora", 1e-3))
    assert str(refused.value).startswith(REFUSALS)


def test_experts_are_adapted_too_and_attention_is_not_alone(tokenizer, chat, tmp_path):
    folder = save_model("qwen3_moe", tmp_path / "base", tokenizer=tokenizer)
    resident = make_resident(folder, chat, recipe_of("lora", 1e-3))
    names = resident.initial_values(recipe_of("lora", 1e-3))
    assert any(".experts." in name for name in names)
    assert any(".q_proj." in name for name in names)
    assert "for one trial at a time" in resident.why_alone(recipe_of("lora", 1e-3))


def test_the_vision_tower_stays_as_it_is(tokenizer, chat, tmp_path):
    folder = save_model("gemma3", tmp_path / "base", tokenizer=tokenizer)
    for method in ("lora", "full"):
        resident = make_resident(folder, chat, recipe_of(method, 1e-3))
        trained = resident.initial_values(recipe_of(method, 1e-3))
        assert trained
        assert not [name for name in trained if "vision" in name or "multi_modal" in name]
        assert any("only the text part is trained" in note for note in resident.data.card.notes)


def test_functional_dropout_counts(tokenizer, chat, tmp_path):
    folder = save_model("opt", tmp_path / "base", tokenizer=tokenizer, dropout=0.0, attention_dropout=0.3)
    resident = make_resident(folder, chat, recipe_of("lora", 1e-3))
    assert "dropout" in resident.why_random(recipe_of("lora", 1e-3))


@pytest.mark.parametrize(
    "model_type",
    ["qwen3_5_text", "gemma3", "falcon_h1", "qwen3_moe", "t5"]
    + [pytest.param(name, marks=pytest.mark.long) for name in ("gpt_oss", "modernbert", "mamba")],
)
def test_memory_is_predicted_or_refused_in_words(model_type, monkeypatch):
    """Models of two layers, whose kinds of layers are listed one by one, had no answer."""
    from finestep.probe import Lever, MemoryCase, PredictRequest
    from finestep.probes.__main__ import _answer

    case = MemoryCase(method="lora", weights_dtype="float32", rank=4, num_labels=3 if model_type in ENCODERS else None)
    config = json.loads(config_of(model_type).to_json_string(use_diff=False))
    request = PredictRequest(config=config, case=case, length=16, levers=(Lever(),))
    monkeypatch.setattr("gc.disable", lambda: None)  # the process that predicts is not this one
    if model_type in ("t5", "falcon_h1"):
        with pytest.raises(BadInput) as refused:
            _answer(request, lambda *_: None)
        assert refused.value.next_step
    else:
        answer = _answer(request, lambda *_: None)
        assert answer["num_parameters"] > answer["num_trained"] > 0


def test_the_routers_loss_that_is_left_out_is_said(tokenizer, chat, tmp_path):
    folder = save_model("mixtral", tmp_path / "base", tokenizer=tokenizer, output_router_logits=True)
    resident = make_resident(folder, chat, recipe_of("lora", 1e-3))
    assert any("output_router_logits" in note for note in resident.data.card.notes)


def test_a_pass_in_training_mode_that_fails_is_said(tokenizer, chat, tmp_path):
    folder = save_model("llama", tmp_path / "base", tokenizer=tokenizer, attention_dropout=1.5)
    resident = make_resident(folder, chat, recipe_of("lora", 1e-3))
    assert any("a pass in training mode fails" in note for note in resident.data.card.notes)


def test_rows_of_different_lengths_decide_whether_trials_share_a_pass(tokenizer, labels, tmp_path):
    """FNet mixes all places of a row, the padding behind it too."""
    folder = save_model("fnet", tmp_path / "base", tokenizer=tokenizer, hidden_dropout_prob=0.0)
    resident = make_resident(folder, labels, recipe_of("lora", 1e-3))
    assert "padding" in resident.why_alone(recipe_of("lora", 1e-3))
