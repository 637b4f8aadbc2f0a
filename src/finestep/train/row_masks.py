"""Which tokens of a row belong to one text: told to transformers, which would otherwise read it from the device.

Without an attention mask transformers looks at the positions to find several texts in one row, and waits for the answer in every
pass (`masking_utils.find_packed_sequence_indices`). Training knows the answer on the host.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

ASKED = "find_packed_sequence_indices"
"""The function of `transformers.masking_utils` that looks for several texts in one row."""


@contextmanager
def texts_of_rows(texts_NS: torch.Tensor | None) -> Iterator[None]:
    """Inside, a pass without an attention mask takes the texts of its rows as given, and looks at no values.

    Args:
        texts_NS: the number of the text that each token belongs to; None: every row is one text.
    """
    from transformers import masking_utils

    original = getattr(masking_utils, ASKED, None)
    if original is None:
        yield
        return
    setattr(masking_utils, ASKED, lambda position_ids: texts_NS)
    try:
        yield
    finally:
        setattr(masking_utils, ASKED, original)
