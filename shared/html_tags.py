"""Where the tags of an HTML text are, for changing it in place. One pass, whatever the text. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from typing import NamedTuple

_RAW = frozenset({"script", "style"})  # nothing inside is markup until the closing tag
_WITH_CONTENT = frozenset({"script", "title"})
_NOT_INSIDE = _WITH_CONTENT | {"html", "head", "body", "meta", "base", "link"}
_MARK = re.compile(r"<(?=/?[a-zA-Z]|[!?])")  # any other `<` is text
# Quoted values may hold `>`. Possessive, so that a tag without an end is given up in one pass.
_TAG = re.compile(r"""<(/?)([a-zA-Z][^\s/>]*+)((?:[^>"']|"[^"]*+"|'[^']*+')*+)>""")
_ATTRIBUTE = re.compile(r"""(?<=[\s"'/])([^\s"'=<>/]++)\s*+=\s*+(?:"([^"]*+)"|'([^']*+)'|([^\s"'>]++))""")
_END_OF_BODY = re.compile(r"</body", re.IGNORECASE)


class Tag(NamedTuple):
    """One tag, and where it stands. Its name is "" for markup that never ends: from `start` on nothing is known."""

    name: str
    closes: bool
    start: int
    end: int
    attributes: tuple[int, int] = (0, 0)


class Attribute(NamedTuple):
    """One attribute with its value as a reader sees it, and where the value stands, quotes included."""

    name: str
    value: str
    start: int
    end: int


def tags(html: str) -> Iterator[Tag]:
    """Start and end tags in order; comments are passed over, and so is what scripts and styles hold."""
    at = 0
    while (mark := _MARK.search(html, at)) is not None:
        start = mark.start()
        if html[start + 1] in "!?":
            at = _behind(html, start)
            if not at:
                yield Tag("", False, start, len(html))
                return
            continue
        found = _TAG.match(html, start)
        if found is None:
            yield Tag("", False, start, len(html))
            return
        at, name = found.end(), found[2].lower()
        yield Tag(name, bool(found[1]), start, at, found.span(3))
        if name in _RAW and not found[1]:
            closing = re.compile(f"</{name}", re.IGNORECASE).search(html, at)
            if closing is None:
                yield Tag("", False, at, len(html))
                return
            at = closing.start()


def _behind(html: str, start: int) -> int:
    """The place behind a comment or declaration; 0 when it never ends."""
    mark = "-->" if html.startswith("<!--", start) else ">"
    end = html.find(mark, start + 2)
    return end + len(mark) if end >= 0 else 0


def attributes(html: str, tag: Tag) -> Iterator[Attribute]:
    """The attributes of a tag that have a value, in order."""
    for found in _ATTRIBUTE.finditer(html, *tag.attributes):
        group = found.lastindex or 2
        quotes = 0 if group == 4 else 1
        value = unescape(found[group])
        yield Attribute(found[1].lower(), value, found.start(group) - quotes, found.end(group) + quotes)


def inside_body(html: str) -> tuple[int, int]:
    """Where the content begins and where it ends: inside `<body>`, or behind the head where there is no body tag."""
    start = 0
    for tag in tags(html):
        if tag.name == "body" and not tag.closes:
            start = tag.end
            break
        if tag.name == "html" or (tag.name == "head" and tag.closes):
            start = tag.end
        elif tag.name not in ("head", "meta", "title", "style", "script", "link", "base"):
            break
    end = len(html)
    for closing in _END_OF_BODY.finditer(html, start):
        end = closing.start()
    return start, end


def content_of(html: str) -> str:
    """What the body holds, fit to stand inside another text: no scripts and nothing that belongs into a head, and cut
    where markup begins that never ends."""
    start, end = inside_body(html)
    kept: list[str] = []
    at, hidden = start, ""
    for tag in tags(html):
        if tag.end <= start:
            continue
        if tag.start >= end or not tag.name:
            end = min(end, tag.start)
            break
        if hidden:
            if tag.closes and tag.name == hidden:
                at, hidden = tag.end, ""
            continue
        if tag.name in _NOT_INSIDE:
            kept.append(html[at : tag.start])
            at = tag.end
            hidden = tag.name if tag.name in _WITH_CONTENT and not tag.closes else ""
    return "".join(kept) + (html[at:end] if not hidden else "")
