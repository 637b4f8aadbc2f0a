"""How large a model is for its learning rate: what it computes with, not what it stores."""

from __future__ import annotations

from finestep.facts import ModelFacts

SHARED = 1.5
"""A model whose layers would need so many times more parameters than it stores shares them between layers (ALBERT: 6)."""


def effective_parameters(model: ModelFacts) -> float | None:
    """Parameters of the model, those of shared layers counted once a layer; None when the size is unknown.

    >>> from finestep.facts import ModelShape
    >>> facts = ModelFacts(
    ...     name="x",
    ...     num_parameters=11_700_000,
    ...     shape=ModelShape(num_layers=12, hidden_size=768, intermediate_size=3072),
    ... )
    >>> round(effective_parameters(facts) / 1e6)
    71
    """
    stored, layers, hidden, inner = (
        model.num_parameters,
        model.shape.num_layers,
        model.shape.hidden_size,
        model.shape.intermediate_size,
    )
    if stored is None:
        return None
    # Query and output projection, and two matrices of the feed-forward layer: the least that any such layer has.
    unshared = 2.0 * layers * (hidden**2 + hidden * inner) if layers and hidden and inner else 0.0
    return unshared if unshared > SHARED * stored else float(stored)
