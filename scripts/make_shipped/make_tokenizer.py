"""Train the shipped tokenizer: byte-level BPE, digits apart, a ChatML-like chat template.

python make_tokenizer.py --out DIR [--text FILE ...]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from documents import documents
from lexicon import all_words
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

WORD_PATTERN = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""A word, one digit, a run of signs (each with the space before it), or white space."""

BOS, EOS, PAD, TURN = "<|bos|>", "<|eos|>", "<|pad|>", "<|turn|>"

ROLES = ["system", "user", "assistant"]
"""Words that get an entry of their own, for the chat turns."""

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|turn|>' + message['role'] + '\\n' + (message['content'] | trim) }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{{ '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|turn|>assistant\\n' }}{% endif %}"
)
"""Turns of system, user and assistant; each assistant turn ends with the eos token."""


def train_tokenizer(texts: list[str], entries: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of that many entries."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=entries,
        special_tokens=[PAD, BOS, EOS, TURN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=[TURN],
        chat_template=CHAT_TEMPLATE,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )


def main() -> None:
    """Train on generated documents and the optional text files, and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--text", type=Path, nargs="*", default=[])
    parser.add_argument("--entries", type=int, default=2560)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    texts = documents(12_000, args.seed) + [p.read_text(encoding="utf-8") for p in args.text]
    texts += ["\n".join([*ROLES, *all_words()])] * 200
    tokenizer = train_tokenizer(texts, args.entries)
    tokenizer.save_pretrained(args.out)
    settings = json.loads((args.out / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"  # the name that old and new transformers know
    (args.out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    print(f"{len(tokenizer)} entries saved in {args.out}")


if __name__ == "__main__":
    main()
