"""The page as a file: nothing is fetched, nothing of the study runs, and the same study gives the same bytes."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser
from importlib import resources
from typing import Any

import pytest

from finestep.report.page import escaped_json, render_page
from finestep.report.told import Interval, Use

from .synthetic_study import HOSTILE, make_logs, make_told, make_trials, make_view


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
    return Page(render_page(make_view("harmless", title="harmless")))


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
    assert any("</script>" in words for words in json.loads(data)["trials"]["words"])


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
    attacked = Page(render_page(make_view(payload, title=payload)))
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


def test_without_scripts_there_is_a_short_form() -> None:
    text = render_page(make_view())
    short = re.findall(r"<noscript>(.*?)</noscript>", text, flags=re.DOTALL)[0]
    assert short.count("<svg") == 1
    assert short.count('class="fallen"') == 4
    assert "Train at learning rate 1.0e-03 with an effective batch of 16" in short
    assert "lies between 7.0e-04 and 1.6e-03 (80 % sure)" in short
    assert short.count("<tr>") == 1 + 13
    for trial in make_trials():
        assert trial.outcome
        assert html.escape(trial.outcome.reason) in short


def data_of(text: str) -> dict[str, Any]:
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]


def test_the_first_tile_says_the_answer_with_its_doubt() -> None:
    verdict = data_of(render_page(make_view()))["verdict"]
    assert verdict["tag"] == "settled"
    assert verdict["doubt"] == [
        "The best learning rate at this batch lies between 7.0e-04 and 1.6e-03 (80 % sure).",
        "This run is expected to lie 0.4 % above the best there is; one more full run would gain about 0.06 %.",
    ]
    open_told = make_told(settled=False, expected_regret=None, use=Use(next="finestep tune --budget 12"))
    open_one = data_of(render_page(make_view(told=open_told)))["verdict"]
    assert open_one["tag"] == "unsettled"
    assert open_one["next"] == "finestep tune --budget 12"
    assert "no per cent is stated" in open_one["doubt"][-1]
    assert not re.search(r"\d %(?! sure)", " ".join(open_one["doubt"]))


def test_a_rate_outside_of_its_interval_is_said() -> None:
    told = make_told(intervals=(Interval(batch=16, value=3e-3, low=2e-3, high=4e-3),))
    assert "1.0e-03 lies outside" in " ".join(make_view(told=told).verdict.doubt)


def test_an_accuracy_leads_with_its_error() -> None:
    told = make_told(objective="token_accuracy", goal="maximize", metric_errors={"token_accuracy": (0.02, 500)})
    first, *_ = make_view(told=told).tiles
    assert (first.name, first.value, first.error) == ("Token accuracy", "0.6416", "± 0.02")
    assert "500 rows" in first.detail
    gain = next(tile for tile in make_view(told=told).tiles if tile.name == "Against the usual default")
    assert (gain.value, "cannot tell less than 5.7 points" in gain.detail) == ("tie", True)


def test_commands_models_and_answers_are_the_same_in_every_language() -> None:
    data = data_of(render_page(make_view()))
    said = set(data["zh"])
    assert not said & {data["title"], *data["use"]["load"], data["use"]["again"]}
    assert not said & {text for row in data["answers"] for text in row.values()}


def test_ten_thousand_runs_make_a_page_under_a_megabyte_and_a_half() -> None:
    many = [
        trial.model_copy(update={"number": number, "why": f"{trial.why} {number}"})
        for number, trial in enumerate(make_trials() * 770)
    ]
    steps, evaluations = make_logs(many[:60])
    view = make_view(trials=many, steps=steps, evaluations=evaluations)
    text = render_page(view)
    assert len(text.encode()) < 1_500_000
    data = data_of(text)
    assert len(data["trials"]["rate"]) == 10_010
    assert "kept for 400 of 10,010 runs" in data["lost"][0]
    assert "Curves of 30 of 56 runs are kept in this page." in data["curves_about"]


def test_vendored_charts_are_the_built_file() -> None:
    vendor = resources.files("finestep.report").joinpath("vendor")
    script = vendor.joinpath("echarts.min.js").read_bytes()
    recorded = vendor.joinpath("echarts.min.js.sha256").read_text().split()[0]
    assert hashlib.sha256(script).hexdigest() == recorded
    assert len(script) <= 750_000
    assert b"</script" not in script.lower()
    for name in ("echarts.LICENSE", "echarts.NOTICE", "zrender.LICENSE"):
        assert vendor.joinpath(name).is_file()
