"""The callback in real runs of the Hugging Face Trainer, and of TRL where it is installed."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from finestep.integrations.transformers import FinestepCallback  # noqa: E402


class Rows(torch.utils.data.Dataset):
    """Token rows that a small model can learn: a repeated pattern."""

    def __init__(self, num_rows: int):
        generator = torch.Generator().manual_seed(0)
        starts = torch.randint(0, 40, (num_rows, 1), generator=generator)
        self.rows = (starts + torch.arange(12)) % 50 + 4

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.rows[index], "labels": self.rows[index]}


def tiny_model():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    return transformers.LlamaForCausalLM(config)


def arguments(folder, **changes):
    values = {
        "output_dir": str(folder), "max_steps": 40, "per_device_train_batch_size": 8, "learning_rate": 5e-3, "logging_steps": 1,
        "eval_strategy": "steps", "eval_steps": 10, "save_strategy": "no", "report_to": [], "use_cpu": True, "disable_tqdm": True,
    }  # fmt: skip
    return transformers.TrainingArguments(**{**values, **changes})


def trained(folder, *, callback: FinestepCallback, model=None, **changes) -> FinestepCallback:
    trainer = transformers.Trainer(
        model=model or tiny_model(),
        args=arguments(folder, **changes),
        train_dataset=Rows(256),
        eval_dataset=Rows(16),
        callbacks=[callback],
    )
    trainer.train()
    return callback


def test_a_good_run_is_recorded_and_called_healthy(tmp_path) -> None:
    callback = trained(tmp_path, callback=FinestepCallback())
    assert [record.step for record in callback.steps] == list(range(1, 41))
    assert all(record.update_norm > 0 for record in callback.steps if record.learning_rate > 0)
    assert [record.step for record in callback.evaluations] == [0, 10, 20, 30, 40]
    assert not [finding for finding in callback.findings if finding.severity == "error"]


def test_nan_is_unhidden_and_stops_the_run(tmp_path) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    callback = trained(tmp_path, callback=FinestepCallback(on_trouble="stop"), model=model, eval_strategy="no")
    assert callback.findings[0].code == "non_finite_loss"
    assert len(callback.steps) == 1


def test_frozen_weights_are_said(tmp_path) -> None:
    model = tiny_model()
    for parameter in list(model.parameters())[1:]:
        parameter.requires_grad_(False)
    model.model.embed_tokens.weight.register_hook(lambda gradient: gradient * 0)
    callback = trained(tmp_path, callback=FinestepCallback(), model=model, weight_decay=0.0)
    assert "nothing_trained" in [finding.code for finding in callback.findings]


def test_it_works_in_trl(tmp_path) -> None:
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    callback = FinestepCallback()
    rows = datasets.Dataset.from_dict({"input_ids": Rows(64).rows.tolist()})
    config = trl.SFTConfig(
        output_dir=str(tmp_path), max_steps=20, per_device_train_batch_size=4, learning_rate=5e-3, logging_steps=1, report_to=[],
        use_cpu=True, save_strategy="no", disable_tqdm=True, bf16=False, dataset_kwargs={"skip_prepare_dataset": True},
    )  # fmt: skip
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=_word_tokenizer(), pad_token="w0", eos_token="w1")
    trainer = trl.SFTTrainer(
        model=tiny_model(), args=config, train_dataset=rows, processing_class=tokenizer, callbacks=[callback]
    )
    trainer.train()
    assert [record.step for record in callback.steps] == list(range(1, 21))
    assert all(record.grad_norm > 0 for record in callback.steps)
    assert callback.diagnosis().findings


def _word_tokenizer():
    import tokenizers

    return tokenizers.Tokenizer(
        tokenizers.models.WordLevel({f"w{index}": index for index in range(64)}, unk_token="w2")
    )
