"""Fills a template with values. Everything it can do is below: no name leads anywhere but into the values given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.handlebars.budget import Budget
from shared.handlebars.errors import TemplateProblem
from shared.handlebars.nodes import Block, Call, Content, Literal, Mustache, Param, Path, Program, Statement
from shared.handlebars.values import entries, escaped, is_empty, is_true, member, text_of

_NOTHING: Any = object()


@dataclass(slots=True)
class _Data:
    """The values behind `@`: those of a loop and of the loops around it; `@root`."""

    values: dict[str, Any]
    outer: _Data | None = None


@dataclass(slots=True)
class _Names:
    """The names that a block gave with `as |one two|`."""

    values: dict[str, Any]
    outer: _Names | None = None


@dataclass(slots=True)
class _Scope:
    """Where a statement stands: its context, the scope that `../` leads to, and what has a name."""

    context: Any
    outer: _Scope | None
    data: _Data
    names: _Names | None = None


@dataclass(slots=True)
class _Arguments:
    """What a helper is called with. `block` is None between plain braces and in brackets."""

    scope: _Scope
    values: list[Any]
    named: dict[str, Any]
    block: Block | None = None


def render(program: Program, context: Mapping[str, Any], *, escape: bool = True, budget: Budget | None = None) -> str:
    """The template with the values of `context` in it; TemplateProblem. With `escape` values are made safe for HTML,
    but for those in three braces."""
    filled = _Renderer(escape, budget or Budget())
    try:
        filled.program(program, _Scope(context, None, _Data({"root": context})))
    except RecursionError:
        raise TemplateProblem("The template is nested too deep") from None
    return "".join(filled.pieces)


@dataclass(slots=True)
class _Renderer:
    escape: bool
    budget: Budget
    pieces: list[str] = field(default_factory=list)

    def program(self, program: Program | None, scope: _Scope) -> None:
        for statement in program.body if program is not None else ():
            self._statement(statement, scope)

    def _statement(self, statement: Statement, scope: _Scope) -> None:
        self.budget.step()
        if isinstance(statement, Content):
            self._write(statement.value)
        elif isinstance(statement, Mustache):
            text = text_of(self._called(statement.call, scope), self.budget)
            self._write(escaped(text) if self.escape and statement.escaped else text)
        elif isinstance(statement, Block):
            self._block(statement, scope)

    def _write(self, text: str) -> None:
        self.budget.write(len(text))
        self.pieces.append(text)

    # -- values ------------------------------------------------------------------------------------------------

    def _value(self, param: Param, scope: _Scope) -> Any:
        if isinstance(param, Literal):
            return param.value
        return self._at(param, scope) if isinstance(param, Path) else self._called(param, scope)

    def _at(self, path: Path, scope: _Scope) -> Any:
        """The value a path leads to."""
        self.budget.step(1 + len(path.parts) + path.depth)
        if path.data:
            return self._at_data(path, scope.data)
        found, parts = self._named(path, scope), path.parts[1:]
        if found is _NOTHING:
            start: _Scope | None = scope
            for _ in range(path.depth):
                start = start.outer if start is not None else None
            found, parts = (start.context if start is not None else None), path.parts
        for part in parts:
            found = member(found, part)
        return found

    @staticmethod
    def _at_data(path: Path, data: _Data) -> Any:
        start: _Data | None = data
        for _ in range(path.depth):
            start = start.outer if start is not None else None
        if start is None or not path.parts:
            return None
        found = start.values.get(path.parts[0])
        for part in path.parts[1:]:
            found = member(found, part)
        return found

    @staticmethod
    def _named(path: Path, scope: _Scope) -> Any:
        """What a block gave the path's first name to; `_NOTHING` when none did."""
        names = scope.names if path.parts and not path.depth and not path.scoped and not path.data else None
        while names is not None:
            if path.parts[0] in names.values:
                return names.values[path.parts[0]]
            names = names.outer
        return _NOTHING

    def _helper(self, call: Call, scope: _Scope) -> Callable[[_Renderer, _Arguments], Any] | None:
        """The helper this calls, if it calls one and not just names a value."""
        path = call.path
        must = call.nested or call.has_arguments
        if path.is_simple and self._named(path, scope) is _NOTHING and path.parts[0] in _HELPERS:
            return _HELPERS[path.parts[0]]
        if must:
            raise TemplateProblem(f'Line {call.line}: missing helper: "{path.text[:60]}"')
        return None

    def _arguments(self, call: Call, scope: _Scope, block: Block | None = None) -> _Arguments:
        values = [self._value(param, scope) for param in call.params]
        named = {name: self._value(param, scope) for name, param in call.hash.items()}
        return _Arguments(scope, values, named, block)

    def _called(self, call: Call, scope: _Scope) -> Any:
        helper = self._helper(call, scope)
        return self._at(call.path, scope) if helper is None else helper(self, self._arguments(call, scope))

    # -- blocks ------------------------------------------------------------------------------------------------

    def _block(self, block: Block, scope: _Scope) -> None:
        helper = self._helper(block.call, scope)
        if helper is not None:
            result = helper(self, self._arguments(block.call, scope, block))
            self._write(text_of(result, self.budget))
            return
        value = self._at(block.call.path, scope)
        if value is None or value is False or value == []:
            self.program(block.inverse, scope)
        elif isinstance(value, list):
            self.each(_Arguments(scope, [value], {}, block))
        else:
            self.inside(block.program, scope if value is True else _inner(scope, value))

    def inside(self, program: Program | None, scope: _Scope, *values: Any) -> None:
        """Runs a block's program in a scope; `values` are what its names stand for."""
        if program is not None and program.names:
            given = dict(zip(program.names, values, strict=False))
            names = {name: given.get(name) for name in program.names}
            scope = _Scope(scope.context, scope.outer, scope.data, _Names(names, scope.names))
        self.program(program, scope)

    def each(self, given: _Arguments) -> None:
        """Runs a block for every entry of a list or an object; its inverse when there is none."""
        block = _block_of(given, "each")
        if not given.values:
            raise TemplateProblem("Must pass iterator to #each")
        found, scope = entries(given.values[0]), given.scope
        for number, (key, value) in enumerate(found):
            self.budget.step()
            own = {"key": key, "index": number, "first": number == 0, "last": number == len(found) - 1}
            data = _Data(scope.data.values | own, scope.data)
            self.inside(block.program, _inner(scope, value, data), value, key)
        if not found:
            self.program(block.inverse, scope)

    def either(self, given: _Arguments, name: str, wanted: bool) -> None:
        """`#if` and `#unless`."""
        block, value = _block_of(given, name), _only(given, name)
        # As in JavaScript's typing of the helper: an empty list is not true here, though it is elsewhere.
        is_zero = isinstance(value, int | float) and not isinstance(value, bool) and value == 0
        holds = is_true(given.named.get("includeZero")) if is_zero else not is_empty(value)
        self.inside(block.program if holds == wanted else block.inverse, given.scope)

    def within(self, given: _Arguments) -> None:
        """`#with`."""
        block, value = _block_of(given, "with"), _only(given, "with")
        if is_empty(value):
            self.program(block.inverse, given.scope)
        else:
            self.inside(block.program, _inner(given.scope, value), value)

    def looked_up(self, given: _Arguments) -> Any:
        """`lookup`: the member whose name is itself a value."""
        if len(given.values) != 2:
            raise TemplateProblem("lookup requires exactly two arguments")
        return member(given.values[0], text_of(given.values[1], self.budget))


def _inner(scope: _Scope, context: Any, data: _Data | None = None) -> _Scope:
    """The scope inside a block. The same context again is no further level for `../`."""
    same = context is scope.context or (
        context == scope.context and isinstance(context, str | int | float) and type(context) is type(scope.context)
    )
    return _Scope(context, scope.outer if same else scope, data or scope.data, scope.names)


def _block_of(given: _Arguments, name: str) -> Block:
    if given.block is None:
        raise TemplateProblem(f"{name} is a block: {{{{#{name} …}}}}…{{{{/{name}}}}}")
    return given.block


def _only(given: _Arguments, name: str) -> Any:
    if len(given.values) != 1:
        raise TemplateProblem(f"#{name} requires exactly one argument")
    return given.values[0]


_HELPERS: Mapping[str, Callable[[_Renderer, _Arguments], Any]] = {
    "if": lambda renderer, given: renderer.either(given, "if", True),
    "unless": lambda renderer, given: renderer.either(given, "unless", False),
    "each": lambda renderer, given: renderer.each(given),
    "with": lambda renderer, given: renderer.within(given),
    "lookup": lambda renderer, given: renderer.looked_up(given),
    "log": lambda _renderer, _given: None,  # what is logged may be anybody's secret
}
