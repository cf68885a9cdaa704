"""The text of a message as a caller wishes it (emailengine.md 10, 11.3). Pure; Graph keeps one body only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.html_text import text_of
from shared.messages import cut
from shared.web_html import fragment, html_of, safe, with_pictures

GRAPH_TYPES = {"plain": "text", "html": "html"}


@dataclass(frozen=True)
class TextWish:
    """`kind` is `plain`, `html`, `*` for what there is, or "" for no text. `max_bytes` counts for each part."""

    kind: str = ""
    max_bytes: int | None = None
    web_safe: bool = False
    pictures: bool = False  # put pictures that are attached into the HTML
    fragment: bool = False  # HTML for a page, also where there is plain text only

    @classmethod
    def of(cls, kind: str, max_bytes: int | None, web_safe: bool, pictures: bool, preprocess: bool) -> TextWish:
        """A wish for safe HTML is one for both parts, pictures included."""
        if web_safe:
            return cls("*", max_bytes, True, True, True)
        return cls(kind, max_bytes, False, pictures, preprocess)

    @property
    def body_type(self) -> str:
        """What Graph is asked to make of the body; "" for as it is."""
        return GRAPH_TYPES.get(self.kind, "")

    @property
    def wants_html(self) -> bool:
        return self.kind in ("html", "*")


def text_view(kind: str, content: str, wish: TextWish, pictures: Mapping[str, str]) -> dict[str, Any]:
    """`plain` and `html` as wished, `hasMore`, and `webSafe`. `pictures` are `data:` URIs by content id.

    The limit is applied before pictures are put in and before the HTML is made safe: safe HTML that is cut is not safe
    any more.
    """
    if not wish.kind:
        return {}
    view: dict[str, Any] = {}
    has_more = False
    for name, text in _parts(kind, content, wish).items():
        text, was_cut = cut(text, wish.max_bytes)
        has_more = has_more or was_cut
        if name == "html":
            text = with_pictures(text, pictures) if pictures else text
            text = safe(text) if wish.web_safe else text
        view[name] = text
    return view | {"hasMore": has_more} | ({"webSafe": True} if wish.web_safe else {})


def _parts(kind: str, content: str, wish: TextWish) -> dict[str, str]:
    parts: dict[str, str] = {}
    if wish.kind == "plain" or (wish.kind == "*" and (content or kind == "plain")):
        parts["plain"] = content if kind == "plain" else text_of(content)
    if wish.kind == "html" or (wish.kind == "*" and (kind == "html" or wish.fragment)):
        html = content if kind == "html" else html_of(content)
        parts["html"] = fragment(html) if wish.fragment else html
    return parts
