"""Which folders a turn looks into, and which messages are news."""

from datetime import UTC, datetime, timedelta

import pytest

from shared.changes import MARKERS_FOR, NEW_FOR, tracked_since
from shared.mailboxes import Tree
from shared.polling import folders_to_ask

NOW = datetime(2026, 3, 2, 8, 0, 0, tzinfo=UTC)


def tree(others: int) -> Tree:
    """Inbox, Sent Items and so many others."""
    folders = {"in": ("Inbox", "root"), "out": ("Sent Items", "root")}
    folders |= {f"f{number}": (f"F{number}", "root") for number in range(others)}
    return Tree(folders, {"in": "\\Inbox", "out": "\\Sent"})


@pytest.mark.parametrize("others", [0, 1, 2, 3, 4, 5, 7, 30, 100])
def test_every_folder_has_its_turn(others: int) -> None:
    """The inbox each time, all others within as many turns as there are of them, none twice."""
    shape = tree(others)
    known = set(shape.folders)
    asked: set[str] = set()
    for turn in range(1000, 1000 + others + 1):
        found = folders_to_ask(shape, known, turn)
        assert len(found) == len(set(found)) == 2
        assert found[0] == "in"
        asked |= set(found)
    assert asked == set(shape.folders)


def test_what_changed_and_what_was_never_asked_comes_at_once() -> None:
    """Changed counts first, then new folders; those that are gone are not asked."""
    shape = tree(9)
    shape.named = ["f2", "gone"]
    found = folders_to_ask(shape, {"in", "out", "f0", "f1", "f2"}, 0)
    assert found[:2] == ["in", "f2"]
    assert {"f3", "f4", "f5", "f6", "f7", "f8"} <= set(found)
    assert "gone" not in found


def test_a_mailbox_without_an_inbox_is_asked_all_the_same() -> None:
    """Roles may be missing."""
    assert folders_to_ask(Tree({"x": ("X", "")}), {"x"}, 5) == ["x"]
    assert folders_to_ask(Tree(), set(), 5) == []


def test_news_begin_with_the_account_in_whole_seconds() -> None:
    """Graph keeps no fractions, so a mail of the same second counts."""
    started = {"notifyFrom": "2026-03-02T07:59:30.999Z"}
    assert tracked_since(started, NOW) == datetime(2026, 3, 2, 7, 59, 30, tzinfo=UTC)


def test_news_are_never_older_than_what_is_remembered() -> None:
    """A marker that was forgotten cannot repeat a message."""
    assert tracked_since({"notifyFrom": "2001-01-01T00:00:00Z"}, NOW) == NOW - NEW_FOR
    assert tracked_since({}, NOW) == NOW - NEW_FOR
    assert NEW_FOR + timedelta(days=1) < MARKERS_FOR


def test_paths_escape_what_separates_them() -> None:
    """Slash and percent inside a name, and a loop of parents ends."""
    shape = Tree({"a": ("50% / x", "root"), "b": ("ü", "a"), "c": ("loop", "c")})
    assert shape.path("b") == "50%25 %2F x/ü"
    assert shape.path("unknown") is None
    assert (shape.path("c") or "").startswith("loop/loop")


def test_a_stored_tree_is_the_same_tree() -> None:
    """Folders, parents, roles and link survive; a parent outside the tree is the root."""
    shape = tree(3)
    shape.folders["deep"] = ("Deep", "f1")
    shape.link, shape.named = "https://graph.example/link", ["f1"]
    again = Tree.from_document(shape.document())
    assert again.named == ["f1"]
    assert again.link == shape.link
    assert again.roles == shape.roles
    assert {one: again.path(one) for one in again.folders} == {one: shape.path(one) for one in shape.folders}
