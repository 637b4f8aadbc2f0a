"""SearchPrior: what is believed about the shape of the problem before the first trial, with the source of each number.

Units: octaves are base-2 logarithms (of a learning rate or of a batch size); per cent are of the validation loss.
Nothing here is fitted on the surfaces that the search is judged on (docs/search.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from finestep.search.space import SearchSpace

DISTRUST = ((1.0, 0.75), (2.0, 0.2), (4.0, 0.05))
"""How many times less sure the prior's centre (and, apart from that, its motion) is than it says, with probabilities."""

RANGE_SHARE = 0.25
"""Chance that a prior whose centre lies outside the range of the space says nothing, and the range everything."""


class Bowl(BaseModel):
    """How fast the loss rises on both sides of its lowest place: the second derivatives, and the doubt about them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate_curvature: float = Field(0.48, gt=0, description="Second derivative in the learning rate, % per octave^2.")
    rate_curvature_spread: float = Field(0.7, gt=0, description="Log-normal spread (natural log).")
    batch_curvature: float = Field(0.48, gt=0, description="Second derivative along the batch size, % per octave^2.")
    batch_curvature_spread: float = Field(0.7, gt=0, description="Log-normal spread (natural log).")


class Drift(BaseModel):
    """How the lowest place moves with the length of the run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate_exponent: float = Field(-0.2, description="Best learning rate at a fixed batch ~ length^exponent.")
    rate_exponent_sd: float = Field(0.35, gt=0, description="Wide: the sources disagree even about the sign.")
    batch_exponent: float = Field(0.0, description="Best batch size ~ length^exponent; 0.45 in pre-training.")
    batch_exponent_sd: float = Field(0.45, gt=0)
    wander: float = Field(
        0.2, ge=0, description="How far the optimum strays from a power law of the length, octaves per root octave."
    )


class SearchPrior(BaseModel):
    """Centre, width and shape of the loss over learning rate, batch size and length.

    Sources of the defaults: curvature from the 35-model LoRA learning-rate sweep (0.010 per squared natural log unit,
    interquartile range 0.006 to 0.016); slope from the fixed-epoch exponents 0.60 (Lee), 0.23 (O'Neill), 0.5 (Tinker)
    and 0.16 (Marek 2507.07101); shift of the rate with length from -0.32 (Bjorck 2409.19913), -0.26 (Lee), -0.2
    (Thinking Machines) and +0.18 (O'Neill, confounded); cliff from P(diverged) of the LoRA sweep. The best batch of
    pre-training grows with length (0.38 to 0.65: Power Lines 2505.13738, critical batch sizes 2410.21676, DeepSeek as
    C^0.327), that of the project's own fine-tunes does not (-0.25 to 0.25 on five surfaces, benchmarks/data/finetuning).
    `wander` has no source: fine-tunes of a real encoder stray, and 0.2 to 0.3 served all surfaces tried (docs/log.md).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(2e-4, gt=0, description="Best learning rate at `batch_size`, full length.")
    learning_rate_sd: float = Field(1.2, gt=0, description="Its spread, octaves (1.2 = a factor of 2.3).")
    batch_size: float = Field(32.0, gt=0, description="Best effective batch size, full length.")
    batch_size_sd: float = Field(1.2, gt=0, description="Its spread, octaves.")
    slope: float = Field(0.4, description="d log(best learning rate) / d log(batch size).")
    slope_sd: float = Field(0.2, gt=0)
    bowl: Bowl = Bowl()
    drift: Drift = Drift()
    cliff: float = Field(
        2.8, gt=0, description="Octaves from the best learning rate to where half of the runs diverge."
    )
    cliff_sd: float = Field(0.8, gt=0)
    raggedness: float = Field(0.15, gt=0, description="Smooth departure of the loss from the bowl, %.")
    noise: float = Field(0.05, gt=0, description="Repeat noise near the optimum, sd, % (LoRA repeats: 0.013 to 0.05).")
    short_noise_share: float = Field(1.0, gt=0, description="Repeat noise of a short run over that of a full one.")

    def within(self, space: SearchSpace) -> SearchPrior:
        """The same prior for a best learning rate that lies in the space.

        A centre outside the space contradicts whoever chose the space. Then the optimum is near the edge, or the prior is
        less sure than it says, or it is wrong and the range alone is to be believed: the centre becomes the mean of what
        is left of the three inside the space. Just outside that is near the edge, far outside near the middle. A range of
        batch sizes is what the machine allows, not a belief: the best batch may lie beyond it, and the edge is then best.
        """
        rate, rate_sd = _inside(self.learning_rate, self.learning_rate_sd, space.learning_rates)
        return self.model_copy(update={"learning_rate": rate, "learning_rate_sd": rate_sd})


def _inside(centre: float, sd: float, values: Sequence[float]) -> tuple[float, float]:
    """Centre and spread (octaves) of the prior, cut to the range of the values when the centre is outside it."""
    if values[0] <= centre <= values[-1]:
        return centre, sd
    x = np.linspace(np.log2(values[0]), np.log2(values[-1]), 101)
    weight = sum(
        share / times * np.exp(-0.5 * ((x - np.log2(centre)) / (times * sd)) ** 2) for times, share in DISTRUST
    )
    anywhere = min(1 / DISTRUST[-1][0], sd * np.sqrt(np.pi / 2) / max(float(x[-1] - x[0]), 1e-9))
    weight = (1 - RANGE_SHARE) * weight + RANGE_SHARE * anywhere
    mean = float(np.average(x, weights=weight))
    return 2**mean, max(sd, float(np.sqrt(np.average((x - mean) ** 2, weights=weight))))
