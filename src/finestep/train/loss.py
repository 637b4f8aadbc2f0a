"""The training loss: sums of negative log-likelihoods over the tokens that carry loss, in fp32.

Shapes: N rows, S tokens, D hidden width, K tokens that carry loss, V vocabulary, C labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from finestep.errors import BadInput
from finestep.train.batch import NO_LOSS, Batch
from finestep.train.chunked_loss import chunked_nll
from finestep.train.model import Placement
from finestep.train.row_masks import texts_of_rows

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

LEAST_CHUNK = 64


class TokenLoss:
    """Computes the loss of batches, and spends nothing on tokens that carry none.

    Only the hidden states of trained tokens go through the output head: a hook picks them right before it, so that whatever a
    model does to its logits afterwards (scaling, capping) still happens. For long prompts and large vocabularies this is most of
    the memory and much of the time of the head. With `chunk_tokens` the logits never exist as a whole.
    """

    def __init__(self, model: PreTrainedModel, placement: Placement):
        self.placement = placement
        self.chunk_tokens: int | None = None
        self.one_length_at_a_time = False
        """Pass rows of different lengths one after the other, for a model whose answers change with what stands behind a row."""
        self.is_native = False
        """Compute without autocast: rows of adapters cast themselves once a step, and autocast would do it in every layer."""
        self._texts: tuple[torch.Tensor | None, torch.Tensor | None] = (None, None)
        self._kept: torch.Tensor | None = None
        self._hidden_KD: torch.Tensor | None = None
        self._wants_hidden = False
        self._head: torch.nn.Module | None = model.get_output_embeddings()
        self._config = model.config
        if self._head is not None:
            self._head.register_forward_pre_hook(self._keep_trained)

    def computing(self) -> AbstractContextManager[object]:
        """A context for forward passes: autocast where the placement asks for it, unless the layers choose their own precision."""
        return nullcontext() if self.is_native else self.placement.computing()

    def sum(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Sum of the negative log-likelihoods of a batch in nats."""
        return self.each(model, batch).sum()

    def lane_sums(self, model: torch.nn.Module, batch: Batch, units: Sequence[int]) -> torch.Tensor:
        """Sums of the negative log-likelihoods of each lane, [lanes]; `batch` and `units` are from `collate_lanes`.

        Each lane is a row of its own in the sum, so that what happens in another one cannot reach it.
        """
        return self.each(model, batch).view(len(units), -1).sum(1)

    def each(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Negative log-likelihoods of the trained tokens in row order, [K]; for labels of all rows, [N] (0 without a label).

        Causal rows are padded on the right and need no attention mask: no real token looks at a later one.
        """
        if batch.classes_N is not None:
            return F.cross_entropy(self.class_logits(model, batch), batch.classes_N, reduction="none")
        if self.one_length_at_a_time and len(parts := by_length(batch)) > 1:
            rows: dict[int, torch.Tensor] = {}
            for places, part in parts:
                assert part.labels_NS is not None
                counts = (part.labels_NS[:, 1:] != NO_LOSS).sum(1).tolist()
                rows |= dict(zip(places.tolist(), torch.split(self.each(model, part), counts), strict=True))
            return torch.cat([rows[place] for place in range(len(rows))])
        assert batch.kept_K is not None
        assert batch.targets_K is not None
        self._texts = (batch.positions_NS, batch.texts_NS)
        try:
            return self.each_of_tokens(model, batch.ids_NS, batch.kept_K, batch.targets_K)
        finally:
            self._texts = (None, None)

    def each_of_tokens(
        self, model: torch.nn.Module, ids_NS: torch.Tensor, kept: torch.Tensor, labels_K: torch.Tensor
    ) -> torch.Tensor:
        """The same for tokens given by their places in the flat batch and what should follow each of them.

        In chunks, and with a head that is trained, all tokens must weigh the same in what is made of the answer.
        """
        if self.chunk_tokens is None or self._head is None:
            return F.cross_entropy(self._trained_logits(model, ids_NS, kept).float(), labels_K, reduction="none")
        return self._chunked(model, ids_NS, kept, labels_K)

    def class_logits(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Logits of the labels, [N, C], fp32."""
        if self.one_length_at_a_time and len(parts := by_length(batch)) > 1:
            logits = torch.cat([self.class_logits(model, part) for _, part in parts])
            return logits[torch.cat([places for places, _ in parts]).argsort()]
        types = {} if batch.types_NS is None else {"token_type_ids": batch.types_NS}
        with self.computing():
            answer = model(input_ids=batch.ids_NS, attention_mask=batch.attention_NS, **types)
        logits_NC: torch.Tensor = answer.logits.float()
        return logits_NC

    @torch.no_grad()
    def cut_into_chunks(self, model: torch.nn.Module, chunk_tokens: int) -> None:
        """From now on compute head and loss for `chunk_tokens` tokens at a time, after a check that the loss stays the same.

        Raises:
            BadInput: the model does something to its logits that is not known here.
        """
        ids_NS = (
            torch.arange(1, 9, device=self.placement.device).unsqueeze(0) % self._config.get_text_config().vocab_size
        )
        places, labels_K = torch.arange(7, device=ids_NS.device), ids_NS[0, 1:]
        self.chunk_tokens = None
        whole = self.each_of_tokens(model, ids_NS, places, labels_K)
        self.chunk_tokens = max(chunk_tokens, LEAST_CHUNK)
        cut = self.each_of_tokens(model, ids_NS, places, labels_K)
        if not torch.allclose(whole, cut, rtol=1e-2):
            self.chunk_tokens = None
            raise BadInput(
                "chunked cross entropy must give the model's own loss",
                value=f"{cut.sum().item():.5g} instead of {whole.sum().item():.5g}",
                place=type(model).__name__,
                next_step="this model changes its logits in a way that finestep does not know: use whole logits",
            )

    def _chunked(
        self, model: torch.nn.Module, ids_NS: torch.Tensor, kept: torch.Tensor, labels_K: torch.Tensor
    ) -> torch.Tensor:
        hidden_KD = self._hidden(model, ids_NS, kept)
        assert self._head is not None
        trained = [value for value in self._head.parameters() if value.requires_grad]
        with self.computing():
            return chunked_nll(hidden_KD, labels_K, self._logits, trained, chunk=self.chunk_tokens or LEAST_CHUNK)

    def _hidden(self, model: torch.nn.Module, ids_NS: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """Hidden states before the head, [K, D]; the model's own head gets an empty batch."""
        self._wants_hidden = True
        try:
            self._trained_logits(model, ids_NS, kept)
            assert self._hidden_KD is not None
            return self._hidden_KD
        finally:
            self._wants_hidden, self._hidden_KD = False, None

    def _logits(self, hidden_KD: torch.Tensor) -> torch.Tensor:
        assert self._head is not None
        return _after_head(self._head(hidden_KD), self._config.get_text_config())

    def _trained_logits(self, model: torch.nn.Module, ids_NS: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        # The hook below sees these places only during this call: other callers of the model want all logits.
        self._kept = kept
        try:
            positions_NS, texts_NS = self._texts
            told = {} if positions_NS is None else {"position_ids": positions_NS}
            with self.computing(), texts_of_rows(texts_NS):
                logits: torch.Tensor = model(input_ids=ids_NS, use_cache=False, **told).logits
        finally:
            self._kept = None
        # Models without a known head have computed all logits, [N, S, V]; elsewhere the hook has left [K, V].
        return logits if logits.ndim == 2 else logits.flatten(0, 1).index_select(0, kept)

    def _keep_trained(
        self, head: torch.nn.Module, arguments: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, ...] | None:
        if self._kept is None:
            return None
        hidden_KD = arguments[0].flatten(0, 1).index_select(0, self._kept)
        # In chunks the head is called later; now it gets an empty batch, which costs nothing.
        if self._wants_hidden:
            self._hidden_KD, hidden_KD = hidden_KD, hidden_KD[:0]
        return (hidden_KD, *arguments[1:])


def by_length(batch: Batch) -> list[tuple[torch.Tensor, Batch]]:
    """(places of rows, a batch of them without padding) for each length in the batch."""
    lengths_N = batch.attention_NS.sum(1)
    parts = []
    for length in torch.unique(lengths_N).tolist():
        places = (lengths_N == length).nonzero().squeeze(1)
        ids_NS, attention_NS = batch.ids_NS[places, :length], batch.attention_NS[places, :length]
        labels_NS = None if batch.labels_NS is None else batch.labels_NS[places, :length]
        classes_N = None if batch.classes_N is None else batch.classes_N[places]
        types_NS = None if batch.types_NS is None else batch.types_NS[places, :length]
        kept_K, targets_K = (None, None) if labels_NS is None else _places_with_loss(labels_NS)
        parts.append((places, Batch(ids_NS, attention_NS, labels_NS, classes_N, types_NS, kept_K, targets_K)))
    return parts


def _places_with_loss(labels_NS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As `batch.places_with_loss`, for a batch that was cut on the device; it waits for the device."""
    labels = F.pad(labels_NS, (0, 1), value=NO_LOSS)[:, 1:].reshape(-1)
    kept = (labels != NO_LOSS).nonzero().squeeze(1)
    return kept, labels[kept]


def _after_head(logits: torch.Tensor, config: PretrainedConfig) -> torch.Tensor:
    """What models do to their logits: Cohere and Granite scale, Falcon H1 multiplies, Gemma caps them."""
    for name, power in (("logit_scale", 1.0), ("lm_head_multiplier", 1.0), ("logits_scaling", -1.0)):
        factor = getattr(config, name, None)
        if factor is not None:
            logits = logits * factor**power
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap
