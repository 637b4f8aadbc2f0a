"""The page as a file: nothing is fetched, nothing of the study runs, and the same study gives the same bytes."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser
from importlib import resources

import pytest

from finestep.report.page import escaped_json, render_page

from .synthetic_study import HOSTILE, make_trials, make_view


class Page(HTMLParser):
    """Collects elements, attributes and the texts of scripts and styles, as a browser would split them."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.blocks: list[tuple[str, dict[str, str | None], str]] = []
        self.words = ""
        self._open: tuple[str, dict[str, str | None]] | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = (tag, dict(attrs)) if tag in ("script", "style") else None

    def handle_data(self, data: str) -> None:
        if self._open:
            self.blocks.append((*self._open, data))
        else:
            self.words += data

    def handle_endtag(self, tag: str) -> None:
        self._open = None


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render_page(make_view()))


@pytest.fixture(scope="module")
def hostile() -> Page:
    return Page(render_page(make_view(HOSTILE)))


@pytest.fixture(scope="module")
def harmless() -> Page:
    return Page(render_page(make_view("harmless", command="harmless")))


def test_nothing_is_fetched(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form", "video", "audio"), tag
        assert not {"src", "href", "srcset", "action", "style"} & attributes.keys(), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
    for tag, _, text in page.blocks:
        addresses = set(re.findall(r"https?://[^\s'\"`)]*", text))
        assert addresses <= {"http://www.w3.org/2000/svg"}, addresses
        assert tag != "style" or ("url(" not in text and "@import" not in text)


def test_policy_allows_exactly_what_is_embedded(page: Page) -> None:
    policy = next(a["content"] for t, a in page.elements if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    runnable = [text for tag, attributes, text in page.blocks if tag == "style" or "type" not in attributes]
    assert len(runnable) == 3
    expected = {"sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in runnable}
    assert set(re.findall(r"'(sha256-[^']+)'", policy)) == expected


def test_hostile_text_is_shown_and_never_markup(page: Page, hostile: Page) -> None:
    def count(found: Page, tag: str) -> int:
        return sum(name == tag for name, _ in found.elements)

    for tag in ("script", "img", "style", "svg", "td", "section"):
        assert count(hostile, tag) == count(page, tag), tag
    assert "dataset.pwn" in hostile.words
    assert "{{ 7 * 7 }}" in hostile.words
    data = next(text for _, attributes, text in hostile.blocks if attributes.get("id") == "data")
    assert not set("<>&\u2028\u2029") & set(data)
    assert "</script>" in json.loads(data)["basin"]["fallen"][0]["reason"]


PAYLOADS = [
    "</SCRIPT ><svg onload=attack()>",
    "<!--<script>attack()//-->",
    "</style><script>attack()</script>",
    "</title><img src=x onerror=attack()>",
    "</noscript><script>attack()</script>",
    "</svg><script>attack()</script>",
    '"><img src=x onerror=attack()>',
    "' onmouseover='attack()",
    "{{ self.__init__.__globals__ }}{% raw %}",
    "<base href='https://example.org/'><meta http-equiv=refresh content='0;url=https://example.org'>",
    "\x00\x1b[31m\u202e\u2028",
]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_text_adds_an_element_or_an_attribute(harmless: Page, payload: str) -> None:
    attacked = Page(render_page(make_view(payload, command=payload)))
    assert [tag for tag, _ in attacked.elements] == [tag for tag, _ in harmless.elements]
    assert [sorted(names) for _, names in attacked.elements] == [sorted(names) for _, names in harmless.elements]


@pytest.mark.parametrize("text", ["</script>", "<!--", "]]>", "a & b", "line\u2028end\u2029"])
def test_escaped_json_means_the_same(text: str) -> None:
    escaped = escaped_json(json.dumps({"x": text}, ensure_ascii=False))
    assert not set("<>&\u2028\u2029") & set(escaped)
    assert json.loads(escaped) == {"x": text}


def test_a_lone_surrogate_does_not_stop_the_report() -> None:
    assert "half a pair  here" in render_page(make_view(title="half a pair \ud83d here"))


def test_same_study_same_bytes() -> None:
    assert render_page(make_view()).encode() == render_page(make_view()).encode()


def test_a_typical_report_is_about_a_megabyte() -> None:
    assert 500_000 < len(render_page(make_view()).encode()) < 1_200_000


def test_without_scripts_there_are_drawings_and_the_whole_table() -> None:
    text = render_page(make_view())
    drawings = re.findall(r"<noscript>(.*?)</noscript>", text, flags=re.DOTALL)
    assert sum(drawing.count("<svg") for drawing in drawings) == 3  # the basin, and a map for each of two fidelities
    assert "baseline" in drawings[0]
    assert drawings[0].count('class="fallen"') == 4
    assert "1.241" in drawings[1]
    assert "diverged" in drawings[1]
    table = text[text.index('<table id="trials"') : text.index("</table>")]
    assert table.count("<tr") == 1 + 13
    for trial in make_trials():
        assert trial.outcome
        assert html.escape(trial.outcome.reason) in table


def test_header_says_what_to_do() -> None:
    words = re.sub(r"\s+", " ", Page(render_page(make_view())).words)
    assert "Train at learning rate 1.0e-03 with an effective batch of 16" in words
    assert "4 micro × 2 accumulation × 2 devices" in words
    assert "5.9 % lower" in words
    assert "finestep tune TinyLlama-1.1B" in words
    assert "19.8 M training tokens, 2 h 14 min" in words


def test_vendored_charts_are_the_built_file() -> None:
    vendor = resources.files("finestep.report").joinpath("vendor")
    script = vendor.joinpath("echarts.min.js").read_bytes()
    recorded = vendor.joinpath("echarts.min.js.sha256").read_text().split()[0]
    assert hashlib.sha256(script).hexdigest() == recorded
    assert len(script) <= 750_000
    assert b"</script" not in script.lower()
    for name in ("echarts.LICENSE", "echarts.NOTICE", "zrender.LICENSE"):
        assert vendor.joinpath(name).is_file()
