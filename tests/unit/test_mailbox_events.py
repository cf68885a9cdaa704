"""Which folders came and went."""

from hypothesis import given
from hypothesis import strategies as st

from shared.mailbox_events import changes_between, folders_of
from shared.mailboxes import Tree


def tree(**folders: tuple[str, str]) -> Tree:
    """Folders by id: (name, parent id)."""
    return Tree(dict(folders), {"in": "\\Inbox"}, "link")


def test_paths_are_those_of_the_tree() -> None:
    """Nested, escaped, in any order, and with the special use."""
    made = tree(c=("deep", "b"), b=("50% / half", "in"), **{"in": ("Inbox", "root")})
    assert folders_of(made) == {
        "in": ["Inbox", "\\Inbox"],
        "b": ["Inbox/50%25 %2F half", ""],
        "c": ["Inbox/50%25 %2F half/deep", ""],
    }
    assert {one: path for one, (path, _) in folders_of(made).items()} == {one: made.path(one) for one in made.folders}


def test_a_renamed_folder_goes_and_comes_with_all_below_it() -> None:
    """Leaves go first, roots come first; what kept its path is not told."""
    old = folders_of(tree(a=("A", ""), b=("B", "a"), c=("C", "")))
    new = folders_of(tree(a=("A2", ""), b=("B", "a"), c=("C", ""), d=("D", "c")))
    assert changes_between(old, new) == [
        ["mailboxDeleted", "b", "A/B", ""],
        ["mailboxDeleted", "a", "A", ""],
        ["mailboxNew", "a", "A2", ""],
        ["mailboxNew", "b", "A2/B", ""],
        ["mailboxNew", "d", "C/D", ""],
    ]
    assert changes_between(new, new) == []


@given(st.dictionaries(st.integers(0, 30), st.integers(0, 30), max_size=30))
def test_folders_that_hold_each_other_come_to_an_end(parents: dict[int, int]) -> None:
    """Whatever Graph said: every folder has one path, unless it lies in itself."""
    made = Tree({str(one): (f"n{one}", str(parent)) for one, parent in parents.items()})

    def lies_in_itself(folder: str) -> bool:
        above: list[str] = []
        while folder in made.folders and folder not in above:
            above.append(folder)
            folder = made.folders[folder][1]
        return folder in above

    assert set(folders_of(made)) == {one for one in made.folders if not lies_in_itself(one)}


def test_five_thousand_nested_folders_have_their_paths_at_once() -> None:
    """The tree is walked once, not once for each folder."""
    made = Tree({str(n): ("x", str(n - 1)) for n in range(5000)})
    assert len(folders_of(made)) == 5000
