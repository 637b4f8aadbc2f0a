"""Which passes of a GPU are recorded: the counting, on no device."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from finestep.rules.recorded_passes import (
    BUCKETS,
    MOST_RECORDINGS,
    SEEN_BEFORE_RECORDING,
    PassKey,
    Recordings,
    bucket,
)


def key(length: int = 128, **more: int) -> PassKey:
    return PassKey(**{"lanes": 1, "rows": 1, "length": length, "loss_tokens": length, **more})


def recorded(*keys: PassKey, **options: int) -> Recordings:
    """Recordings after each key came often enough and was kept."""
    found = Recordings(**options)
    for one in keys:
        while found.action(one) == "plain":
            pass
        found.keep(one)
    return found


@given(st.integers(1, BUCKETS[-1]))
def test_a_bucket_holds_its_rows_and_wastes_at_most_a_third(tokens):
    size = bucket(tokens)
    assert size >= tokens
    assert size == BUCKETS[0] or (size - tokens) / size <= 1 / 3


def test_a_shape_is_recorded_when_it_comes_back():
    found = Recordings()
    actions = [found.action(key()) for _ in range(SEEN_BEFORE_RECORDING)]
    assert actions == ["plain"] * (SEEN_BEFORE_RECORDING - 1) + ["record"]
    found.keep(key())
    assert found.action(key()) == "play"
    assert found.action(key(256)) == "plain", "another length is another pass"


def test_the_recording_that_was_not_used_for_longest_goes_first():
    keys = [key(length) for length in BUCKETS[: MOST_RECORDINGS + 1]]
    found = recorded(*keys[:MOST_RECORDINGS])
    assert found.action(keys[0]) == "play"
    assert found.keep(keys[-1]) == [keys[1]]
    assert [found.action(one) for one in (keys[0], keys[-1])] == ["play", "play"]
    assert found.action(keys[1]) != "play"


def test_a_recording_does_not_outlive_its_addresses():
    found = recorded(key())
    assert found.action(key(generation=1)) == "plain"
    assert found.action(key()) != "play", "old addresses never come back"


def test_a_shape_that_was_refused_stays_plain():
    found = recorded(key())
    found.refuse(key())
    assert [found.action(key()) for _ in range(9)] == ["plain"] * 9


def test_memory_that_is_not_there_is_not_taken():
    found = recorded(key(), free_bytes=100)
    assert [found.action(key(256), needed_bytes=101) for _ in range(9)] == ["plain"] * 9
    assert found.keep(key(64), num_bytes=60) == []
    assert found.keep(key(96), num_bytes=60) == [key(), key(64)]
