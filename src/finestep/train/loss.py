"""The training loss: sums of negative log-likelihoods over the tokens that carry loss, in fp32.

Shapes: N rows, S tokens, D hidden width, K tokens that carry loss, V vocabulary, C labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from finestep.train.model import Placement
from finestep.train.tokens import Batch


class TokenLoss:
    """Computes the loss of batches, and spends nothing on tokens that carry none.

    Only the hidden states of trained tokens go through the output head: a hook picks them right before it, so that whatever a
    model does to its logits afterwards (scaling, capping) still happens. For long prompts and large vocabularies this is most of
    the memory and much of the time of the head.
    """

    def __init__(self, model: Any, placement: Placement):
        self.placement = placement
        self._kept: torch.Tensor | None = None
        head = model.get_output_embeddings()
        if head is not None:
            head.register_forward_pre_hook(self._keep_trained)

    def sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """Sum of the negative log-likelihoods of a batch in nats."""
        return self.each(model, batch).sum()

    def lane_sums(self, model: Any, batch: Batch, units: Sequence[int]) -> torch.Tensor:
        """Sums of the negative log-likelihoods of each lane, [lanes]; `units` is what `collate_lanes` counted.

        Each lane is summed by itself, so that what happens in another one cannot reach it.
        """
        each = self.each(model, batch)
        lanes = each.view(len(units), -1) if batch.classes_N is not None else each.split(list(units))
        return torch.stack([lane.sum() for lane in lanes])

    def each(self, model: Any, batch: Batch) -> torch.Tensor:
        """Negative log-likelihoods of the trained tokens in row order, [K]; for labels of all rows, [N] (0 without a label).

        Causal rows are padded on the right and need no attention mask: no real token looks at a later one.
        """
        if batch.classes_N is not None:
            return F.cross_entropy(self.class_logits(model, batch), batch.classes_N, reduction="none")
        labels_NS = F.pad(batch.labels_NS, (0, 1), value=-100)[:, 1:]  # type: ignore[arg-type]
        labels = labels_NS.reshape(-1)
        kept = (labels != -100).nonzero().squeeze(1)
        logits_KV = self._trained_logits(model, batch, kept)
        return F.cross_entropy(logits_KV.float(), labels[kept], reduction="none")

    def class_logits(self, model: Any, batch: Batch) -> torch.Tensor:
        """Logits of the labels, [N, C], fp32."""
        with self.placement.computing():
            return model(input_ids=batch.ids_NS, attention_mask=batch.attention_NS).logits.float()

    def _trained_logits(self, model: Any, batch: Batch, kept: torch.Tensor) -> torch.Tensor:
        self._kept = kept
        try:
            with self.placement.computing():
                logits = model(input_ids=batch.ids_NS, use_cache=False).logits
        finally:
            self._kept = None
        return logits if logits.ndim == 2 else logits.flatten(0, 1).index_select(0, kept)

    def _keep_trained(self, head: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._kept is None:
            return None
        hidden_NSD = arguments[0]
        return (hidden_NSD.flatten(0, 1).index_select(0, self._kept), *arguments[1:])
