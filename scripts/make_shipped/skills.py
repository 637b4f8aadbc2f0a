"""The skills behind the shipped data: each one draws a question (fields of text) and its one right answer."""

from __future__ import annotations

import random
from collections.abc import Callable

import lexicon as lx

Sample = dict[str, str]
"""The fields that a template may use; "a" is the answer and "key" is what must not be shared by two splits."""


def _pair(items: list[tuple[str, str]]) -> Callable[[random.Random], Sample]:
    """A skill that looks an answer up from memory."""

    def draw(rng: random.Random) -> Sample:
        x, a = rng.choice(items)
        return {"x": x, "ax": lx.article(x), "a": a, "key": x}

    return draw


def _words(rng: random.Random, low: int, high: int) -> list[str]:
    """Between low and high different nouns."""
    return rng.sample(lx.all_nouns(), rng.randint(low, high))


def _listing(answer: Callable[[list[str]], str], low: int, high: int) -> Callable[[random.Random], Sample]:
    """A skill over a list of words given in the text."""

    def draw(rng: random.Random) -> Sample:
        words = _words(rng, low, high)
        return {"x": ", ".join(words), "a": answer(words), "key": " ".join(words)}

    return draw


def _numbers(answer: Callable[[list[int]], str], low: int, high: int) -> Callable[[random.Random], Sample]:
    """A skill over a list of numbers from 1 to 99 given in the text."""

    def draw(rng: random.Random) -> Sample:
        numbers = rng.sample(range(1, 100), rng.randint(low, high))
        return {"x": ", ".join(map(str, numbers)), "a": answer(numbers), "key": " ".join(map(str, numbers))}

    return draw


def lookup(rng: random.Random) -> Sample:
    """A price of one thing out of a small table."""
    words = _words(rng, 3, 4)
    prices = rng.sample(range(2, 100), len(words))
    i = rng.randrange(len(words))
    table = ", ".join(f"{w} {p}" for w, p in zip(words, prices, strict=True))
    return {"x": table, "q": words[i], "a": str(prices[i]), "key": table + words[i]}


def where(rng: random.Random) -> Sample:
    """The place of one person out of two or three sentences."""
    n = rng.randint(2, 3)
    names, places = rng.sample(lx.NAMES, n), rng.sample(lx.PLACES, n)
    i = rng.randrange(n)
    story = " ".join(f"{p} went to the {w}." for p, w in zip(names, places, strict=True))
    return {"x": story, "q": names[i], "a": places[i], "key": story + names[i]}


def who(rng: random.Random) -> Sample:
    """The owner of one object out of two or three sentences."""
    n = rng.randint(2, 3)
    names, things = rng.sample(lx.NAMES, n), rng.sample(lx.OBJECTS, n)
    i = rng.randrange(n)
    story = " ".join(f"{p} took the {w}." for p, w in zip(names, things, strict=True))
    return {"x": story, "q": things[i], "a": names[i], "key": story + things[i]}


def add(rng: random.Random) -> Sample:
    """A number up to 30 plus a number below 10, in a sum or in a small story."""
    x, y = rng.randint(1, 30), rng.randint(1, 9)
    return _story(rng, x, y, x + y)


def take(rng: random.Random) -> Sample:
    """A number up to 30 less a number below 10 that is not greater."""
    x = rng.randint(2, 30)
    y = rng.randint(1, min(9, x - 1))
    return _story(rng, x, y, x - y)


def _story(rng: random.Random, x: int, y: int, answer: int) -> Sample:
    """The fields of an arithmetic question."""
    return {
        "x": str(x), "y": str(y), "n": rng.choice(lx.NAMES), "t": rng.choice(["coin", "pear", "book", "cup", "apple"]),
        "a": str(answer), "key": f"{x} {y}",
    }  # fmt: skip


def _successors() -> list[tuple[str, str]]:
    """What follows what: days, months, letters and numbers."""
    pairs = [(s[i], s[(i + 1) % len(s)]) for s in (lx.DAYS, lx.MONTHS) for i in range(len(s))]
    pairs += list(zip(lx.LETTERS, lx.LETTERS[1:], strict=False))
    return pairs + [(str(i), str(i + 1)) for i in range(1, 99)]


SKILLS: dict[str, Callable[[random.Random], Sample]] = {
    "opposite": _pair(lx.OPPOSITES + [(b, a) for a, b in lx.OPPOSITES]),
    "plural": _pair([(w, lx.plural(w)) for w in lx.countable_nouns()]),
    "past": _pair(list(lx.PAST.items())),
    "kind": _pair([(w, c) for c, group in lx.CATEGORIES.items() for w in group]),
    "colour": _pair([(w, c) for c, group in lx.COLOURS.items() for w in group]),
    "capital": _pair(list(lx.CAPITALS.items())),
    "country": _pair([(b, a) for a, b in lx.CAPITALS.items()]),
    "next": _pair(_successors()),
    "spell": _pair([(w, "-".join(w)) for w in lx.all_nouns() if len(w) <= 6]),
    "first": _listing(lambda w: w[0], 3, 5),
    "last": _listing(lambda w: w[-1], 3, 5),
    "reverse": _listing(lambda w: ", ".join(w[::-1]), 3, 4),
    "count": _listing(lambda w: str(len(w)), 2, 7),
    "sort": _numbers(lambda n: ", ".join(map(str, sorted(n))), 3, 4),
    "largest": _numbers(lambda n: str(max(n)), 3, 4),
    "lookup": lookup,
    "where": where,
    "who": who,
    "add": add,
    "take": take,
}
"""Every skill by its name."""
