"""Broken copies of log files: bit flips, truncation, splices, deep JSON, huge numbers, repeated blocks."""

from __future__ import annotations

import random
from collections.abc import Callable

Mutation = Callable[[bytes, random.Random], bytes]


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    """A few bits are wrong."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 60)):
        if out:
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def cut(data: bytes, rng: random.Random) -> bytes:
    """The end is missing."""
    return data[: rng.randint(0, len(data))]


def drop_start(data: bytes, rng: random.Random) -> bytes:
    """The start is missing."""
    return data[rng.randint(0, len(data)) :]


def splice(data: bytes, rng: random.Random) -> bytes:
    """A part stands somewhere else."""
    first, last = sorted(rng.randint(0, len(data)) for _ in range(2))
    where = rng.randint(0, len(data))
    return data[:where] + data[first:last] + data[where:]


def repeat(data: bytes, rng: random.Random) -> bytes:
    """The file twice, or a part of it many times."""
    first = rng.randint(0, len(data))
    part = data[first : first + rng.randint(1, 2000)]
    return data + part * rng.randint(1, 50)


def nest(data: bytes, rng: random.Random) -> bytes:
    """Deep brackets somewhere."""
    where = rng.randint(0, len(data))
    return data[:where] + rng.choice([b"[", b"{", b'{"a":', b"[{"]) * rng.choice([50, 5000, 100000]) + data[where:]


def odd_number(data: bytes, rng: random.Random) -> bytes:
    """Digits become something that is hard to read as a number."""
    where = data.find(rng.choice(b"0123456789").to_bytes(), rng.randint(0, max(len(data) - 1, 0)))
    text = rng.choice(
        [
            b"1" * 5000,
            b"1e999",
            b"-1e999",
            b"NaN",
            b"Infinity",
            b"1e308",
            b"-1e308",
            b"0.0",
            b"null",
            b'"x"',
            b"1e-320",
            b"-5",
        ]
    )
    return data if where < 0 else data[:where] + text + data[where + 1 :]


def noise(data: bytes, rng: random.Random) -> bytes:
    """A stretch of random bytes."""
    where = rng.randint(0, len(data))
    return data[:where] + rng.randbytes(rng.randint(1, 4000)) + data[where:]


MUTATIONS: tuple[Mutation, ...] = (flip_bits, cut, drop_start, splice, repeat, nest, odd_number, noise)


def mutated(data: bytes, seed: int) -> bytes:
    """One to three mutations in a row; the same seed gives the same bytes."""
    rng = random.Random(seed)
    for _ in range(rng.randint(1, 3)):
        data = rng.choice(MUTATIONS)(data, rng)
    return data
