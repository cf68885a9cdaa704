"""Plain text from HTML, for the text part of a mail that was given as HTML only.

Read with one pass of our own: the standard library's parser takes quadratic time on unclosed comments and tags, and
what it would read here may be megabytes from anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape

_HIDDEN = frozenset({"head", "title", "template"})
_RAW = frozenset({"script", "style"})  # nothing inside is markup until the closing tag
_BLOCKS = frozenset(
    "address article aside blockquote div dl dt dd fieldset figure footer form h1 h2 h3 h4 h5 h6 header hr li main "
    "nav ol p pre section table tr ul".split()
)
_MARK = re.compile(r"<(?=/?[a-zA-Z]|[!?])")  # any other `<` is text
# Quoted values may hold `>`. Possessive, so that a tag without an end is given up in one pass.
_TAG = re.compile(r"""<(/?)([a-zA-Z][^\s/>]*+)((?:[^>"']|"[^"]*+"|'[^']*+')*+)>""")
_HREF = re.compile(r"""(?:^|\s)href\s*+=\s*+(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.IGNORECASE)

Token = tuple[str, str, str]  # kind (text, start, end), name or text, attributes


def _tokens(html: str) -> Iterator[Token]:
    """Text, start tags and end tags in order. Where something is never closed, the rest is text, or hidden as it
    would be in a browser."""
    at = 0
    while (mark := _MARK.search(html, at)) is not None:
        found = mark.start()
        yield "text", html[at:found], ""
        if html.startswith("<!--", found):
            end = html.find("-->", found + 4)
            if end < 0:
                return
            at = end + 3
        elif html.startswith(("<!", "<?"), found):
            end = html.find(">", found)
            if end < 0:
                return
            at = end + 1
        else:
            tag = _TAG.match(html, found)
            if tag is None:
                at = found
                break
            at = tag.end()
            name = tag[2].lower()
            yield "end" if tag[1] else "start", name, tag[3]
            if name in _RAW and not tag[1]:
                closing = re.compile(f"</{name}", re.IGNORECASE).search(html, at)
                if closing is None:
                    return
                at = closing.start()
    yield "text", html[at:], ""


class _Reader:
    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._hidden = 0
        self._link = ""

    def start(self, tag: str, attributes: str) -> None:
        if tag in _HIDDEN:
            self._hidden += 1
        elif tag == "br":
            self.pieces.append("\n")
        elif tag == "li":
            self.pieces.append("\n* ")
        elif tag in _BLOCKS:
            self.pieces.append("\n\n" if tag == "p" else "\n")
        elif tag in ("td", "th"):
            self.pieces.append(" ")
        elif tag == "a":
            href = _HREF.search(attributes)
            self._link = unescape(next(filter(None, href.groups()), "")) if href else ""

    def end(self, tag: str) -> None:
        if tag in _HIDDEN:
            self._hidden = max(0, self._hidden - 1)
        elif tag in _BLOCKS:
            self.pieces.append("\n\n" if tag == "p" else "\n")
        elif tag == "a":
            if self._link.startswith(("http://", "https://")) and self._link not in "".join(self.pieces[-3:]):
                self.pieces.append(f" <{self._link}>")
            self._link = ""

    def text(self, text: str) -> None:
        if not self._hidden:
            self.pieces.append(re.sub(r"\s+", " ", unescape(text)))


def text_of(html: str) -> str:
    """The text a reader of the HTML would see, with paragraphs, list marks and link targets."""
    reader = _Reader()
    for kind, content, attributes in _tokens(html):
        if kind == "text":
            reader.text(content)
        elif kind == "start":
            reader.start(content, attributes)
        else:
            reader.end(content)
    lines = [line.strip() for line in "".join(reader.pieces).split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
