"""Every field of a recipe and every option of `tune`, `train` and `probe`: it changes what runs, or it is refused in words."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from finestep.cli.main import app
from finestep.errors import BadInput
from finestep.facts import DataFacts
from finestep.ready import DataCard
from finestep.recipe import Recipe
from finestep.search.study_space import search_space
from finestep.store.recipe_file import apply_settings, write_recipe
from finestep.studies.obeyed import MEASURED, PREDICTED, check_recipe
from finestep.studies.spec import study_spec, tuning_spec
from finestep.study import DataSpec, ModelSpec, StudySpec
from tests.train.runs import make_resident, run_trial

COMMANDS = typer.main.get_command(app).commands

START = {"learning_rate": 2e-3, "effective_batch_size": 4, "num_epochs": 1.0, "evaluation": {"num_evaluations": 3}}
WARM = {"schedule.warmup_ratio": 0.5}
ONE_VALUE = {"optimizer.name"}
"""Fields that have a single value today; any other is refused by their type."""
FIELDS: dict[str, tuple[object, dict[str, object]]] = {
    "method": ("full", {}),
    "learning_rate": (1e-3, {}),
    "effective_batch_size": (8, {}),
    "micro_batch_size": (2, {}),
    "num_epochs": (2.0, {}),
    "num_train_tokens": (400, {}),
    "max_length": (24, {}),
    "seed": (1, {}),
    "schedule.name": ("constant", {}),
    "schedule.warmup_steps": (5, {}),
    "schedule.warmup_ratio": (0.5, {}),
    "schedule.warmup_shape": ("cosine", WARM),
    "schedule.warmup_init_lr": (1e-3, WARM),
    "schedule.min_lr_ratio": (0.5, {}),
    "schedule.power": (3.0, {"schedule.name": "polynomial"}),
    "schedule.decay_ratio": (0.9, {"schedule.name": "wsd"}),
    "optimizer.beta1": (0.5, {}),
    "optimizer.beta2": (0.9, {}),
    "optimizer.epsilon": (1e-3, {}),
    "optimizer.weight_decay": (0.5, {}),
    "optimizer.max_grad_norm": (0.01, {}),
    "optimizer.bias_correction": (False, {}),
    "optimizer.layerwise_decay": (0.5, {}),
    "optimizer.head_lr_multiplier": (5.0, {"labels": True}),
    "lora.rank": (4, {}),
    "lora.alpha": (8.0, {}),
    "lora.dropout": (0.3, {}),
    "lora.target_modules": (("q_proj",), {}),
    "lora.use_rslora": (True, {}),
    "evaluation.num_evaluations": (5, {}),
    "evaluation.patience": (1, {"learning_rate": 1e-9}),
    "evaluation.min_gain": (9.0, {"evaluation.patience": 1, "evaluation.num_evaluations": 5, "learning_rate": 5e-3}),
    "evaluation.probe_every_steps": (1, {"learning_rate": 0.3}),
}
"""Another value, and what else must be set for it to matter."""
IDLE: dict[str, tuple[object, dict[str, object]]] = {
    "num_devices": (8, {"effective_batch_size": 4}),
    "schedule.power": (3.0, {}),
    "schedule.decay_ratio": (0.9, {}),
    "schedule.min_lr_ratio": (0.5, {"schedule.name": "constant"}),
    "schedule.warmup_shape": ("cosine", {"schedule.warmup_ratio": 0.0}),
    "schedule.warmup_init_lr": (1e-3, {"schedule.warmup_steps": 0}),
    "optimizer.head_lr_multiplier": (5.0, {}),
    "lora.rank": (4, {"method": "full"}),
    "lora.alpha": (8.0, {"method": "full"}),
    "lora.dropout": (0.3, {"method": "full"}),
    "lora.target_modules": (("q_proj",), {"method": "full"}),
    "lora.use_rslora": (True, {"method": "full"}),
    "evaluation.min_gain": (5.0, {}),
}
"""Another value, and where it would do nothing."""


def all_fields() -> set[str]:
    names: set[str] = set()
    for name, field in Recipe.model_fields.items():
        group = field.annotation
        leaves = getattr(group, "model_fields", None) if isinstance(group, type) else None
        names |= {f"{name}.{leaf}" for leaf in leaves} if leaves else {name}
    return names


def test_the_walk_leaves_no_field_out():
    assert all_fields() == FIELDS.keys() | IDLE.keys() | ONE_VALUE


@pytest.fixture(scope="module")
def few_rows(instruct_file, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("few") / "few.jsonl"
    path.write_text("".join(instruct_file.read_text().splitlines(keepends=True)[:48]))
    return path


@pytest.fixture(scope="module")
def few_labels(label_file, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("few") / "few.csv"
    lines = label_file.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + "".join(lines[1::3]))
    return path


@pytest.fixture(scope="module")
def seen(shipped_model, few_rows, few_labels, tmp_path_factory):
    """What a run of a recipe does, by the recipe: rates, losses, evaluations, micro-batch and notes; each is run once."""
    known: dict[str, Any] = {}
    residents: dict[str, Any] = {}

    def run(recipe: Recipe, labels: bool) -> Any:
        key = recipe.model_dump_json() + str(labels)
        if key not in known:
            length = recipe.max_length or 96
            base = json.dumps([recipe.method, length, labels, recipe.lora.model_dump_json()])
            if base not in residents:
                data = few_labels if labels else few_rows
                residents[base] = make_resident(shipped_model, data, recipe) if length == 96 else shorter(data, recipe)
            known[key] = _facts(run_trial(residents[base], recipe, tmp_path_factory.mktemp("run")))
        return known[key]

    def shorter(data: Path, recipe: Recipe) -> Any:
        spec = study_spec(
            model=ModelSpec(path=str(shipped_model)), data=DataSpec(path=str(data)), recipe=recipe, strategy="single"
        )
        from finestep.train.resident import Resident

        return Resident(spec.model.model_copy(update={"device": "cpu"}), spec.data, spec.recipe)

    return run


def _facts(one: Any) -> dict[str, Any]:
    return {
        "rates": [record.learning_rate for record in one.steps],
        "losses": [round(record.loss, 7) for record in one.steps],
        "evaluations": [(record.step, round(record.eval_loss, 7)) for record in one.evaluations],
        "micro": one.outcome.cost.micro_batch_size,
        "state": one.outcome.state,
        "notes": [str(note) for note in one.notes],
    }


@pytest.mark.slow
@pytest.mark.parametrize("field", FIELDS)
def test_a_field_of_the_recipe_changes_the_run(field, seen):
    value, around = FIELDS[field]
    around = dict(around)
    labels = bool(around.pop("labels", False))
    before = Recipe.model_validate(START).with_fields(around)
    after = before.with_fields({field: value})
    assert seen(before, labels) != seen(after, labels)


@pytest.mark.parametrize("field", IDLE)
def test_a_field_that_would_change_nothing_is_refused(field):
    value, around = IDLE[field]
    recipe = Recipe.model_validate({**START, "effective_batch_size": 4}).with_fields({**around, field: value})
    with pytest.raises(BadInput, match=field) as caught:
        check_recipe(recipe, trainer=None, named=(), is_labelled=lambda: False)
    assert caught.value.next_step


def _search(data: Path, **changes: Any) -> tuple[StudySpec, list[str]]:
    options: dict[str, Any] = {"strategy": "auto", "with_prior": True, **changes}
    recipe = Recipe().with_fields(options.pop("fields", {}))
    return tuning_spec(model=ModelSpec(path="none"), data=DataSpec(path=str(data)), recipe=recipe, **options)


@pytest.mark.parametrize("strategy", ["auto", "random", "tpe"])
def test_a_set_rate_and_batch_are_the_centre_of_a_narrow_search(few_rows, strategy):
    fields = {"learning_rate": 3e-5, "effective_batch_size": 64}
    spec, notes = _search(few_rows, fields=fields, own_fields=fields, strategy=strategy)
    assert (spec.search.start.learning_rate, spec.search.start.batch_size) == (3e-5, 64)
    space = search_space(spec, spec.search.start, num_rows=2000)
    assert space.learning_rates[0] == pytest.approx(3e-5 / 4, rel=0.01)
    assert space.learning_rates[-1] == pytest.approx(3e-5 * 4, rel=0.01)
    assert space.batch_sizes == (32, 64, 128)
    assert any("as you set them" in note and "1.2e-04" in note for note in notes)


def test_the_classic_sweep_scans_around_a_set_rate(few_rows):
    from finestep.studies.strategies import make_strategy

    spec, _ = _search(few_rows, fields={"learning_rate": 3e-5}, own_fields=["learning_rate"], strategy="sweep")
    card = DataCard(facts=DataFacts(name="d", num_rows=2000, num_eval_rows=200))
    rates = {one.learning_rate for one in make_strategy(spec, card).propose([], remaining_runs=9, max_proposals=9)}
    rates |= {one.learning_rate for one in make_strategy(spec, card)._scan([])}
    assert {1.5e-5, 3e-5, 6e-5} <= rates


class Caught(Exception):
    """What a command was about to run."""

    def __init__(self, plan: str):
        self.plan = plan


@pytest.fixture(scope="module")
def plan_of(shipped_model, few_rows, tmp_path_factory):
    """What a command line would run, as text. The last call is caught, so that nothing is trained."""
    from finestep.cli import study as cli_study
    from finestep.flows import probe as probe_flow

    def run_study(study, **more):
        study.store.close()
        settings = (study.budget, study.pack, study.storage_url, study.options, study.cluster, study.sharding)
        raise Caught(repr((study.spec.model_dump(), study.folder.name, *settings, sorted(more.items()))))

    def caught(*arguments, **more):
        more.pop("note", None)
        raise Caught(repr((arguments, sorted(more.items(), key=str))))

    place = tmp_path_factory.mktemp("plans")
    lines = few_rows.read_text().splitlines(keepends=True)
    (place / "other.jsonl").write_text("".join(lines[: len(lines) // 2]))  # the other half is left to train on
    shutil.copytree(shipped_model, place / "othermodel")
    write_recipe(place / "recipe.yaml", Recipe(learning_rate=1e-4))
    write_recipe(place / "full.yaml", Recipe(learning_rate=1e-5, method="full"))
    (place / "with.yaml").write_text(
        "train_file: other.jsonl\nvalidation_file:\nlearning_rate: 1e-4\nper_device_train_batch_size: 2\noutput_dir: out\n"
    )
    (place / "general.txt").write_text("Some text of the world. " * 50)
    names = {"MODEL": str(shipped_model), "DATA": str(few_rows), "OTHER": "other.jsonl", "OTHERMODEL": "othermodel"}
    known: dict[tuple[str, ...], str] = {}

    def plan(*arguments: str) -> str:
        if arguments not in known:
            known[arguments] = fresh(*arguments)
        return known[arguments]

    def fresh(*arguments: str) -> str:
        words = [names.get(word, word) for word in arguments]
        if words[0] in ("tune", "train") and "--out" not in words:
            words += ["--out", str(tmp_path_factory.mktemp("out") / "study")]
        done = CliRunner().invoke(app, words)
        if isinstance(done.exception, Caught):
            return done.exception.plan
        raise done.exception or AssertionError(done.output)

    plan.fresh = fresh
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli_study, "run_study", run_study)
        patch.setattr(probe_flow, "probe", caught)
        patch.setattr(probe_flow, "predict_memory", caught)
        patch.chdir(place)
        yield plan


def test_the_same_line_twice_is_the_same_plan(plan_of):
    assert plan_of.fresh(*TUNE) == plan_of.fresh(*TUNE)


TUNE, COMMAND = (
    ("tune", "MODEL", "DATA"),
    ("tune", "--command", "train {learning_rate} {num_steps}", "--result", "eval_loss=(.*)", "--rows", "50"),
)
WITH = ("--with", "with.yaml", "--trainer", "hf", "--launcher", "{python} start.py {config}")
OF_WITH = {
    "trainer": ("--with", "with.yaml", "--trainer", "trl", "--launcher", "{python} start.py {config}"),
    "with_data": (*WITH, "--data", "OTHER"),
    "launcher": (*WITH[:-1], "{python} other.py {config}"),
    "python": (*WITH, "--python", "python-of-another-place"),
    "parallel": (*WITH, "--parallel", "2"),
    "guard": (*WITH, "--guard", "eval_kl<=1"),
}
OPTIONS: dict[str, dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "tune": {
        "model": (TUNE, ("tune", "OTHERMODEL", "DATA")),
        "data": (TUNE, ("tune", "MODEL", "OTHER")),
        "method": (TUNE, (*TUNE, "--method", "full")),
        "recipe_file": (TUNE, (*TUNE, "--recipe", "recipe.yaml")),
        "epochs": (TUNE, (*TUNE, "--epochs", "2")),
        "setting": (TUNE, (*TUNE, "--set", "seed=3")),
        "unsafe_pickle": (TUNE, (*TUNE, "--unsafe-pickle")),
        "trust_remote_code": (TUNE, (*TUNE, "--trust-remote-code")),
        "columns": (TUNE, (*TUNE, "--columns", "prompt=instruction,completion=output")),
        "data_format": (TUNE, (*TUNE, "--format", "alpaca")),
        "prompt": (TUNE, (*TUNE, "--prompt", "{instruction} {input}")),
        "completion": (TUNE, (*TUNE, "--completion", "{output}!")),
        "system": (TUNE, (*TUNE, "--system", "Be brief.")),
        "eval_data": (TUNE, (*TUNE, "--eval-data", "OTHER")),
        "eval_share": (TUNE, (*TUNE, "--eval-share", "0.3")),
        "max_rows": (TUNE, (*TUNE, "--max-rows", "20")),
        "template": (TUNE, (*TUNE, "--template", "raw")),
        "max_length": (TUNE, (*TUNE, "--max-length", "64")),
        "budget": (TUNE, (*TUNE, "--budget", "2")),
        "time": (TUNE, (*TUNE, "--time", "5m")),
        "strategy": (TUNE, (*TUNE, "--strategy", "tpe")),
        "tuned": (TUNE, (*TUNE, "--tune", "rank")),
        "prior": (TUNE, (*TUNE, "--no-prior")),
        "baseline": (TUNE, (*TUNE, "--no-baseline")),
        "scaling": ((*TUNE, "--strategy", "sweep"), (*TUNE, "--strategy", "sweep", "--scaling", "none")),
        "objective": (TUNE, (*TUNE, "--objective", "exact_match", "--metric", "exact_match")),
        "prefer": (TUNE, (*TUNE, "--prefer", "speed")),
        "metric": (TUNE, (*TUNE, "--metric", "exact_match")),
        "general_text": (TUNE, (*TUNE, "--general-text", "general.txt")),
        "max_forgetting": (TUNE, (*TUNE, "--max-forgetting", "0.1")),
        "device": (TUNE, (*TUNE, "--device", "cpu")),
        "threads": (TUNE, (*TUNE, "--threads", "1")),
        "pack": (TUNE, (*TUNE, "--pack", "2")),
        "on": (TUNE, (*TUNE, "--on", "ray://auto")),
        "workers": ((*TUNE, "--on", "ray://auto"), (*TUNE, "--on", "ray://auto", "--workers", "2")),
        "devices_per_trial": (TUNE, (*TUNE, "--devices-per-trial", "2")),
        "sharding": ((*TUNE, "--devices-per-trial", "2"), (*TUNE, "--devices-per-trial", "2", "--sharding", "on")),
        "command": (TUNE, COMMAND),
        "result": (COMMAND, (*COMMAND, "--result", "bleu=(.*)")),
        "rows": (COMMAND, (*COMMAND[:-1], "80")),
        "timeout": (COMMAND, (*COMMAND, "--timeout", "3m")),
        "check_log": (COMMAND, (*COMMAND, "--no-check-log")),
        "with_file": (TUNE, ("tune", *WITH)),
        **{name: (("tune", *WITH), ("tune", *more)) for name, more in OF_WITH.items()},
        "out": (TUNE, (*TUNE, "--out", "elsewhere")),
        "storage": (TUNE, (*TUNE, "--storage", "sqlite:///trials.db")),
        "as_json": (TUNE, (*TUNE, "--json")),
    },
    "train": {
        "recipe": (("train", "recipe.yaml", "MODEL", "DATA"), ("train", "full.yaml", "MODEL", "DATA")),
        **{
            name: (("train", "recipe.yaml", "MODEL", "DATA"), ("train", "recipe.yaml", "MODEL", "DATA", *more))
            for name, more in {
                "setting": ("--set", "seed=3"),
                "unsafe_pickle": ("--unsafe-pickle",),
                "trust_remote_code": ("--trust-remote-code",),
                "columns": ("--columns", "prompt=instruction,completion=output"),
                "data_format": ("--format", "alpaca"),
                "prompt": ("--prompt", "{instruction} {input}"),
                "completion": ("--completion", "{output}!"),
                "system": ("--system", "Be brief."),
                "eval_data": ("--eval-data", "OTHER"),
                "eval_share": ("--eval-share", "0.3"),
                "max_rows": ("--max-rows", "20"),
                "template": ("--template", "raw"),
                "metric": ("--metric", "exact_match"),
                "general_text": ("--general-text", "general.txt"),
                "max_forgetting": ("--max-forgetting", "0.1"),
                "on_trouble": ("--on-trouble", "stop"),
                "device": ("--device", "cpu"),
                "threads": ("--threads", "1"),
                "on": ("--on", "ray://auto"),
                "devices_per_trial": ("--devices-per-trial", "2"),
                "out": ("--out", "elsewhere"),
                "as_json": ("--json",),
            }.items()
        },
        "sharding": (
            ("train", "recipe.yaml", "MODEL", "DATA", "--devices-per-trial", "2"),
            ("train", "recipe.yaml", "MODEL", "DATA", "--devices-per-trial", "2", "--sharding", "on"),
        ),
        "with_file": (("train", "recipe.yaml", "MODEL", "DATA"), ("train", *WITH)),
        **{name: (("train", *WITH), ("train", *more)) for name, more in OF_WITH.items()},
        "timeout": (("train", *WITH), ("train", *WITH, "--timeout", "3m")),
        "model": (("train", "recipe.yaml", "MODEL", "DATA"), ("train", "recipe.yaml", "OTHERMODEL", "DATA")),
        "data": (("train", "recipe.yaml", "MODEL", "DATA"), ("train", "recipe.yaml", "MODEL", "OTHER")),
    },
    "probe": {
        "model": (("probe", "MODEL"), ("probe", "OTHERMODEL")),
        "data": (("probe", "MODEL"), ("probe", "MODEL", "DATA")),
        "params": (("probe", "--params", "1B"), ("probe", "--params", "7B")),
        "predict": (("probe", "MODEL"), ("probe", "MODEL", "DATA")),
        "gpu": (("probe", "MODEL"), ("probe", "MODEL", "--gpu", "24GB")),
        "optimizer": (("probe", "MODEL"), ("probe", "MODEL", "--optimizer", "adamw_8bit")),
        "method": (("probe", "MODEL"), ("probe", "MODEL", "--method", "full")),
        "rank": (("probe", "MODEL"), ("probe", "MODEL", "--rank", "8")),
        **{
            name: (("probe", "MODEL", "DATA"), ("probe", "MODEL", "DATA", *more))
            for name, more in {
                "batch": ("--batch", "8"),
                "setting": ("--set", "max_length=48"),
                "columns": ("--columns", "prompt=instruction,completion=output"),
                "max_length": ("--max-length", "48"),
                "price_per_hour": ("--price-per-hour", "3"),
                "budget": ("--budget", "4"),
                "device": ("--device", "cpu"),
                "threads": ("--threads", "1"),
                "time": ("--time", "5s"),
                "again": ("--again",),
            }.items()
        },
    },
}
"""For each option two command lines, without and with it, that must run different things."""
OUTPUT_ONLY = {("probe", "as_json")} | {
    (command, name) for command in ("tune", "train") for name in ("check_saved", "language", "watch", "report_to")
}
"""They change what is said, shown or checked (tests/saved, tests/language, tests/watch, tests/trackers), not what runs."""


@pytest.mark.parametrize("command", OPTIONS)
def test_the_walk_leaves_no_option_out(command):
    names = {parameter.name for parameter in COMMANDS[command].params if parameter.name != "help"}
    assert names == OPTIONS[command].keys() | {name for owner, name in OUTPUT_ONLY if owner == command}


NEED_RAY = ("on", "workers")


def options():
    """Command and option; those of Ray are left out where Ray is not installed."""
    missing = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs finestep[ray]")
    for command, names in OPTIONS.items():
        for name in names:
            yield pytest.param(command, name, marks=[missing] if name in NEED_RAY else [], id=f"{command}-{name}")


@pytest.mark.parametrize(("command", "name"), list(options()))
def test_an_option_changes_what_runs(command, name, plan_of):
    without, with_it = OPTIONS[command][name]
    assert plan_of(*without) != plan_of(*with_it)


REFUSED = [
    (("tune", "MODEL", "DATA", "--scaling", "none"), "--scaling"),
    (("tune", "MODEL", "DATA", "--strategy", "sweep", "--no-prior"), "--prior"),
    (("tune", "MODEL", "DATA", "--strategy", "random", "--no-baseline"), "--baseline"),
    (("tune", "MODEL", "DATA", "--strategy", "sweep", "--prefer", "speed"), "--prefer"),
    (("tune", "MODEL", "DATA", "--method", "full", "--recipe", "recipe.yaml"), "--method"),
    (("tune", "MODEL", "DATA", "--epochs", "2", "--set", "num_epochs=3"), "--epochs"),
    (("tune", "MODEL", "DATA", "--max-length", "64", "--set", "max_length=32"), "--max-length"),
    (("tune", "MODEL", "DATA", "--eval-share", "0.2", "--eval-data", "OTHER"), "--eval-share"),
    (("tune", "MODEL", "DATA", "--set", "num_devices=99"), "num_devices"),
    (("tune", "MODEL", "DATA", "--devices-per-trial", "2", "--set", "num_devices=3"), "--devices-per-trial"),
    (("tune", "MODEL", "DATA", "--workers", "2"), "--workers"),
    (("tune", "MODEL", "DATA", "--sharding", "on"), "--sharding"),
    ((*COMMAND, "--devices-per-trial", "2"), "--devices-per-trial"),
    ((*COMMAND, "--device", "cpu"), "--device"),
    ((*COMMAND, "--pack", "2"), "--pack"),
    ((*COMMAND, "--metric", "exact_match"), "--metric"),
    ((*COMMAND, "--columns", "prompt=a,completion=b"), "--columns"),
    ((*COMMAND, "--set", "lora.rank=8"), "lora.rank"),
    ((*COMMAND, "--launcher", "x {config}"), "--launcher"),
    (("tune", *WITH, "--pack", "2"), "--pack"),
    (("tune", *WITH, "--eval-share", "0.3"), "--eval-share"),
    (("train", *WITH, "--on-trouble", "stop"), "--on-trouble"),
    (("train", "--guard", "a<=1"), "--guard"),
    (("train", "recipe.yaml"), "say which model and data"),
    (("train", "recipe.yaml", "MODEL", "DATA", "--set", "num_devices=99"), "num_devices"),
    (("train", "recipe.yaml", "MODEL", "DATA", "--sharding", "off"), "--sharding"),
    (("probe", "MODEL", "--batch", "8"), "--batch"),
    (("probe", "MODEL", "--again"), "--again"),
    (("probe", "MODEL", "--set", "seed=3"), "seed"),
    (("probe", "MODEL", "DATA", "--predict"), "--data"),
    (("probe", "MODEL", "DATA", "--gpu", "24GB"), "--gpu"),
    (("probe", "MODEL", "DATA", "--set", "schedule.name=cosine"), "schedule.name"),
    (("probe", "MODEL", "DATA", "--rank", "8", "--set", "lora.rank=4"), "--rank"),
    (("probe", "MODEL", "--max-length", "64", "--set", "max_length=32"), "--max-length"),
    (("probe", "MODEL", "--method", "full", "--rank", "8"), "lora.rank"),
]


@pytest.mark.parametrize(("line", "says"), REFUSED)
def test_what_would_change_nothing_is_refused(line, says, plan_of):
    with pytest.raises(BadInput) as caught:
        plan_of(*line)
    assert says in str(caught.value)


def test_a_set_length_reaches_prediction_and_measurement(plan_of):
    assert "'length', 48" in plan_of("probe", "MODEL", "--set", "max_length=48")
    assert "max_length=48" in plan_of("probe", "MODEL", "DATA", "--set", "max_length=48")
    assert set(PREDICTED) <= set(MEASURED)


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_settings_does_not_count(order):
    settings = ["micro_batch_size=32", "effective_batch_size=64", "lora.rank=8", "lora={alpha: 8.0}"]
    recipe = apply_settings(Recipe(), settings[::order])
    assert (recipe.micro_batch_size, recipe.effective_batch_size) == (32, 64)
    assert (recipe.lora.rank, recipe.lora.alpha) == (8, 8.0)
