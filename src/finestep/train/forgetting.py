"""The watch over forgetting: how far a tuned model has moved from its base on general text. It never sees the task's rows.

KL(base || tuned) in nats a token is forgetting up to a constant (Kalajdzievski 2024, arXiv 2401.05605); 0.05 to 0.1 is a usual budget.
Perplexity of the same tokens stands beside it. The base's own answers are computed once, when it has just been loaded.

Shapes: N rows, S tokens, P watched positions, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
import torch.nn.functional as F

from finestep.disk import refuse_special
from finestep.errors import BadInput
from finestep.train.model import Placement
from finestep.train.tokenizer import Tokenizer
from finestep.trial import BASE_GENERAL_PERPLEXITY, GENERAL_PERPLEXITY, KL_TO_BASE

ROW_TOKENS = 64
MAX_POSITIONS = 2048
MAX_KEPT_NUMBERS = 40_000_000
"""Log-probabilities of the base that are kept, in half precision: 80 MB."""
ROWS_AT_ONCE = 8
MIN_POSITIONS = 32
Computing = Callable[[], AbstractContextManager[object]]
"""A context for forward passes, in the precision in which the model computes now."""


class ForgettingWatch:
    """Watches one base on one text.

    Args:
        text: general text, in the language that the model shall keep.
        max_forgetting: most KL at the end of a run that is accepted, nats a token; None: it is only told.
    """

    def __init__(
        self,
        text: str,
        tokenizer: Tokenizer,
        placement: Placement,
        *,
        vocabulary_size: int,
        max_forgetting: float | None = None,
    ):
        self.placement, self.max_forgetting = placement, max_forgetting
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        most = min(MAX_POSITIONS, MAX_KEPT_NUMBERS // vocabulary_size)
        num_rows = min(len(ids) // ROW_TOKENS, max(1, most // (ROW_TOKENS - 1)))
        if num_rows * (ROW_TOKENS - 1) < MIN_POSITIONS:
            raise BadInput(
                f"the general text must have at least {ROW_TOKENS} tokens",
                value=f"{len(ids)} tokens",
                next_step="give a few pages of ordinary text",
            )
        stride = len(ids) // num_rows
        rows = [ids[start * stride : start * stride + ROW_TOKENS] for start in range(num_rows)]
        self._ids_NS = torch.tensor(rows, device=placement.device)
        self._base: list[torch.Tensor] = []
        self._base_perplexity = math.nan

    @property
    def num_positions(self) -> int:
        """Predicted tokens."""
        return self._ids_NS.shape[0] * (ROW_TOKENS - 1)

    @torch.no_grad()
    def learn_base(self, model: torch.nn.Module, computing: Computing | None = None) -> None:
        """Keep the answers of `model`, which must be the base."""
        chunks, total = [], 0.0
        for ids_NS in torch.split(self._ids_NS, ROWS_AT_ONCE):
            log_probs = self._log_probs(model, ids_NS, computing)
            total += _negative_log_likelihood(log_probs, ids_NS)
            chunks.append(log_probs.half().cpu())
        self._base, self._base_perplexity = chunks, math.exp(min(total / self.num_positions, 700.0))

    @torch.no_grad()
    def measure(self, model: torch.nn.Module, computing: Computing | None = None) -> dict[str, float]:
        """`kl_to_base` in nats a token, and perplexity of the general text now and of the base."""
        kl = total = 0.0
        for ids_NS, base in zip(torch.split(self._ids_NS, ROWS_AT_ONCE), self._base, strict=True):
            now = self._log_probs(model, ids_NS, computing)
            before = F.log_softmax(base.to(now.device).float(), dim=-1)
            kl += F.kl_div(now, before, reduction="sum", log_target=True).item()
            total += _negative_log_likelihood(now, ids_NS)
        return {
            KL_TO_BASE: max(kl, 0.0) / self.num_positions,
            GENERAL_PERPLEXITY: math.exp(min(total / self.num_positions, 700.0)),
            BASE_GENERAL_PERPLEXITY: self._base_perplexity,
        }

    def _log_probs(self, model: torch.nn.Module, ids_NS: torch.Tensor, computing: Computing | None) -> torch.Tensor:
        """[N, S - 1, V] in fp32."""
        was_training = model.training
        model.eval()
        try:
            with (computing or self.placement.computing)():
                logits_NSV = model(input_ids=ids_NS, use_cache=False).logits
        finally:
            model.train(was_training)
        return F.log_softmax(logits_NSV[:, :-1].float(), dim=-1)


def read_general_text(path: Path) -> str:
    """The text of a file.

    Raises:
        BadInput: it is missing or no text.
    """
    refuse_special(path)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            "the general text must be a readable UTF-8 file", value=str(error)[:120], place=str(path)
        ) from None


def _negative_log_likelihood(log_probs: torch.Tensor, ids_NS: torch.Tensor) -> float:
    return F.nll_loss(log_probs.flatten(0, 1), ids_NS[:, 1:].flatten(), reduction="sum").item()
