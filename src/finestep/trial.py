"""Trial: one run of a recipe at one fidelity, and the plain records that it leaves; it never runs anything itself."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from finestep.finding import Finding
from finestep.flat import Flat, Part
from finestep.recipe import Recipe

TrialState = Literal["running", "completed", "stopped", "diverged", "out_of_memory", "failed"]
"""`stopped` is early stopping (a result that counts); the last three never rank. An interrupted trial is still `running`."""

RANKED_STATES: frozenset[TrialState] = frozenset({"completed", "stopped"})
KL_TO_BASE, GENERAL_PERPLEXITY, BASE_GENERAL_PERPLEXITY = "kl_to_base", "general_perplexity", "base_general_perplexity"
"""Metrics of the watch over forgetting."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings", protected_namespaces=())


class StepRecord(_Value):
    """One optimizer step. `loss` is the token mean over the effective batch, before the step."""

    step: int = Field(ge=1, description="Optimizer step, counted from 1.")
    loss: float
    learning_rate: float
    grad_norm: float = Field(description="Global norm before clipping.")
    clipped: bool
    update_norm: float | None = Field(None, description="Norm of the change of the trained weights; not at every step.")
    update_ratio: float | None = Field(None, description="`update_norm` over the norm of the trained weights.")
    num_tokens: int = Field(description="Input tokens of this step, padding excluded.")
    num_loss_tokens: int = Field(description="Tokens (rows, for labels) that carried loss in this step.")
    elapsed_s: float = Field(description="Seconds since the trial began, over all its sessions.")
    peak_memory_bytes: int | None = None


class EvalRecord(_Value):
    """One evaluation on the fixed validation rows."""

    step: int = Field(ge=0)
    num_tokens: int = Field(description="Training tokens seen so far.")
    eval_loss: float = Field(description="Sum of negative log-likelihoods over sum of tokens, in nats.")
    metrics: dict[str, float] = Field(default_factory=dict)
    elapsed_s: float = 0.0


Action = Literal["retry", "lower_rate", "skip_batch", "stop"]
Cause = Literal["rate", "batch", "accident", "unknown"]


class Intervention(_Value):
    """What the guard of a run did about trouble."""

    step: int = Field(description="Step at which the trouble began.")
    back_to: int = Field(description="Step of the state that the run was put back to.")
    action: Action
    cause: Cause
    reason: str = Field("", description="The evidence, in words.")
    rate_factor: float = Field(1.0, gt=0, description="Factor on the learning rate from there on.")


class Forgetting(Part):
    """How far the tuned model is from its base, and what the study allows."""

    kl_at_end: float | None = Field(
        None, description="KL from the base at the last look, nats a token; None: not watched."
    )
    kl_limit: float | None = Field(None, description="Most KL at the end that the study allows, nats a token.")
    broken_guard: str | None = Field(
        None, description="The guard of the study that did not hold, with what was measured."
    )


class Cost(Part):
    """What the trial took."""

    num_steps: int = 0
    num_train_tokens: int = 0
    elapsed_s: float = 0.0
    micro_batch_size: int | None = Field(None, description="What the memory allowed in the end.")
    peak_memory_bytes: int | None = None


class Outcome(Flat):
    """How a trial ended; written by the worker before it says so."""

    model_config = ConfigDict(ser_json_inf_nan="strings")

    state: TrialState
    reason: str = Field("", description="One clause in words.")
    eval_loss: float | None = Field(None, description="Best validation loss, whose weights are kept.")
    metrics: dict[str, float] = Field(default_factory=dict)
    base_eval_loss: float | None = Field(None, description="Validation loss before the first step.")
    best_step: int | None = None
    forgetting: Forgetting = Forgetting()
    cost: Cost = Cost()
    recipe_hash: str | None = Field(
        None, description="Of what the trial was asked to run; None: an older version wrote it."
    )
    log: str | None = Field(None, description="Where the whole traceback of a failed trial is.")
    model_dir: str | None = Field(None, description="Tuned model or adapter, relative to the study.")
    findings: tuple[Finding, ...] = Field((), description="What the live monitor said, warnings and errors.")
    interventions: tuple[Intervention, ...] = Field((), description="What the guard did about trouble.")
    by_hand: bool = Field(False, description="The user stopped it: what it measured is not the end of its schedule.")
    projected: dict[str, float] = Field(
        default_factory=dict,
        description="Of a trial that was stopped by hand: what its end would have been, for the search alone.",
    )

    @property
    def forgets_too_much(self) -> bool:
        """True when it ended further from the base than the study allows, or broke another guard."""
        if self.forgetting.broken_guard is not None:
            return True
        return (
            self.forgetting.kl_limit is not None
            and self.forgetting.kl_at_end is not None
            and not self.forgetting.kl_at_end <= self.forgetting.kl_limit
        )

    def said(self) -> Outcome:
        """The outcome as it may be kept: an end whose validation loss is no finite number is a divergence, and says so."""
        if self.state not in RANKED_STATES or self.eval_loss is None or math.isfinite(self.eval_loss):
            return self
        return self.model_copy(update={"state": "diverged", "reason": f"the validation loss is {self.eval_loss}"})


def recipe_hash(recipe: Recipe, fidelity: float) -> str:
    """What a trial was asked to run, in 16 hex digits; fields at their defaults leave it as it is, so that new fields may come."""
    asked = json.dumps([recipe.model_dump(mode="json", exclude_defaults=True), fidelity], sort_keys=True)
    return hashlib.sha256(asked.encode()).hexdigest()[:16]


class Trial(_Value):
    """One run of a recipe: what was asked, why, and how it ended."""

    number: int
    recipe: Recipe
    fidelity: float = Field(1.0, gt=0, le=1, description="Share of the full token budget, with its own whole schedule.")
    stage: str = Field("", description="Why it was tried, e.g. `baseline`, `learning-rate scan`.")
    why: str = ""
    command: str | None = Field(None, description="The user's `finestep add` that asked for it; None: the search did.")
    is_baseline: bool = Field(False, description="The conservative default, run to compare with.")
    state: TrialState = "running"
    outcome: Outcome | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_an_older_version(cls, values: object) -> object:
        """Records of finestep 0.1 mark the baseline by its stage alone."""
        if isinstance(values, dict) and "is_baseline" not in values and values.get("stage") == "baseline":
            return {**values, "is_baseline": True}
        return values

    @property
    def ranks(self) -> bool:
        """True when its validation loss may be compared with others: it ended, and the loss is a finite number."""
        loss = self.outcome.eval_loss if self.outcome is not None else None
        return self.state in RANKED_STATES and loss is not None and math.isfinite(loss)

    @property
    def is_stopped_by_hand(self) -> bool:
        """True when what it measured is not the end of its schedule, because the user stopped it."""
        return self.outcome is not None and self.outcome.by_hand

    @property
    def hash(self) -> str:
        """What its outcome must carry to be its own."""
        return recipe_hash(self.recipe, self.fidelity)

    @property
    def asked_by(self) -> Literal["user", "search"]:
        """Who wanted it."""
        return "search" if self.command is None else "user"

    @property
    def is_choosable(self) -> bool:
        """True when it ranks and did not forget more than the study allows."""
        return self.ranks and self.outcome is not None and not self.outcome.forgets_too_much
