"""Values as a template sees them: what counts as empty, what a name leads to, how a value is written.

They are JSON, and behave as in JavaScript, for which the templates were written.
"""

from __future__ import annotations

import math
from typing import Any

from shared.handlebars.budget import Budget
from shared.handlebars.errors import TemplateProblem

_ESCAPES = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;", "`": "&#x60;", "=": "&#x3D;"}
)
_LARGEST_INDEX = 2**32 - 1
_DEEPEST = 50


def escaped(text: str) -> str:
    """The text as it may stand in HTML, in the spelling of Handlebars."""
    return text.translate(_ESCAPES)


def is_true(value: Any) -> bool:
    """Whether JavaScript takes the value for true: everything but nothing, "", 0 and not-a-number."""
    if isinstance(value, list | dict):
        return True
    return bool(value) and not (isinstance(value, float) and math.isnan(value))


def is_empty(value: Any) -> bool:
    """What `#with` passes over: no value, "", false and an empty list; not 0."""
    if isinstance(value, list):
        return not value
    is_zero = isinstance(value, int | float) and not isinstance(value, bool) and value == 0
    return not is_true(value) and not is_zero


def member(parent: Any, name: str) -> Any:
    """What a name leads to inside a value; None for what is not its own."""
    if isinstance(parent, dict):
        return parent.get(name) if name != "__proto__" else None
    if isinstance(parent, list | str):
        if name == "length":
            return len(parent)
        if name.isascii() and name.isdigit() and len(name) < 10 and str(int(name)) == name:
            return parent[int(name)] if int(name) < len(parent) else None
    return None


def entries(value: Any) -> list[tuple[Any, Any]]:
    """What `#each` goes through: positions or names, each with its value, in JavaScript's order."""
    if isinstance(value, list):
        return list(enumerate(value))
    if not isinstance(value, dict):
        return []
    keys = [key for key in value if key != "__proto__"]
    numbers = sorted((key for key in keys if _is_index(key)), key=int)
    return [(key, value[key]) for key in [*numbers, *(key for key in keys if not _is_index(key))]]


def _is_index(key: str) -> bool:
    is_number = key.isascii() and key.isdigit() and len(key) <= 10 and (key == "0" or key[0] != "0")
    return is_number and int(key) < _LARGEST_INDEX


def text_of(value: Any, budget: Budget, depth: int = 0) -> str:
    """The value as it is written."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return number_text(value)
    if isinstance(value, list):
        if depth >= _DEEPEST:
            raise TemplateProblem(f"A list is nested more than {_DEEPEST} deep")
        budget.step(len(value))
        return ",".join(text_of(one, budget, depth + 1) for one in value)
    return "[object Object]" if isinstance(value, dict) else str(value)


def number_text(number: float) -> str:
    """A number as JavaScript writes it: without `.0`, with an exponent from 1e21 up and below 1e-6."""
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    if number == 0:
        return "0"
    if 1e-6 <= abs(number) < 1e21:
        from decimal import Decimal

        return format(Decimal(repr(number)), "f").removesuffix(".0")
    digits, _, exponent = repr(number).partition("e")
    return f"{digits.removesuffix('.0')}e{int(exponent):+d}"
