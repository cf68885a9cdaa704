"""docs/compatibility.md against the contract and against the routes there really are."""

import re
from pathlib import Path
from unittest.mock import Mock

import pytest
from fastapi.routing import iter_route_contexts

from tests.contract.operations import DOCUMENTED, OPERATIONS

TABLE = Path(__file__).parents[2] / "docs" / "compatibility.md"
SERVED, UNSERVED = {"yes", "in part", "ours"}, {"not yet", "no"}
Operation = tuple[str, str]


def nameless(path: str) -> str:
    """A path without the names of its parameters."""
    return re.sub(r"\{[^}]*\}", "{}", path)


def listed(cell: str) -> list[Operation]:
    """The operations of a cell: "GET, PUT `/a`, POST `/b`" are three."""
    found: list[Operation] = []
    methods: list[str] = []
    fresh = True
    for method, path in re.findall(r"\b(GET|POST|PUT|PATCH|DELETE)\b|`([^`]+)`", cell):
        if method:
            methods = [method] if fresh else [*methods, method]
            fresh = False
        elif path.startswith("/"):
            found += [(one, nameless(path.partition("?")[0])) for one in methods]
            fresh = True
    return found


def rows(text: str) -> dict[Operation, list[str]]:
    """{operation: what its rows say of being served} from every table whose second column is `served`."""
    found: dict[Operation, list[str]] = {}
    inside = False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            inside = False
        elif cells[:2] == ["operation", "served"]:
            inside = True
        elif inside and not set(cells[0]) <= {"-", " "}:
            for operation in listed(cells[0]):
                found.setdefault(operation, []).append(cells[1])
    return found


def routed() -> set[Operation]:
    """What the app and the function app answer, but for routes that only say that they are not served."""
    import function_app
    from shared.api.app import create_app
    from shared.api.around_routes import ABSENT

    found = {
        (method, nameless(route.path))
        for route in iter_route_contexts(create_app(Mock()).routes)
        for method in route.methods or ()
        if method != "HEAD"
    }
    found -= {(method, nameless(path)) for method, path, *_ in ABSENT}
    function_app.app.functions_bindings = {}  # it takes a second look for a second function of each name
    functions = function_app.app.get_functions()
    function_app.app.functions_bindings = {}
    for function in functions:
        for binding in function.get_bindings_dict()["bindings"]:
            if "route" in binding and "*" not in binding["route"]:
                found |= {(method.value, nameless(f"/{binding['route']}")) for method in binding["methods"]}
    return found


@pytest.fixture(scope="module")
def table() -> dict[Operation, list[str]]:
    """The table as it is."""
    return rows(TABLE.read_text())


def wanted(operations: dict[Operation, str]) -> str:
    """What to write into the table."""
    lines = [f"| {method} `{path}` | {status} | |" for (method, path), status in sorted(operations.items())]
    return "docs/compatibility.md needs these rows:\n" + "\n".join(lines)


def test_every_operation_of_the_contract_has_a_row(table: dict[Operation, list[str]]) -> None:
    """Nothing of the contract is left unsaid: what is not served says so."""
    there = routed()
    missing = {
        (method, path): "yes" if (method, nameless(path)) in there else "no"
        for method, path in OPERATIONS
        if (method, nameless(path)) not in table
    }
    assert not missing, wanted(missing)


def test_every_row_says_what_is_true(table: dict[Operation, list[str]]) -> None:
    """`yes`, `in part` and `ours` are routed; `not yet` and `no` are not; and no operation has two rows."""
    there = routed()
    for operation, said in sorted(table.items()):
        name = f"{operation[0]} `{operation[1]}`"
        assert len(said) == 1, f"{name} has {len(said)} rows in docs/compatibility.md: {', '.join(said)}. Leave one"
        assert said[0] in SERVED | UNSERVED, f"{name}: write one of {sorted(SERVED | UNSERVED)}, not {said[0]!r}"
        if operation in there:
            assert said[0] in SERVED, f"{name} is routed, so its row must say yes, in part or ours, not {said[0]}"
        else:
            assert said[0] in UNSERVED, f"{name} is not routed, so its row must say not yet or no, not {said[0]}"


def test_every_route_has_a_row(table: dict[Operation, list[str]]) -> None:
    """What is served beyond the contract is named as ours."""
    known = {(method, nameless(path)) for method, path in OPERATIONS}
    missing = {one: "yes" if one in known else "ours" for one in routed() if one not in table}
    assert not missing, wanted(missing)


def test_the_contract_is_whole() -> None:
    """83 documented operations: 20 first, 36 expected, 15 nice to have, 12 out."""
    counts = {priority: list(DOCUMENTED.values()).count(priority) for priority in ("P1", "P2", "P3", "out")}
    assert counts == {"P1": 20, "P2": 36, "P3": 15, "out": 12}


def test_cells_are_read_as_they_are_written() -> None:
    """Several methods before a path, several paths after one another, queries and other code between them."""
    assert listed("POST `/a`, GET, PUT `/b/{x}` and `imap`, DELETE `/c?d&e`") == [
        ("POST", "/a"), ("GET", "/b/{}"), ("PUT", "/b/{}"), ("DELETE", "/c"),
    ]  # fmt: skip
    assert listed("GET `/a`, `/b`") == [("GET", "/a"), ("GET", "/b")]
    assert rows("| operation | served |\n| --- | --- |\n| GET `/a` | yes |\n\n| GET `/b` | no |") == {
        ("GET", "/a"): ["yes"]
    }
