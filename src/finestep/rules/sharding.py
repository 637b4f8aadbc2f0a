"""Whether each device of a trial can hold the whole base, or must hold a part of it. It knows no device and loads nothing.

A whole base on each device is faster: in parts, every pass gathers all weights from the other devices.
"""

from __future__ import annotations

from finestep.recipe import Method

STATIC_BYTES: dict[Method, float] = {"full": 16.0, "lora": 2.0, "qlora": 0.6}
"""Bytes a weight that stay for the whole run: for `full` weight, gradient and Adam's two moments in float32; for adapters the frozen
base in bfloat16, or in 4 bits with its scales. Adapters themselves are a per cent of it."""
SHARE_FOR_STATIC = 0.7
"""Of a device's memory; the rest is for activations. Assumed, not measured."""


def holds_whole(num_parameters: int, *, method: Method, memory_bytes: int) -> bool:
    """True where one device has room for all that stays.

    >>> holds_whole(8 * 10**9, method="lora", memory_bytes=80 * 10**9)
    True
    >>> holds_whole(8 * 10**9, method="full", memory_bytes=80 * 10**9)
    False
    """
    return num_parameters * STATIC_BYTES[method] <= memory_bytes * SHARE_FOR_STATIC
