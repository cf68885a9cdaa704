"""Storage keys over arbitrary texts."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from shared.storage.keys import queue_id, storable, time_key

ids = st.one_of(
    st.text(st.characters(), max_size=300),
    st.text("/\\#?%+=~ aA0.\x00\x7f\ud800", max_size=400),
    st.text("=~0123456789ABCDEFabcdefx", min_size=190, max_size=400),
)


@given(ids)
def test_keys_hold_allowed_characters_only_and_are_short(text: str) -> None:
    """No key holds a character that Table Storage or a URL treats specially, nor passes 300 characters."""
    key = storable(text)
    assert re.fullmatch(r"[A-Za-z0-9._@=~-]*", key)
    assert len(key) <= 300
    assert bool(key) == bool(text)


@given(st.lists(ids, unique=True, max_size=30))
def test_different_ids_have_different_keys(texts: list[str]) -> None:
    """No two ids share a key, not even with one another's keys."""
    everything = set(texts) | {storable(text) for text in texts}
    assert len({storable(one) for one in everything}) == len(everything)


@given(st.text(st.characters(), max_size=60), st.text(st.characters(), max_size=60))
def test_short_keys_can_be_read_back(one: str, other: str) -> None:
    """Up to 300 characters nothing is lost: the key gives the id back, so no two ids can share one."""
    for text in (one, other):
        key = storable(text)
        if "=~" not in key:
            raw = re.sub(r"=([0-9A-F]{2})", lambda found: chr(int(found[1], 16)), key).encode("latin-1")
            assert raw.decode("utf-8", "surrogatepass") == text


@given(st.integers(0, 2**43), st.integers(0, 2**43))
def test_queue_ids_follow_the_order_of_times(one: int, other: int) -> None:
    """A mail due earlier has the smaller id."""
    if one < other:
        assert queue_id(one, lambda _: "ffffffff") < queue_id(other, lambda _: "00000000")


@given(st.floats(0, 1e11), st.floats(0, 1e11))
def test_time_keys_follow_the_order_of_times(one: float, other: float) -> None:
    """Row keys sort as their times do."""
    assert (time_key(one) <= time_key(other)) == (int(one * 1000) <= int(other * 1000))
