"""Writes the output of ten commands anew into docs/examples/recommend-*.md; the judgement below each stays as it is.

`python scripts/make_examples.py` makes the data of each example in a temporary folder (sizes and lengths as stated in
the table, the words are of no matter) and runs `finestep recommend` there, offline.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "docs/examples"
BLOCK = re.compile(r"```console\n.*?```\n", re.S)
COLUMNS = "120"


@dataclass(frozen=True, slots=True)
class Example:
    """A command, and the data it reads: rows, and the median characters of prompt and answer (or text and labels)."""

    slug: str
    arguments: str
    file: str | None = None
    rows: int = 0
    prompt: int = 0
    answer: int = 0
    labels: int = 0


EXAMPLES = (
    Example("01-llama-8b-lora-chats", "Llama-3.1-8B chats.jsonl --gpu h100", "chats.jsonl", 10_000, 600, 1_200),
    Example(
        "02-qwen3-0.6b-full", "Qwen3-0.6B-Base support.jsonl --gpu 24GB --method full", "support.jsonl", 5_000, 400, 600
    ),
    Example(
        "03-chatglm-p-tuning", "chatglm-6b adgen.jsonl --gpu 24GB --method p-tuning", "adgen.jsonl", 20_000, 150, 350
    ),
    Example("04-roberta-intents", "roberta-base intents.jsonl --gpu t4", "intents.jsonl", 10_003, 60, labels=77),
    Example(
        "05-llama-70b-qlora-48gb",
        "Llama-3.1-70B chats.jsonl --gpu 48GB --method qlora",
        "chats.jsonl",
        10_000,
        600,
        1_200,
    ),
    Example("06-qwen2.5-7b-few-rows", "Qwen2.5-7B style.jsonl --gpu 24GB", "style.jsonl", 500, 200, 600),
    Example(
        "07-mistral-7b-full-100k",
        "Mistral-7B-v0.1 instructions.jsonl --gpu 8xh200 --method full",
        "instructions.jsonl",
        100_000,
        300,
        700,
    ),
    Example(
        "08-deberta-large-entailment",
        "deberta-v3-large entailment.jsonl --gpu 24GB",
        "entailment.jsonl",
        2_490,
        250,
        labels=2,
    ),
    Example("09-unknown-13b", "--params 13B --gpu 40GB"),
    Example(
        "10-qwen3-30b-moe-rank-64",
        "Qwen3-30B-A3B code.jsonl --gpu h200 --rank 64",
        "code.jsonl",
        50_000,
        800,
        1_500,
    ),
)


def main() -> None:
    """Run each command and put its output into its file."""
    for example in EXAMPLES:
        page = FOLDER / f"recommend-{example.slug}.md"
        block = f"```console\n$ finestep recommend {example.arguments}\n{output(example)}```\n"
        page.write_text(BLOCK.sub(lambda _, block=block: block, page.read_text(), count=1))
        print(page.name)


def output(example: Example) -> str:
    """What the command prints."""
    with tempfile.TemporaryDirectory() as folder:
        if example.file:
            rows = labelled(example) if example.labels else answered(example)
            (Path(folder) / example.file).write_text("".join(json.dumps(row) + "\n" for row in rows))
        command = [sys.executable, "-m", "finestep", "recommend", *example.arguments.split()]
        environment = {**os.environ, "COLUMNS": COLUMNS, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return "".join(line.rstrip() + "\n" for line in done.stdout.splitlines())


def answered(example: Example) -> Iterator[dict[str, str]]:
    """Prompts with answers."""
    chance = random.Random(example.slug)
    for number in range(example.rows):
        prompt = f"{number} " + words(chance, example.prompt)
        yield {"prompt": prompt, "completion": words(chance, example.answer)}


def labelled(example: Example) -> Iterator[dict[str, str]]:
    """Texts with labels."""
    chance = random.Random(example.slug)
    for number in range(example.rows):
        yield {"text": f"{number} " + words(chance, example.prompt), "label": f"label {number % example.labels}"}


def words(chance: random.Random, median: int) -> str:
    """Text of log-normal length around `median` characters."""
    length = int(median * chance.lognormvariate(0.0, 0.6))
    return ("lorem ipsum dolor sit amet " * (length // 27 + 1))[:length]


if __name__ == "__main__":
    main()
