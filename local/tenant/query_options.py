"""Query options and Prefer headers of a request, checked as Graph checks them (graph.md 2.4, 5.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from .errors import GraphError
from .filter_language import Filter, parse_filter, unknown_property

DEFAULT_PAGE = 10
LARGEST_PAGE = 1000


@dataclass(slots=True)
class Preferences:
    """What the Prefer headers ask for, and what was done about it (graph.md 2.4 [D])."""

    immutable_ids: bool = False
    body_type: str | None = None
    page_size: int | None = None
    applied: list[str] = field(default_factory=list)


def read_preferences(values: list[str]) -> Preferences:
    """The preferences in all Prefer headers of a request; unknown ones are ignored."""
    wanted = Preferences()
    for text in values:
        for name, value in re.findall(r"([\w.\-]+)\s*(?:=\s*\"?([^\",;]*)\"?)?", text):
            _take_preference(wanted, name.lower(), value.strip())
    return wanted


def _take_preference(wanted: Preferences, name: str, value: str) -> None:
    if name == "idtype" and value.lower() == "immutableid":
        wanted.immutable_ids = True
        wanted.applied.append('IdType="ImmutableId"')
    elif name == "outlook.body-content-type" and value.lower() in ("text", "html"):
        wanted.body_type = value.lower()
        wanted.applied.append(f'outlook.body-content-type="{wanted.body_type}"')
    elif name == "odata.maxpagesize" and value.isdigit() and int(value) > 0:
        wanted.page_size = int(value)
        wanted.applied.append(f"odata.maxpagesize={value}")


@dataclass(slots=True)
class Order:
    path: str
    descending: bool


@dataclass(slots=True)
class Expansion:
    """One `$expand` entry: the navigation property and the options in its brackets."""

    name: str
    options: dict[str, str]


@dataclass(slots=True)
class ListQuery:
    """The checked options of a list request."""

    select: list[str] | None
    top: int
    skip: int
    order: list[Order]
    filter: Filter | None
    expand: list[Expansion]
    count: bool


def option(options: Mapping[str, str], name: str) -> str | None:
    """The value of `$name`, written in any case; None when absent."""
    for key, value in options.items():
        if key.lower() == "$" + name:
            return value
    return None


def read_list_query(options: Mapping[str, str], known: frozenset[str], type_name: str) -> ListQuery:
    """The options of a list request. Raises the 400s of graph.md 4 and 5, and 501 for $search."""
    if option(options, "search") is not None:
        raise not_emulated("$search")
    written = option(options, "filter")
    query = ListQuery(
        select=read_select(options, known, type_name),
        top=_number(options, "top", DEFAULT_PAGE),
        skip=_number(options, "skip", 0),
        order=_read_order(option(options, "orderby") or "", known, type_name),
        filter=parse_filter(written, known, type_name) if written else None,
        expand=read_expand(option(options, "expand") or "", known, type_name),
        count=(option(options, "count") or "").lower() == "true",
    )
    if query.filter is not None:
        _check_order_against_filter(query.order, query.filter)
    return query


def not_emulated(what: str) -> GraphError:
    """The honest answer for parts of Graph this stand-in does not have."""
    return GraphError(501, "NotImplemented", f"The local tenant does not emulate {what}.")


def read_select(options: Mapping[str, str], known: frozenset[str], type_name: str) -> list[str] | None:
    """The selected property names as Graph spells them; None without $select."""
    text = option(options, "select")
    if not text:
        return None
    spelling = {name.lower(): name for name in known}
    chosen = []
    for name in (part.strip() for part in text.split(",")):
        if name and name.lower() not in spelling:
            raise unknown_property(name, type_name)
        if name:
            chosen.append(spelling[name.lower()])
    return chosen


def read_expand(text: str, known: frozenset[str], type_name: str) -> list[Expansion]:
    """`attachments($select=id,name),singleValueExtendedProperties($filter=...)` taken apart."""
    found = []
    for part in _split_outside_brackets(text, ","):
        name, _, inside = part.partition("(")
        inside = inside.strip().removesuffix(")")
        if name.strip() not in known:
            raise unknown_property(name.strip(), type_name)
        pairs = (entry.partition("=") for entry in _split_outside_brackets(inside, ";"))
        found.append(Expansion(name.strip(), {key.strip().lower(): value for key, _, value in pairs}))
    return found


def _split_outside_brackets(text: str, separator: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for index, letter in enumerate(text + separator):
        depth += (letter == "(") - (letter == ")")
        if letter == separator and depth <= 0:
            parts.append(text[start:index].strip())
            start = index + 1
    return [part for part in parts if part]


def _number(options: Mapping[str, str], name: str, default: int) -> int:
    text = option(options, name)
    if text is None:
        return default
    smallest = 1 if name == "top" else 0
    if not text.strip().isdigit() or int(text) < smallest:
        raise GraphError(400, "BadRequest", f"Invalid value '{text}' for ${name} query option found.")
    if name == "top" and int(text) > LARGEST_PAGE:
        # graph.md 4, notes [P]; the wording is assumed.
        message = f"The limit of '{LARGEST_PAGE}' for Top query has been exceeded. The value is '{text}'."
        raise GraphError(400, "BadRequest", message)
    return int(text)


def _read_order(text: str, known: frozenset[str], type_name: str) -> list[Order]:
    spelling = {name.lower(): name for name in known}
    order = []
    for part in (piece.split() for piece in text.split(",") if piece.strip()):
        first, _, rest = part[0].partition("/")
        if first.lower() not in spelling:
            raise unknown_property(first, type_name)
        path = spelling[first.lower()] + (f"/{rest}" if rest else "")
        order.append(Order(path, len(part) > 1 and part[1].lower() == "desc"))
    return order


def _check_order_against_filter(order: list[Order], written: Filter) -> None:
    """graph.md 5.1 [D]: ordered properties come first in the filter, in the same order."""
    filtered = list(dict.fromkeys(written.paths))
    wanted = [entry.path for entry in order]
    if filtered[: len(wanted)] != wanted:
        message = "The restriction or sort order is too complex for this operation."
        raise GraphError(400, "InefficientFilter", message)
