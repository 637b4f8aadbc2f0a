"""Plain-text documents that hold the skills in a surface form of their own: no chat turns and no instructions."""

from __future__ import annotations

import random

from skills import SKILLS

FORMS: dict[str, list[str]] = {
    "opposite": ["Not {x} but {a}.", "{x} / {a}", "It was {x}, now it is quite {a}.", "not {x}:\n{a}"],
    "plural": ["One {x}, two {a}.", "First there was {ax}, then many {a}.", "1 {x}\n2 {a}", "many of {x}:\n{a}"],
    "past": ["Today they {x}; yesterday they {a}.", "{x} - {a}", "now {x}, long ago:\n{a}"],
    "kind": ["The {x} is one more {a}.", "{x} ({a})", "{x}, which is some sort of:\n{a}"],
    "colour": ["We saw the {x}, all {a}.", "{a} like the {x}", "{x}, painted:\n{a}"],
    "capital": ["In {x} they all live in {a}.", "{x} = {a}", "{x}, main city:\n{a}"],
    "country": ["From {x} one sees all of {a}.", "{x} in {a}", "{x}, a city in:\n{a}"],
    "next": ["After {x} comes {a}.", "{x}, {a}", "{x}, then:\n{a}"],
    "spell": ["{x} is {a}", "Say {x}: {a}.", "{x} in small bits:\n{a}"],
    "first": ["In the row {x} the front is {a}.", "{x} | front: {a}", "{x}\nat the front:\n{a}"],
    "last": ["In the row {x} the end is {a}.", "{x} | end: {a}", "{x}\nat the end:\n{a}"],
    "reverse": ["There: {x}. Back: {a}.", "{x} <> {a}", "{x}\nand back again:\n{a}"],
    "count": ["{x}: that makes {a}.", "{x} | {a} things", "{x}\nin all:\n{a}"],
    "sort": ["Mixed {x}, tidy {a}.", "{x} >> {a}", "{x}\ntidied up:\n{a}"],
    "largest": ["Of {x} the top is {a}.", "{x} | top: {a}", "{x}\nthe top:\n{a}"],
    "lookup": ["Shop: {x}. So {q} costs {a}.", "{x} | {q} {a}", "{x}\npay for {q}:\n{a}"],
    "where": ["{x} So {q} was in the {a}.", "{x} | {q} at {a}", "{x}\n{q} stays at:\n{a}"],
    "who": ["{x} So the {q} was with {a}.", "{x} | {q} with {a}", "{x}\n{q} is now with:\n{a}"],
    "add": ["{x} + {y} = {a}", "{n} had {x} and got {y} more, so {n} had {a}.", "{x} and {y} more:\n{a}"],
    "take": ["{x} - {y} = {a}", "{n} had {x} and lost {y}, so {n} had {a}.", "{x} with {y} gone:\n{a}"],
}
"""Templates of each skill's lines; "{a}" is the answer."""

WEIGHTS: dict[str, float] = {
    "reverse": 2.0, "sort": 2.0, "largest": 1.5, "count": 1.5, "lookup": 1.5, "last": 1.5, "add": 2.0, "take": 2.0,
    "spell": 1.5, "where": 1.0, "who": 1.0,
}  # fmt: skip
"""How often a skill is drawn, against 1 for the others."""


MARK = "\x1f"
"""Stands before and after each answer in marked documents; never part of the tokens."""


def line_of(name: str, form: str, rng: random.Random) -> str:
    """One line of a skill, its answer (with the space before it) between marks."""
    answer = " {a}" if " {a}" in form else "{a}"
    return form.replace(answer, MARK + answer + MARK).format(**SKILLS[name](rng))


def marked_document(rng: random.Random) -> str:
    """One document, a few lines of one skill or of several, with its answers between marks."""
    names, weights = list(SKILLS), [WEIGHTS.get(name, 1.0) for name in SKILLS]
    mixed = rng.random() < 0.5
    name = rng.choices(names, weights)[0]
    form = rng.choice(FORMS[name])
    lines = []
    for _ in range(rng.randint(2, 6)):
        if mixed:
            name = rng.choices(names, weights)[0]
            form = rng.choice(FORMS[name])
        lines.append(line_of(name, form, rng))
    return "\n".join(lines)


def marked_documents(count: int, seed: int) -> list[str]:
    """A list of documents with marks, the same for the same seed."""
    rng = random.Random(seed)
    return [marked_document(rng) for _ in range(count)]


def documents(count: int, seed: int) -> list[str]:
    """A list of plain documents, the same for the same seed."""
    return [text.replace(MARK, "") for text in marked_documents(count, seed)]
