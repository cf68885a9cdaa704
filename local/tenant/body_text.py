"""Conversion between html and text bodies, and the preview (graph.md 2.4, 3.1 [D])."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

PREVIEW_CHARACTERS = 255
_BLOCKS = {"p", "div", "tr", "li", "h1", "h2", "h3", "h4", "h5", "h6", "table", "ul", "ol", "blockquote"}
_SILENT = {"head", "style", "script", "title"}


class _TextCollector(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._silent_depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SILENT:
            self._silent_depth += 1
        elif tag == "br":
            self.parts.append("\r\n")
        elif tag in _BLOCKS:
            self._new_line()

    def handle_endtag(self, tag: str) -> None:
        if tag in _SILENT:
            self._silent_depth = max(0, self._silent_depth - 1)
        elif tag in _BLOCKS:
            self._new_line()

    def handle_data(self, data: str) -> None:
        if not self._silent_depth:
            self.parts.append(re.sub(r"[ \t\r\n]+", " ", data))

    def _new_line(self) -> None:
        if self.parts and not self.parts[-1].endswith("\n"):
            self.parts.append("\r\n")


def html_to_text(source: str) -> str:
    """The readable text of an html body, blocks on lines of their own."""
    collector = _TextCollector()
    collector.feed(source)
    collector.close()
    lines = "".join(collector.parts).split("\r\n")
    return "\r\n".join(line.strip() for line in lines).strip()


def text_to_html(source: str) -> str:
    """An html document showing `source`, lines kept."""
    lines = html.escape(source, quote=False).replace("\r\n", "\n").split("\n")
    return (
        '<html><head>\r\n<meta http-equiv="Content-Type" content="text/html; charset=utf-8"></head>'
        '<body><div class="PlainText">' + "<br>\r\n".join(lines) + "</div></body></html>"
    )


def converted(body: dict[str, str], wanted: str) -> dict[str, str]:
    """`body` in the wanted contentType; the same object when it already has it."""
    if body["contentType"] == wanted:
        return body
    change = html_to_text if wanted == "text" else text_to_html
    return {"contentType": wanted, "content": change(body["content"])}


def preview(body: dict[str, str]) -> str:
    """The bodyPreview: the first 255 characters as text."""
    text = body["content"] if body["contentType"] == "text" else html_to_text(body["content"])
    return text.strip()[:PREVIEW_CHARACTERS]
