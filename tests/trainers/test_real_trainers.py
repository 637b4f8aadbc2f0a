"""Real trainers on the shipped model: a study that is killed goes on, and its config trains to the reported loss without finestep."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_trainers.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("check_trainers", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", ["hf", "trl-sft", "trl-dpo"])
def test_a_study_of_a_real_trainer_comes_to_its_end_after_a_kill(script, tmp_path, name):
    if name != "hf":
        pytest.importorskip("trl")
    row, is_right = script.check(name, tmp_path / name, {})
    assert is_right, row
