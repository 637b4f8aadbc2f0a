"""What a trial is to train: steps, warmup and micro-batch, and how each framework is told."""

from __future__ import annotations

import pytest

from finestep.foreign.markup import yaml_tree
from finestep.recipe import Recipe
from finestep.study import FrameworkSpec
from finestep.trainers.frameworks import FRAMEWORKS
from finestep.trainers.plan import fitting_micro_batch, plan_trial, steps_of, trial_changes, trial_text

TRAINER = "learning_rate: 1e-3\nper_device_train_batch_size: 8\ngradient_accumulation_steps: 2\nwarmup_steps: 3\n"


def spec_of(name="trl", text=TRAINER, **more):
    values = {"warmup_share": 0.1, "warmup_in_steps": True, "full_steps": 30, "num_rows": 480}
    values |= {"name": name, "config": "c.yaml", "text": text, "launcher": "x {config}", "working_dir": "/"}
    return FrameworkSpec.model_validate({**values, **more})


def plan_of(spec, fidelity=1.0, **recipe):
    values = {"learning_rate": 2e-4, "effective_batch_size": 16, "micro_batch_size": 8, "seed": 42}
    wanted = Recipe(**{**values, **recipe})
    return plan_trial(FRAMEWORKS[spec.name], spec, wanted, fidelity=fidelity, num_rows=480, output="/out")


@pytest.mark.parametrize(
    ("rows", "pass_rows", "accumulation", "epochs", "trl", "litgpt"),
    [(200, 8, 2, 1.6, 21, 19), (100, 8, 1, 1, 13, 13), (7, 8, 2, 1, 1, 1), (160, 4, 4, 0.5, 5, 5)],
)
def test_steps_are_counted_as_each_framework_counts_them(rows, pass_rows, accumulation, epochs, trl, litgpt):
    assert steps_of(FRAMEWORKS["trl"], rows, pass_rows, accumulation, epochs) == trl
    assert steps_of(FRAMEWORKS["litgpt"], rows, pass_rows, accumulation, epochs) == litgpt


def test_a_short_run_has_its_own_warmup_and_length():
    whole, short = plan_of(spec_of()), plan_of(spec_of(), fidelity=0.2)
    assert (whole.num_steps, whole.warmup_steps) == (30, 3)
    assert (short.num_steps, short.warmup_steps) == (6, 1)


def test_a_warmup_that_is_a_share_is_left_as_it_is():
    spec = spec_of(text="learning_rate: 1e-3\nwarmup_ratio: 0.1\n", warmup_in_steps=False)
    assert ("warmup_ratio",) not in trial_changes(FRAMEWORKS["trl"], spec, plan_of(spec))
    assert plan_of(spec, fidelity=0.2).warmup_steps == 1


def test_steps_that_the_file_limits_are_rows_that_a_run_passes_over():
    spec = spec_of(rows_of_run=320)
    assert plan_of(spec).num_steps == 20
    assert plan_of(spec, effective_batch_size=64).num_steps == 5
    assert plan_of(spec, fidelity=0.25).num_steps == 5


@pytest.mark.parametrize(
    ("batch", "micro", "limit", "fits"), [(16, 8, None, 8), (12, 8, None, 6), (4, 8, None, 4), (16, 8, 3, 2)]
)
def test_the_micro_batch_divides_the_batch_and_fits_into_memory(batch, micro, limit, fits):
    recipe = Recipe(effective_batch_size=batch, micro_batch_size=min(micro, batch))
    assert fitting_micro_batch(recipe, limit) == fits


def test_what_the_file_says_already_is_not_touched():
    text = "learning_rate: 2e-4   # spelt so\nper_device_train_batch_size: 8\ngradient_accumulation_steps: 2\nsave_strategy: 'no'\n"
    spec = spec_of(text=text)
    lines = trial_text(FRAMEWORKS["trl"], spec, plan_of(spec)).splitlines()
    assert lines[:4] == text.splitlines()


def test_litgpt_is_told_rows_a_step_and_gets_an_optimizer_with_a_rate():
    text = "optimizer: AdamW\ntrain:\n  micro_batch_size: 4\n"
    spec = spec_of("litgpt", text)
    tree = yaml_tree(trial_text(FRAMEWORKS["litgpt"], spec, plan_of(spec)), "c.yaml")
    assert tree["optimizer"] == {"class_path": "torch.optim.AdamW", "init_args": {"lr": "2.0e-04"}} or (
        float(tree["optimizer"]["init_args"]["lr"]) == 2e-4
    )
    assert tree["train"]["global_batch_size"] == 16
    assert tree["train"]["micro_batch_size"] == 8
    assert tree["train"]["max_steps"] == 30
    assert tree["train"]["epochs"] > 1


def test_settings_that_would_disturb_a_trial_are_switched_off_only_where_they_are_on():
    spec = spec_of(text=TRAINER + "load_best_model_at_end: true\npush_to_hub: false\n")
    changes = trial_changes(FRAMEWORKS["trl"], spec, plan_of(spec))
    assert changes["load_best_model_at_end",] is False
    assert ("push_to_hub",) not in changes
    assert ("auto_find_batch_size",) not in changes
