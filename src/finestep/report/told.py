"""What a study says beside its trials: how sure it is, what it found, how its result is used; plain values for the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from finestep.finding import Severity
from finestep.search.belief import BelievedCurve


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class Interval(_Value):
    """Where the best rate of one batch size is believed to be (80 %)."""

    batch: int
    value: float
    low: float
    high: float
    excess_percent: float | None = Field(None, description="Expected loss above the best batch, %; if settled.")
    tokens_per_second: float | None = None


class RunFinding(_Value):
    """One thing seen in the log of one run."""

    trial: int
    label: str = Field(description="Its kind in a few words, e.g. `Overfitting`.")
    severity: Severity
    meaning: str
    advice: str = ""
    evidence: Mapping[str, str] = Field(default_factory=dict)


class Use(_Value):
    """How the result is used; empty where there is none."""

    load: tuple[str, ...] = Field((), description="Lines of Python that load the tuned model.")
    merge: str = ""
    recipe: str = Field("", description="Where the recipe is.")
    export: str = ""
    formats: tuple[str, ...] = Field((), description="Other frameworks that a recipe can be written for.")
    next: str = Field("", description="The command that goes on with a study that is not settled.")
    again: str = Field("", description="The command of this study.")
    saved: str = Field("", description="Whether what is saved is what was measured, in words.")
    agrees: bool | None = None


class Told(_Value):
    """Everything that the page shows and that no trial says."""

    objective: str = "eval_loss"
    is_own: bool = Field(True, description="finestep trained; False: another trainer, whose clipping is not known.")
    goal: Literal["minimize", "maximize"] = "minimize"
    settled: bool | None = Field(None, description="None: nothing was searched for.")
    predicted: tuple[float, int] | None = Field(None, description="Rate and batch of an answer that no full run has.")
    intervals: tuple[Interval, ...] = ()
    expected_regret: float | None = Field(None, description="Of the chosen run over the best there is, %.")
    expected_gain: float | None = Field(None, description="Of one more full run, %.")
    belief: tuple[BelievedCurve, ...] = ()
    metric_errors: Mapping[str, tuple[float, int]] = Field(
        default_factory=dict,
        description="Standard error of the chosen run's metrics that are shares of rows, and how many.",
    )
    findings: tuple[RunFinding, ...] = ()
    data_notes: tuple[str, ...] = ()
    use: Use = Use()
