"""What the terminal says of a trial that runs."""

from __future__ import annotations

import pytest

from finestep.cli.screen import UnderWay
from finestep.recipe import Recipe
from finestep.trial import Trial


@pytest.mark.parametrize(
    ("first", "step", "loss", "said"),
    [
        (0, 0, None, "before step 1 of 57"),
        (20, 20, None, "before step 21 of 57"),
        (0, 3, 2.5, "step 3 of 57, loss 2.5000"),
        (0, 3, float("nan"), "step 3 of 57, loss NaN"),
    ],
)
def test_a_loss_that_was_not_measured_yet_is_not_shown_as_one(first, step, loss, said):
    """A trial of which no step is made had `step 0 of 57, loss NaN`, as if it were lost."""
    trial = Trial(number=5, recipe=Recipe(), fidelity=0.125, state="running")
    running = UnderWay(trial, num_steps=57, first_step=first, step=step)
    if loss is not None:
        running.loss = loss
    assert running.standing() == said
