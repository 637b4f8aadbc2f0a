"""The pages for contributors: the change of each applies to the code as it is, and its tests pass.

A contributor who followed a page may have written into the very lines that its change touches. So where `git apply` refuses, each
added piece is put below the line that the page shows above it, or above the line that it shows below.
"""

from __future__ import annotations

import itertools
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


def copied(place: Path) -> Path:
    """What a page may change and run, in a folder of its own."""
    skipped = shutil.ignore_patterns("shipped")
    shutil.copytree(ROOT / "src", place / "src", ignore=skipped)
    for name in ("__init__.py", "export"):
        source = ROOT / "tests" / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, _made(place / "tests") / name)
    for name in ("docs/export.md", "README.md"):
        shutil.copy(ROOT / name, _made((place / name).parent) / Path(name).name)
    return place


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def apply(change: str, place: Path) -> None:
    """The change as a page has it; beside what neighbours have written, if need be."""
    done = subprocess.run(["git", "apply", "-"], input=change, cwd=place, capture_output=True, text=True)
    if done.returncode:
        for name, hunks in files_of(change):
            beside_neighbours(place / name, hunks)


def files_of(change: str) -> list[tuple[str, list[list[str]]]]:
    """File -> its hunks, each as lines with their first character."""
    out = []
    for part in re.split(r"^--- .*\n\+\+\+ b/", change, flags=re.M)[1:]:
        name, *hunks = re.split(r"^@@.*@@.*$|\n(?=@@)", part, flags=re.M)
        out.append((name.strip(), [hunk.strip("\n").split("\n") for hunk in hunks if hunk.strip()]))
    return out


def beside_neighbours(file: Path, hunks: list[list[str]]) -> None:
    lines = file.read_text(encoding="utf-8").split("\n") if file.exists() else []
    for hunk in hunks:
        assert not any(line.startswith("-") for line in hunk), f"{file}: a page adds lines and takes none away"
        pieces = [
            (kind, [line[1:] for line in group]) for kind, group in itertools.groupby(hunk, lambda line: line[:1])
        ]
        for index, (kind, piece) in enumerate(pieces):
            if kind == "+" and not places(lines, piece):
                above = pieces[index - 1][1] if index else []
                below = pieces[index + 1][1] if index + 1 < len(pieces) else []
                lines[(where := where_to(lines, above, below, file)) : where] = piece
    _made(file.parent)
    file.write_text("\n".join(lines), encoding="utf-8")


def places(lines: list[str], piece: list[str]) -> list[int]:
    return [at for at in range(len(lines) - len(piece) + 1) if lines[at : at + len(piece)] == piece]


def where_to(lines: list[str], above: list[str], below: list[str], file: Path) -> int:
    """Index of the line that an added piece comes before; the longest of what the page shows that stands once decides."""
    if not lines:
        return 0
    for count in range(max(len(above), len(below)), 0, -1):
        for shown, offset in ((above[-count:], min(count, len(above))), (below[:count], 0)):
            found = places(lines, shown) if shown else []
            if len(found) == 1:
                return found[0] + offset
    raise AssertionError(f"{file}: neither {above} nor {below} is there any more; the page is out of date")


def run(tests: list[str], place: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    surroundings = {**os.environ, "PYTHONPATH": f"{place / 'src'}{os.pathsep}{place}"}
    done = subprocess.run(command, cwd=place, env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_page_is_listed():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert {f"docs/contributing/{page.name}" for page in PAGES} == set(
        re.findall(r"\((docs/contributing/[\w.]+)\)", text)
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_the_page_says_works(page, tmp_path):
    """The change applies; the page's own test passes, and so does what the page tells one to run."""
    place = copied(tmp_path)
    apply(block(page, "diff"), place)
    (place / "test_page.py").write_text(block(page, "python"), encoding="utf-8")
    run(["test_page.py"], place)
    for tests, word in re.findall(r"-m pytest (tests/\S+) -k\s+(\w+)", page.read_text(encoding="utf-8")):
        run([tests, "-k", word], place)


@pytest.mark.parametrize("name", ["schedule", "exporter"])
def test_who_followed_a_page_does_not_break_it(name, tmp_path):
    """The page's change under another name, put in first, and the page's own change twice on top of it."""
    page = ROOT / "docs" / "contributing" / f"{name}.md"
    place, change = copied(tmp_path), block(page, "diff")
    theirs = {"schedule": ("exponential", "halving"), "exporter": ("json", "aaa")}[name]
    theirs_too = change.replace(f'"{theirs[0]}"', f'"{theirs[1]}"')
    theirs_too = theirs_too.replace("plain_json", "other_json").replace("PlainJson", "OtherJson")
    apply(theirs_too, place)
    assert subprocess.run(["git", "apply", "--check", "-"], input=change, cwd=place, text=True).returncode
    apply(change, place)
    apply(change, place)
    (place / "test_page.py").write_text(block(page, "python"), encoding="utf-8")
    run(["test_page.py"], place)
    added = re.findall(r'^\+(    "\w+"[:,].*)$', change, flags=re.M)
    sources = "".join(path.read_text(encoding="utf-8") for path in place.glob("src/**/*.py"))
    assert added
    assert all(sources.count(f"\n{line}\n") <= 1 for line in added), "what is there already was added again"
