"""Every command that an output prints runs the experiment that the output described: the command's own parser is asked."""

from __future__ import annotations

import functools
import json
import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from finestep.cli.export import export as export_command
from finestep.cli.recommend import recommend as recommend_command
from finestep.cli.rescale import rescale as rescale_command
from finestep.cli.train import train as train_command
from finestep.cli.tune import planned
from finestep.cli.tune import tune as tune_command
from finestep.flows.next_command import next_command
from finestep.recipe import Recipe
from finestep.rules.recommendation import Recommendation
from finestep.store.recipe_file import read_recipe, write_recipe
from finestep.study import Budget, StudySpec

FOUND_BY_THE_SEARCH = {"learning_rate", "effective_batch_size"}
LEFT_TO_THE_MACHINE = {"micro_batch_size"}


@functools.cache
def app_of(function) -> typer.Typer:
    app = typer.Typer()
    app.command()(function)
    return app


def run(function, words: list[str]) -> str:
    done = CliRunner().invoke(app_of(function), words)
    assert done.exception is None, done.exception
    return done.output


def spec_of(command: str) -> StudySpec:
    """The study that a `finestep tune` command asks for; nothing is run."""
    words = shlex.split(command)
    assert words[:2] == ["finestep", "tune"], command
    context = typer.main.get_command(app_of(tune_command)).make_context("tune", words[2:])
    return planned(context)[0]


def printed(output: str, start: str) -> str:
    found = re.search(rf"{start} (finestep .*)", output, re.S)
    assert found, output
    return found[1].strip()


@pytest.fixture
def rows(tmp_path):
    """Data of several kinds and sizes."""

    def write(kind: str, count: int) -> str:
        path = tmp_path / f"{kind}-{count}.jsonl"
        make = {
            "chats": lambda n: {"prompt": f"{n} is what", "completion": f"it is {n} " * 20},
            "labels": lambda n: {"text": f"row {n} says so", "label": ("yes", "no", "maybe")[n % 3]},
            "columns": lambda n: {"q": f"what of {n}", "ctx": f"about {n}", "a": f"this {n}"},
            "long": lambda n: {"prompt": f"{n}", "completion": f"word {n} " * 700},
        }[kind]
        path.write_text("".join(json.dumps(make(n)) + "\n" for n in range(count)))
        return str(path)

    return write


SITUATIONS = [
    ("chats", 200, []),
    ("chats", 3000, []),
    ("chats", 20, []),
    ("chats", 1500, ["--method", "full"]),
    ("chats", 1500, ["--batch", "16"]),
    ("chats", 1500, ["--batch", "4", "--epochs", "2"]),
    ("chats", 1500, ["--epochs", "0.5"]),
    ("chats", 1500, ["--rank", "8"]),
    ("chats", 1500, ["--rank", "64", "--alpha", "16"]),
    ("chats", 1500, ["--retention"]),
    ("chats", 1500, ["--retention", "--method", "full"]),
    ("chats", 1500, ["--gpu", "h100"]),
    ("chats", 1500, ["--gpu", "24GB", "--method", "qlora"]),
    ("chats", 1500, ["--method", "lora", "--gpu", "cpu"]),
    ("chats", 1500, ["--prompt", "Say: {prompt}", "--completion", "{completion}"]),
    ("chats", 1500, ["--system", "Be brief."]),
    ("columns", 400, ["--columns", "prompt=q,completion=a"]),
    ("columns", 400, ["--prompt", "{ctx}\n\n{q}", "--completion", "{a}"]),
    ("labels", 300, []),
    ("labels", 300, ["--method", "full"]),
    ("labels", 2400, []),
    ("labels", 300, ["--batch", "8"]),
    ("labels", 300, ["--epochs", "5", "--rank", "4"]),
    ("long", 60, []),
    ("long", 60, ["--method", "full"]),
]


@pytest.mark.parametrize(("kind", "count", "options"), SITUATIONS)
def test_what_recommend_says_next_is_what_it_described(kind, count, options, rows, shipped_model):
    words = [str(shipped_model), rows(kind, count), *options]
    described = Recommendation.model_validate_json(run(recommend_command, [*words, "--json"]).splitlines()[-1])
    spec = spec_of(printed(run(recommend_command, words), "Next:"))
    wanted, found = described.recipe.model_dump(), spec.recipe.model_dump()
    for name in LEFT_TO_THE_MACHINE | FOUND_BY_THE_SEARCH:
        wanted.pop(name), found.pop(name)
    assert found == wanted
    assert spec.data.path == words[1]
    own_rate, own_batch = "--retention" in options, "--batch" in options
    if own_rate:
        assert spec.search.start.learning_rate == pytest.approx(described.recipe.learning_rate)
    else:
        assert spec.search.start.learning_rate == pytest.approx(
            10**described.log10_center, rel=0.35 if own_batch else 1e-6
        )
    assert spec.search.start.batch_size == described.recipe.effective_batch_size


@pytest.mark.parametrize(("kind", "options"), [("chats", []), ("columns", ["--columns", "prompt=q,completion=a"])])
def test_several_devices_go_to_another_trainer(kind, options, rows, tmp_path, monkeypatch, shipped_model):
    """The two commands write the recipe and export it, with the rows that were described."""
    monkeypatch.chdir(tmp_path)
    words = [str(shipped_model), rows(kind, 400), "--gpu", "4xh100", *options]
    described = Recommendation.model_validate_json(run(recommend_command, [*words, "--json"]).splitlines()[-1])
    first, second = printed(run(recommend_command, words), "Next:").split(" && ")
    run(recommend_command, shlex.split(first)[2:])
    assert read_recipe(Path("start.yaml")) == described.recipe
    told = shlex.split(second)
    assert told[:2] == ["finestep", "export"]
    run(export_command, told[2:])
    written = Path("trl_sft.yaml").read_text()
    assert f"{described.recipe.num_devices} devices" in written
    assert "bf16: true" in written
    assert len(Path("train.jsonl").read_text().splitlines()) == described.data.num_rows


def test_the_written_recipe_is_trained_as_it_is(tmp_path, rows, shipped_model):
    """`rescale` names the recipe that it wrote."""
    recipe = tmp_path / "r.yaml"
    write_recipe(recipe, Recipe(effective_batch_size=16, max_length=64))
    output = run(
        rescale_command, [str(recipe), "--batch", "32", "--output", str(tmp_path / "new.yaml"), "--model", "Qwen3-0.6B"]
    )
    words = shlex.split(printed(output.replace("\n", " "), "Next:"))
    assert words[:2] == ["finestep", "train"]
    context = typer.main.get_command(app_of(train_command)).make_context("train", words[2:])
    assert read_recipe(Path(context.params["recipe"])).effective_batch_size == 32
    assert context.params["model"] == "Qwen3-0.6B"


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--method", "full"],
        ["--epochs", "3"],
        ["--set", "seed=3", "--set", "schedule.name=cosine"],
        ["--max-length", "48"],
        ["--tune", "rank=8/16"],
    ],
)
def test_going_on_keeps_the_experiment(options, rows, shipped_model):
    """The card's "go on with": only the budget grows."""
    command = shlex.join(["finestep", "tune", str(shipped_model), rows("chats", 100), "--budget", "2", *options])
    onward = next_command(command, Budget(full_runs=2))
    assert onward is not None
    assert spec_of(onward) == spec_of(command)
