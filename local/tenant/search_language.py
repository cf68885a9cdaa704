"""The part of KQL that `$search` on messages understands (graph.md 5.2 [D]).

`property:text`, `property:"a phrase"`, sizes and dates with `<`, `>`, `<=`, `>=`, bare words, AND, OR, NOT and
brackets. Words are found anywhere in a text, without regard to case [P].
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from datetime import date, datetime
from typing import Any

from .errors import GraphError
from .messages import Message
from .wire_time import from_wire

MOST_RESULTS = 250  # graph.md 5.2 [D]
Test = Callable[[Message], bool]

_TOKEN = re.compile(
    r'\s*(?:(?P<bracket>[()])|(?P<term>(?:(?P<name>[A-Za-z]+)(?P<sign>[:<>]=?|=))?(?:"(?P<phrase>(?:[^"\\]|\\.)*)"'
    r'|(?P<word>[^\s()"]+))))'
)
_SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    ":": operator.eq, "=": operator.eq, "<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge,
}  # fmt: skip
_PEOPLE = {
    "from": ("from",),
    "to": ("toRecipients",),
    "cc": ("ccRecipients",),
    "bcc": ("bccRecipients",),
    "recipients": ("toRecipients", "ccRecipients", "bccRecipients"),
    "participants": ("from", "toRecipients", "ccRecipients", "bccRecipients"),
}


def check_options(options: dict[str, str]) -> None:
    """What `$search` does not go together with (graph.md 5.2 [D] [F])."""
    names = {name.lower() for name in options}
    if "$orderby" in names:
        message = "The query parameter '$orderBy' is not supported with '$search'."
        raise GraphError(400, "SearchWithOrderBy", message)
    if "$filter" in names:
        message = "The query parameter '$filter' is not supported with '$search'."
        raise GraphError(400, "SearchWithFilter", message)
    if "$skip" in names:
        raise GraphError(400, "BadRequest", "The query parameter '$skip' is not supported with '$search'.")


def found_by(messages: list[Message], written: str) -> list[Message]:
    """The messages that fit, newest by sending first, at most 250."""
    text = written.strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = re.sub(r"\\(.)", r"\1", text[1:-1])  # the quotes around the whole, and the escapes inside
    test = _Parser(text).whole()
    found = [message for message in messages if test(message)]
    return sorted(found, key=lambda message: message.properties["sentDateTime"], reverse=True)[:MOST_RESULTS]


def _bad(text: str) -> GraphError:
    return GraphError(400, "BadRequest", f"Syntax error: {text}")


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens: list[re.Match[str]] = []
        position = 0
        while text[position:].strip():
            found = _TOKEN.match(text, position)
            if found is None:
                raise _bad(f"character at position {position} in '{text}'.")
            self._tokens.append(found)
            position = found.end()
        self._at = 0

    def whole(self) -> Test:
        test = self._any()
        if self._at != len(self._tokens):
            raise _bad("more follows after the end.")
        return test

    def _any(self) -> Test:
        tests = [self._all()]
        while self._take("OR"):
            tests.append(self._all())
        return lambda message: any(test(message) for test in tests)

    def _all(self) -> Test:
        tests = [self._one()]
        while self._take("AND") or (self._peek() not in ("", "OR", ")")):
            tests.append(self._one())
        return lambda message: all(test(message) for test in tests)

    def _one(self) -> Test:
        if self._take("NOT"):
            inner = self._one()
            return lambda message: not inner(message)
        if self._take("("):
            test = self._any()
            if not self._take(")"):
                raise _bad("a bracket is not closed.")
            return test
        if not self._peek() or self._peek() in (")", "AND", "OR"):
            raise _bad("a word is missing.")
        self._at += 1
        return _test(self._tokens[self._at - 1])

    def _peek(self) -> str:
        return self._tokens[self._at][0].strip() if self._at < len(self._tokens) else ""

    def _take(self, wanted: str) -> bool:
        fits = self._peek() == wanted
        self._at += fits
        return fits


def _test(token: re.Match[str]) -> Test:
    name = (token["name"] or "").lower()
    value = re.sub(r"\\(.)", r"\1", token["phrase"]) if token["phrase"] is not None else token["word"]
    compare = _SIGNS[token["sign"] or ":"]
    if name == "size":
        return _compared(compare, lambda message: message.size_bytes(), _number(value))
    if name in ("sent", "received"):
        field = f"{name}DateTime"
        day = _day(value)
        return _compared(compare, lambda message: from_wire(message.properties[field]).date(), day)
    if name in ("hasattachments", "hasattachment"):
        return lambda message: message.properties["hasAttachments"] == (value.lower() == "true")
    needle = value.casefold()
    return lambda message: needle in _texts(name, message).casefold()


def _compared(compare: Callable[[Any, Any], bool], read: Callable[[Message], Any], wanted: Any) -> Test:
    return lambda message: compare(read(message), wanted)


def _number(text: str) -> int:
    if not text.isdigit():
        raise _bad(f"'{text}' is not a size.")
    return int(text)


def _day(text: str) -> date:
    """`2026-11-01` or `11/01/2026`; whole days."""
    for form in ("%Y-%m-%d", "%m/%d/%Y"):
        try:
            return datetime.strptime(text[:10], form).date()  # noqa: DTZ007
        except ValueError:
            continue
    raise _bad(f"'{text}' is not a date.")


def _texts(name: str, message: Message) -> str:
    """What a property holds; without a property: from, subject and body (graph.md 5.2 [D])."""
    held = message.properties
    if name in _PEOPLE:
        people = [one for field in _PEOPLE[name] for one in _listed(held[field])]
        return "\n".join(f"{one['emailAddress']['name']} {one['emailAddress']['address']}" for one in people)
    if name == "attachment":
        return "\n".join(one.name for one in message.attachments)
    if name == "body":
        return str(held["body"]["content"])
    if name in ("subject", "importance"):
        return str(held[name] or "")
    if name:
        raise _bad(f"'{name}' is not a property that can be searched.")
    return "\n".join([_texts("from", message), _texts("subject", message), _texts("body", message)])


def _listed(who: Any) -> list[dict[str, dict[str, str]]]:
    return who if isinstance(who, list) else [who] if who else []
