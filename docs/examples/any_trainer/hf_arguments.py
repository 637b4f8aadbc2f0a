"""A fine-tune with the Hugging Face Trainer whose settings stand in a file: python hf_arguments.py arguments.yaml

Its own settings are three names beside those of TrainingArguments: the model, the rows to train on, the rows to validate on.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer, HfArgumentParser, Trainer, TrainingArguments, set_seed


@dataclass
class DataArguments:
    """What is trained on what."""

    model_name_or_path: str
    train_file: str
    validation_file: str | None = None


def load_rows(tokenizer, path, max_length=96):
    """Prompt and answer as one text, the prompt without loss."""
    rows = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        prompt = tokenizer(f"{row['instruction']} {row.get('input', '')}\n")["input_ids"]
        answer = tokenizer(row["output"])["input_ids"] + [tokenizer.eos_token_id]
        ids, labels = (prompt + answer)[:max_length], ([-100] * len(prompt) + answer)[:max_length]
        rows.append({"input_ids": ids, "labels": labels})
    return rows


def collate(rows, pad_id=0):
    """Pad to the longest row."""
    import torch

    width = max(len(row["input_ids"]) for row in rows)

    def padded(name, value):
        return torch.tensor([row[name] + [value] * (width - len(row[name])) for row in rows])

    mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows])
    return {"input_ids": padded("input_ids", pad_id), "labels": padded("labels", -100), "attention_mask": mask}


def main():
    parser = HfArgumentParser((DataArguments, TrainingArguments))
    data, training = parser.parse_yaml_file(sys.argv[1])
    set_seed(training.seed)
    tokenizer = AutoTokenizer.from_pretrained(data.model_name_or_path)
    model = AutoModelForCausalLM.from_pretrained(data.model_name_or_path)
    held_out = load_rows(tokenizer, data.validation_file) if data.validation_file else None
    trainer = Trainer(
        model=model,
        args=training,
        train_dataset=load_rows(tokenizer, data.train_file),
        eval_dataset=held_out,
        data_collator=collate,
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model(training.output_dir)


if __name__ == "__main__":
    main()
