"""How many rows per optimizer step: enough updates first, then what practice and measurements allow; it knows no
memory.

B is the power of two nearest to rows x epochs / 500, within 8 and a cap by method: LoRA 64 (it loses at large
batches: evidence
`lr-matters`, `lora-without-regret`), full 128, classification 16. Never fewer than 100 updates where the data allow it
(`updates-floor`). A measured gradient noise scale caps it further: rows beyond it buy little.
"""

from __future__ import annotations

import math

from finestep.estimate import Estimate

WANTED_UPDATES, FEWEST_UPDATES = 500, 100
SMALLEST = 8
CAPS = {"lora": 64, "qlora": 64, "full": 128, "prompt": 16}
CLASSIFICATION_CAP = 16
"""Five encoders at fixed epochs and tuned rates were best at 8 or 16 rows (evidence `politeness-encoders`, `own-surfaces`)."""
ASSUMED_ROWS = 10_000


def effective_batch_size(
    group: str,
    *,
    num_rows: int | None,
    num_epochs: float,
    classification: bool = False,
    noise_scale: float | None = None,
) -> Estimate:
    """Effective batch size in rows.

    >>> effective_batch_size("lora", num_rows=10_000, num_epochs=2.0).value
    32.0
    """
    seen = (ASSUMED_ROWS if num_rows is None else num_rows) * num_epochs
    cap = min(CAPS[group], CLASSIFICATION_CAP) if classification else CAPS[group]
    if noise_scale is not None:
        cap = min(cap, max(SMALLEST, power_of_two(noise_scale)))
    wanted = min(max(power_of_two(seen / WANTED_UPDATES), SMALLEST), cap)
    most = max(1, 2 ** int(math.log2(max(seen / FEWEST_UPDATES, 1.0))))
    value = float(min(wanted, most))
    return Estimate(
        value=value,
        low=max(1.0, value / 2),
        high=max(value, min(2 * value, 2.0 * cap)),
        unit="rows per step",
        source="updates-floor",
        why=_why(value, seen, cap, noise_scale),
    )


def power_of_two(value: float) -> int:
    """The nearest power of two in log scale, at least 1.

    >>> power_of_two(40)
    32
    """
    return 1 << max(round(math.log2(max(value, 1.0))), 0)


def _why(value: float, seen: float, cap: int, noise_scale: float | None) -> str:
    steps = math.ceil(seen / value)
    limit = "; the measured gradient noise caps it" if noise_scale is not None and value == cap else ""
    if value == cap and not limit:
        limit = "; larger ones were no better where measured"
    return f"{steps:,} updates{limit}"
