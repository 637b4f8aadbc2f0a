"""How a trial ends: the best weights go back into its row, last checks are made, and the outcome is written down."""

from __future__ import annotations

import math
import time

import numpy as np

from finestep.diagnosis.early_stopping import paired_gain
from finestep.diagnosis.pairing import pairing_findings
from finestep.finding import Finding
from finestep.train.evaluate import extra_metrics
from finestep.train.memory import peak_memory_bytes
from finestep.train.pairing import exchanged
from finestep.train.run_state import RunState
from finestep.trial import Cost, Forgetting, Outcome, TrialState


class Ending:
    """Ends one trial.

    Args:
        metrics: names of further metrics of the finished model.
    """

    def __init__(self, state: RunState, *, metrics: tuple[str, ...]):
        self._state, self._metrics = state, metrics

    def finish(self, state: TrialState, reason: str) -> None:
        """End a run that went its way, with the best weights that it had."""
        run = self._state
        reason += self._forgetting_words()
        if not math.isfinite(run.progress.best_loss):
            self._without_weights(state, reason)
            return
        # What is saved is what was measured as the best, also for metrics that are computed only now.
        if run.progress.best_step != run.progress.step:
            run.seat.load(run.best)
            reason += f"; the weights of step {run.progress.best_step} are kept"
        began, resident = time.monotonic(), run.resident
        with run.seat.only():
            extra = extra_metrics(self._metrics, resident.base, resident.tokenizer, run.data, resident.token_loss)
        run.progress.elapsed_s += time.monotonic() - began
        run.progress.best_metrics = {**run.progress.best_metrics, **extra}
        run.tell(self._pairing())
        self.end(state, reason)

    def end(self, state: TrialState, reason: str) -> None:
        """Write the outcome down; a loss belongs to it only where training went its way."""
        run, progress = self._state, self._state.progress
        known = state in {"completed", "stopped"} and progress.best_step > 0
        run.outcome = Outcome(
            state=state,
            reason=reason,
            eval_loss=progress.best_loss if known else None,
            metrics=progress.best_metrics if known else {},
            base_eval_loss=progress.base_loss if math.isfinite(progress.base_loss) else None,
            best_step=progress.best_step if known else None,
            forgetting=Forgetting(kl_at_end=progress.kl_now, kl_limit=run.resident.max_forgetting),
            cost=Cost(
                num_steps=progress.step,
                num_train_tokens=progress.num_tokens,
                elapsed_s=round(progress.elapsed_s, 3),
                micro_batch_size=progress.micro_batch_size,
                peak_memory_bytes=peak_memory_bytes(run.resident.placement.device),
            ),
            findings=tuple(each for each in run.guard.findings if each.severity in ("warning", "error")),
            interventions=tuple(run.guard.interventions),
        )

    def _pairing(self) -> list[Finding]:
        """Whether answers depend on their prompts, by exchanging them."""
        run = self._state
        rows, pairs = run.data.evaluation, exchanged(run.data.evaluation)
        if pairs is None:
            return []
        chosen, others, partner = pairs
        own, mixed = run.losses.in_batches(chosen, rows), run.losses.in_batches(np.arange(len(others)), others)
        # An answer is compared with itself: between two answers the loss differs far more than between two prompts.
        gap, error = paired_gain(mixed.tolist(), own[partner].tolist())
        found = pairing_findings(gap, error)
        run.guard.findings += found
        return found

    def _without_weights(self, state: TrialState, reason: str) -> None:
        if self._state.guard.last_eval_is_finite and self._is_over_limit():
            self.end(state, f"{reason}; no state before was within it either")
        else:
            self.end("diverged", "the validation loss is not finite")

    def _is_over_limit(self) -> bool:
        """True when the last state that was looked at has moved further from the base than `max_forgetting` allows."""
        limit, now = self._state.resident.max_forgetting, self._state.progress.kl_now
        return limit is not None and now is not None and not now <= limit

    def _forgetting_words(self) -> str:
        """What to say about a run that ended over the limit; empty for others."""
        if not self._is_over_limit():
            return ""
        limit = self._state.resident.max_forgetting
        return f"; it ended {self._state.progress.kl_now:.3g} nats a token from the base, over the limit of {limit:g}"
