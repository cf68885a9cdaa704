"""The part of OData `$filter` that Graph mail and directory queries use (graph.md 5.1 [D]).

Comparisons (eq ne gt ge lt le) with string, boolean, null, number and date-time literals, `and`, `or`, `not`,
brackets, `contains`, `startswith`, `endswith`, and `collection/any(x: ...)`.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .errors import GraphError
from .wire_time import from_wire

Read = Callable[[str], Any]  # path → value of the item at hand
Test = Callable[[Read], bool]

_TOKEN = re.compile(
    r"\s*(?:(?P<string>'(?:[^']|'')*')|(?P<time>\d{4}-\d\d-\d\d(?:T[\d:.]+(?:Z|[+-]\d\d:\d\d)?)?)|(?P<number>-?\d+)"
    r"|(?P<word>[A-Za-z_@][\w.@]*(?:/[A-Za-z_@][\w.@]*)*)|(?P<mark>[(),:]))"
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
}
_TEXT_TESTS: dict[str, Callable[[str, str], bool]] = {
    "contains": lambda text, part: part in text,
    "startswith": str.startswith,
    "endswith": str.endswith,
}


@dataclass(slots=True)
class Filter:
    """A parsed filter: `matches(read)` for an item, and the property paths in the order they were written."""

    matches: Test
    paths: list[str] = field(default_factory=list)


def bad_filter(text: str) -> GraphError:
    return GraphError(400, "BadRequest", f"Invalid filter clause: {text}")


def unknown_property(name: str, type_name: str) -> GraphError:
    """graph.md 4, notes [F]."""
    message = f"Could not find a property named '{name}' on type '{type_name}'."
    return GraphError(400, "RequestBroker--ParseUri", message)


def parse_filter(text: str, known: frozenset[str], type_name: str) -> Filter:
    """The filter written in `text`; GraphError 400 when it is broken or names an unknown property."""
    parser = _Parser(_tokens(text), known, type_name)
    test = parser.either({})
    if parser.position != len(parser.tokens):
        raise bad_filter(f"syntax error at position {parser.position} in '{text}'.")
    return Filter(test, parser.paths)


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens, position = [], 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise bad_filter(f"syntax error at position {position} in '{text}'.")
        tokens.append((match.lastgroup, match.group(match.lastgroup)))
        position = match.end()
    return tokens


class _Parser:
    def __init__(self, tokens: list[tuple[str, str]], known: frozenset[str], type_name: str) -> None:
        self.tokens = tokens
        self.position = 0
        self.paths: list[str] = []
        self._known = {name.lower(): name for name in known}
        self._type_name = type_name

    def either(self, names: dict[str, str]) -> Test:
        tests = [self._all_of(names)]
        while self._take_word("or"):
            tests.append(self._all_of(names))
        return tests[0] if len(tests) == 1 else lambda read: any(test(read) for test in tests)

    def _all_of(self, names: dict[str, str]) -> Test:
        tests = [self._one(names)]
        while self._take_word("and"):
            tests.append(self._one(names))
        return tests[0] if len(tests) == 1 else lambda read: all(test(read) for test in tests)

    def _one(self, names: dict[str, str]) -> Test:
        if self._take_word("not"):
            inner = self._one(names)
            return lambda read: not inner(read)
        if self._take_mark("("):
            inner = self.either(names)
            self._expect(")")
            return inner
        word = self._word()
        if word.lower() in _TEXT_TESTS and self._take_mark("("):
            return self._text_test(word.lower(), names)
        if word.endswith("/any") and self._take_mark("("):
            return self._any(word[: -len("/any")], names)
        return self._comparison(self._path(word, names))

    def _comparison(self, path: str) -> Test:
        name = self._word().lower()
        compare = _COMPARE.get(name)
        if compare is None:
            raise bad_filter(f"'{name}' is not an operator.")
        wanted = self._literal()
        return lambda read: _compare(compare, read(path), wanted)

    def _text_test(self, name: str, names: dict[str, str]) -> Test:
        path = self._path(self._word(), names)
        self._expect(",")
        wanted = str(self._literal())
        self._expect(")")
        return lambda read: _TEXT_TESTS[name](str(read(path) or "").casefold(), wanted)

    def _any(self, collection: str, names: dict[str, str]) -> Test:
        path = self._path(collection, names)
        variable = self._word()
        self._expect(":")
        inner = self.either({**names, variable: ""})
        self._expect(")")
        return lambda read: any(inner(_reader_of(entry, variable)) for entry in read(path) or ())

    def _path(self, word: str, names: dict[str, str]) -> str:
        first, _, rest = word.partition("/")
        if first in names:
            return word
        known = self._known.get(first.lower())
        if known is None:
            raise unknown_property(first, self._type_name)
        path = f"{known}/{rest}" if rest else known
        self.paths.append(path)
        return path

    def _literal(self) -> Any:
        kind, text = self._next()
        if kind == "string":
            return text[1:-1].replace("''", "'").casefold()
        if kind == "time":
            return _time(text)
        if kind == "number":
            return int(text)
        words = {"true": True, "false": False, "null": None}
        if kind == "word" and text.lower() in words:
            return words[text.lower()]
        raise bad_filter(f"'{text}' is not a literal.")

    def _next(self) -> tuple[str, str]:
        if self.position >= len(self.tokens):
            raise bad_filter("it ends too early.")
        self.position += 1
        return self.tokens[self.position - 1]

    def _word(self) -> str:
        kind, text = self._next()
        if kind != "word":
            raise bad_filter(f"a name was expected, not {text}.")
        return text

    def _take_word(self, word: str) -> bool:
        return self._take(lambda token: token[0] == "word" and token[1].lower() == word)

    def _take_mark(self, mark: str) -> bool:
        return self._take(lambda token: token == ("mark", mark))

    def _take(self, fits: Callable[[tuple[str, str]], bool]) -> bool:
        if self.position < len(self.tokens) and fits(self.tokens[self.position]):
            self.position += 1
            return True
        return False

    def _expect(self, mark: str) -> None:
        if not self._take_mark(mark):
            raise bad_filter(f"'{mark}' was expected.")


def _time(text: str) -> datetime:
    try:
        return from_wire(text)
    except ValueError:
        raise bad_filter(f"'{text}' is not a time.") from None


def _reader_of(entry: Any, variable: str) -> Read:
    """Reads paths below the variable of an `any`: `c` is the entry itself, `ep/id` a property of it."""

    def read(path: str) -> Any:
        names = path.split("/")
        return walk(entry, names[1:] if names[0] == variable else names)

    return read


def walk(value: Any, names: list[str]) -> Any:
    """The value below nested objects; None where a step is missing."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _compare(compare: Callable[[Any, Any], bool], value: Any, wanted: Any) -> bool:
    if isinstance(value, str):
        # Exchange and the directory compare text without regard to case [P].
        value = from_wire(value) if isinstance(wanted, datetime) else value.casefold()
    if compare in (operator.eq, operator.ne):
        return compare(value, wanted)
    return type(value) is type(wanted) and compare(value, wanted)
