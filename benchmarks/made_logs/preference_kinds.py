"""Kinds of preference and reinforcement runs, as TRL logs them; builders from a seed, like those of `kinds`."""

from __future__ import annotations

import numpy as np

from benchmarks.made_logs.kinds import Made, _rows, _time, kind
from benchmarks.made_logs.shapes import Values, cosine_rate, linear_rate, noisy


def _pairs(t: Values, rng: np.random.Generator, *, margin: Values, accuracy: Values, loss: Values) -> dict[str, Values]:
    spread = rng.normal(0, 0.15, len(t))
    return {
        "loss": loss + rng.normal(0, 0.03, len(t)), "rewards/margins": margin + spread,
        "rewards/accuracies": np.clip(accuracy + rng.normal(0, 0.07, len(t)), 0, 1),
        "rewards/chosen": 0.3 * margin + 0.5 * spread, "rewards/rejected": -0.7 * margin - 0.5 * spread,
    }  # fmt: skip


@kind
def pairs_learned(rng: np.random.Generator) -> Made:
    t = _rows(rng, 40, 200)
    way = 1 - np.exp(-4 * t)
    rows = _pairs(t, rng, margin=1.5 * way, accuracy=0.5 + 0.28 * way, loss=0.693 - 0.25 * way)
    return Made(("healthy",), {**rows, "learning_rate": linear_rate(t, 5e-7)}, epochs=1.0)


@kind
def pairs_not_learned(rng: np.random.Generator) -> Made:
    t = _rows(rng, 40, 200)
    still = np.zeros(len(t))
    rows = _pairs(t, rng, margin=still, accuracy=still + 0.5, loss=still + 0.693)
    return Made(("no_learning", "lr_too_low"), {**rows, "learning_rate": linear_rate(t, 5e-7)}, epochs=1.0)


@kind
def pairs_far_too_low_a_rate(rng: np.random.Generator) -> Made:
    t = _rows(rng, 40, 200)
    still = np.zeros(len(t))
    rows = _pairs(t, rng, margin=still, accuracy=still + 0.5, loss=still + 0.693)
    return Made(("lr_too_low", "no_learning"), {**rows, "learning_rate": linear_rate(t, 5e-9)}, epochs=1.0)


@kind
def pairs_unlearned_again(rng: np.random.Generator) -> Made:
    t = _rows(rng, 80, 200)
    way = np.where(t < 0.4, t / 0.4, 1 - 2.2 * (t - 0.4) / 0.6)
    rows = _pairs(t, rng, margin=1.5 * way, accuracy=np.clip(0.5 + 0.25 * way, 0.2, 1), loss=0.693 - 0.3 * way)
    return Made(
        ("lr_too_high_unstable", "lr_too_high_diverged"), {**rows, "learning_rate": cosine_rate(t, 1e-4)}, epochs=1.0
    )


@kind
def pairs_learned_by_heart(rng: np.random.Generator) -> Made:
    t, e = _rows(rng, 80, 200), _time(8)
    way = 1 - np.exp(-5 * t)
    rows = _pairs(t, rng, margin=6 * way, accuracy=0.5 + 0.5 * way, loss=0.693 * (1 - way) + 0.01)
    evals = {
        "t": e, "eval_loss": 0.55 + 0.5 * (e - 0.2).clip(0) ** 1.2, "eval_rewards/accuracies": 0.74 - 0.08 * (e - 0.2).clip(0),
        "eval_rewards/margins": 0.8 + 0.2 * e,
    }  # fmt: skip
    return Made(("overfitting",), {**rows, "learning_rate": linear_rate(t, 5e-6)}, evals, epochs=3.0)


def _group(t: Values, rng: np.random.Generator, reward: Values, **more: Values) -> dict[str, Values]:
    noise = rng.normal(0, 0.12, len(t))
    return {
        "loss": rng.normal(0, 0.01, len(t)), "reward": reward + noise, "reward_std": np.abs(0.3 + rng.normal(0, 0.03, len(t))),
        "kl": 0.05 * t + 0.002, "grad_norm": noisy(np.full(len(t), 0.4), 0.3, rng), "learning_rate": linear_rate(t, 1e-6),
        "frac_reward_zero_std": np.full(len(t), 0.2), "completions/clipped_ratio": np.full(len(t), 0.05), **more,
    }  # fmt: skip


@kind
def reward_gained(rng: np.random.Generator) -> Made:
    t = _rows(rng, 60, 400)
    return Made(("healthy",), _group(t, rng, 0.3 + 0.45 * (1 - np.exp(-3 * t))), epochs=1.0)


@kind
def reward_not_gained(rng: np.random.Generator) -> Made:
    t = _rows(rng, 60, 400)
    return Made(("no_learning", "lr_too_low"), _group(t, rng, np.full(len(t), 0.35)), epochs=1.0)


@kind
def reward_lost_again(rng: np.random.Generator) -> Made:
    t = _rows(rng, 100, 400)
    reward = np.where(t < 0.5, 0.3 + 0.5 * t / 0.5, 0.8 - 0.75 * ((t - 0.5) / 0.2).clip(0, 1))
    kl = np.where(t < 0.5, 0.05 * t, 0.05 + 8 * ((t - 0.5) / 0.2).clip(0, 1))
    return Made(("lr_too_high_unstable", "lr_too_high_diverged"), _group(t, rng, reward, kl=kl), epochs=1.0)


@kind
def answers_cut_off(rng: np.random.Generator) -> Made:
    t = _rows(rng, 60, 300)
    clipped = np.full(len(t), 0.96)
    return Made(
        ("no_learning",), _group(t, rng, np.full(len(t), 0.02), **{"completions/clipped_ratio": clipped}), epochs=1.0
    )


@kind
def prompts_already_solved(rng: np.random.Generator) -> Made:
    t = _rows(rng, 60, 300)
    rows = _group(t, rng, np.full(len(t), 0.97), frac_reward_zero_std=np.full(len(t), 0.93))
    rows["reward"] = 0.97 + rng.normal(0, 0.02, len(t))
    return Made(("no_learning", "healthy"), rows, epochs=1.0)


@kind
def reward_still_warming_up(rng: np.random.Generator) -> Made:
    t = _time(20)
    rows = _group(t, rng, np.full(len(t), 0.35))
    rows["learning_rate"] = 1e-6 * t
    return Made(("too_little_information", "no_learning"), rows, planned_steps=2000, epochs=0.1)
