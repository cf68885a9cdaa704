"""docs/errors.md against the codes in the source, both ways."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "errors.md").read_text()
CODE = re.compile(r"[A-Z][A-Za-z]+")
KEYS = {"code", "errorCode", "serverResponseCode"}


def trees() -> list[ast.Module]:
    """Every module of the app."""
    return [ast.parse(path.read_text()) for path in sorted((ROOT / "shared").rglob("*.py"))]


def error_classes(modules: list[ast.Module]) -> set[str]:
    """The names of ApiError and of what is made from it, and of the table rows that become one."""
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for tree in modules
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    found = {"ApiError"}
    while more := {name for name, parents in bases.items() if parents & found} - found:
        found |= more
    return found | {"Meaning", "CredentialError"}


def constants(node: ast.AST | None) -> Iterator[str]:
    """The words an expression can be, e.g. both of `"A" if x else "B"`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from constants(node.body)
        yield from constants(node.orelse)
    elif isinstance(node, ast.BoolOp):
        for one in node.values:
            yield from constants(one)


def words(node: ast.AST, classes: set[str]) -> Iterator[str]:
    """What may be a code: arguments of errors, values of fields that hold one, and the answers of the states."""
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in classes:
            for argument in node.args:
                yield from constants(argument)
        for keyword in node.keywords:
            if keyword.arg in KEYS:
                yield from constants(keyword.value)
    elif isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and key.value in KEYS:
                yield from constants(value)
    elif isinstance(node, ast.Assign) and any("ANSWERS" in getattr(one, "id", "") for one in node.targets):
        for inner in ast.walk(node.value):
            yield from constants(inner)


def codes() -> set[str]:
    """Every code the app can answer or tell."""
    modules = trees()
    classes = error_classes(modules)
    found = {word for tree in modules for node in ast.walk(tree) for word in words(node, classes)}
    return {word for word in found if CODE.fullmatch(word)}


def test_every_code_is_explained() -> None:
    """Whoever meets a code finds it in docs/errors.md."""
    missing = {code for code in codes() if f"`{code}`" not in TEXT}
    assert not missing, "docs/errors.md needs a row for each of:\n" + "\n".join(f"`{code}`" for code in sorted(missing))


def test_every_explained_code_exists() -> None:
    """What docs/errors.md calls a code is in the source: nobody looks for what no longer happens."""
    cells = [line.split("|")[1:3] for line in TEXT.splitlines() if line.startswith("|")]
    # Our codes are words in capitals and small letters; commands and settings have signs between.
    named = {code for row in cells for cell in row for code in re.findall(r"`([A-Z][a-z]+(?:[A-Z][A-Za-z]+)+)`", cell)}
    source = "\n".join(path.read_text() for path in (ROOT / "shared").rglob("*.py"))
    unknown = {code for code in named if f'"{code}"' not in source}
    assert len(named) > 20
    assert not unknown, f"docs/errors.md explains what no longer exists: {sorted(unknown)}"


def test_the_search_finds_codes_where_they_hide() -> None:
    """A code as second word of a choice, in a field, in a subclass and in the table of states."""
    source = '''
class Gone(NotFound): ...
raise ApiError(400, "text", "One" if x else "Two")
raise Gone("text", "Three")
fields = {"errorCode": "Four"}
say(code="Five")
_ANSWERS = {"a": ("text", "Six")}
raise other("Seven")
'''
    tree = ast.parse("class NotFound(ApiError): ...\n" + source)
    classes = error_classes([tree])
    found = {word for node in ast.walk(tree) for word in words(node, classes) if CODE.fullmatch(word)}
    assert found == {"One", "Two", "Three", "Four", "Five", "Six"}
