"""A plain fine-tune with the Hugging Face Trainer, as a command: it prints the validation loss at its end.

python hf_train.py MODEL DATA.jsonl --lr 1e-3 --bs 8 --accum 2 --steps 50 [--seed 0]
"""

import argparse
import json
import math
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, set_seed


def load_rows(tokenizer, path, max_length=96):
    """(training rows, validation rows): prompt and answer as one text, the prompt without loss."""
    rows = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        prompt = tokenizer(row["instruction"] + "\n")["input_ids"]
        answer = tokenizer(row["output"])["input_ids"] + [tokenizer.eos_token_id]
        ids, labels = (prompt + answer)[:max_length], ([-100] * len(prompt) + answer)[:max_length]
        rows.append({"input_ids": ids, "labels": labels})
    held_out = max(8, len(rows) // 10)
    return rows[held_out:], rows[:held_out]


def collate(rows, pad_id=0):
    """Pad to the longest row."""
    width = max(len(row["input_ids"]) for row in rows)

    def padded(name, value):
        return torch.tensor([row[name] + [value] * (width - len(row[name])) for row in rows])

    mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows])
    return {"input_ids": padded("input_ids", pad_id), "labels": padded("labels", -100), "attention_mask": mask}


def train(model_path, data_path, *, lr, micro_batch, accumulation, steps, seed=0, output_dir="hf-out"):
    """Train, and return the validation loss."""
    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    train_rows, held_out = load_rows(tokenizer, data_path)
    arguments = TrainingArguments(
        output_dir,
        learning_rate=lr,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=accumulation,
        max_steps=steps,
        lr_scheduler_type="linear",
        warmup_steps=math.ceil(0.05 * steps),
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )
    model = AutoModelForCausalLM.from_pretrained(model_path)
    trainer = Trainer(
        model=model, args=arguments, train_dataset=train_rows, eval_dataset=held_out, data_collator=collate
    )
    trainer.train()
    return trainer.evaluate()["eval_loss"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--bs", type=int, required=True)
    parser.add_argument("--accum", type=int, default=1)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    loss = train(
        options.model,
        options.data,
        lr=options.lr,
        micro_batch=options.bs,
        accumulation=options.accum,
        steps=options.steps,
        seed=options.seed,
    )
    print(f"eval_loss={loss:.6f}")


if __name__ == "__main__":
    main()
