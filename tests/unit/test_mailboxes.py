"""Paths of folders: what a client writes, and which folder it means (emailengine.md 9.1)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.mailboxes import Tree, escaped, joined, unescaped, well_known_name

GERMAN = Tree(
    {
        "root": ("Oberste Ebene", "root"),
        "in": ("Posteingang", "root"),
        "sent": ("Gesendete Elemente", "root"),
        "bills": ("Rechnungen", "in"),
        "slash": ("A/B", "root"),
        "below": ("50%", "slash"),
        "attic": ("Attic", "root"),
        "box": ("Box", "attic"),
    },
    {"in": "\\Inbox", "sent": "\\Sent"},
    hidden={"attic"},
)


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("INBOX", "in"),
        ("inbox", "in"),
        ("Posteingang", "in"),
        ("\\Inbox", "in"),
        ("\\sent", "sent"),
        ("Inbox/Rechnungen", "bills"),
        ("iNbOx/Rechnungen", "bills"),
        ("Posteingang/Rechnungen", "bills"),
        ("A%2FB", "slash"),
        ("A%2FB/50%25", "below"),
        ("Attic/Box", "box"),
    ],
)
def test_a_path_finds_its_folder(path: str, folder: str) -> None:
    """The inbox in any case and language, tags, and escaped names."""
    found = GERMAN.place(path)
    assert found is not None
    assert found.id == folder


@pytest.mark.parametrize(
    "path", ["", "A/B", "posteingang", "Inbox/rechnungen", "\\All", "\\Trash", "root", "Oberste Ebene", "A%252FB", "/"]
)
def test_a_path_that_names_nothing_finds_nothing(path: str) -> None:
    """Everything but the inbox and the tags is exact; the mailbox's root is no folder."""
    assert GERMAN.place(path) is None


def test_the_path_shown_leads_back_to_the_folder() -> None:
    """For every folder, whether found one by one or all at once; the root is part of none."""
    paths = GERMAN.paths()
    assert paths["bills"] == "Posteingang/Rechnungen"
    assert set(paths) == set(GERMAN.folders) - {"root"}
    for folder, path in paths.items():
        assert GERMAN.path(folder) == path
        place = GERMAN.place(path)
        assert place is not None
        assert (place.id, place.path, place.special_use) == (folder, path, GERMAN.special_use(folder))


def test_hidden_folders_and_what_lies_in_them_are_not_visible() -> None:
    """As Outlook shows the mailbox."""
    assert set(GERMAN.paths(visible=True)) == {"in", "sent", "bills", "slash", "below"}


FOLDERS = st.tuples(st.text(min_size=1, max_size=4), st.sampled_from("abcdefghx"))


@given(st.dictionaries(st.sampled_from("abcdefgh"), FOLDERS))
def test_any_tree_has_an_end(folders: dict[str, tuple[str, str]]) -> None:
    """Also one whose folders lie in each other."""
    tree = Tree(dict(folders), {"a": "\\Inbox"})
    for folder in tree.paths():
        assert tree.path(folder)


@given(st.text(alphabet="a%/2F5\\é"))
def test_escaping_a_name_can_be_undone(name: str) -> None:
    """And the escaped name is one segment."""
    assert unescaped(escaped(name)) == name
    assert "/" not in escaped(name)


def test_segments_are_joined_and_tags_have_names_at_graph() -> None:
    """What Graph knows by a name of its own needs no folder tree."""
    assert joined(["Inbox", "Rechnungen"]) == joined("Inbox/Rechnungen") == "Inbox/Rechnungen"
    assert [well_known_name(one) for one in ("INBOX", "\\Trash", "\\archive", "Sent Items", "\\All", "")] == [
        "inbox", "deleteditems", "archive", None, None, None,
    ]  # fmt: skip


def test_a_tree_survives_storage() -> None:
    """Written and read, with what is hidden; records written before that were known read as nothing hidden."""
    document = GERMAN.document()
    assert Tree.from_document(document) == Tree(
        {i: (name, parent) for i, (name, parent) in GERMAN.folders.items()}, GERMAN.roles, hidden={"attic"}
    )
    assert Tree.from_document({k: v for k, v in document.items() if k != "hidden"}).hidden == set()
