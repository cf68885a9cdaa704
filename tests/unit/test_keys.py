"""Storage keys: what Table Storage accepts, made from what callers choose."""

from __future__ import annotations

import pytest

from shared.storage.keys import digest, document_id, queue_id, storable, time_key


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("ann", "ann"),
        ("Ann.Smith@contoso-x.example", "Ann.Smith@contoso-x.example"),
        ("a/b", "a=2Fb"),
        ("a=2Fb", "a=3D2Fb"),
        ("a b~", "a=20b=7E"),
        ("ü", "=C3=BC"),
        ("", ""),
    ],
)
def test_ids_stay_readable_where_they_can(text: str, key: str) -> None:
    """Plain characters stay, every other byte is written as =XX, the escape character too."""
    assert storable(text) == key


def test_a_half_character_has_a_key() -> None:
    """A lone surrogate, which JSON can carry, is stored like anything else."""
    assert storable("\ud83e") == "=ED=A0=BE"


def test_long_ids_are_shortened_and_stay_different() -> None:
    """Ids that differ only at their ends have different keys, none longer than 300 characters."""
    ids = ["🦊" * 255 + end for end in "ab"] + ["x" * 300, "x" * 301, "x" * 302]
    keys = [storable(one) for one in ids]
    assert len(set(keys)) == len(ids)
    assert max(map(len, keys)) <= 300
    assert keys[2] == ids[2]


def test_a_shortened_key_is_never_a_plain_one() -> None:
    """Nobody can choose an id whose key is the shortened key of another."""
    shortened = storable("x" * 400)
    assert storable(shortened) != shortened


def test_queue_ids_sort_by_time_and_are_nineteen_digits() -> None:
    """Ids of later mails are greater, and have the contract's form."""
    made = [queue_id(moment) for moment in (1_700_000_000_000, 1_700_000_000_001, 4_000_000_000_000)]
    assert made == sorted(made)
    assert all(len(one) == 19 and int(one, 16) >= 0 for one in made)
    assert queue_id(1, lambda size: "ab" * size) == "00000000001abababab"


def test_document_ids_are_sixteen_characters_in_order_of_time() -> None:
    """Ids of OAuth2 apps have the contract's form, and no two are alike."""
    made = {document_id() for _ in range(100)}
    assert len(made) == 100
    assert {len(one) for one in made} == {16}


def test_a_digest_depends_on_parts_and_their_order() -> None:
    """Parts are kept apart, so that moving a character from one to the next changes the digest."""
    assert len({digest("ab", "c"), digest("a", "bc"), digest("c", "ab"), digest("abc")}) == 4
    assert len(digest("\ud800")) == 40


def test_time_keys_sort_as_numbers() -> None:
    """Row keys of times sort by time from the epoch for millennia."""
    moments = [0, 0.001, 1, 999_999_999, 1_000_000_000, 99_999_999_999]
    assert [time_key(moment) for moment in moments] == sorted({time_key(moment) for moment in moments})
