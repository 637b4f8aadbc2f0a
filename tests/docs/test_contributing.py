"""The pages for contributors: the change of each applies to the code as it is, and its test passes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted((ROOT / "docs" / "contributing").glob("*.md"))


def block(page: Path, language: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    assert len(found) == 1, page
    return found[0]


def test_every_page_is_listed():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert {f"docs/contributing/{page.name}" for page in PAGES} == set(
        re.findall(r"\((docs/contributing/[\w.]+)\)", text)
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_the_page_says_works(page, tmp_path):
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("shipped", "__pycache__"))
    (tmp_path / "test_page.py").write_text(block(page, "python"), encoding="utf-8")
    done = subprocess.run(
        ["git", "apply", "-"], input=block(page, "diff"), cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_page.py"]
    place = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
    done = subprocess.run(command, cwd=tmp_path, env=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
