"""The page: a ReportView as one HTML file that needs no network and runs no code but its own.

Text of the study is escaped by Jinja; data goes in as JSON whose <, > and & are escaped; the content security policy
lets nothing be fetched, and only the two embedded scripts and the style sheet be used, by their SHA-256.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from finestep.plain_text import plain_on_a_page
from finestep.report import svg
from finestep.report.page_data import page_json
from finestep.report.view import ReportView

SCRIPTS = ("words", "runs", "charts", "courses", "sections", "main")
"""Parts of the page's script in the order in which they are read; `main` comes last and draws."""
MOST_DRAWN = 500
"""Trials beyond which a page without scripts has no figure: each point is an element there."""
_JSON_ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


class Layer(NamedTuple):
    """What a server lays over the page: a further part of its script and its style. The page may then ask its own server."""

    script: str
    style: str


def render_page(view: ReportView) -> str:
    """The report as HTML text that UTF-8 can hold; the same view gives the same text."""
    return render_shell(view, page_json(view))


def render_shell(view: ReportView, data: str, *, layer: Layer | None = None) -> str:
    """The page around its data, which are JSON as `page_json` writes it; a server may send newer data to it later."""
    style, charts = asset("assets/page/page.css"), asset("vendor/echarts.min.js")
    script = page_script(layer.script if layer else "")
    style += layer.style if layer else ""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=plain_on_a_page
    )
    page = environment.from_string(asset("assets/page/page.html")).render(
        view=view,
        policy=content_policy(scripts=[charts, script], style=style, connects=layer is not None),
        style=Markup(style),
        charts=Markup(charts),
        script=Markup(script),
        data=Markup(escaped_json(data)),
        basin_svg=svg.basin_svg(view.charts.basin) if len(view.table.trials) <= MOST_DRAWN else "",
    )
    return page.encode("utf-8", "replace").decode("utf-8")


@cache
def page_script(more: str = "") -> str:
    """The page's own script: its parts in one scope of their own, and `more` as the last of them."""
    parts = "".join(asset(f"assets/page/{name}.js") for name in SCRIPTS)
    return f"'use strict';\n(() => {{\n{parts}{more}}})();\n"


def escaped_json(text: str) -> str:
    """JSON that may stand inside a script element: no character that could end it or start a comment."""
    return text.translate(_JSON_ESCAPES)


def content_policy(*, scripts: list[str], style: str, connects: bool = False) -> str:
    """A policy under which the page runs exactly these texts and fetches nothing, or from its own server alone."""
    allowed = " ".join(f"'{_hash(script)}'" for script in scripts)
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src '{_hash(style)}'; base-uri 'none'; form-action 'none'"
    )
    return f"{policy}; connect-src 'self'" if connects else policy


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def asset(name: str) -> str:
    """The text of a file that is packaged with the report, e.g. `vendor/echarts.min.js`."""
    return resources.files("finestep.report").joinpath(name).read_text(encoding="utf-8")
