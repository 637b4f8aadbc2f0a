"""Tokenizer: what this room asks of a tokenizer of transformers, as a type; it makes none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, overload

Message = dict[str, object]
"""A turn as a chat template takes it: `role`, `content`, and what else the template knows."""


class Tokenizer(Protocol):
    """The tokenizers of transformers have all of this."""

    chat_template: str | None
    bos_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None
    unk_token_id: int | None
    eos_token: str | None

    @overload
    def __call__(self, text: str, /, **options: object) -> Mapping[str, list[int]]: ...

    @overload
    def __call__(
        self, text: list[str], pair: list[str] = ..., /, **options: object
    ) -> Mapping[str, list[list[int]]]: ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Ids as text."""
        ...

    def batch_decode(self, sequences: Sequence[Sequence[int]], *, skip_special_tokens: bool = False) -> list[str]:
        """Several rows of ids as texts."""
        ...

    def apply_chat_template(self, conversation: list[Message], **options: object) -> str:
        """Turns as one text, where `tokenize=False` is among the options."""
        ...

    def num_special_tokens_to_add(self, *, pair: bool) -> int:
        """Special tokens around one text, or around two."""
        ...


class SavedTokenizer(Tokenizer, Protocol):
    """One that can be saved beside a tuned model."""

    def save_pretrained(self, save_directory: str) -> object:
        """Write its files into a folder."""
        ...
