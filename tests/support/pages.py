"""Reads the HTML pages of the hosted sign-in as a person would: what they say, where they lead."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

from tests.support.application import Answer

_VOID = frozenset({"meta", "input", "br", "img", "link", "hr"})


@dataclass
class Form:
    """One form: where it goes, its hidden fields, the words on its button."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)
    button: str = ""


class Page(HTMLParser):
    """One page. `texts` are its paragraphs, `elements` the tags that are really there."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(convert_charrefs=True)
        self.status, self.headers, self.source = answer.status, answer.headers, answer.body.decode()
        self.title, self.heading, self.target = "", "", ""
        self.texts: list[str] = []
        self.links: list[str] = []
        self.forms: list[Form] = []
        self.elements: list[str] = []
        self._open: list[str] = []
        self.feed(self.source)
        self.close()
        self.texts = [" ".join(text.split()) for text in self.texts]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.elements.append(tag)
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "p":
            self.texts.append("")
        elif tag == "a":
            self.links.append(given.get("href", ""))
        elif tag == "meta" and given.get("http-equiv") == "refresh":
            self.target = given["content"].partition("url=")[2]
        elif tag == "form":
            self.forms.append(Form(given.get("action", ""), given.get("method", "get")))
        elif tag == "input" and self.forms:
            self.forms[-1].fields[given["name"]] = given.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if "title" in self._open:
            self.title += data
        elif "h1" in self._open:
            self.heading += data
        elif "button" in self._open and self.forms:
            self.forms[-1].button += data
        elif "p" in self._open:
            self.texts[-1] += data
