"""A trial's place in a pack: its row there, or a copy of its tensors while it waits for one. It never trains."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from finestep.train.adapters import AdapterRows
from finestep.train.half_step import half_step, load_half_step
from finestep.train.trial_rows import TrialRows, Values


class Seat:
    """The tensors of one trial, wherever they are now."""

    def __init__(self, number: int, *, scale: float):
        self.number, self._scale = number, scale
        self.rows: TrialRows
        self._parked: tuple[Values, Values] | None = None

    @property
    def is_parked(self) -> bool:
        """True while the trial waits with a copy of its tensors."""
        return self._parked is not None

    def take(self, rows: TrialRows, start: tuple[Values, Values] | None) -> None:
        """Take a row, with `start` (values, moments) or with what was parked."""
        values, moments = self._parked or start or ({}, {})
        self._parked = None
        self.rows = rows
        rows.join(self.number, values, scale=self._scale, moments=moments)

    def park(self) -> None:
        """Keep a copy of the tensors, for another row later. The row itself is still to be left."""
        self._parked = (self.values(), self.moments())

    def leave(self) -> None:
        """Give up the row."""
        self.rows.leave(self.number)

    def values(self) -> Values:
        """The trained tensors as they are now."""
        return self._parked[0] if self._parked else self.rows.values(self.number)

    def moments(self) -> Values:
        """Adam's moments as they are now."""
        return self._parked[1] if self._parked else self.rows.moments(self.number)

    def load(self, values: Values, moments: Values | None = None) -> None:
        """Write tensors into the row."""
        self.rows.load(self.number, values)
        if moments is not None:
            self.rows.load_moments(self.number, moments)

    def half_step_in_company(self) -> Values:
        """Gradients and loss of a step that is half done, where others share the pass; empty for a trial that is alone, which makes
        its step anew just as well."""
        if not isinstance(self.rows, AdapterRows) or len(self.rows.keys) < 2 or self.is_parked:
            return {}
        return half_step(self.rows, self.number)

    def load_half_step(self, half: Values) -> None:
        """Go on with the gradients and the loss of a step that is half done."""
        assert isinstance(self.rows, AdapterRows)
        load_half_step(self.rows, self.number, half)

    def only(self) -> AbstractContextManager[None]:
        """Inside, a forward pass serves this trial alone."""
        return self.rows.only(self.number)

    def kept(self, values: Values) -> dict[str, torch.Tensor]:
        """`values` in host memory and safe from further training.

        Rows of adapters hand out copies, a whole model its own tensors: only these must be copied again.
        """
        is_copy = isinstance(self.rows, AdapterRows)
        return {name: value.detach().to("cpu", copy=not is_copy) for name, value in values.items()}
