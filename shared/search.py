"""What a search asks of Graph: `$filter` or `$search`, and what is checked here (emailengine.md 11.2). Pure.

`$filter` is exact and complete but knows no recipients and no sizes; `$search` knows those and little else. A search
that needs it for `to`, `cc`, `bcc`, `larger` or `smaller` takes it by itself, and what it can not express is checked
on the messages that come.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.clock import parse_time
from shared.errors import ApiError, InvalidInput

SEARCH_ONLY = ("to", "cc", "bcc", "larger", "smaller")
EVERYTHING = "receivedDateTime gt 1970-01-01T00:00:00.000Z"
NEWEST_FIRST = "receivedDateTime desc"

Message = dict[str, Any]
_Test = Callable[[Message], bool]
_SEARCHABLE = frozenset({*SEARCH_ONLY, "from", "subject", "body", "since", "sentSince", "before", "sentBefore"})
# In this order, so that what Graph is asked never depends on how the caller sorted the terms. Times come first: the
# property that is ordered by has to (graph.md 5.1).
_FILTERABLE = (
    "since sentSince before sentBefore unseen seen draft flagged from subject body emailId threadId labels header"
).split()
_WORD = re.compile(r"[\w.@+-]+")
_SLASH = "\\"


@dataclass(frozen=True)
class SearchQuery:
    """The query options of a listing. `keeps` decides about each message that comes: with `$search` some terms can
    only be checked on it."""

    filter: str = ""
    search: str = ""
    orderby: str = ""
    eventual: bool = False  # needs `ConsistencyLevel: eventual`
    keeps: _Test | None = None

    def unordered(self) -> SearchQuery:
        """The same without an order, for a filter that Graph calls too complex with one (graph.md 5.1)."""
        return SearchQuery(self.filter.removeprefix(f"{EVERYTHING} and "), eventual=self.eventual)


def search_query(terms: Mapping[str, Any], *, outlook: bool = False) -> SearchQuery:
    """The query for the terms of a search; no terms find everything, newest first. `outlook` demands `$search`.

    Raises ApiError 400 `UnsupportedSearchTerm` for what Graph can not search for, and InvalidInput for a text of
    nothing but blanks and quotes.
    """
    terms = {name: value for name, value in terms.items() if value is not None and value != ""}
    for name, value in terms.items():
        if isinstance(value, str) and not _plain(value):
            raise InvalidInput.field(name, f'"{name}" must contain something to search for')
    if not outlook and not any(name in terms for name in SEARCH_ONLY):
        return _filtered(terms)
    for name in terms:
        if name not in _SEARCHABLE and (outlook or name not in _FILTERABLE):
            raise unsupported(f'term "{name}"{" for Outlook Search" if outlook else ""}')
    if not terms:
        return SearchQuery(orderby=NEWEST_FIRST)
    return _searched(terms)


def unsupported(what: str) -> ApiError:
    """The 400 for a term that can not be searched for."""
    return ApiError(400, f"Unsupported search {what}", "UnsupportedSearchTerm")


# -- $filter -----------------------------------------------------------------------------------------------------


def _filtered(terms: Mapping[str, Any]) -> SearchQuery:
    for name in terms:
        if name not in _FILTERABLE:
            raise unsupported(f'term "{name}"')
    clauses = [clause for name in _FILTERABLE if name in terms for clause in _clauses(name, terms[name])]
    if not clauses:
        return SearchQuery(orderby=NEWEST_FIRST)
    if not clauses[0].startswith("receivedDateTime"):
        clauses.insert(0, EVERYTHING)
    eventual = "labels" in terms
    return SearchQuery(" and ".join(clauses), orderby=NEWEST_FIRST, eventual=eventual)


def _clauses(name: str, value: Any) -> list[str]:
    """The parts of a filter that one term becomes."""
    if name == "labels":
        has = [f"categories/any(c:c eq {_literal(one)})" for one in value.get("has") or ()]
        return has + [f"not categories/any(c:c eq {_literal(one)})" for one in value.get("not") or ()]
    if name == "header":
        return [f"internetMessageId eq {_literal(one)}" for one in _message_ids(value)]
    if name == "from":
        quoted = _literal(value)
        return [f"(from/emailAddress/address eq {quoted} or contains(from/emailAddress/name,{quoted}))"]
    return [_CLAUSES[name](value)]


_CLAUSES: Mapping[str, Callable[[Any], str]] = {
    "since": lambda value: f"receivedDateTime gt {value}",
    "sentSince": lambda value: f"receivedDateTime gt {value}",
    "before": lambda value: f"receivedDateTime lt {value}",
    "sentBefore": lambda value: f"receivedDateTime lt {value}",
    "unseen": lambda value: f"isRead eq {'false' if value else 'true'}",
    "seen": lambda value: f"isRead eq {'true' if value else 'false'}",
    "draft": lambda value: f"isDraft eq {'true' if value else 'false'}",
    "flagged": lambda value: f"flag/flagStatus eq '{'flagged' if value else 'notFlagged'}'",
    "subject": lambda value: f"contains(subject,{_literal(value)})",
    "body": lambda value: f"contains(body/content,{_literal(value)})",
    "emailId": lambda value: f"id eq {_literal(value)}",
    "threadId": lambda value: f"conversationId eq {_literal(value)}",
}


def _plain(text: str) -> str:
    """White space and control characters collapsed, double quotes dropped (11.2)."""
    return re.sub(r"[\s\x00-\x1f\x7f]+", " ", text.replace('"', "")).strip()


def _literal(text: str) -> str:
    return "'" + _plain(text).replace("'", "''") + "'"


def _message_ids(headers: Mapping[str, str]) -> list[str]:
    """The Message-IDs asked for; no other header can be searched for."""
    for name in headers:
        if name.strip().lower() != "message-id":
            raise unsupported(f'header "{name}"')
    return [value if value.startswith("<") else f"<{value}>" for value in map(str.strip, headers.values()) if value]


# -- $search -----------------------------------------------------------------------------------------------------


def _searched(terms: Mapping[str, Any]) -> SearchQuery:
    words = [_keywords(name, terms[name]) for name in sorted(_SEARCHABLE & terms.keys())]
    tests = [test for name in _FILTERABLE if name in terms for test in _tests(name, terms[name])]
    keeps = (lambda message: all(test(message) for test in tests)) if tests else None
    return SearchQuery(search=f'"{" AND ".join(words)}"', keeps=keeps)


def _keywords(name: str, value: Any) -> str:
    """One restriction in Graph's search language (graph.md 5.2)."""
    if name in ("larger", "smaller"):
        return f"size{'>' if name == 'larger' else '<'}{value}"
    if name in ("since", "sentSince"):
        return f"sent>={parse_time(value):%m/%d/%Y}"
    if name in ("before", "sentBefore"):
        return f"received<={parse_time(value):%m/%d/%Y}"
    text = _plain(value)
    if _WORD.fullmatch(text):
        return f"{name}:{text}"
    return f'{name}:\\"{text.replace(_SLASH, _SLASH * 2)}\\"'  # a phrase, its quotes escaped (graph.md 5.2)


def _tests(name: str, value: Any) -> list[_Test]:
    """What a term demands of a message that a search found; none for what the search itself settled."""
    if name in ("since", "sentSince"):
        return [lambda message: _received(message) > parse_time(value)]
    if name in ("before", "sentBefore"):
        return [lambda message: _received(message) < parse_time(value)]
    if name == "labels":
        wanted, others = set(value.get("has") or ()), set(value.get("not") or ())
        return [lambda message: wanted <= _categories(message) and not others & _categories(message)]
    if name == "header":
        ids = _message_ids(value)
        return [lambda message: all(message.get("internetMessageId") == one for one in ids)]
    read = _READ.get(name)
    return [lambda message: read(message) == value] if read else []


_READ: Mapping[str, Callable[[Message], Any]] = {
    "unseen": lambda message: not message.get("isRead"),
    "seen": lambda message: bool(message.get("isRead")),
    "draft": lambda message: bool(message.get("isDraft")),
    "flagged": lambda message: (message.get("flag") or {}).get("flagStatus") == "flagged",
    "emailId": lambda message: message.get("id"),
    "threadId": lambda message: message.get("conversationId"),
}


def _received(message: Message) -> datetime:
    return parse_time(message.get("receivedDateTime") or "1970-01-01T00:00:00Z")


def _categories(message: Message) -> set[str]:
    return set(message.get("categories") or ())
