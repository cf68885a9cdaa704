"""Bicep files, read: their declarations, what they name, and what an expression comes to for given parameters.

There is no compiler offline; a parser, Microsoft's type data and this are what a compiler would tell of most mistakes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tree_sitter_bicep
from tree_sitter import Language, Node, Parser

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
FILES = sorted(INFRA.rglob("*.bicep"))
DECLARATIONS = {
    "parameter_declaration": "parameters",
    "variable_declaration": "variables",
    "resource_declaration": "resources",
    "module_declaration": "modules",
    "output_declaration": "outputs",
    "type_declaration": "types",
}
_parser = Parser(Language(tree_sitter_bicep.language()))


class Unknown:
    """A value that only a deployment knows, such as a property of a resource."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return f"<{self.text}>"


@dataclass
class Bicep:
    """One file: its declarations by name, and the decorators above each."""

    path: Path
    root: Node
    parameters: dict[str, Node] = field(default_factory=dict)
    variables: dict[str, Node] = field(default_factory=dict)
    resources: dict[str, Node] = field(default_factory=dict)
    modules: dict[str, Node] = field(default_factory=dict)
    outputs: dict[str, Node] = field(default_factory=dict)
    types: dict[str, Node] = field(default_factory=dict)
    decorators: dict[str, list[str]] = field(default_factory=dict)

    @property
    def symbols(self) -> set[str]:
        """Every name that the file declares and its expressions may use."""
        return {*self.parameters, *self.variables, *self.resources, *self.modules, *self.types}


def read(path: Path) -> Bicep:
    """The file; `extension` lines, which the parser does not know, are blanked out."""
    text = "\n".join("" if line.startswith("extension ") else line for line in path.read_text("utf-8").split("\n"))
    made = Bicep(path, _parser.parse(text.encode()).root_node)
    above: list[str] = []
    for node in made.root.children:
        if node.type == "decorators":
            above = [text_of(one) for one in node.children]
        elif node.type in DECLARATIONS:
            name = text_of(next(child for child in node.children if child.type == "identifier"))
            getattr(made, DECLARATIONS[node.type])[name] = node
            made.decorators[f"{DECLARATIONS[node.type]}.{name}"] = above
            above = []
    return made


def text_of(node: Node) -> str:
    """What stands in the file."""
    return (node.text or b"").decode()


def mistakes(node: Node) -> Iterator[str]:
    """Places that are not Bicep."""
    if node.type == "ERROR" or node.is_missing:
        yield f"line {node.start_point[0] + 1}: {text_of(node)[:60]!r}"
    for child in node.children:
        yield from mistakes(child)


def body_of(declaration: Node) -> Node:
    """The object of a resource or module, inside its loop or condition."""
    node = declaration.children[-1]
    while node.type in ("for_statement", "if_statement"):
        node = next(child for child in node.children if child.type in ("object", "if_statement"))
    return node


def properties(node: Node) -> dict[str, Node]:
    """The properties of an object by name; interpolated names as they stand there."""
    found = {}
    for child in node.children:
        if child.type == "object_property" and child.children[0].type in ("identifier", "string"):
            found[text_of(child.children[0]).strip("'")] = child.children[-1]
    return found


def literal(declaration: Node) -> str:
    """The text in quotes behind the name of a resource or module."""
    return text_of(next(child for child in declaration.children if child.type == "string")).strip("'")


def local_names(node: Node) -> set[str]:
    """The variables of loops."""
    found: set[str] = set()
    if node.type == "for_statement":
        target = node.children[2]
        found |= {text_of(target)} if target.type == "identifier" else {
            text_of(part) for part in target.children if part.type.startswith("loop_")
        }  # fmt: skip
    return found.union(*(local_names(child) for child in node.children))


def references(node: Node) -> Iterator[str]:
    """Each symbol that an expression uses; names of functions and properties are none."""
    if node.type == "identifier":
        yield text_of(node)
    children = node.children
    if node.type == "output_declaration":
        children = children[-1:]
    elif node.type in DECLARATIONS:
        children = children[2:]  # its own name is no use of it
    elif node.type in ("object_property", "call_expression"):
        children = children[1:]
    for child in children:
        if child.type != "decorators":
            yield from references(child)


class Evaluator:
    """What expressions of a file come to, for values of its parameters. What a deployment alone knows is Unknown."""

    def __init__(self, file: Bicep, parameters: Mapping[str, Any], known: Mapping[str, Any] | None = None) -> None:
        self._file, self._parameters, self._known = file, parameters, dict(known or {})

    def value(self, node: Node) -> Any:
        """The value of an expression."""
        kind: Callable[[Node], Any] | None = getattr(self, f"_{node.type}", None)
        return kind(node) if kind else Unknown(text_of(node))

    def variable(self, name: str) -> Any:
        """The value of a `var`."""
        return self.value(self._file.variables[name].children[-1])

    def default(self, name: str) -> Any:
        """The default of a parameter."""
        return self.value(self._file.parameters[name].children[-1])

    def _identifier(self, node: Node) -> Any:
        name = text_of(node)
        if name in self._known:
            return self._known[name]
        if name in self._parameters:
            return self._parameters[name]
        if name in self._file.parameters and any(child.type == "=" for child in self._file.parameters[name].children):
            return self.default(name)
        return self.variable(name) if name in self._file.variables else Unknown(name)

    def _string(self, node: Node) -> Any:
        parts = []
        for child in node.children:
            if child.type == "string_content":
                parts.append(text_of(child))
            elif child.type == "interpolation":
                value = self.value(child.children[1])
                parts.append(f"${{{value.text}}}" if isinstance(value, Unknown) else str(value))
        return "".join(parts)

    def _number(self, node: Node) -> int:
        return int(text_of(node))

    def _boolean(self, node: Node) -> bool:
        return text_of(node) == "true"

    def _null(self, _node: Node) -> None:
        return None

    def _object(self, node: Node) -> dict[str, Any]:
        return {name: self.value(value) for name, value in properties(node).items()}

    def _array(self, node: Node) -> list[Any]:
        return [self.value(child) for child in node.children if child.is_named and child.type != "comment"]

    def _parenthesized_expression(self, node: Node) -> Any:
        return self.value(node.children[1])

    def _unary_expression(self, node: Node) -> Any:
        return not self.value(node.children[1])

    def _ternary_expression(self, node: Node) -> Any:
        condition, _, yes, _, no = node.children
        return self.value(yes if self.value(condition) else no)

    def _binary_expression(self, node: Node) -> Any:
        left, sign, right = node.children
        first = self.value(left)
        if text_of(sign) == "??":
            return self.value(right) if first is None else first
        second = self.value(right)
        signs: dict[str, Callable[[Any, Any], Any]] = {
            "==": lambda a, b: a == b, "!=": lambda a, b: a != b, "&&": lambda a, b: a and b,
            "||": lambda a, b: a or b, "+": lambda a, b: a + b, "/": lambda a, b: a // b, "<": lambda a, b: a < b,
        }  # fmt: skip
        return signs[text_of(sign)](first, second)

    def _member_expression(self, node: Node) -> Any:
        owner = self.value(node.children[0])
        if owner is None and text_of(node.children[1]) == ".?":
            return None
        name = text_of(node.children[2])
        return owner.get(name, Unknown(text_of(node))) if isinstance(owner, dict) else Unknown(text_of(node))

    def _subscript_expression(self, node: Node) -> Any:
        owner, key = self.value(node.children[0]), self.value(node.children[2])
        return owner[key] if isinstance(owner, (dict, list)) else Unknown(text_of(node))

    def _call_expression(self, node: Node) -> Any:
        name = text_of(node.children[0])
        given = [self.value(child) for child in node.children[1].children if child.is_named]
        if name in self._known:
            return self._known[name]
        if name == "empty":
            return not given[0]
        if name == "length":
            return len(given[0])
        if name == "string":
            return str(given[0]) if not isinstance(given[0], Unknown) else given[0]
        if name == "union" and all(isinstance(one, dict) for one in given):
            return {key: value for one in given for key, value in one.items()}
        if name == "union" and all(isinstance(one, list) for one in given):
            return list(dict.fromkeys(value for one in given for value in one))
        if name == "toLower":
            return given[0].lower() if isinstance(given[0], str) else given[0]
        return Unknown(text_of(node))
