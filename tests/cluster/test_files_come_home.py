"""Files that travel as messages: whole or not at all, and a checkpoint that arrives damaged does not count."""

from __future__ import annotations

import pytest

from finestep.cluster.cargo import PART_BYTES, CargoDamaged, newest, packed, unpack_checkpoint, unpack_model
from finestep.store.sealed import find_fault, seal


def _sealed(folder, **files):
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    seal(folder)
    return folder


def test_a_checkpoint_arrives_as_it_was_and_only_two_are_kept(tmp_path):
    there, here = tmp_path / "there", tmp_path / "here"
    for step in (4, 8, 12):
        made = _sealed(there / "checkpoints" / f"step-{step:08d}", weights=f"after {step}")
        assert newest(there) == made
        unpack_checkpoint(here, packed(there, [f"checkpoints/{made.name}"]), get=bytes)
    kept = sorted((here / "checkpoints").iterdir())
    assert [one.name for one in kept] == ["step-00000008", "step-00000012"]
    assert (kept[1] / "weights").read_text() == "after 12"
    assert find_fault(kept[1]) is None


def test_a_checkpoint_that_is_damaged_on_the_way_leaves_the_older_one_alone(tmp_path):
    there, here = tmp_path / "there", tmp_path / "here"
    _sealed(there / "checkpoints" / "step-00000004", weights="good")
    unpack_checkpoint(here, packed(there, ["checkpoints"]), get=bytes)
    _sealed(there / "checkpoints" / "step-00000008", weights="better")
    files = packed(there, ["checkpoints/step-00000008"])
    files["checkpoints/step-00000008/weights"] = b"bitter"
    with pytest.raises(CargoDamaged, match="weights"):
        unpack_checkpoint(here, files, get=bytes)
    assert [one.name for one in (here / "checkpoints").iterdir()] == ["step-00000004"]


def test_a_large_file_travels_in_parts(tmp_path):
    there, here, store = tmp_path / "there", tmp_path / "here", {}
    content = bytes(range(256)) * (2 * PART_BYTES // 256 + 1)
    (there / "model").mkdir(parents=True)
    (there / "model" / "weights").write_bytes(content)
    seal(there / "model")

    def put(part):
        store[len(store)] = part
        return len(store) - 1

    files = packed(there, ["model"], put=put)
    assert len(files["model/weights"]) == 3
    assert max(map(len, store.values())) <= PART_BYTES
    unpack_model(here, files, get=store.__getitem__)
    assert (here / "model" / "weights").read_bytes() == content


def test_a_classifier_names_the_base_beside_it_by_its_place_here(tmp_path):
    import json

    there, here = tmp_path / "there", tmp_path / "here"
    (there / "model" / "base").mkdir(parents=True)
    (there / "model" / "base" / "config.json").write_text("{}")
    (there / "model" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(there)}))
    seal(there / "model")
    unpack_model(here, packed(there, ["model"]), get=bytes)
    named = json.loads((here / "model" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == str(here / "model" / "base")
    assert find_fault(here / "model") is None
