"""Weight decay and gradient clipping; neither is worth a search in fine-tuning.

AdamW forgets its start over 1 / (rate x decay) steps (evidence `adamw-timescale`). While that is far longer than the
run, decay does
nothing: LoRA at 2e-4 with decay 0.01 has a timescale of 500,000 steps.
"""

from __future__ import annotations

from finestep.estimate import Estimate

ENCODER_DECAY = 0.01
INERT_FACTOR = 10.0


def weight_decay(*, is_encoder: bool, learning_rate: float, num_steps: int) -> Estimate:
    """Decoupled weight decay."""
    value = ENCODER_DECAY if is_encoder else 0.0
    timescale = 1.0 / (learning_rate * ENCODER_DECAY)
    inert = timescale > INERT_FACTOR * num_steps
    why = f"would act over {timescale:,.0f} steps, not {num_steps:,}" if inert else "not needed in fine-tuning"
    return Estimate(value=value, low=0.0, high=0.1, unit="", source="adamw-timescale", why=why)


def max_grad_norm() -> Estimate:
    """Clip the global gradient norm; with Adam its exact value matters little."""
    why = "usual"
    return Estimate(value=1.0, low=0.3, high=1.0, unit="", source="practice-counts", why=why)
