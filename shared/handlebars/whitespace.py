"""White space as Handlebars treats it: `~` removes it, and a line with nothing but a block tag or a comment goes.

Only the ends of a text are looked at, without expressions that could backtrack.
"""

from __future__ import annotations

from shared.handlebars.nodes import Block, Comment, Content, Mustache, Program, Statement

_SPACE = " \t\n\v\f\r\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"  # noqa: E501
Body = list[Statement]


def settle(program: Program, *, root: bool = True) -> None:
    """Removes what is not to be seen."""
    body = program.body
    for at, statement in enumerate(body):
        if isinstance(statement, Block):
            _settle_block(statement)
            _around_block(body, at, statement, root)
        elif isinstance(statement, Mustache | Comment):
            if statement.strip.close:
                _omit_right(body, at + 1, everything=True)
            if statement.strip.open:
                _omit_left(body, at - 1, everything=True)
            if isinstance(statement, Comment) and _space_before(body, at, root) and _space_after(body, at, root):
                _omit_right(body, at + 1)
                _omit_left(body, at - 1)


def _around_block(body: Body, at: int, block: Block, root: bool) -> None:
    first = block.program or block.inverse
    second = block.inverse or block.program
    if first is None or second is None:
        return
    inner = block.inverse if block.program is not None else None
    divided = inner
    if inner is not None and inner.chained and isinstance(inner.body[0], Block):
        divided = inner.body[0].program
    opens_line = _space_after(first.body, -1, False) and _space_before(body, at, root)
    ends_line = _space_before((divided or first).body, None, False) and _space_after(body, at, root)
    if block.close_strip.close:
        _omit_right(body, at + 1, everything=True)
    if block.open_strip.open:
        _omit_left(body, at - 1, everything=True)
    if opens_line:
        _omit_right(first.body, 0)
        _omit_left(body, at - 1)
    if ends_line:
        _omit_right(body, at + 1)
        _omit_left(second.body, None)


def _settle_block(block: Block) -> None:
    for inner in (block.program, block.inverse):
        if inner is not None:
            settle(inner, root=False)
    program = block.program or block.inverse
    inverse = block.inverse if block.program is not None else None
    if program is None:
        return
    if block.open_strip.close:
        _omit_right(program.body, 0, everything=True)
    if inverse is None:
        if block.close_strip.open:
            _omit_left(program.body, None, everything=True)
        return
    first, last = _ends_of(inverse)
    if block.inverse_strip.open:
        _omit_left(program.body, None, everything=True)
    if block.inverse_strip.close:
        _omit_right(first.body, 0, everything=True)
    if block.close_strip.open:
        _omit_left(last.body, None, everything=True)
    if _space_before(program.body, None, False) and _space_after(first.body, -1, False):
        _omit_left(program.body, None)
        _omit_right(first.body, 0)


def _ends_of(inverse: Program) -> tuple[Program, Program]:
    """The first and the last of the programs behind `else if`."""
    first = last = inverse
    if inverse.chained and isinstance(inverse.body[0], Block):
        first = inverse.body[0].program or inverse
    while last.chained and isinstance(last.body[-1], Block):
        last = last.body[-1].inverse or last.body[-1].program or last
        if not last.chained:
            break
    return first, last


def _content(body: Body, at: int | None) -> Content | None:
    """The text at a place, the last one for None; None when there is something else or nothing."""
    at = len(body) - 1 if at is None else at
    found = body[at] if 0 <= at < len(body) else None
    return found if isinstance(found, Content) else None


def _space_before(body: Body, at: int | None, root: bool) -> bool:
    """Whether what stands before is the end of a line, or nothing at all."""
    at = len(body) if at is None else at
    if at == 0:
        return root
    before = _content(body, at - 1)
    if before is None:
        return False
    text = before.original
    space = text[len(text.rstrip(_SPACE)) :]
    return "\n" in space or (root and at == 1 and len(space) == len(text))


def _space_after(body: Body, at: int, root: bool) -> bool:
    """Whether what stands behind is the beginning of a new line, or nothing at all."""
    if at + 1 >= len(body):
        return root
    after = _content(body, at + 1)
    if after is None:
        return False
    text = after.original
    space = text[: len(text) - len(text.lstrip(_SPACE))]
    return "\n" in space or (root and at + 2 >= len(body) and len(space) == len(text))


def _omit_right(body: Body, at: int, *, everything: bool = False) -> None:
    """Takes white space off the beginning of the text at this place: all of it, or up to the end of the line."""
    text = _content(body, at)
    if text is None or (not everything and text.right_stripped):
        return
    before = text.value
    if everything:
        text.value = before.lstrip(_SPACE)
    else:
        text.value = before.lstrip(" \t").removeprefix("\r").removeprefix("\n")
    text.right_stripped = text.value != before


def _omit_left(body: Body, at: int | None, *, everything: bool = False) -> None:
    """Takes white space off the end of the text at this place: all of it, or what stands in the last line."""
    text = _content(body, at) if at is None or at >= 0 else None
    if text is None or (not everything and text.left_stripped):
        return
    before = text.value
    text.value = before.rstrip(_SPACE) if everything else before.rstrip(" \t")
    text.left_stripped = text.value != before
