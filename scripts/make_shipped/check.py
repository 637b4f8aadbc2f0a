"""Check the shipped files: exact match of greedy answers before and after fine-tuning, at several learning rates.

python check.py --shipped DIR [--run METHOD:RATE:BATCH ...]    (DIR holds base/, instruct.jsonl, instruct_test.jsonl)
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from documents import FORMS
from instruct import WORDINGS
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from memory import keep_freed_memory

DEFAULT_RUNS = [
    "lora:2e-4:16", "lora:1e-3:16", "lora:3e-3:16", "lora:1e-2:16",
    "lora:2e-3:8", "lora:2e-3:16", "lora:2e-3:32", "lora:2e-3:64",
    "full:3e-4:16", "full:1e-3:16",
]  # fmt: skip
MICRO_BATCH = 16
VALIDATION_ROWS = 200


@dataclass
class Example:
    """One row as token ids."""

    prompt: list[int]
    answer: list[int]
    text: str


def encode(tokenizer: PreTrainedTokenizerBase, row: dict[str, str]) -> Example:
    """A row in the chat form; the answer ends with eos."""
    user = row["instruction"] + ("\n\n" + row["input"] if row["input"] else "")
    chat = [{"role": "user", "content": user}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    answer = tokenizer(row["output"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    return Example(ids, answer, row["output"])


def load_rows(tokenizer: PreTrainedTokenizerBase, path: Path) -> list[Example]:
    """All rows of a JSON-lines file as examples."""
    return [encode(tokenizer, json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def collate(examples: list[Example], pad: int) -> dict[str, torch.Tensor]:
    """Right-padded tensors with the loss on answers only."""
    longest = max(len(e.prompt) + len(e.answer) for e in examples)
    ids, mask, labels = [], [], []
    for e in examples:
        gap = longest - len(e.prompt) - len(e.answer)
        ids.append(e.prompt + e.answer + [pad] * gap)
        mask.append([1] * (longest - gap) + [0] * gap)
        labels.append([-100] * len(e.prompt) + e.answer + [-100] * gap)
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask), "labels": torch.tensor(labels)}


def summed_loss(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Sum of the answer tokens' losses in nats."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    targets = batch["labels"][:, 1:]
    kept = targets != -100
    return torch.nn.functional.cross_entropy(logits[kept].float(), targets[kept], reduction="sum")


@torch.no_grad()
def validation_loss(model: PreTrainedModel, examples: list[Example], pad: int) -> float:
    """Mean loss in nats an answer token."""
    model.eval()
    total = sum(float(summed_loss(model, collate(examples[i : i + 50], pad))) for i in range(0, len(examples), 50))
    return total / sum(len(e.answer) for e in examples)


@torch.no_grad()
def answers(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: list[Example]) -> list[str]:
    """Greedy answers, at most 24 tokens each."""
    model.eval()
    texts = []
    for start in range(0, len(examples), 100):
        prompts = [e.prompt for e in examples[start : start + 100]]
        longest = max(map(len, prompts))
        ids = torch.tensor([[tokenizer.pad_token_id] * (longest - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=24, do_sample=False)
        texts += [t.strip() for t in tokenizer.batch_decode(out[:, longest:], skip_special_tokens=True)]
    return texts


def exact_match(given: list[str], examples: list[Example]) -> float:
    """Share of answers that equal the row's output."""
    return sum(a == e.text for a, e in zip(given, examples, strict=True)) / len(examples)


def prepare(base: Path, method: str, seed: int) -> tuple[PreTrainedModel, list[torch.nn.Parameter]]:
    """The base model ready for LoRA (rank 16, alpha 32, all linear layers) or for full fine-tuning."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if method == "lora":
        lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, lora)
    return model, [p for p in model.parameters() if p.requires_grad]


def scale_at(step: int, steps: int) -> float:
    """5 % linear warm-up, then linear decay to zero."""
    warm = max(1, round(0.05 * steps))
    return (step + 1) / warm if step < warm else (steps - step) / (steps - warm)


def fine_tune(
    model: PreTrainedModel,
    weights: list[torch.nn.Parameter],
    examples: list[Example],
    rate: float,
    batch: int,
    epochs: int,
    seed: int,
    pad: int,
) -> None:
    """AdamW over the rows, the loss weighted by answer tokens over each whole batch."""
    optimiser = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
    rng = random.Random(seed)
    order = [e for _ in range(epochs) for e in rng.sample(examples, len(examples))]
    steps = len(order) // batch
    model.train()
    for step in range(steps):
        rows = order[step * batch : (step + 1) * batch]
        tokens = sum(len(e.answer) for e in rows)
        for i in range(0, batch, MICRO_BATCH):
            (summed_loss(model, collate(rows[i : i + MICRO_BATCH], pad)) / tokens).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        for group in optimiser.param_groups:
            group["lr"] = rate * scale_at(step, steps)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)


def overlap(shipped: Path) -> int:
    """Rows that are twice in the two files, plus instruction wordings that also occur among the documents' forms."""
    lines = [line for name in ("instruct.jsonl", "instruct_test.jsonl") for line in (shipped / name).open()]
    repeated = sum(n - 1 for n in Counter(lines).values())
    forms = " ".join(form for group in FORMS.values() for form in group)
    return repeated + sum(instruction in forms for group in WORDINGS.values() for instruction, _ in group)


def main() -> None:
    """Print the table of runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shipped", type=Path, required=True)
    parser.add_argument("--run", nargs="*", default=DEFAULT_RUNS, help="METHOD:RATE:BATCH, METHOD lora or full")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--misses", type=int, default=0, help="print so many wrong answers of each run")
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    base = args.shipped / "base"
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = load_rows(tokenizer, args.shipped / "instruct.jsonl")
    train, valid = rows[:-VALIDATION_ROWS], rows[-VALIDATION_ROWS:]
    test = load_rows(tokenizer, args.shipped / "instruct_test.jsonl")
    lengths = [len(e.prompt) + len(e.answer) for e in rows]
    print(f"{len(rows)} rows of {min(lengths)} to {max(lengths)} tokens, mean {sum(lengths) / len(rows):.1f}")
    print(f"overlapping rows or wordings: {overlap(args.shipped)}")
    pad = tokenizer.pad_token_id
    model, _ = prepare(base, "full", args.seed)
    loss, share = validation_loss(model, valid, pad), exact_match(answers(model, tokenizer, test), test)
    print(f"base: validation loss {loss:.3f}, test exact match {share:.3f}", flush=True)
    for name in args.run:
        method, rate, batch = name.split(":")
        began = time.time()
        model, weights = prepare(base, method, args.seed)
        fine_tune(model, weights, train, float(rate), int(batch), args.epochs, args.seed, pad)
        trained = time.time()
        loss = validation_loss(model, valid, pad)
        judged = time.time()
        given = answers(model, tokenizer, test)
        seconds = f"training {trained - began:.1f} s, validation {judged - trained:.1f} s, "
        seconds += f"answers {time.time() - judged:.1f} s"
        share = exact_match(given, test)
        print(f"{name}: validation loss {loss:.3f}, test exact match {share:.3f}; {seconds}", flush=True)
        wrong = [(tokenizer.decode(e.prompt), e.text, a) for a, e in zip(given, test, strict=True) if a != e.text]
        for prompt, wanted, got in wrong[: args.misses]:
            print(f"   {prompt[6:]!r} wanted {wanted!r} got {got!r}")


if __name__ == "__main__":
    main()
