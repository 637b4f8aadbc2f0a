"""Guards: metrics of a run's last evaluation that must stay on one side of a number, e.g. `eval_kl<=0.5`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finestep.errors import BadInput, did_you_mean

_GUARD = re.compile(r"\s*([^<>=\s]+)\s*(<=|>=)\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*")


@dataclass(frozen=True)
class Guard:
    """One law: `name` at most, or at least, `limit`."""

    name: str
    is_upper: bool
    limit: float

    def holds(self, value: float) -> bool:
        """Whether a value keeps the law; NaN does not."""
        return value <= self.limit if self.is_upper else value >= self.limit


def parse_guard(text: str) -> Guard:
    """`eval_kl<=0.5` as a value.

    >>> parse_guard("eval_rewards/margins>=0").limit
    0.0
    """
    found = _GUARD.fullmatch(text)
    if not found:
        raise BadInput(
            "`--guard` takes NAME<=NUMBER or NAME>=NUMBER", value=text, next_step="e.g. 'eval_rewards/margins>=0'"
        )
    return Guard(found[1], found[2] == "<=", float(found[3]))


def broken_guard(guards: Sequence[str], values: Mapping[str, float]) -> str | None:
    """The first guard that does not hold, with what was measured; None when all do.

    Raises:
        BadInput: a guard names something that the log does not hold.
    """
    for text in guards:
        guard = parse_guard(text)
        if guard.name not in values:
            raise BadInput(
                f"`--guard` needs a metric that the log holds{did_you_mean(guard.name, values)}",
                value=guard.name,
                next_step="it holds " + ", ".join(sorted(values)),
            )
        if not guard.holds(values[guard.name]):
            return f"`{guard.name}` is {values[guard.name]:.4g}, and the guard is {text}"
    return None
