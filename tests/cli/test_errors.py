"""Bad data and configuration: one clear message each, exit code 2, no traceback."""

from __future__ import annotations

import json
import sys

import pytest

from finestep.cli.main import main

GOOD = [{"prompt": f"say {n}", "completion": f"{n}"} for n in range(20)]


def _lines(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _run(monkeypatch, capsys, *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr("sys.argv", ["finestep", *arguments])
    try:
        code = main()
    except SystemExit as end:
        code = end.code
    streams = capsys.readouterr()
    assert "Traceback" not in streams.err + streams.out
    return code, streams.err


DATA_FAULTS = {
    "empty": ("", "data file is empty"),
    "broken json": ('{"prompt": "a", "completion"\n' + _lines(GOOD), "bad.jsonl:1"),
    "broken json later": (_lines(GOOD[:60]) + "{oops}\n", "bad.jsonl:21"),
    "not an object": (_lines(GOOD) + "[1, 2]\n", "every row must be an object"),
    "unknown columns": (_lines([{"a": "x", "b": "y"}] * 20), "--columns"),
    "preference data": (_lines([{"prompt": "x", "chosen": "y", "rejected": "z"}] * 20), "preference data"),
    "unknown role": (_lines([{"messages": [{"role": "asistant", "content": "x"}]}] * 20), "did you mean `assistant`"),
    "a conversation without turns": (
        _lines([{"messages": [{"role": "user", "content": "x"}]}] * 20),
        "no row has an answer",
    ),
    "too few rows": (_lines(GOOD[:5]), "at least 8 rows"),
    "all the same": (_lines([{"prompt": "x", "completion": "y"}] * 20), "no split is possible"),
    "a row without a field": (_lines(GOOD) + _lines([{"prompt": "x"}]), "row 21"),
    "one label": (_lines([{"text": f"t {n}", "label": "a"} for n in range(20)]), "at least two labels"),
    "no label": (_lines([{"text": f"t {n}", "label": ["a", ""][n % 2]} for n in range(20)]), "at least two labels"),
    "deep json": ("[" * 100_000 + "\n", "not valid JSON"),
}


@pytest.mark.parametrize(("text", "message"), DATA_FAULTS.values(), ids=DATA_FAULTS)
def test_bad_data(text, message, shipped_model, tmp_path, monkeypatch, capsys):
    path = tmp_path / "bad.jsonl"
    path.write_text(text, encoding="utf-8")
    from finestep.errors import BadInput
    from finestep.study import DataSpec, ModelSpec
    from finestep.train.model import load_tokenizer
    from finestep.train.tokens import prepare_data

    tokenizer = load_tokenizer(ModelSpec(path=str(shipped_model)))
    with pytest.raises(BadInput) as caught:
        prepare_data(DataSpec(path=str(path)), tokenizer, context_length=512)
    assert message in str(caught.value)
    assert "bad.jsonl" in str(caught.value)


@pytest.mark.parametrize("fault", ["broken json later", "one label"])
def test_bad_data_through_the_worker(fault, shipped_model, tmp_path, monkeypatch, capsys):
    text, message = DATA_FAULTS[fault]
    path = tmp_path / "bad.jsonl"
    path.write_text(text, encoding="utf-8")
    code, error = _run(
        monkeypatch, capsys, "tune", str(shipped_model), str(path), "--out", str(tmp_path / "out"), "--threads", "1"
    )
    assert code == 2
    assert message in error
    assert error.startswith("finestep: ")
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"text,label\na,b\nc\n" * 9, "bad.csv", "every CSV row needs 2 fields"),
        (b"text,label\n\xff\x81\x00,b\n" * 9, "bad.csv", "UTF-8"),
        (b"PAR1 nonsense", "bad.parquet", "not a valid Parquet file"),
        (b'{"a": 1}', "bad.json", "list of objects"),
        (b"x" * 100, "bad.xyz", "unknown kind of data file"),
    ],
)
def test_bad_files(content, name, message, tmp_path):
    from finestep.errors import BadInput
    from finestep.survey.rows import read_rows

    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=message):
        list(read_rows(str(tmp_path / name)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tune", "MODEL", "nothere.jsonl"], "no such data file"),
        (["tune", "MODEL"], "give a model and data, or neither"),
        (["tune", "MODEL", "DATA", "--columns", "prompt=promt,completion=completion"], "did you mean `prompt`"),
        (["tune", "MODEL", "DATA", "--columns", "prompt"], "name=column pairs"),
        (["tune", "MODEL", "DATA", "--format", "alpacca"], "--format"),
        (["tune", "MODEL", "DATA", "--method", "lorra"], "did you mean `lora`"),
        (["tune", "MODEL", "DATA", "--strategy", "magic"], "unknown strategy"),
        (["tune", "MODEL", "DATA", "--strategy", "swep"], "did you mean `sweep`"),
        (["tune", "MODEL", "DATA", "--tune", "ranc"], "did you mean `rank`"),
        (["tune", "MODEL", "DATA", "--strategy", "sweep", "--tune", "rank"], "learning rate and batch size only"),
        (["tune", "MODEL", "DATA", "--objective", "accuracy"], "needs data with labels"),
        (["tune", "MODEL", "DATA", "--objective", "rouge"], "min:NAME or max:NAME"),
        (["tune", "MODEL", "DATA", "--prefer", "sped"], "did you mean `speed`"),
        (["tune", "--command", "train {lr}"], "unknown field"),
        (["tune", "--command", "train {learning_rate} {num_steps}", "--result", "eval_loss=(.*)"], "--rows"),
        (["tune", "MODEL", "DATA", "--rows", "3"], "belongs to `--command`"),
        (["tune", "--command", "t {learning_rate}", "--result", "eval_loss=(.*)", "--tune", "rank"], "add {rank}"),
        (["tune", "MODEL", "DATA", "--budget", "0"], "--budget"),
        (["tune", "MODEL", "DATA", "--time", "soon"], "--time"),
        (["tune", "MODEL", "DATA", "--set", "learning_rte=1"], "did you mean `learning_rate`"),
        (["tune", "MODEL", "DATA", "--set", "learning_rate=-1"], "greater than 0"),
        (["tune", "MODEL", "DATA", "--set", "lora.rank=0"], "`lora.rank`: input should be greater"),
        (["tune", "MODEL", "DATA", "--set", "nonsense"], "group.field=value"),
        (["tune", "MODEL", "DATA", "--epochs", "0"], "greater than 0; got 0.0 in --epochs"),
        (["tune", "MODEL", "DATA", "--epochs", "-1"], "greater than 0; got -1.0 in --epochs"),
        (["tune", "--max-length", "0"], "`--max-length`: input should be greater than or equal to 8; got 0"),
        (["tune", "MODEL", "DATA", "--device", "tpu"], "--device"),
        (["train", "nothere.yaml"], "no such recipe file"),
        (["report", "nothere"], "holds no study"),
    ],
)
def test_bad_commands(arguments, message, shipped_model, tmp_path, monkeypatch, capsys):
    (tmp_path / "good.jsonl").write_text(_lines(GOOD), encoding="utf-8")
    names = {"MODEL": str(shipped_model), "DATA": str(tmp_path / "good.jsonl")}
    monkeypatch.chdir(tmp_path)
    code, error = _run(monkeypatch, capsys, *[names.get(argument, argument) for argument in arguments])
    assert code == 2
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("command", ["tune", "train", "probe"])
def test_no_threads_at_all_are_refused(command, monkeypatch, capsys):
    code, error = _run(monkeypatch, capsys, command, "--threads", "0")
    assert code == 2
    assert "Invalid value for '--threads'" in error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rte: 1.0e-4", "r.yaml:1"),
        ("method: lora\nschedule:\n  name: cosin", "r.yaml:3"),
        ("learning_rate: fast", "r.yaml:1"),
        ("effective_batch_size: 0", "greater than or equal to 1"),
        (
            "method: lora\nlora:\n  rank: 0",
            "`lora.rank`: input should be greater than or equal to 1; got 0 in r.yaml:3",
        ),
        ("micro_batch_size: 32\neffective_batch_size: 16", "must not exceed"),
        ("schedule: {warmup_steps: 5, warmup_ratio: 0.1}", "not both"),
        ("a: &x [*x]", "anchors"),
        ("learning_rate: !!python/object 1", "tags"),
        ("{", "not valid YAML"),
        ("- 1", "mapping"),
        ("optimizer: 3", "optimizer"),
    ],
)
def test_bad_recipes(text, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "r.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    code, error = _run(monkeypatch, capsys, "train", "r.yaml")
    assert code == 2
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_missing_model_and_one_made_of_pickles(tmp_path, shipped_model, monkeypatch, capsys):
    import shutil

    import torch

    (tmp_path / "good.jsonl").write_text(_lines(GOOD), encoding="utf-8")
    code, error = _run(
        monkeypatch, capsys, "tune", str(tmp_path / "none"), str(tmp_path / "good.jsonl"), "--out", str(tmp_path / "a")
    )
    assert (code, "no such model folder" in error) == (2, True)
    shutil.copytree(shipped_model, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "pickled" / "pytorch_model.bin")
    code, error = _run(
        monkeypatch,
        capsys,
        "tune",
        str(tmp_path / "pickled"),
        str(tmp_path / "good.jsonl"),
        "--out",
        str(tmp_path / "b"),
    )
    assert (code, "--unsafe-pickle" in error) == (2, True)


def test_qlora_without_bitsandbytes(tmp_path, shipped_model, monkeypatch):
    """The packages are asked where the model is loaded, in a process of its own."""
    import importlib.metadata

    import torch

    from finestep.errors import BadInput, MissingDependency
    from finestep.recipe import Recipe
    from finestep.study import ModelSpec
    from finestep.train.model import choose_placement

    known = importlib.metadata.version

    def version(name: str) -> str:
        if name == "bitsandbytes":
            raise importlib.metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(MissingDependency, match="pip install 'finestep\\[quant\\]'"):
        choose_placement(ModelSpec(path=str(shipped_model), device="cpu"), Recipe(method="qlora"))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.45.1")
    if not torch.cuda.is_available():
        with pytest.raises(BadInput, match=r"needs bitsandbytes 0.50 or newer"):
            choose_placement(ModelSpec(path=str(shipped_model)), Recipe(method="qlora"))


@pytest.fixture
def without_torch(monkeypatch):
    """As in an installation without torch."""
    from importlib.machinery import PathFinder

    real = PathFinder.find_spec
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(PathFinder, "find_spec", lambda name, *rest: None if name == "torch" else real(name, *rest))


@pytest.mark.parametrize("command", ["tune", "train"])
def test_without_torch_nothing_is_left_behind(command, without_torch, tmp_path, shipped_model, monkeypatch, capsys):
    (tmp_path / "good.jsonl").write_text(_lines(GOOD), encoding="utf-8")
    (tmp_path / "r.yaml").write_text("method: lora\n", encoding="utf-8")
    before = sorted(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    recipe = ["r.yaml"] if command == "train" else []
    code, error = _run(monkeypatch, capsys, command, *recipe, str(shipped_model), "good.jsonl")
    assert code == 2
    assert error == "finestep: training needs `torch`, which is not installed; run `pip install 'finestep[train]'`\n"
    assert sorted(tmp_path.iterdir()) == before


def test_a_command_trains_without_torch(without_torch, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    trainer = ["--command", "echo eval_loss=1.5 {learning_rate}", "--result", "eval_loss=eval_loss=([0-9.]+)"]
    code, _ = _run(monkeypatch, capsys, "tune", *trainer, "--budget", "1", "--out", "s")
    assert code == 0
    assert (tmp_path / "s" / "recipe.yaml").is_file()
