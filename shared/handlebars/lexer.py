"""Takes a template apart into text and tags, and a tag into its words. One pass, linear in the template."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from shared.handlebars.errors import TemplateProblem

MOST_WORDS = 50_000  # tags and the words in them, together
# `~` may stand inside the braces on both sides. The names follow the Handlebars language.
_OPENING = re.compile(
    r"\{\{(?P<strip>~?)(?:"
    r"(?P<partial>\#?>)|(?P<block>\#)|(?P<end>/)|(?P<long_comment>!--)|(?P<comment>!)|(?P<unescaped>\{)|(?P<plain>&)"
    r"|(?P<inverse>\^)|\s*(?P<otherwise>else\b)|)"
)
_KINDS = "partial block end long_comment comment unescaped plain inverse otherwise".split()
_WORD = re.compile(
    r"""(?P<close>\}?~?\}\})|(?P<open>\()|(?P<shut>\))|(?P<equals>=)|(?P<up>\.\.)|(?P<here>\.(?=[=~}\s/.)\]|]))"""
    r"""|(?P<separator>[/.])|(?P<names>as\s+\|)|(?P<bar>\|)|(?P<at>@)|(?P<decorator>\*)"""
    r"""|(?P<constant>(?:true|false|undefined|null)(?=[~}\s)\]]))|(?P<number>-?[0-9]+(?:\.[0-9]+)?(?=[~}\s)\]]))"""
    r"""|(?P<name>[^\s!"\#%-,./;->@\[-^`{-~]+(?=[=~}\s/.)\]|]))"""
)
_LONG_END, _SHORT_END = re.compile(r"--~?\}\}"), re.compile(r"~?\}\}")
_SPACE = re.compile(r"\s*")


@dataclass(slots=True)
class Word:
    """One word of a tag."""

    kind: str
    text: str


@dataclass(slots=True)
class Tag:
    """One tag: its kind (`value`, `unescaped`, `block`, `end`, `inverse`, `otherwise`, `comment`, `partial`), its
    words, and whether it strips."""

    kind: str
    words: list[Word]
    strip_before: bool
    strip_after: bool
    line: int


class _Lexer:
    def __init__(self, source: str) -> None:
        self._source, self._at, self._words_seen = source, 0, 0
        self._line, self._counted = 1, 0

    def tokens(self) -> Iterator[str | Tag]:
        """Text and tags in order."""
        while self._at < len(self._source):
            start = self._source.find("{{", self._at)
            if start < 0:
                yield self._source[self._at :]
                return
            before = self._source[self._at : start]
            if before.endswith("\\") and not before.endswith("\\\\"):
                yield before[:-1] + self._escaped(start)
                continue
            if before.endswith("\\\\"):
                before = before[:-1]
            if before:
                yield before
            yield self._tag(start)

    def _escaped(self, start: int) -> str:
        """The text of a tag written with a backslash before it, and what follows up to the next tag."""
        end = self._source.find("{{", start + 2)
        end = len(self._source) if end < 0 else end
        for marks in ("\\\\", "\\"):
            if self._source.endswith(marks, start + 2, end):
                end -= len(marks)
                break
        self._at = end
        return self._source[start:end]

    def _tag(self, start: int) -> Tag:
        self._count()
        self._line += self._source.count("\n", self._counted, start)
        self._counted = start
        if self._source.startswith("{{{{", start):
            raise self._problem("raw blocks ({{{{…}}}}) are not available")
        opening = _OPENING.match(self._source, start)
        assert opening is not None  # the expression matches whatever follows two braces
        kind = next((name for name in _KINDS if opening[name]), "value")
        self._at = opening.end()
        before = bool(opening["strip"])
        if kind in ("comment", "long_comment"):
            return Tag("comment", [], before, self._comment(opening), self._line)
        if kind == "partial":
            raise self._problem("partials ({{> …}}) are not available")
        words, closing = self._words()
        if (kind == "unescaped") != (closing.count("}") == 3):
            raise self._problem("the braces that open and close an expression differ")
        return Tag("unescaped" if kind == "plain" else kind, words, before, "~" in closing, self._line)

    def _comment(self, opening: re.Match[str]) -> bool:
        """Goes behind a comment; whether it strips what follows. One that begins with two dashes may hold braces."""
        is_long = bool(opening["long_comment"])
        # `{{!--}}` is whole: the dashes that open may be those that close.
        end = (_LONG_END if is_long else _SHORT_END).search(self._source, self._at - 2 if is_long else self._at)
        if end is None:
            raise self._problem("a comment is not closed")
        self._at = end.end()
        return "~" in end[0]

    def _words(self) -> tuple[list[Word], str]:
        """The words up to the closing braces, and these. `}}}` closes only what `{{{` opened."""
        words: list[Word] = []
        while True:
            self._at = _SPACE.match(self._source, self._at).end()  # type: ignore[union-attr]
            word = self._quoted() or self._bracketed() or self._plain()
            if word.kind == "close":
                return words, word.text
            self._count()
            words.append(word)

    def _count(self) -> None:
        self._words_seen += 1
        if self._words_seen > MOST_WORDS:
            raise TemplateProblem(f"A template can have at most {MOST_WORDS} expressions and words in them")

    def _quoted(self) -> Word | None:
        mark = self._source[self._at : self._at + 1]
        if not mark or mark not in "\"'":
            return None
        return Word("text", self._until(mark).replace(f"\\{mark}", mark))

    def _bracketed(self) -> Word | None:
        """`[any characters]`: a name that is taken as it stands."""
        if not self._source.startswith("[", self._at):
            return None
        return Word("literal", self._until("]").replace("\\]", "]"))

    def _until(self, mark: str) -> str:
        """What stands from behind this character to the next mark that has no backslash before it."""
        start = self._at + 1
        end = self._source.find(mark, start)
        while end > 0 and self._source[end - 1] == "\\":
            end = self._source.find(mark, end + 1)
        if end < 0:
            raise self._problem(f"{mark} is missing")
        self._at = end + 1
        return self._source[start:end]

    def _plain(self) -> Word:
        found = _WORD.match(self._source, self._at)
        if found is None:
            if self._at >= len(self._source):
                raise self._problem("an expression is not closed")
            raise self._problem(f"unexpected {self._source[self._at]!r}")
        self._at = found.end()
        return Word(str(found.lastgroup), found[0])

    def _problem(self, text: str) -> TemplateProblem:
        return TemplateProblem(f"Line {self._line}: {text}")


def tokens(source: str) -> Iterator[str | Tag]:
    """The template's text and tags in order. TemplateProblem for what is no template."""
    return _Lexer(source).tokens()
