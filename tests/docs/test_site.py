"""The site: every page has its place, every link leads somewhere, the reference is whole, and the version is one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
import yaml

import finestep
from finestep.cli.main import app
from finestep.recipe import Recipe

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PUBLIC = [
    "Recipe", "recommend", "tune", "train", "diagnose", "ask_tell", "FinestepSampler", "SearchSpace", "FinestepCallback", "read_recipe",
    "write_recipe",
]  # fmt: skip


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Name of each written page -> its text."""
    folder = tmp_path_factory.mktemp("reference")
    command = [sys.executable, str(ROOT / "scripts" / "make_reference.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {page.stem: page.read_text(encoding="utf-8") for page in folder.glob("*.md")}


def pages() -> list[Path]:
    """Every page of the documentation that is kept."""
    found = [page for page in DOCS.rglob("*.md") if "reference" not in page.parts]
    return [*sorted(found), *(ROOT / name for name in ("README.md", "README.zh-CN.md", "CONTRIBUTING.md"))]


def listed(nav: object) -> set[str]:
    """The files that a navigation names."""
    if isinstance(nav, str):
        return {nav}
    return set().union(*(listed(one) for one in (nav.values() if isinstance(nav, dict) else nav)))


def settings() -> dict:
    return yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader=yaml.BaseLoader)


def anchor(heading: str) -> str:
    """How a heading is linked to."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", heading).strip().lower()
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", text))


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page(reference):
    kept = {str(page.relative_to(DOCS)) for page in pages() if DOCS in page.parents}
    english = {page for page in kept if not page.endswith(".zh.md")}
    assert listed(settings()["nav"]) == english | {f"reference/{name}.md" for name in reference}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page, reference):
    text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, section = target.partition("#")
        if name.startswith("http"):
            continue
        place = (page.parent / name).resolve() if name else page
        if place.parent.name == "reference":
            assert place.stem in reference, target
            continue
        assert place.exists(), target
        if section:
            headings = re.findall(r"^#+ (.*)$", place.read_text(encoding="utf-8"), flags=re.M)
            assert section in {anchor(heading) for heading in headings}, target


def test_the_reference_has_every_command_and_option(reference):
    for name, command in typer.main.get_command(app).commands.items():
        section = reference["commands"].partition(f"## finestep {name}\n")[2].partition("\n## ")[0]
        shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
        for option in (one for parameter in shown for one in parameter.opts if one.startswith("--")):
            assert option in section, (name, option)


def test_the_reference_explains_every_field_of_a_recipe(reference):
    rows = re.findall(r"^\| `([\w.]+)` \| (.*?) \|", reference["recipe"], flags=re.M)
    fields = {name for name, _ in rows}
    for name, value in Recipe().model_dump().items():
        assert name in fields or {f"{name}.{leaf}" for leaf in value} <= fields, name
    assert [name for name, meaning in rows if not meaning.strip()] == []


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_documented(name, reference):
    section = reference["python"].partition(f"## finestep.{name}\n")[2].partition("\n## ")[0]
    assert len(re.sub(r"```.*?```", "", section, flags=re.S).strip()) > 20


def test_the_version_is_one():
    version = finestep.__version__
    assert re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert f'version = "{version}"' not in (ROOT / "pyproject.toml").read_text()


def test_pictures_are_those_that_the_script_draws(tmp_path):
    done = subprocess.run([sys.executable, str(ROOT / "scripts" / "make_pictures.py"), str(tmp_path)])
    assert done.returncode == 0
    for picture in tmp_path.iterdir():
        assert picture.read_text() == (DOCS / "images" / picture.name).read_text(), picture.name
