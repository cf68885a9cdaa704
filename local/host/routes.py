"""HTTP route templates, tried in the order in which the real host tries them.

The host does not rank routes by how specific they are. It goes through the functions by name and
takes the first whose template, constraints and method fit; a wrong method is therefore a 404.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import unquote
from uuid import UUID

from local.host.functions import Function
from local.host.settings import StartRefused

RESERVED = ("admin", "runtime")


def _parses(convert: Callable[[str], object]) -> Callable[[str], bool]:
    def check(value: str) -> bool:
        try:
            convert(value)
        except ValueError:
            return False
        return True

    return check


def _whole(bits: int) -> Callable[[str], bool]:
    limit = 2 ** (bits - 1)
    return lambda value: bool(re.fullmatch(r"[+-]?\d{1,19}", value)) and -limit <= int(value) < limit


CONSTRAINTS: dict[str, Callable[..., bool]] = {
    "int": _whole(32),
    "long": _whole(64),
    "guid": _parses(UUID),
    "bool": lambda value: value.lower() in ("true", "false"),
    "alpha": lambda value: bool(re.fullmatch(r"[A-Za-z]*", value)),
    "double": _parses(float),
    "float": _parses(float),
    "decimal": _parses(float),
    "required": bool,
    "length": lambda value, low, high=None: int(low) <= len(value) <= int(high or low),
    "minlength": lambda value, low: len(value) >= int(low),
    "maxlength": lambda value, high: len(value) <= int(high),
    "min": lambda value, low: _whole(64)(value) and int(value) >= int(low),
    "max": lambda value, high: _whole(64)(value) and int(value) <= int(high),
    "range": lambda value, low, high: _whole(64)(value) and int(low) <= int(value) <= int(high),
    "regex": lambda value, *pattern: bool(re.search(",".join(pattern), value, re.IGNORECASE)),
}


class Rule(NamedTuple):
    """One constraint of a parameter, such as `range(1,5)`."""

    name: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Parameter:
    """A `{...}` of a template."""

    name: str
    rules: tuple[Rule, ...] = ()
    default: str | None = None
    optional: bool = False
    catch_all: bool = False

    @property
    def may_be_missing(self) -> bool:
        """Whether the path may end before this parameter."""
        return self.optional or self.catch_all or self.default is not None

    def accepts(self, value: str) -> bool:
        """Whether every constraint holds."""
        return all(CONSTRAINTS[rule.name](value, *rule.arguments) for rule in self.rules)


class Route:
    """A template under the app's prefix, with the methods it answers."""

    def __init__(self, prefix: str, template: str, methods: Sequence[str] = ()) -> None:
        if template.strip("/").lower().startswith(RESERVED):
            raise StartRefused(f"route '{template}' begins with a reserved word ({', '.join(RESERVED)})")
        self.template = f"{prefix}/{template}" if prefix else template
        if "//" in self.template.removeprefix("/"):
            raise StartRefused(f"route '{self.template}' has two '/' in a row")
        self.methods = frozenset(method.upper() for method in methods)
        self.parameters: list[Parameter] = []
        segments = [segment for segment in self.template.split("/") if segment]
        pattern = "".join(self._segment(segment) for segment in segments)
        self._pattern = re.compile(pattern + "/?", re.IGNORECASE | re.DOTALL)

    def _segment(self, segment: str) -> str:
        """The regular expression for one segment, which may mix text and parameters."""
        pieces = re.split(r"(\{(?:[^{}]|\{\{|\}\})*\})", segment)
        if any(brace in text for text in pieces[::2] for brace in "{}"):
            raise StartRefused(f"route '{self.template}' has unbalanced braces")
        mixed = len(pieces) > 3 or bool(pieces[0]) or bool(pieces[-1])
        body = "".join(
            self._group(piece[1:-1], mixed) if index % 2 else re.escape(piece)
            for index, piece in enumerate(pieces)
        )
        alone = len(pieces) == 3 and not mixed
        return f"(?:/{body})?" if alone and self.parameters[-1].may_be_missing else f"/{body}"

    def _group(self, text: str, mixed: bool) -> str:
        parameter = self._parameter(text)
        name = f"p{len(self.parameters)}"
        self.parameters.append(parameter)
        return f"(?P<{name}>{'.*' if parameter.catch_all else '[^/]+?' if mixed else '[^/]+'})"

    def _parameter(self, text: str) -> Parameter:
        bare = text.lstrip("*")
        head, has_default, default = bare.partition("=")
        name, *rules = re.split(r":(?![^(]*\))", head.removesuffix("?"))
        parsed = [re.fullmatch(r"(\w+)(?:\((.*)\))?", rule) for rule in rules]
        if not name or any(rule is None or rule[1] not in CONSTRAINTS for rule in parsed):
            raise StartRefused(f"route '{self.template}': '{{{text}}}' is not a parameter the host can read")
        return Parameter(
            name=name,
            rules=tuple(Rule(rule[1], _arguments(rule[2])) for rule in parsed if rule),
            default=default if has_default else None,
            optional=head.endswith("?"),
            catch_all=text.startswith("*"),
        )

    def match(self, path: str) -> dict[str, str] | None:
        """The parameters in a path, or None if it does not fit; those without a value are left out."""
        found = self._pattern.fullmatch(path)
        if not found:
            return None
        values = {}
        for index, parameter in enumerate(self.parameters):
            value = found[f"p{index}"] or parameter.default
            if not value:
                continue
            if not parameter.accepts(value):
                return None
            values[parameter.name] = value
        return values

    def allows(self, method: str) -> bool:
        """Whether the method is one of those declared; none declared means all."""
        return not self.methods or method.upper() in self.methods

    def conflicts_with(self, other: "Route") -> bool:
        """Whether the host would drop one of the two: same template and a method in common."""
        same = self.template.strip("/").lower() == other.template.strip("/").lower()
        return same and (not self.methods or not other.methods or bool(self.methods & other.methods))


def _arguments(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",")) if text else ()


class Routes:
    """The HTTP functions of an app by route."""

    def __init__(self, prefix: str, functions: Sequence[Function]) -> None:
        self._entries: list[tuple[Function, Route]] = []
        for function in functions:
            trigger = function.trigger
            route = Route(prefix, trigger.get("route") or function.name, trigger.get("methods") or ())
            for other, taken in self._entries:
                if route.conflicts_with(taken):
                    raise StartRefused(f"{function.name}: its route is that of '{other.name}'")
            self._entries.append((function, route))

    def __iter__(self) -> Iterator[tuple[Function, Route]]:
        return iter(self._entries)

    def find(self, method: str, raw_path: str) -> tuple[Function, dict[str, str]] | None:
        """The first function that fits a still percent-encoded path, and its route parameters."""
        path = decode_path(raw_path)
        for function, route in self._entries:
            values = route.match(path) if route.allows(method) else None
            if values is not None:
                return function, values
        return None


def decode_path(raw_path: str) -> str:
    """The path with its percent-escapes decoded, except `%2F`, which ASP.NET leaves alone."""
    return unquote(re.sub("%2f", lambda found: "%25" + found[0][1:], raw_path, flags=re.IGNORECASE))
