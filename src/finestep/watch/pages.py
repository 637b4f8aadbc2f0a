"""The pages: the report with the live layer over it, and a list of studies to compare."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from finestep.language.catalogue import sections
from finestep.plain_text import plain_on_a_page
from finestep.report.page import Layer, asset, content_policy, escaped_json, render_shell
from finestep.report.view import ReportView


def study_page(view: ReportView, data: str, *, can_steer: bool, several: bool, name: str) -> tuple[str, str]:
    """(HTML, content security policy) of one study."""
    place = json.dumps({"can_steer": can_steer, "several": several, "name": name, "zh": sections()["live"]})
    script = f"const LIVE = {escaped_json(place)};\n{own('live.js')}"
    text = render_shell(view, data, layer=Layer(script, own("live.css")))
    return text, _policy_in(text)


def list_page(states: Sequence[Mapping[str, object]]) -> tuple[str, str]:
    """(HTML, content security policy) of the list of studies."""
    style, script = asset("assets/page/page.css") + own("live.css"), own("list.js")
    policy = content_policy(scripts=[script], style=style, connects=True)
    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=plain_on_a_page)
    data = json.dumps({"studies": list(states), "zh": {**sections()["page"], **sections()["live"]}}, default=str)
    text = environment.from_string(own("list.html")).render(
        policy=policy, style=Markup(style), script=Markup(script), data=Markup(escaped_json(data))
    )
    return text.encode("utf-8", "replace").decode("utf-8"), policy


@cache
def own(name: str) -> str:
    """A file of this room."""
    return resources.files("finestep.watch").joinpath(f"assets/{name}").read_text(encoding="utf-8")


def _policy_in(text: str) -> str:
    """The policy that the page itself states, for its header."""
    mark = 'http-equiv="Content-Security-Policy" content="'
    start = text.index(mark) + len(mark)
    return text[start : text.index('"', start)].replace("&#39;", "'")
