"""Other people's configs: each says what it says, is judged by it, and an unknown layout gets nobody's defaults."""

from __future__ import annotations

import pytest

from finestep.flows.review import review_config
from finestep.foreign.layouts import LAYOUTS
from finestep.foreign.reading import read_config

from .configs import CONFIGS, Config


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.file)
def test_a_config_says_what_it_says(tmp_path, config: Config):
    path = tmp_path / config.file
    path.write_text(config.text)
    found = read_config(path)
    assert found.framework == config.tool
    for name, value in config.says.items():
        assert found.stated()[name] == (pytest.approx(value) if isinstance(value, float) else value), name
    if config.tool == "unknown":
        assert not found.defaults


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.file)
def test_its_review_finds_the_fault(tmp_path, config: Config):
    path = tmp_path / config.file
    path.write_text(config.text)
    review = review_config(path)
    verdicts = {remark.topic: remark.verdict for remark in reversed(review.remarks)}
    assert {topic: verdicts.get(topic) for topic in config.verdicts} == dict(config.verdicts), review.remarks


def test_the_table_is_large_enough():
    assert len(CONFIGS) >= 40
    assert len({config.tool for config in CONFIGS}) >= 10
    assert {config.tool for config in CONFIGS} <= set(LAYOUTS)
