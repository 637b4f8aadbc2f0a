"""The frameworks by name. What stands here was read in their sources and seen in their logs, at the versions in docs/trainers.

Versions: TRL 1.16, transformers 5.23, LLaMA-Factory 0.9.5, ms-swift 4.6, litgpt 0.5.13, Axolotl 0.19, Unsloth 2026.10.
"""

from __future__ import annotations

from finestep.errors import BadInput, did_you_mean
from finestep.trainers.framework import Defaults, Fields, Framework, Names, Validation, Written

MOST_LOGGED_STEPS = 200
"""Runs up to this length log every step, longer ones every tenth."""


def log_every(num_steps: int) -> int:
    """Steps between two rows of a trial's log."""
    return 1 if num_steps <= MOST_LOGGED_STEPS else 10


def _trainer_steps(num_steps: int) -> Fields:
    return {
        ("logging_steps",): log_every(num_steps),
        ("eval_strategy",): "steps",
        ("eval_steps",): num_steps,
        ("save_strategy",): "no",
        ("report_to",): "none",
    }


def _litgpt_steps(num_steps: int) -> Fields:
    return {
        ("train", "log_interval"): 1,
        ("train", "save_interval"): 1_000_000,
        ("eval", "interval"): 1_000_000,
        ("eval", "final_validation"): True,
        ("logger_name",): "csv",
    }


def _axolotl_steps(num_steps: int) -> Fields:
    return {
        ("logging_steps",): log_every(num_steps),
        ("eval_steps",): num_steps,
        ("save_strategy",): "no",
    }


def _unsloth_steps(num_steps: int) -> Fields:
    return {("training", "save_steps"): 0}


_TRAINER_NAMES = Names(
    learning_rate=("learning_rate",),
    micro_batch=("per_device_train_batch_size",),
    accumulation=("gradient_accumulation_steps",),
    max_steps=("max_steps",),
    epochs=("num_train_epochs",),
    warmup_steps=("warmup_steps",),
    warmup_shares=(("warmup_ratio",),),
    step_counts=(("lr_scheduler_kwargs", "num_decay_steps"), ("lr_scheduler_kwargs", "num_stable_steps")),
    seed=("seed",),
    output=("output_dir",),
)
_TRAINER_OFF: Fields = {
    ("load_best_model_at_end",): False,
    ("push_to_hub",): False,
    ("auto_find_batch_size",): False,
    ("logging_strategy",): "steps",
    ("evaluation_strategy",): "steps",
    ("logging_first_step",): False,
    ("eval_delay",): 0,
    ("eval_on_start",): False,
    ("do_train",): True,
    ("do_eval",): True,
    ("resume_from_checkpoint",): None,
}
_QUIET = {"TRANSFORMERS_VERBOSITY": "info"}
"""At this level the Trainer says how many rows, steps and rows a step it is going to train."""

FRAMEWORKS: dict[str, Framework] = {
    one.name: one
    for one in (
        Framework(
            name="hf",
            words="Hugging Face Trainer",
            names=_TRAINER_NAMES,
            launch={},
            module="transformers",
            steps=_trainer_steps,
            off=_TRAINER_OFF,
            environment=_QUIET,
            validation=Validation(
                named_rows=(
                    ("validation_file",),
                    ("eval_file",),
                    ("eval_dataset",),
                    ("eval_data",),
                    ("eval_data_path",),
                )
            ),
        ),
        Framework(
            name="trl",
            words="TRL",
            names=_TRAINER_NAMES,
            launch={task: f"trl {task} --config {{config}}" for task in ("sft", "dpo", "kto")},
            module="trl",
            steps=_trainer_steps,
            off=_TRAINER_OFF,
            environment=_QUIET,
        ),
        Framework(
            name="llamafactory",
            words="LLaMA-Factory",
            names=_TRAINER_NAMES,
            launch={"": "llamafactory-cli train {config}"},
            module="llamafactory",
            steps=_trainer_steps,
            off={**_TRAINER_OFF, ("overwrite_output_dir",): True, ("plot_loss",): False},
            environment=_QUIET,
            written=Written(results=("all_results.json",)),
            validation=Validation(own_split=("val_size",), named_rows=(("eval_dataset",), ("val_size",))),
        ),
        Framework(
            name="ms-swift",
            words="ms-swift",
            names=_TRAINER_NAMES,
            launch={"": "swift sft {config}", "pretraining": "swift pt {config}", "rlhf": "swift rlhf {config}"},
            module="swift",
            steps=lambda steps: {**_trainer_steps(steps), ("add_version",): False},
            off={key: value for key, value in _TRAINER_OFF.items() if value is not None and key != ("do_train",)},
            environment=_QUIET,
            written=Written(logs=("logging.jsonl",), rate_shift=1),
            validation=Validation(
                own_split=("split_dataset_ratio",), named_rows=(("val_dataset",), ("split_dataset_ratio",))
            ),
            defaults=Defaults(micro_batch=1),
        ),
        Framework(
            name="litgpt",
            words="litgpt",
            names=Names(
                learning_rate=("optimizer", "init_args", "lr"),
                micro_batch=("train", "micro_batch_size"),
                whole_batch=("train", "global_batch_size"),
                max_steps=("train", "max_steps"),
                epochs=("train", "epochs"),
                warmup_steps=("train", "lr_warmup_steps"),
                seed=("seed",),
                output=("out_dir",),
            ),
            launch={"": "litgpt finetune_lora --config {config}", "full": "litgpt finetune_full --config {config}"},
            module="litgpt",
            steps=_litgpt_steps,
            written=Written(logs=("logs/csv/version_*/metrics.csv",), rate_shift=1, counts="micro-batches"),
            rounds="down",
            validation=Validation(
                own_split=("data", "init_args", "val_split_fraction"),
                named_rows=(("data", "init_args", "val_split_fraction"),),
                is_by_micro_batch=True,
            ),
            defaults=Defaults(warmup_steps=100, micro_batch=1, accumulation=16, seed=1337),
        ),
        Framework(
            name="axolotl",
            words="Axolotl",
            names=Names(
                learning_rate=("learning_rate",),
                micro_batch=("micro_batch_size",),
                accumulation=("gradient_accumulation_steps",),
                max_steps=("max_steps",),
                epochs=("num_epochs",),
                warmup_steps=("warmup_steps",),
                warmup_shares=(("warmup_ratio",),),
                seed=("seed",),
                output=("output_dir",),
            ),
            launch={"": "axolotl train {config}"},
            module="axolotl",
            steps=_axolotl_steps,
            off={
                ("auto_find_batch_size",): False,
                ("evals_per_epoch",): None,
                ("saves_per_epoch",): None,
                ("save_steps",): None,
                ("eval_strategy",): None,
                ("load_best_model_at_end",): False,
                ("resume_from_checkpoint",): None,
                ("auto_resume_from_checkpoints",): False,
                ("hub_model_id",): None,
            },
            environment={"AXOLOTL_DO_NOT_TRACK": "1", **_QUIET},
            validation=Validation(own_split=("val_set_size",), named_rows=(("test_datasets",), ("val_set_size",))),
            defaults=Defaults(micro_batch=1),
            needs_gpu=True,
        ),
        Framework(
            name="unsloth",
            words="Unsloth",
            names=Names(
                learning_rate=("training", "learning_rate"),
                micro_batch=("training", "batch_size"),
                accumulation=("training", "gradient_accumulation_steps"),
                max_steps=("training", "max_steps"),
                epochs=("training", "num_epochs"),
                warmup_steps=("training", "warmup_steps"),
                seed=("training", "random_seed"),
                output=("training", "output_dir"),
            ),
            launch={"": "unsloth train --config {config}"},
            module="unsloth",
            steps=_unsloth_steps,
            off={("logging", "enable_wandb"): False},
            environment=_QUIET,
            defaults=Defaults(warmup_steps=5, micro_batch=2, accumulation=4, seed=3407),
            validation=Validation(is_done=False),
            needs_gpu=True,
        ),
    )
}


def framework(name: str) -> Framework:
    """A framework by its name.

    Raises:
        BadInput: finestep does not drive it.
    """
    if name not in FRAMEWORKS:
        raise BadInput(
            f"finestep does not drive this trainer{did_you_mean(name, FRAMEWORKS)}",
            value=name,
            next_step="known: " + ", ".join(FRAMEWORKS) + "; any other one by `--command`",
        )
    return FRAMEWORKS[name]
