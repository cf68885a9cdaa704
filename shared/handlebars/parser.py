"""Reads a template: its tags become blocks, calls and paths, its white space what a reader expects."""

from __future__ import annotations

from collections.abc import Iterator

from shared.handlebars.errors import TemplateProblem
from shared.handlebars.lexer import Tag, Word, tokens
from shared.handlebars.nodes import (
    Block,
    Call,
    Comment,
    Content,
    Literal,
    Mustache,
    Param,
    Path,
    Program,
    Statement,
    Strip,
)
from shared.handlebars.whitespace import settle

MOST_NESTED = 80  # blocks in blocks, links of `else if`, brackets in brackets
_CONSTANTS = {"true": True, "false": False, "null": None, "undefined": None}
_SEGMENTS = ("name", "literal", "up", "here")
_ANY_SEGMENTS = (*_SEGMENTS, "number", "constant")


def compiled(source: str) -> Program:
    """The template, ready to be rendered any number of times. TemplateProblem when it can not be read."""
    program = _Parser(source).whole()
    settle(program)
    return program


def _strip(tag: Tag) -> Strip:
    return Strip(tag.strip_before, tag.strip_after)


class _Parser:
    def __init__(self, source: str) -> None:
        self._tokens: Iterator[str | Tag] = tokens(source)

    def whole(self) -> Program:
        program, ending = self._program(0)
        if ending is not None:
            raise TemplateProblem(f"Line {ending.line}: {_shown(ending)} belongs to no block")
        return program

    def _program(self, depth: int) -> tuple[Program, Tag | None]:
        """Statements up to the tag that ends or divides the block they are in; None at the end of the template."""
        program = Program()
        for token in self._tokens:
            if isinstance(token, str):
                program.body.append(Content(token, token))
            elif token.kind in ("end", "otherwise") or (token.kind == "inverse" and not token.words):
                return program, token
            else:
                program.body.append(self._statement(token, depth))
        return program, None

    def _statement(self, tag: Tag, depth: int) -> Statement:
        if tag.kind == "comment":
            return Comment(_strip(tag))
        if tag.kind in ("block", "inverse"):
            return self._block(tag, depth + 1)
        call, names = _Words(tag).whole()
        if names:
            raise TemplateProblem(f"Line {tag.line}: only a block can name its values with `as`")
        return Mustache(call, tag.kind == "value", _strip(tag))

    def _block(self, tag: Tag, depth: int) -> Block:
        block, end = self._divided(tag, depth)
        if end is None or end.kind != "end":
            raise TemplateProblem(f"Line {tag.line}: the block {_shown(tag)} is not closed")
        closed = _Words(end).name()
        if closed != block.call.path.text:
            raise TemplateProblem(f"Line {end.line}: {block.call.path.text} doesn't match {closed}")
        _close(block, _strip(end))
        return block

    def _divided(self, tag: Tag, depth: int) -> tuple[Block, Tag | None]:
        """A block without its end, and the tag that ends it."""
        if depth > MOST_NESTED:
            raise TemplateProblem(f"Line {tag.line}: more than {MOST_NESTED} blocks stand inside each other")
        call, names = _Words(tag).whole()
        program, ending = self._program(depth)
        program.names = names
        inverse: Program | None = None
        inverse_strip = Strip()
        if ending is not None and ending.kind != "end":
            inverse_strip = _strip(ending)
            if not ending.words:
                inverse, ending = self._program(depth)
            elif tag.kind == "inverse":
                raise TemplateProblem(f"Line {ending.line}: {_shown(ending)} can not stand in an inverse block")
            else:
                chained, ending = self._divided(ending, depth + 1)
                inverse = Program([chained], chained=True)
        block = Block(call, program, inverse, _strip(tag), inverse_strip, inverse_strip)
        if tag.kind == "inverse":
            block.program, block.inverse = inverse, program
        return block, ending


def _close(block: Block, strip: Strip) -> None:
    """The end of a block ends the `else if` in it, too."""
    block.close_strip = strip
    if block.inverse is not None and block.inverse.chained:
        chained = block.inverse.body[0]
        if isinstance(chained, Block):
            _close(chained, strip)


def _shown(tag: Tag) -> str:
    marks = {"block": "#", "inverse": "^", "end": "/", "otherwise": "else "}
    return "{{" + marks.get(tag.kind, "") + "".join(word.text for word in tag.words[:3])[:60].strip() + "}}"


class _Words:
    """Reads the words of one tag."""

    def __init__(self, tag: Tag) -> None:
        self._words, self._line, self._at = tag.words, tag.line, 0

    def whole(self) -> tuple[Call, tuple[str, ...]]:
        """The call a tag makes, and the names a block gives to what it is called with."""
        call = self._call(0)
        names = self._names()
        if self._at < len(self._words):
            raise self._problem()
        return call, names

    def name(self) -> str:
        """The path an end tag names, as it is written."""
        found = self._param(0)
        if self._at < len(self._words) or isinstance(found, Call):
            raise self._problem()
        return found.text

    def _peek(self, ahead: int = 0) -> str:
        at = self._at + ahead
        return self._words[at].kind if at < len(self._words) else ""

    def _next(self) -> Word:
        if self._at >= len(self._words):
            raise TemplateProblem(f"Line {self._line}: an expression is empty or ends too early")
        self._at += 1
        return self._words[self._at - 1]

    def _problem(self) -> TemplateProblem:
        text = self._words[self._at].text if self._at < len(self._words) else "}}"
        return TemplateProblem(f"Line {self._line}: unexpected {text[:60]!r}")

    def _call(self, depth: int) -> Call:
        first = self._param(depth)
        if isinstance(first, Call):
            raise TemplateProblem(f"Line {self._line}: brackets can not stand where a name is expected")
        if isinstance(first, Literal):
            # As in Handlebars a literal in the first place is the name of a value.
            first = Path((first.text,), text=first.text)
        call = Call(first, line=self._line, nested=depth > 0)
        while self._peek() not in ("", "shut", "names"):
            if self._peek() in ("name", "literal") and self._peek(1) == "equals":
                key = self._next().text
                self._at += 1
                call.hash[key] = self._param(depth)
            elif call.hash:
                raise self._problem()
            else:
                call.params.append(self._param(depth))
        return call

    def _param(self, depth: int) -> Param:
        kind = self._peek()
        if kind == "open":
            return self._nested(depth + 1)
        if kind == "text":
            text = self._next().text
            return Literal(text, text)
        if kind == "number":
            text = self._next().text
            return Literal(float(text) if "." in text or len(text) > 300 else int(text), text)
        if kind == "constant":
            text = self._next().text
            return Literal(_CONSTANTS[text], text)
        if kind == "at":
            self._at += 1
            path = self._path()
            path.data, path.text = True, f"@{path.text}"
            return path
        return self._path()

    def _nested(self, depth: int) -> Call:
        if depth > MOST_NESTED:
            raise TemplateProblem(f"Line {self._line}: more than {MOST_NESTED} brackets stand inside each other")
        self._at += 1
        call = self._call(depth)
        if self._peek() != "shut":
            raise self._problem()
        self._at += 1
        return call

    def _path(self) -> Path:
        parts: list[str] = []
        texts: list[str] = []
        depth, scoped = 0, False
        while True:
            # Behind a separator `list.1` and `x.true` are names, too.
            if self._peek() not in (_ANY_SEGMENTS if texts else _SEGMENTS):
                raise self._problem() if self._at < len(self._words) or texts else _empty(self._line)
            word = self._next()
            texts.append(word.text)
            if word.kind != "literal" and word.text in ("..", ".", "this"):
                if parts:
                    raise TemplateProblem(f"Line {self._line}: invalid path {''.join(texts)[:60]}")
                depth += word.text == ".."
                scoped = True
            else:
                parts.append(word.text)
            if self._peek() != "separator":
                break
            texts.append(self._next().text)
        text = "".join(texts)
        return Path(tuple(parts), depth, scoped=scoped, text=text)

    def _names(self) -> tuple[str, ...]:
        """`as |one two|`."""
        if self._peek() != "names":
            return ()
        self._at += 1
        names: list[str] = []
        while self._peek() == "name":
            names.append(self._next().text)
        if self._peek() != "bar" or not names:
            raise self._problem()
        self._at += 1
        return tuple(names)


def _empty(line: int) -> TemplateProblem:
    return TemplateProblem(f"Line {line}: an expression is empty or ends too early")
