"""What is saved is what was measured: trials are saved by the engine and loaded as a user loads them, by the lines of their README."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from finestep.cli.main import main
from finestep.errors import BadInput
from finestep.flows.merge import merge
from finestep.protocol import SessionRequest, TrialRequest
from finestep.ready import Machine
from finestep.recipe import Recipe
from finestep.saved.check import check
from finestep.saved.merge import merge as merge_here
from finestep.saved_model import CheckRows, read_saved
from finestep.studies.saved_check import check_saved
from finestep.study import DataSpec, ModelSpec
from finestep.study_layout import CHECK_ROWS
from finestep.train.checkpoint import find_fault
from finestep.train.evaluate import evaluate_rows
from finestep.train.loop import Pack
from finestep.train.model import Placement
from finestep.train.resident import Resident
from finestep.train.saved_files import save_trial
from finestep.train.token_rows import TokenRows

LABELS = ("angry", "happy", "sad")


@dataclass
class Trained:
    """A trial's folder, and what the engine said of the weights that are in it."""

    folder: Path
    loss_of: dict[str, float]
    rows: TokenRows

    @property
    def model(self) -> Path:
        return self.folder / "model"


def train(folder: Path, model: str, data: Path, method: str) -> Trained:
    """One trial in this process, saved as the worker saves it."""
    recipe = Recipe.model_validate(
        {
            "method": method,
            "learning_rate": 3e-3 if method == "lora" else 3e-4,
            "effective_batch_size": 8,
            "num_epochs": 1,
            "lora": {"rank": 4},
            "evaluation": {"num_evaluations": 2},
        }
    )
    spec, data_spec = ModelSpec(path=model, device="cpu"), DataSpec(path=str(data), max_length=96)
    resident = Resident(spec, data_spec, recipe, placement=Placement(torch.device("cpu"), torch.float32, False))
    requests = [TrialRequest(number=0, recipe=recipe, folder=str(folder))]
    pack = Pack(
        resident,
        emit=lambda *_, **__: None,
        should_stop=lambda: False,
        take=lambda: requests.pop() if requests else None,
    )
    session = SessionRequest(model=spec, data=data_spec, recipe=recipe, study_dir=str(folder.parent))
    measured: dict[str, float] = {}
    for lane in pack.run():
        save_trial(lane, folder, session)
        measured = {"outcome": lane.outcome.eval_loss, **lane.outcome.metrics}
        again = evaluate_rows(resident.base, resident.data, resident.token_loss, rows=resident.data.evaluation)
        measured["again"] = again.loss
    return Trained(folder, measured, resident.data.evaluation)


@pytest.fixture(scope="module")
def chat(shipped_model, instruct_file, tmp_path_factory):
    """LoRA on conversations; the base was named by a relative path."""
    folder = tmp_path_factory.mktemp("chat")
    shutil.copytree(shipped_model, folder / "bases" / "mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return train(folder / "0000", "bases/mine", instruct_file, "lora")


@pytest.fixture(scope="module")
def whole(shipped_model, instruct_file, tmp_path_factory):
    return train(tmp_path_factory.mktemp("whole") / "0000", str(shipped_model), instruct_file, "full")


@pytest.fixture(scope="module")
def adapted_classifier(encoder_model, label_file, tmp_path_factory):
    return train(tmp_path_factory.mktemp("labels") / "0000", str(encoder_model), label_file, "lora")


@pytest.fixture(scope="module")
def whole_classifier(encoder_model, label_file, tmp_path_factory):
    return train(tmp_path_factory.mktemp("labels") / "0000", str(encoder_model), label_file, "full")


ALL = ["chat", "whole", "adapted_classifier", "whole_classifier"]
CLASSIFIERS = ALL[2:]


def from_readme(folder: Path, monkeypatch) -> dict:
    """What the lines of the README leave behind, run in its folder as it says."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    block = re.search(r"## Load it.*?```python\n(.*?)```", text, flags=re.S)
    monkeypatch.chdir(folder)
    names: dict = {}
    exec(block.group(1), names)
    return names


def loss_of(model, rows: TokenRows) -> float:
    """Plain transformers, one row at a time."""
    total, units = 0.0, 0
    for row in range(len(rows)):
        start, end = rows.offsets[row], rows.offsets[row + 1]
        ids = torch.from_numpy(rows.ids[start:end].astype(np.int64))[None]
        labels = torch.where(torch.from_numpy(rows.trained[start:end]), ids[0], -100)[None]
        number = int((labels[0, 1:] != -100).sum())
        with torch.no_grad():
            total += model(input_ids=ids, labels=labels).loss.item() * number
        units += number
    return total / units


@pytest.mark.parametrize("kind", ["chat", "whole"])
def test_the_lines_of_the_readme_give_the_reported_loss(kind, request, monkeypatch):
    trained = request.getfixturevalue(kind)
    names = from_readme(trained.model, monkeypatch)
    assert loss_of(names["model"], trained.rows) == pytest.approx(trained.loss_of["outcome"], abs=1e-4)
    assert names["tokenizer"].chat_template
    assert names["model"].config.use_cache, "whoever lets it write needs its cache"


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_the_lines_of_a_classifiers_readme_give_accuracy_and_label_names(kind, request, monkeypatch):
    classifier = request.getfixturevalue(kind)
    classify = from_readme(classifier.model, monkeypatch)["classify"]
    tokenizer, rows = classify.tokenizer, classifier.rows
    hits = 0
    for row in range(len(rows)):
        text = tokenizer.decode(rows.ids[rows.offsets[row] : rows.offsets[row + 1]], skip_special_tokens=True)
        hits += classify(text)[0]["label"] == LABELS[rows.classes[row]]
    assert hits / len(rows) == pytest.approx(classifier.loss_of["accuracy"], abs=0.02)
    assert set(classify.model.config.id2label.values()) == set(LABELS)


@pytest.mark.parametrize("kind", ALL)
def test_the_readme_says_what_the_model_is(kind, request):
    trained = request.getfixturevalue(kind)
    text = (trained.model / "README.md").read_text(encoding="utf-8")
    head = yaml.safe_load(text.split("---")[1])
    saved = read_saved(trained.model)
    assert head["base_model"] == saved.loading.base
    assert head["library_name"] == ("peft" if saved.is_adapter else "transformers")
    assert head["datasets"] == [Path(saved.trained_on.data).stem]
    assert "finestep" in head["tags"]
    assert "More Information Needed" not in text
    for figure in (trained.loss_of["outcome"], saved.recipe.learning_rate):
        assert f"{figure:.4g}" in text
    assert saved.trained_on.data in text
    assert find_fault(trained.model) is None


def test_a_base_named_by_a_relative_path_is_named_whole(chat):
    config = json.loads((chat.model / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(chat.folder.parent / "bases" / "mine")
    assert config["base_model_name_or_path"] in (chat.model / "README.md").read_text()


@pytest.mark.parametrize("kind", ALL)
def test_the_kept_rows_have_the_loss_that_a_reload_has(kind, request):
    trained = request.getfixturevalue(kind)
    rows = CheckRows.model_validate_json((trained.folder / CHECK_ROWS).read_text())
    found = check(trained.model, read_saved(trained.model), rows, device="cpu")
    assert len(rows.ids) == min(32, len(trained.rows))
    assert found["loss"] == pytest.approx(rows.loss, abs=1e-4)
    assert len(found["answers"]) == 3
    if kind in CLASSIFIERS:
        assert all(set(one) == {"text", "predicted", "true"} for one in found["answers"])
        assert {one["true"] for one in found["answers"]} <= set(LABELS)
    else:
        assert all(one["prompt"] and one["expected"] for one in found["answers"])


def test_a_saved_model_that_is_not_what_was_measured_is_told(chat, tmp_path):
    shutil.copytree(chat.folder, tmp_path / "0000")
    weights = tmp_path / "0000" / "model" / "adapter_model.safetensors"
    damaged = {name: value * 3 if "lora_B" in name else value for name, value in load_file(weights).items()}
    save_file(damaged, weights, metadata={"format": "pt"})
    machine = Machine(device="cpu", num_threads=1)
    found = check_saved(tmp_path / "0000", tmp_path / "0000" / "model", machine=machine)
    assert (found.check.checked, found.check.agrees) == (True, False)
    assert abs(found.check.reloaded_loss - found.check.measured_loss) > found.check.tolerance
    assert "NOT WHAT WAS MEASURED" in found.check.sentence
    assert check_saved(tmp_path / "0000", tmp_path / "nowhere", machine=Machine()) == found, "it is asked for once"


def test_a_check_that_cannot_be_made_is_a_sentence(chat, tmp_path):
    shutil.copytree(chat.folder, tmp_path / "0000")
    config = tmp_path / "0000" / "model" / "adapter_config.json"
    config.write_text(config.read_text().replace(str(chat.folder.parent / "bases"), str(tmp_path / "gone")))
    found = check_saved(tmp_path / "0000", tmp_path / "0000" / "model", machine=Machine(device="cpu")).check
    assert (found.checked, found.agrees) == (False, None)
    assert "not checked" in found.sentence
    assert "\n" not in found.sentence
    (tmp_path / "0000" / CHECK_ROWS).unlink()
    assert "were not kept" in check_saved(tmp_path / "0000", config.parent, machine=Machine()).check.sentence


@pytest.mark.parametrize("kind", ["chat", "adapted_classifier"])
def test_a_merged_adapter_computes_the_same_without_peft(kind, request, tmp_path, monkeypatch, capsys):
    trained = request.getfixturevalue(kind)
    out = tmp_path / "merged"
    if kind == "chat":
        monkeypatch.setattr("sys.argv", ["finestep", "merge", str(trained.model), "--out", str(out), "--json"])
        assert main() == 0
        result = json.loads(capsys.readouterr().out.splitlines()[-1])
    else:
        result = merge_here(trained.model, read_saved(trained.model), out)
    assert result["difference"] <= 1e-3
    assert not (out / "adapter_config.json").exists()
    assert list(out.glob("*.safetensors"))
    assert "merged" in yaml.safe_load((out / "README.md").read_text().split("---")[1])["tags"]
    names = from_readme(out, monkeypatch)
    if kind == "chat":
        assert loss_of(names["model"], trained.rows) == pytest.approx(trained.loss_of["outcome"], abs=1e-3)
    else:
        assert set(names["classify"].model.config.id2label.values()) == set(LABELS)
    before = sorted((file.name, file.stat().st_mtime_ns) for file in out.iterdir())
    with pytest.raises(BadInput, match="needs a new folder"):
        merge(trained.model, out)
    assert sorted((file.name, file.stat().st_mtime_ns) for file in out.iterdir()) == before


def test_what_cannot_be_merged_is_refused_in_words(chat, whole, tmp_path):
    def refused(folder: Path) -> str:
        with pytest.raises(BadInput) as caught:
            merge(folder, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return str(caught.value)

    assert "whole model already" in refused(whole.model)
    assert "no such folder" in refused(tmp_path / "none")
    assert "adapter_config.json" in refused(tmp_path)
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.json").write_text("{}")
    assert str(tmp_path / "study" / "model") in refused(tmp_path / "study")

    shutil.copytree(chat.model, tmp_path / "adapter")
    config = tmp_path / "adapter" / "adapter_config.json"
    told = json.loads(config.read_text())
    config.write_text(json.dumps({**told, "base_model_name_or_path": str(tmp_path / "moved")}))
    assert "must be where the adapter says" in refused(tmp_path / "adapter")
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "gptq"}}))
    assert "quantised weights" in refused(tmp_path / "adapter")
    four_bits = json.loads((tmp_path / "adapter" / "finestep.json").read_text())
    (tmp_path / "adapter" / "finestep.json").write_text(json.dumps({**four_bits, "method": "qlora"}))
    assert "4 bits" in refused(tmp_path / "adapter")
