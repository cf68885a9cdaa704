"""Compares the body of a Bicep resource with Microsoft's type data: what the compiler would say of it.

The data is read where it lies beside the project, `../shared/schemas/bicep-types.json`; a type is one of object, oneof
(by the value of a property), array, union, literal, string, int, bool, any and null.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tree_sitter import Node

from tests.support.bicep import ROOT, Bicep, body_of, literal, properties, text_of

SCHEMAS = ROOT.parent / "shared" / "schemas"
DATA = SCHEMAS / "bicep-types.json"
REQUIRED, READ_ONLY = 1, 2
EVERYWHERE = {"scope", "parent", "dependsOn"}
PLAIN = {"string": "string", "number": "int", "boolean": "bool", "null": "null"}
Type = dict[str, Any]


@cache
def data(path: Path = DATA) -> Type:
    """The whole file."""
    loaded: Type = json.loads(path.read_text())
    return loaded


def type_of(name: str) -> Type | None:
    """The type of `Provider/kind@version`, or None."""
    found = data()["resources"].get(name)
    return None if found is None else data()["types"][found]


def faults(file: Bicep, name: str) -> Iterator[str]:
    """What is wrong with one resource of a file."""
    declaration = file.resources[name]
    kind = literal(declaration)
    expected = type_of(kind)
    if expected is None:
        yield f"{name}: there is no {kind}"
        return
    is_existing = any(child.type == "existing" for child in declaration.children)
    yield from _object(body_of(declaration), expected, name, top=True, complete=not is_existing)


def _value(node: Node, expected: Type, where: str) -> Iterator[str]:
    kind = expected["t"]
    if kind == "any" or node.type not in {"object", "array", "string", "number", "boolean"}:
        return  # what a deployment alone knows
    if kind == "union":
        options = [data()["types"][one] for one in expected["of"]]
        if all(list(_value(node, option, where)) for option in options):
            yield f"{where}: {text_of(node)[:40]} is none of {[one.get('v', one['t']) for one in options]}"
    elif kind == "literal":
        if text_of(node).strip("'") != str(expected["v"]):
            yield f"{where}: {text_of(node)} is not {expected['v']!r}"
    elif kind == "array":
        if node.type != "array":
            yield f"{where}: not an array"
            return
        for number, child in enumerate(one for one in node.children if one.is_named):
            yield from _value(child, data()["types"][expected["of"]], f"{where}[{number}]")
    elif kind in ("object", "oneof"):
        if node.type != "object":
            yield f"{where}: not an object"
            return
        yield from _object(node, expected, where)
    elif PLAIN.get(node.type) != kind:
        yield f"{where}: {text_of(node)[:40]} is not of type {kind}"


def _object(
    node: Node, expected: Type, where: str, *, top: bool = False, complete: bool = True
) -> Iterator[str]:
    given = properties(node)
    if expected["t"] == "oneof":
        chosen = text_of(given[expected["by"]]).strip("'") if expected["by"] in given else ""
        if chosen not in expected["cases"]:
            yield f"{where}.{expected['by']}: {chosen!r} is none of {sorted(expected['cases'])}"
            return
        expected = data()["types"][expected["cases"][chosen]]
    known = expected["props"]
    for name, value in given.items():
        if (top and name in EVERYWHERE) or name.startswith("${"):
            continue
        if name not in known:
            if "more" not in expected:
                near = [one for one in known if one.lower() == name.lower()]
                yield f"{where}.{name}: no such property" + (f", but {near[0]}" if near else "")
                continue
            yield from _value(value, data()["types"][expected["more"]], f"{where}.{name}")
            continue
        index, flags = known[name]
        if flags & READ_ONLY:
            yield f"{where}.{name}: can only be read"
        yield from _value(value, data()["types"][index], f"{where}.{name}")
    required = {name for name, (_, flags) in known.items() if flags & REQUIRED and not flags & READ_ONLY}
    for name in sorted(required - given.keys()) if complete else ():
        yield f"{where}.{name}: missing"
