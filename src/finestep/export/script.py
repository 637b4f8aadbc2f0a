"""The training script of the Hugging Face export: transformers and PEFT alone, short enough to be read and changed."""

from __future__ import annotations

from finestep.export.exported import ExportContext
from finestep.export.rows import INSTRUCTION, RESPONSE
from finestep.recipe import Recipe

_HEAD = '''"""Trains the recipe of finestep with transformers and PEFT alone: python train.py"""

import json
from pathlib import Path

import torch
from datasets import Dataset
from transformers import {imports}

HERE = Path(__file__).parent
MODEL, MAX_LENGTH = {model!r}, {max_length}
(arguments,) = HfArgumentParser(TrainingArguments).parse_yaml_file(str(HERE / "training_arguments.yaml"))
tokenizer = AutoTokenizer.from_pretrained(MODEL)
tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token


def rows_of(name):
    path = HERE / name
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


'''
_CHAT = '''PLAIN = (
    "{{% for m in messages %}}{{% if m['role'] == 'system' %}}{{{{ m['content'] }}}}\\n\\n"
    "{{% elif m['role'] == 'assistant' %}}{response}{{{{ m['content'] }}}}{{{{ eos_token }}}}\\n\\n"
    "{{% else %}}{instruction}{{% endif %}}{{% endfor %}}{{% if add_generation_prompt %}}{response}{{% endif %}}"
)
tokenizer.chat_template = tokenizer.chat_template or PLAIN


def encode(row):
    """Tokens, with loss on what the assistant says: ever longer beginnings of the chat are written, and compared."""
    messages, tokens, labels, written = row["messages"], [], [], ""
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = tokenizer.apply_chat_template(messages[:index], add_generation_prompt=True, tokenize=False) if index else ""
        after = tokenizer.apply_chat_template(messages[: index + 1], tokenize=False) if index else message["content"] + tokenizer.eos_token
        said = after[len(before) :]
        end = said.find(tokenizer.eos_token) if tokenizer.eos_token else -1
        said = said[: end + len(tokenizer.eos_token)] if end >= 0 else said  # the end mark is the last that is trained
        for text, trained in ((before[len(written) :], False), (said, True)):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            tokens += ids
            labels += ids if trained else [-100] * len(ids)
        written = before + said
    return {{"input_ids": tokens[:MAX_LENGTH], "labels": labels[:MAX_LENGTH]}}


'''
_LABELS = """names = sorted({{row["label"] for row in rows_of("train.jsonl")}})


def encode(row):
    return {{"input_ids": tokenizer(row["text"], truncation=True, max_length=MAX_LENGTH)["input_ids"], "labels": names.index(row["label"])}}


"""
_LOAD = """model = {auto}.from_pretrained(MODEL, dtype=torch.{dtype}{more})
"""
_ADAPTER = """from peft import LoraConfig, get_peft_model{prepare_import}  # noqa: E402

{prepare}model = get_peft_model(model, LoraConfig(task_type="{task}", **json.loads((HERE / "lora_config.json").read_text())))
model.print_trainable_parameters()
"""
_TAIL = """train, evaluation = rows_of("train.jsonl"), rows_of("eval.jsonl")
trainer = Trainer(
    model=model,
    args=arguments,
    train_dataset=Dataset.from_list([encode(row) for row in train]),
    eval_dataset=Dataset.from_list([encode(row) for row in evaluation]) if evaluation else None,
    data_collator={collator},
)
trainer.train()
trainer.save_model()
trainer.save_state()
tokenizer.save_pretrained(arguments.output_dir)
"""


LABELLED = (
    ", num_labels=len(names), id2label=dict(enumerate(names)), label2id={name: at for at, name in enumerate(names)}"
)
QUANTISED = (
    ', quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4",'
    " bnb_4bit_compute_dtype=torch.bfloat16)"
)


def script_text(recipe: Recipe, context: ExportContext) -> str:
    """`train.py`, for answers or for labels."""
    is_labelled = context.rows is not None and context.rows.is_labelled
    auto = "AutoModelForSequenceClassification" if is_labelled else "AutoModelForCausalLM"
    collator = "DataCollatorWithPadding" if is_labelled else "DataCollatorForSeq2Seq"
    four = recipe.method == "qlora"
    names = [
        auto,
        "AutoTokenizer",
        collator,
        "HfArgumentParser",
        "Trainer",
        "TrainingArguments",
        *(["BitsAndBytesConfig"] if four else []),
    ]
    more = (LABELLED if is_labelled else "") + (QUANTISED if four else "")
    dtype = (
        "float32"
        if recipe.method == "full" or context.precision == "fp32"
        else {"bf16": "bfloat16"}.get(context.precision, "float16")
    )
    plain = {"instruction": INSTRUCTION.format("{{ m['content'] }}"), "response": RESPONSE}
    plain = {key: text.replace("\n", "\\n") for key, text in plain.items()}
    parts = [
        _HEAD.format(imports=", ".join(sorted(names)), model=context.model, max_length=recipe.max_length or 2048),
        _LABELS.format() if is_labelled else _CHAT.format(**plain),
        _LOAD.format(auto=auto, dtype=dtype, more=more),
    ]
    if is_labelled:
        parts.append("model.config.pad_token_id = tokenizer.pad_token_id\n")
    if recipe.method != "full":
        prepare = "model = prepare_model_for_kbit_training(model)\n" if four else ""
        task = "SEQ_CLS" if is_labelled else "CAUSAL_LM"
        parts.append(
            _ADAPTER.format(
                prepare_import=", prepare_model_for_kbit_training" if four else "", prepare=prepare, task=task
            )
        )
    return "".join([*parts, _TAIL.format(collator=f"{collator}(tokenizer, padding=True)")])
