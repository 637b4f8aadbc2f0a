"""Every notebook runs from its first cell to its last, in a folder of its own; cells that need a GPU are left out without one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

FOLDER = Path(__file__).parents[2] / "notebooks"
SOURCE = Path(__file__).parents[2] / "src"
LONG = {"1_quick_start", "3_a_classifier", "5_compare_studies"}
"""They train, and take minutes together."""


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """The outputs of all cells."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("FINESTEP_CACHE", str(folder / "cache"))
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    monkeypatch.delenv("FINESTEP_LANG", raising=False)
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    notebook.cells = [cell for cell in notebook.cells if "gpu" not in cell.metadata.get("tags", [])]
    nbclient.NotebookClient(
        notebook, timeout=1500, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def text_of(outputs: list[dict]) -> str:
    shown = [output.get("text", "") for output in outputs]
    return "\n".join([*shown, *(output.get("data", {}).get("text/html", "") for output in outputs)])


def test_a_notebook_of_your_own_trainer(tmp_path, monkeypatch):
    said = text_of(run("2_your_own_trainer", tmp_path, monkeypatch))
    assert "the best rate is between" in said


def test_a_notebook_that_reads_logs(tmp_path, monkeypatch):
    said = text_of(run("4_read_a_log", tmp_path, monkeypatch))
    assert "calm: healthy" in said
    assert "broken: lr_too_high_diverged" in said


def test_a_notebook_for_a_free_t4(tmp_path, monkeypatch):
    said = text_of(run("6_a_free_t4", tmp_path, monkeypatch))
    assert "7B qlora" in said


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", sorted(LONG))
def test_notebooks_that_train(name, tmp_path, monkeypatch):
    said = text_of(run(name, tmp_path, monkeypatch))
    assert "<svg" in said
    assert "learning rate" in said


def test_notebooks_are_kept_without_outputs():
    for path in sorted(FOLDER.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        assert not [cell for cell in notebook.cells if cell.get("outputs")], path.name
    assert len(list(FOLDER.glob("*.ipynb"))) == 6
