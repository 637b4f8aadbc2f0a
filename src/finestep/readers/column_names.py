"""What a column's name means in the logs of the common trainers; it sees names, never values.

A role is (`train`, slot), (`eval`, set, `loss` or a metric), (`tag`, what it tells about the run) or None.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from finestep.diagnosis.training_log import TRAIN_COLUMNS


class Role(NamedTuple):
    """Meaning of one column; `rank` orders names that compete for one slot (lower wins)."""

    split: str
    slot: str
    eval_set: str = ""
    rank: int = 0


_STEP_NAMES = (
    "step", "global_step", "train/global_step", "trainer/global_step", "current_steps", "global_step/max_steps",
    "steps", "train/step", "train_step", "iter", "iteration", "iter_num", "num_updates", "global_steps",
    "training/global_step", "valid_num_updates", "progress/batch", "update", "batch_idx", "_step",
)  # fmt: skip
_LOSS_NAMES = (
    "loss", "train/loss", "train_loss_step", "train/loss_step", "loss/train", "train_loss", "training_loss",
    "train/train_loss",
    "train/ce_loss", "ce_loss", "lm_loss", "nll_loss", "cross_entropy", "tr_loss", "train.loss", "running_loss",
    "loss/train_step", "train_loss_epoch", "train/loss_epoch", "train/total_loss", "total_loss",
    "loss/total", "train_nll", "loss_train", "dpo_loss", "policy_loss", "pg_loss", "actor/pg_loss", "actor_loss", "train/policy_loss",
    "train/actor_loss", "loss/policy", "loss/policy_avg", "gpt_loss", "sft_loss", "loss/train/total", "reduced_train_loss",
    "train_mean_nll", "mean_nll", "train/mean_nll", "train/nll", "xent", "embedding_loss",
)  # fmt: skip
_OTHER_NAMES = {
    "learning_rate": ("learning_rate", "lr", "train/learning_rate", "train/lr", "optim/lr", "learningrate", "lrate", "actor/lr",
                      "actor_lr", "train/actor_lr"),
    "grad_norm": ("grad_norm", "train/grad_norm", "gradient_norm", "global_grad_norm", "train/gradient_norm",
                  "grad_2.0_norm_total", "grad_norm_total", "optim/grad_norm", "gnorm", "grad norm", "actor/grad_norm",
                  "train/actor_grad_norm"),
    "epoch": ("epoch", "train/epoch", "epochs"),
    "num_tokens": ("num_tokens", "train/num_tokens", "num_input_tokens_seen", "train/num_input_tokens_seen",
                   "total_tokens", "tokens_seen", "tokens/total"),
    "clipped": ("clipped",),
    "update_ratio": ("update_ratio", "train/update_ratio"),
    "loss_scale": ("loss_scale", "train/loss_scale"),
    "reward": ("reward", "train/reward", "objective/scores", "objective/rlhf_reward", "critic/score/mean", "critic/rewards/mean",
               "average_reward_score", "mean_reward", "reward_mean", "rewards/mean", "reward/mean", "env/reward_mean", "avg_reward",
               "average_reward", "env/reward/total", "env/all/reward/total"),
    "elapsed_s": ("elapsed_s", "_runtime", "train/elapsed_s"),
    "reward_spread": ("reward_std", "train/reward_std", "critic/rewards/std", "reward/std"),
    "zero_spread_share": ("frac_reward_zero_std", "train/frac_reward_zero_std"),
    "clipped_completions": ("completions/clipped_ratio", "train/completions/clipped_ratio", "response_length/clip_ratio",
                            "completions/clip_ratio"),
    "kl": ("kl", "train/kl", "objective/kl", "actor/kl_loss", "kl_ref", "kl_div", "actor/ppo_kl", "policy/approxkl_avg"),
    "margin": ("rewards/margins", "train/rewards/margins", "margin", "margins", "reward_margin", "reward_margins", "train_reward_margin",
               "train_reward_margins", "train/reward_margin"),
    "chosen_reward": ("rewards/chosen", "train/rewards/chosen", "chosen_reward", "chosen_rewards", "reward_chosen", "train_chosen_reward",
                      "train_reward_chosen"),
    "pair_accuracy": ("rewards/accuracies", "train/rewards/accuracies", "reward_accuracy", "accuracy_of_pairs", "reward_accuracies",
                      "train_reward_accuracy", "train_reward_accuracies", "train/reward_accuracy", "preference_accuracy"),
    "entropy": ("entropy", "train/entropy", "actor/entropy_loss", "actor/entropy", "objective/entropy"),
    "accuracy": ("accuracy", "acc", "mean_accuracy", "mean_acc", "avg_acc", "train_accuracy", "train_acc", "train/accuracy", "train/acc",
                 "solve_rate", "pass_rate", "success_rate"),
}  # fmt: skip

_EVAL_PREFIX = re.compile(r"^(?:eval|val|valid|validation|dev|test)(?=[/_. ])[/_. ]*(.*)$")
_EVAL_SUFFIX = re.compile(r"^(.*?)[/_](?:eval|val|valid|validation|dev)$")
_NOT_A_METRIC = re.compile(
    r"runtime|per_second|samples|flos|time|steps?$|epoch$|memory|jit|len(?:gth)?$|split|interval|max_iters"
)
_LOSS_TAIL = re.compile(r"^(?:(.*?)[/_. ]+)?loss(?:_epoch)?(?:/dataloader_idx_(\d+))?$")
_NO_LOSS = re.compile(r"token|num_|count|scale|weight|coef|mask|time|type|name|best|patience|ratio|fn$|func")
"""Words of names that speak about a loss and are none."""
_EVAL_LOSS = frozenset(
    {"nll", "mean_nll", "cross_entropy", "crossentropy", "languagecrossentropy", "xent", "ce", "bpt_loss"}
)
_SIMILARITY = re.compile(
    r"(?:cos(?:ine)?(?:_?sim(?:ilarity)?)?|euclidean|manhattan|dot)_(?:pearson|spearman|accuracy|f1|ap|mcc)$"
)
"""Scores of sentence-transformers' evaluators, which write nothing else."""
_PERPLEXITY = frozenset({"ppl", "perplexity"})
_OF_REINFORCEMENT = frozenset({"reward", "reward_spread", "zero_spread_share", "clipped_completions"})
_OF_PREFERENCE = frozenset({"margin", "chosen_reward", "pair_accuracy"})
_REINFORCEMENT = frozenset(
    {
        "actor_loss",
        "policy_loss",
        "pg_loss",
        "actor/pg_loss",
        "objective/kl",
        "critic_loss",
        "clip_ratio",
        "grpo_loss",
        "ppo_loss",
    }
)
_PREFERENCE = frozenset(
    {"odds_ratio_loss", "log_odds_ratio", "dpo_loss", "kto_loss", "orpo_loss", "logps/chosen", "logps/rejected"}
)
_CONTEXT = {
    "total_steps": "max_steps", "max_steps": "max_steps", "num_epochs": "num_epochs", "num_train_epochs": "num_epochs",
    "base_eval_loss": "base_eval_loss",
}  # fmt: skip


def role_of(name: str) -> Role | None:
    """The role of a column, or None when it says nothing about the run's health."""
    key = name.strip().lower().replace(" ", "_").removeprefix("metrics/")
    return _ROLES.get(key) or _tag_role(key) or _eval_role(key) or _learning_rate_role(key)


def objective_of(name: str) -> str | None:
    """`reinforcement` or `preference` for a column that only such a run has, otherwise None."""
    key = name.strip().lower().replace(" ", "_").removeprefix("metrics/")
    role = _ROLES.get(key)
    if key in _REINFORCEMENT or (role is not None and role.slot in _OF_REINFORCEMENT):
        return "reinforcement"
    if key in _PREFERENCE or (role is not None and role.slot in _OF_PREFERENCE):
        return "preference"
    return None


def looks_like_a_loss(name: str) -> bool:
    """True for a name that holds the word loss and is no validation loss: a guess of last resort.

    >>> looks_like_a_loss("contrastive_loss"), looks_like_a_loss("num_loss_tokens")
    (True, False)
    """
    key = name.lower()
    return (
        "loss" in key
        and role_of(name) is None
        and not key.startswith(("eval", "val", "test"))
        and not _NO_LOSS.search(key)
    )


def _tag_role(key: str) -> Role | None:
    return Role("context", _CONTEXT[key]) if key in _CONTEXT else None


def _eval_role(key: str) -> Role | None:
    match = _EVAL_PREFIX.match(key)
    if match is None:
        if _SIMILARITY.match(key):
            return Role("eval", key, rank=1)
        suffix = _EVAL_SUFFIX.match(key)
        return Role("eval", "loss") if suffix and suffix.group(1) == "loss" else None
    rest = match.group(1)
    loss = _LOSS_TAIL.match(rest)
    main_set = "test" if key.startswith("test") else ""
    if rest in _EVAL_LOSS:
        return Role("eval", "loss", eval_set=main_set)
    if loss:
        return Role("eval", "loss", eval_set=loss.group(1) or loss.group(2) or main_set)
    if not rest or _NOT_A_METRIC.search(rest):
        return None
    return Role("eval", "perplexity" if rest in _PERPLEXITY else rest, eval_set=main_set, rank=1)


def _learning_rate_role(key: str) -> Role | None:
    # Lightning's LearningRateMonitor writes lr-AdamW, lr-AdamW/pg1, ...; parameter groups rank below the first.
    if key.startswith("lr-"):
        return Role("train", "learning_rate", rank=50 + len(key))
    return None


def _table() -> dict[str, Role]:
    names = {"step": _STEP_NAMES, "loss": _LOSS_NAMES, **_OTHER_NAMES}
    assert set(names) == set(TRAIN_COLUMNS)
    return {
        alias: Role("train", slot, rank=rank) for slot, aliases in names.items() for rank, alias in enumerate(aliases)
    }


_ROLES = _table()
