"""Draws the pictures of the documentation as SVG files: `python scripts/make_pictures.py [FOLDER]`.

The figures in them are those of the packaged knowledge and of one run of the demo; each picture names where its numbers come from.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "images"
SWEEP = ROOT / "src" / "finestep" / "knowledge" / "data" / "lora_sweep.jsonl"
INK, FAINT, MAIN, WARM = "#263238", "#90a4ae", "#00796b", "#c2410c"

SHIPPED_RATES = (
    ("AutoTrain", 1e-5),
    ("TRL", 2e-5),
    ("Axolotl, litgpt, Unsloth", 2e-4),
    ("torchtune", 3e-4),
    ("Tinker", 1e-3),
)
"""Rates that these tools ship for adapters of Llama-3.2-1B; docs/science.md has the file of each."""

DEMO_TRIALS = (
    (2.0e-4, 16, 1.0, 2.6420), (3.4e-3, 8, 1.0, 0.4422), (2.4e-3, 4, 0.125, 1.9366), (9.3e-3, 16, 0.125, 1.7395),
    (3.4e-3, 4, 1.0, 0.2475), (6.6e-3, 8, 1.0, 0.5047), (6.6e-3, 4, 1.0, 0.6507),
)  # fmt: skip
"""Rate, batch, share of a full run and validation loss of the demo with a budget of six, in the order in which they ended."""


def main() -> None:
    """Write every picture."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    for name, picture in {"why": why(), "basin": basin(), "study": study(), "flow": flow()}.items():
        (folder / f"{name}.svg").write_text(picture, encoding="utf-8")


def why() -> str:
    """What the rates that tools ship would cost on one measured job."""
    losses = _losses("meta-llama/Llama-3.2-1B", rank=64)
    best = min(losses.values())
    points = [(rate, 100 * (loss / best - 1)) for rate, loss in losses.items()]
    place = _Plane((6e-6, 6e-3), (0, 11), width=720, height=340, left=64, top=56, bottom=76)
    out = [
        place.title("LoRA of one model: the rates that tools ship lie a factor of 100 apart"),
        *place.rate_axis((1e-5, 1e-4, 1e-3), "learning rate"),
        *place.up_axis((0, 2, 4, 6, 8, 10), "test loss above the best, %"),
        place.line(points, MAIN),
        *(place.dot(rate, loss, MAIN, 5) for rate, loss in points),
        _text(place.x(3e-3), place.y(8.2), "3e-3", WARM, anchor="middle"),
        _text(place.x(3e-3), place.y(7.2), "diverged", WARM, anchor="middle"),
    ]
    for row, (name, rate) in enumerate(SHIPPED_RATES):
        height = 10.4 - 0.95 * row
        x, y = place.x(rate), place.y(height)
        anchor, shift = ("start", 6) if rate < 1e-3 else ("end", -6)
        out += [_stroke(x, y - 4, x, place.y(0), FAINT, dash="3 3"), _text(x + shift, y, name, INK, anchor=anchor)]
    out.append(
        _caption(
            place,
            "Curve: LoRA of Llama-3.2-1B, rank 64, Tulu 3, batch 128 (Tinker's sweep). Lines: rates that tools ship.",
        )
    )
    return place.svg(out)


def basin() -> str:
    """Loss against the rate, over many models: mild on the left, a cliff on the right."""
    middle = [
        (0.13, 2.40), (0.2, 1.53), (0.32, 1.02), (0.5, 0.66), (1.0, 0.05), (2.0, 0.37), (3.2, 1.20), (5.0, 3.28), (7.9, 4.93),
    ]  # fmt: skip
    lost = [(5.0, 9), (7.9, 74), (14.0, 96)]
    place = _Plane((0.1, 18), (0, 6), width=720, height=330, left=64, top=56, bottom=70)
    return place.svg(
        [
            place.title("Too low costs a little, too high costs the run"),
            *place.rate_axis((0.1, 0.25, 0.5, 1, 2, 4, 8), "learning rate, as a multiple of the best one", plain=True),
            *place.up_axis((0, 1, 2, 3, 4, 5), "test loss above the best, %"),
            place.line(middle, MAIN),
            *(place.dot(x, y, MAIN, 4) for x, y in middle),
            *(_text(place.x(x), place.y(5.5), f"{share} %", WARM, anchor="middle") for x, share in lost),
            _text(place.x(3.6), place.y(5.5), "diverged:", WARM, anchor="end"),
            _caption(place, "Medians of 87 cells of Tinker's LoRA sweep (models x ranks). See docs/science.md."),
        ]
    )


def study() -> str:
    """The trials of one demo, in their order."""
    place = _Plane((1e-4, 3e-2), (1.5, 40), width=720, height=380, left=64, top=56, bottom=84, up_is_log=True)
    out = [
        place.title("A study: each trial goes where the loss is expected to fall"),
        *place.rate_axis((1e-4, 1e-3, 1e-2), "learning rate"),
        *place.up_axis((2, 4, 8, 16, 32), "rows a step (effective batch)"),
    ]
    best = min(loss for *_, share, loss in DEMO_TRIALS if share == 1)
    seen: dict[tuple[float, int], int] = {}
    for number, (rate, batch, share, loss) in enumerate(DEMO_TRIALS, 1):
        again = seen.setdefault((rate, batch), 0)
        seen[rate, batch] += 1
        x, y = place.x(rate) + 20 * again, place.y(batch)
        colour = WARM if share == 1 and loss == best else MAIN if share == 1 else FAINT
        out += [
            _circle(x, y, 11 if share == 1 else 7, colour),
            _text(x, y + 4, str(number), "#fff", anchor="middle", size=10),
        ]
        if share == 1:
            out.append(_text(x, y - 16, f"{loss:.2f}", INK, anchor="middle", size=12))
    out.append(
        _caption(
            place,
            "Large: full runs with their validation loss. Small: an eighth of a run. Numbers: order of ending. 1: the usual default.",
        )
    )
    return place.svg(out)


def flow() -> str:
    """What happens between a command and its answer."""
    boxes = (
        ("recommend", "a rate, a batch and", "how sure they are"),
        ("baseline", "the usual default,", "to compare with"),
        ("short runs", "where does the", "best rate lie?"),
        ("full runs", "there, until more", "would not pay"),
        ("answer", "the best model,", "and what is open"),
    )
    width, step, top = 800, 158, 62
    out = [_text(20, 30, "From a command to an answer", INK, size=17, weight="bold")]
    for place, (head, one, two) in enumerate(boxes):
        x = 14 + place * step
        out += [
            f'<rect x="{x}" y="{top}" width="140" height="86" rx="8" fill="#e0f2f1" stroke="{MAIN}"/>',
            _text(x + 70, top + 24, head, MAIN, anchor="middle", size=15, weight="bold"),
            _text(x + 70, top + 48, one, INK, anchor="middle", size=12),
            _text(x + 70, top + 66, two, INK, anchor="middle", size=12),
        ]
        if place:
            out.append(
                f'<path d="M{x - 17} {top + 43}h11m-5 -5l6 5l-6 5" fill="none" stroke="{INK}" stroke-width="1.5"/>'
            )
    back = f"M{14 + 3 * step + 70} {top + 88}v22H{14 + 2 * step + 70}v-18m-5 6l5 -7l5 7"
    out.append(f'<path d="{back}" fill="none" stroke="{INK}" stroke-width="1.5"/>')
    out.append(
        _text(14 + 2.5 * step + 70, top + 130, "each result changes what is tried next", INK, anchor="middle", size=12)
    )
    return _svg(out, width, 206)


def _losses(model: str, *, rank: int) -> dict[float, float]:
    """Rate -> test loss of the packaged sweep; rates that diverged are left out."""
    rows = (json.loads(line) for line in SWEEP.read_text(encoding="utf-8").splitlines())
    row = next(r for r in rows if r["model"] == model and r["rank"] == rank)
    return {float(rate): loss for rate, loss in row["test_nll"].items() if loss is not None}


class _Plane:
    """A rectangle of the page with a logarithmic axis to the right."""

    def __init__(
        self,
        right: tuple[float, float],
        up: tuple[float, float],
        *,
        width: int,
        height: int,
        left: int,
        top: int,
        bottom: int,
        up_is_log: bool = False,
    ):
        self.right, self.up, self.width, self.height = right, up, width, height
        self.left, self.top, self.bottom, self.up_is_log = left, top, bottom, up_is_log

    def x(self, value: float) -> float:
        """Where a value of the right axis lies."""
        low, high = (math.log(end) for end in self.right)
        return self.left + (self.width - self.left - 20) * (math.log(value) - low) / (high - low)

    def y(self, value: float) -> float:
        """Where a value of the up axis lies."""
        scale = math.log if self.up_is_log else float
        low, high = (scale(end) for end in self.up)
        return self.height - self.bottom - (self.height - self.bottom - self.top) * (scale(value) - low) / (high - low)

    def title(self, text: str) -> str:
        """The sentence above."""
        return _text(20, 30, text, INK, size=17, weight="bold")

    def rate_axis(self, values: Sequence[float], name: str, *, plain: bool = False) -> Iterable[str]:
        """The axis below, with its values."""
        floor = self.height - self.bottom
        yield _stroke(self.left, floor, self.width - 20, floor, INK)
        for value in values:
            yield _stroke(self.x(value), floor, self.x(value), floor + 5, INK)
            shown = f"x{value:g}" if plain else f"{value:.0e}".replace("e-0", "e-")
            yield _text(self.x(value), floor + 19, shown, INK, anchor="middle", size=12)
        yield _text((self.left + self.width - 20) / 2, floor + 38, name, INK, anchor="middle")

    def up_axis(self, values: Sequence[float], name: str) -> Iterable[str]:
        """The axis on the left, with its values and faint lines."""
        for value in values:
            yield _stroke(self.left, self.y(value), self.width - 20, self.y(value), "#eceff1")
            yield _text(self.left - 8, self.y(value) + 4, f"{value:g}", INK, anchor="end", size=12)
        middle = (self.top + self.height - self.bottom) / 2
        look = f'text-anchor="middle" font-size="13" fill="{INK}"'
        yield f'<text x="18" y="{middle:.0f}" transform="rotate(-90 18 {middle:.0f})" {look}>{name}</text>'

    def line(self, points: Sequence[tuple[float, float]], colour: str) -> str:
        """A line through points."""
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in sorted(points))
        return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>'

    def dot(self, x: float, y: float, colour: str, radius: float) -> str:
        """One measured point."""
        return _circle(self.x(x), self.y(y), radius, colour)

    def svg(self, parts: Iterable[str]) -> str:
        """The whole file."""
        return _svg(parts, self.width, self.height)


def _svg(parts: Iterable[str], width: int, height: int) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif">'
    )
    return "\n".join([head, f'<rect width="{width}" height="{height}" fill="#fbfaf7"/>', *parts, "</svg>", ""])


def _caption(plane: _Plane, text: str) -> str:
    return _text(20, plane.height - 12, text, "#546e7a", size=11.5)


def _text(
    x: float, y: float, text: str, colour: str, *, anchor: str = "start", size: float = 13, weight: str = "normal"
) -> str:
    look = f'fill="{colour}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}>{text}</text>'


def _stroke(x1: float, y1: float, x2: float, y2: float, colour: str, *, dash: str = "") -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{dashed}/>'


def _circle(x: float, y: float, radius: float, colour: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}"/>'


if __name__ == "__main__":
    main()
