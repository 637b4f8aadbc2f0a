"""The floors of the house: a room imports its own folder and lower floors, and the door to torch stays shut."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "finestep"
WORDS = {"errors", "estimate", "facts", "recipe", "trial", "study", "finding", "protocol", "probe", "yaml_text"}
WORDS |= {
    "plain_text",
    "flat",
    "saved_model",
    "disk",
    "ready",
    "result",
    "answer",
    "executor",
    "study_layout",
    "language",
    "wording",
}
FLOORS = [
    WORDS,
    {"knowledge", "rules", "diagnosis", "search"},
    {"survey", "store", "executors", "export", "foreign", "readers", "report", "trainers"},
    {"train", "probes", "worker", "saved", "cluster"},
    {"flows"},
    {"studies"},
    {"integrations", "cli", "api", "agents", "entry", "watch", "trackers"},
]
ALLOWED_BESIDE = {
    ("rules", "knowledge"),
    ("search", "rules"),
    ("trainers", "foreign"),
    ("trainers", "readers"),
    ("executors", "trainers"),
    ("worker", "train"),
    ("worker", "probes"),
    ("api", "cli"),
    ("cli", "agents"),
    ("cli", "watch"),
    ("cli", "trackers"),
    ("api", "trackers"),
    ("probes", "train"),
    ("entry", "cli"),
}
"""Within a floor: rules look numbers up in knowledge, strategies scale rates by the rules, the worker opens the torch rooms,
Python's functions show a study as the command line does."""
NEVER_IN_CONTROLLER = {"torch", "transformers", "peft", "safetensors", "datasets"}
FORBIDDEN_NAMES = {"utils", "helpers", "common", "misc", "core", "base", "manager"}


@functools.cache
def _modules():
    return sorted(path for path in SOURCE.rglob("*.py") if "shipped" not in path.parts)


def _room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def _floor(room: str) -> int | None:
    return next((level for level, rooms in enumerate(FLOORS) if room in rooms), None)


@functools.cache
def _imports(path: Path) -> list[tuple[str, bool]]:
    """(module, is it at the top of the file) of all imports."""
    return list(_read_imports(path))


def _read_imports(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield name.name, id(node) in top
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module or "", id(node) in top


def test_imports_point_down():
    assert len(_modules()) > 400
    faults = [fault for path in _modules() for fault in _faults_of_floors(path)]
    assert not faults, "\n".join(faults)


def _faults_of_floors(path: Path) -> Iterator[str]:
    room = _room(path)
    level = _floor(room)
    if room in {"__init__", "__main__"}:
        return
    if level is None:
        yield f"{room} is on no floor: add it to the architecture first"
        return
    for module, _ in _imports(path):
        parts = module.split(".")
        if parts[0] != "finestep" or len(parts) < 2:
            continue
        other = parts[1]
        other_level = _floor(other)
        beside = other_level == level and other != room and room not in WORDS
        if other_level is None:
            yield f"{path}: {module} is on no floor"
        elif other_level > level:
            yield f"{path} imports {module} from a higher floor"
        elif beside and (room, other) not in ALLOWED_BESIDE:
            yield f"{path} imports {module} from a room of its own floor"


def test_torch_stays_behind_its_door():
    for path in _modules():
        if _room(path) not in {"train", "probes", "worker", "saved", "integrations"}:
            loaded = {module.split(".")[0] for module, _ in _imports(path)}
            assert not loaded & NEVER_IN_CONTROLLER - ({"datasets"} if path.name == "rows.py" else set()), path


def test_who_trains_on_one_device_of_one_machine_loads_nothing_for_many():
    """Groups of devices are known in two files and Ray in one room, and nobody imports them, or the first of these, at the top."""
    for path in _modules():
        for module, is_at_top in _imports(path):
            name = path.relative_to(SOURCE).as_posix()
            if module.startswith("torch.distributed"):
                assert name in {"train/ranks.py", "train/sharding.py"}
                assert not is_at_top, name
            if module == "finestep.train.ranks":
                assert not is_at_top, name
            if module.split(".")[0] == "ray":
                assert _room(path) == "cluster"
                assert not is_at_top, name


def test_pure_rooms_have_no_clock_and_no_chance():
    for room in ("rules", "diagnosis", "search", "knowledge"):
        for path in (SOURCE / room).rglob("*.py"):
            loaded = {module.split(".")[0] for module, _ in _imports(path)}
            assert not loaded & {"time", "random", "subprocess", "socket", "torch", "optuna"}, path


def test_no_module_is_named_after_nothing():
    for path in _modules():
        assert path.stem not in FORBIDDEN_NAMES, path


def test_nothing_is_unpickled():
    for path in _modules():
        text = path.read_text(encoding="utf-8")
        assert "pickle.load" not in text, path
        assert "torch.load" not in text, path


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom finestep.cli import main\nsys.argv = ['finestep', '--help']\n"
        "try:\n    main.main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'scipy', 'optuna', 'transformers', 'pydantic', 'sqlalchemy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_words_load_without_numbers():
    code = "import sys, finestep.recipe, finestep.trial, finestep.study, finestep.protocol; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_public_names_resolve():
    import finestep

    for name in finestep.__all__:
        assert getattr(finestep, name)
