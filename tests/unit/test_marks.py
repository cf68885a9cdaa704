"""What a caller's flags and labels become at Graph."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.marks import Marks

FLAGGED, PLAIN = {"flagStatus": "flagged"}, {"flagStatus": "notFlagged"}


@pytest.mark.parametrize(
    ("flags", "changes"),
    [
        ({}, {}),
        ({"add": ["\\Answered", "custom"]}, {}),
        ({"add": ["\\seen"]}, {"isRead": True}),
        ({"delete": ["\\SEEN", "\\Flagged"]}, {"isRead": False, "flag": PLAIN}),
        ({"add": ["\\Seen"], "delete": ["\\Seen"]}, {"isRead": False}),
        ({"set": ["\\Flagged"], "add": ["\\Seen"]}, {"isRead": False, "flag": FLAGGED}),
        ({"set": []}, {"isRead": False, "flag": PLAIN}),
    ],
)
def test_flags_become_properties(flags: dict[str, list[str]], changes: dict[str, Any]) -> None:
    """`set` wins over the others, and what Graph does not know changes nothing."""
    assert Marks(flags).changes() == changes


@pytest.mark.parametrize(
    ("labels", "there", "after"),
    [
        ({"add": ["Red"]}, [], ["Red"]),
        ({"add": ["red"]}, ["Red"], None),
        ({"delete": ["RED"]}, ["Red", "Blue"], ["Blue"]),
        ({"delete": ["Green"]}, ["Red"], None),
        ({"set": []}, ["Red"], []),
        ({"set": ["A", "a", "B"], "add": ["C"]}, ["Red"], ["A", "B"]),
    ],
)
def test_labels_are_worked_into_those_there_are(
    labels: dict[str, list[str]], there: list[str], after: list[str] | None
) -> None:
    """In their order, without repeats, and nothing is sent where nothing changes."""
    marks = Marks(labels=labels)
    assert marks.changes(there).get("categories") == after
    assert marks.reads_labels == ("set" not in labels)


names = st.lists(st.sampled_from(["Red", "red", "Blue", "Green", "ß", "SS"]), max_size=5)


@given(there=names, add=names, delete=names)
def test_no_label_is_lost_that_nobody_took_away(there: list[str], add: list[str], delete: list[str]) -> None:
    """Whatever is added and taken away: the others stay, the same change again changes nothing."""
    marks = Marks(labels={"add": add, "delete": delete})
    after = marks.changes(there).get("categories", there)
    folded = {one.casefold() for one in after}
    gone = {one.casefold() for one in delete}
    assert folded == {one.casefold() for one in [*there, *add]} - gone if add or delete else after == there
    assert marks.changes(after).get("categories", after) == after
