"""The stored folder tree after a change that Graph's own news do not have yet."""

from shared.folder_changes import _drop, _is_taken, _put
from shared.graph.edits import ROOT
from shared.mailboxes import Tree


def tree() -> Tree:
    """Inbox with two levels below it, and a folder beside it."""
    folders = {"i": ("Inbox", ""), "a": ("A", "i"), "b": ("B", "a"), "x": ("X", "")}
    return Tree(folders, {"i": "\\Inbox"})


def test_a_new_or_moved_folder_is_put_in_once() -> None:
    """The second time there is nothing to store."""
    changed = tree()
    assert _put(changed, "n", "New", "a")
    assert changed.path("n") == "Inbox/A/New"
    assert not _put(changed, "n", "New", "a")
    assert _put(changed, "n", "New", ROOT)
    assert changed.path("n") == "New"


def test_a_folder_whose_parent_is_not_listed_lies_at_the_top() -> None:
    """A fresh tree names the root's id as parent, which is no folder of the tree."""
    changed = tree()
    changed.folders["x"] = ("X", "root-id")
    assert not _put(changed, "x", "X", ROOT)


def test_a_deleted_folder_goes_with_what_is_below_it() -> None:
    """But not when Graph says that it lies elsewhere now."""
    changed = tree()
    assert _drop(changed, "a", ("A", "i"))
    assert set(changed.folders) == {"i", "x"}
    moved = tree()
    moved.folders["a"] = ("A", "x")
    assert not _drop(moved, "a", ("A", "i"))
    assert set(moved.folders) == {"i", "a", "b", "x"}


def test_names_are_taken_without_regard_to_letters() -> None:
    """Beside the folder only, and not by itself."""
    assert _is_taken(tree(), "", "INBOX", "x")
    assert not _is_taken(tree(), "", "x", "x")
    assert not _is_taken(tree(), "i", "X", "a")
