"""The parts of a template that was read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Path:
    """Where a value is found: `parts` of the context `depth` levels up, of the loop's own values (`data`, written
    `@index`), or of a name that a block gave (`as |item|`). `scoped` paths (`this.x`, `./x`) never name a helper."""

    parts: tuple[str, ...]
    depth: int = 0
    data: bool = False
    scoped: bool = False
    text: str = ""

    @property
    def is_simple(self) -> bool:
        """Whether this may as well be the name of a helper."""
        return len(self.parts) == 1 and not self.scoped and not self.depth and not self.data


@dataclass(slots=True)
class Literal:
    """A string, number, boolean or nothing, written in the template."""

    value: Any
    text: str = ""


@dataclass(slots=True)
class Call:
    """What stands between the braces: a path or a helper with its arguments."""

    path: Path
    params: list[Param] = field(default_factory=list)
    hash: dict[str, Param] = field(default_factory=dict)
    nested: bool = False  # in brackets: always a helper
    line: int = 1

    @property
    def has_arguments(self) -> bool:
        return bool(self.params or self.hash)


Param = Path | Literal | Call


@dataclass(slots=True)
class Strip:
    """Whether a tag removes the white space before and after it (`{{~ ~}}`)."""

    open: bool = False
    close: bool = False


@dataclass(slots=True)
class Content:
    """Text. `original` is what was written, `value` what is left of it."""

    original: str
    value: str
    left_stripped: bool = False
    right_stripped: bool = False


@dataclass(slots=True)
class Comment:
    strip: Strip


@dataclass(slots=True)
class Mustache:
    """A value to be written."""

    call: Call
    escaped: bool
    strip: Strip


@dataclass(slots=True)
class Program:
    """Statements in order. `chained`: the body of an `else if`, which is one block without an end of its own."""

    body: list[Statement] = field(default_factory=list)
    names: tuple[str, ...] = ()
    chained: bool = False


@dataclass(slots=True)
class Block:
    """`{{#x}}program{{else}}inverse{{/x}}`."""

    call: Call
    program: Program | None
    inverse: Program | None
    open_strip: Strip
    inverse_strip: Strip
    close_strip: Strip


Statement = Content | Comment | Mustache | Block
