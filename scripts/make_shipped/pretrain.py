"""Pre-train the shipped base model on generated documents and, if given, plain text; saves fp16 safetensors.

python pretrain.py --out DIR [--text FILE ...]    (DIR holds the tokenizer; see make_tokenizer.py)
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from documents import MARK, documents, marked_documents
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from memory import keep_freed_memory

SKILL_ROWS, SKILL_LENGTH = 10, 256
TEXT_LENGTH = 512
HELD_OUT_SHARE = 0.04


def new_model(tokenizer: PreTrainedTokenizerBase, *, width: int = 128, layers: int = 4) -> LlamaForCausalLM:
    """A small Llama with tied embeddings, fresh weights."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


@dataclass
class Packed:
    """Rows of token ids, and for each token the weight of its loss."""

    ids: torch.Tensor
    weights: torch.Tensor

    def rows_at(self, order: torch.Tensor, step: int, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The ids and weights of one step, going round the shuffled rows again when they end."""
        at = order[torch.arange(step * rows, (step + 1) * rows) % len(order)]
        return self.ids[at].long(), self.weights[at]


def pack(tokenizer: PreTrainedTokenizerBase, texts: list[str], length: int, question_weight: float = 1.0) -> Packed:
    """All texts, each between bos and eos, as rows of that many tokens; marked answers weigh 1, the rest less."""
    ids: list[int] = []
    weights: list[float] = []
    for text in texts:
        ids.append(tokenizer.bos_token_id)
        weights.append(question_weight)
        pieces = text.split(MARK)
        for i, one in enumerate(tokenizer.backend_tokenizer.encode_batch_fast(pieces)):
            ids += one.ids
            weights += [1.0 if i % 2 or len(pieces) == 1 else question_weight] * len(one.ids)
        ids.append(tokenizer.eos_token_id)
        weights.append(1.0)
    rows = len(ids) // length
    used = rows * length
    return Packed(torch.tensor(ids[:used]).view(rows, length).short(), torch.tensor(weights[:used]).view(rows, length))


def split_text(paths: list[Path]) -> tuple[list[str], list[str]]:
    """The text of the files: the first part to train on and a held-out tail of each."""
    train, held_out = [], []
    for path in paths:
        text = path.read_text(encoding="utf-8")
        cut = int(len(text) * (1 - HELD_OUT_SHARE))
        train.append(text[:cut])
        held_out.append(text[cut:])
    return train, held_out


def rate_at(step: int, steps: int, peak: float) -> float:
    """The learning rate of a step: 3 % linear warm-up, then cosine to 2 % of the peak."""
    warm = max(1, int(0.03 * steps))
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm))))


def loss_of(model: LlamaForCausalLM, rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted mean next-token loss in nats, computed with bfloat16 products."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(input_ids=rows).logits[:, :-1]
    losses = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten(), reduction="none")
    kept = weights[:, 1:].flatten()
    return (losses * kept).sum() / kept.sum()


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, data: Packed) -> float:
    """Mean loss in nats a token over at most 64 rows, every token with the same weight."""
    model.eval()
    losses = [float(loss_of(model, rows.long(), torch.ones(rows.shape))) for rows in data.ids[:64].split(8)]
    model.train()
    return sum(losses) / max(1, len(losses))


def save(model: LlamaForCausalLM, out: Path) -> None:
    """Save fp16 weights with a configuration that makes `from_pretrained` give float32."""
    half = LlamaForCausalLM(model.config)
    half.load_state_dict(model.state_dict())
    half.half().save_pretrained(out)
    config = json.loads((out / "config.json").read_text())
    config["dtype"] = "float32"
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def optimiser_for(model: LlamaForCausalLM, rate: float) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))


def train(model: LlamaForCausalLM, skills: Packed, text: Packed, args: argparse.Namespace) -> int:
    """Train for the steps asked for and return the number of tokens seen."""
    skill_order, text_order = torch.randperm(len(skills.ids)), torch.randperm(len(text.ids))
    optimiser = optimiser_for(model, args.rate)
    began = time.time()
    seen = 0
    skill_share = SKILL_ROWS * SKILL_LENGTH / (SKILL_ROWS * SKILL_LENGTH + args.text_rows * TEXT_LENGTH)
    for step in range(args.steps):
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, args.steps, args.rate)
        rows, weights = skills.rows_at(skill_order, step, SKILL_ROWS)
        skill_loss = loss_of(model, rows, weights)
        seen += rows.numel()
        text_loss = torch.tensor(math.nan)
        if len(text_order):
            (skill_share * skill_loss).backward()
            text_rows, text_weights = text.rows_at(text_order, step, args.text_rows)
            text_loss = loss_of(model, text_rows, text_weights)
            ((1 - skill_share) * text_loss).backward()
            seen += text_rows.numel()
        else:
            skill_loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if step % 50 == 0 or step + 1 == args.steps:
            pace = seen / (time.time() - began)
            print(f"step {step} documents {skill_loss:.3f} text {text_loss:.3f} {pace:.0f} tokens/s", flush=True)
        if args.save_every and (step + 1) % args.save_every == 0:
            save(model, args.out)
        if step + 1 == args.stop_after:
            break
    return seen


def main() -> None:
    """Make the data, train, report and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--text", type=Path, nargs="*", default=[])
    parser.add_argument("--text-rows", type=int, default=2, help="rows of text a step, of 512 tokens each")
    parser.add_argument("--question-weight", type=float, default=1.0, help="loss weight of document tokens not answers")
    parser.add_argument("--steps", type=int, default=4200)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--width", type=int, default=128, help="width of the model; the shipped one has 128")
    parser.add_argument("--layers", type=int, default=4, help="layers of the model; the shipped one has 4")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save-every", type=int, default=0, help="also save after every so many steps")
    parser.add_argument("--stop-after", type=int, default=0, help="end after so many of the steps")
    parser.add_argument("--go-on", action="store_true", help="start from the weights in DIR, with a fresh optimiser")
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.out)
    needed = args.steps * SKILL_ROWS * SKILL_LENGTH
    marked = marked_documents(math.ceil(needed / 50), args.seed)
    skills = pack(tokenizer, marked, SKILL_LENGTH, args.question_weight)
    skills_held_out = pack(tokenizer, documents(400, args.seed + 1000), SKILL_LENGTH)
    train_text, held_out_text = split_text(args.text)
    text = pack(tokenizer, train_text, TEXT_LENGTH)
    text_held_out = pack(tokenizer, held_out_text, TEXT_LENGTH)
    print(f"{skills.ids.numel()} tokens of documents, {text.ids.numel()} tokens of text", flush=True)
    fresh = new_model(tokenizer, width=args.width, layers=args.layers)
    model = LlamaForCausalLM.from_pretrained(args.out) if args.go_on else fresh
    began = time.time()
    seen = train(model, skills, text, args)
    save(model, args.out)
    print(f"{model.num_parameters()} parameters, {seen} tokens seen, {(time.time() - began) / 60:.1f} minutes")
    print(f"held-out loss: documents {held_out_loss(model, skills_held_out):.3f}, ", end="")
    print(f"text {held_out_loss(model, text_held_out):.3f}" if len(text_held_out.ids) else "no text")


if __name__ == "__main__":
    main()
