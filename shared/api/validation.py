"""Turns validation problems into the contract's 400: every problem at once, each with message and key (1.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shared.errors import ApiError, InvalidInput

_TEXTS = {
    "extra_forbidden": "is not allowed",
    "missing": "is required",
    "string_type": "must be a string",
    "string_unicode": "must be a string",
    "string_pattern_mismatch": "fails to match the required pattern",
    "string_too_long": "length must be less than or equal to {max_length} characters long",
    "string_too_short": "is not allowed to be empty",
    "too_short": "must contain at least {min_length} items",
    "literal_error": "must be one of [{expected}]",
    "list_type": "must be an array",
    "dict_type": "must be of type object",
    "model_type": "must be of type object",
    "model_attributes_type": "must be of type object",
    "int_type": "must be a number",
    "int_parsing": "must be a number",
    "int_parsing_size": "must be a safe number",
    "int_from_float": "must be an integer",
    "finite_number": "must be a number",
    "less_than_equal": "must be less than or equal to {le}",
    "greater_than_equal": "must be greater than or equal to {ge}",
    "bytes_type": "must be a string",
}


def answer_for(problems: Sequence[Any]) -> ApiError:
    """The 400 for a list of pydantic's problems."""
    if any(problem["type"] == "json_invalid" for problem in problems):
        return ApiError(400, "Invalid request payload JSON format")
    return InvalidInput([_field(problem) for problem in problems])


def _field(problem: Any) -> dict[str, str]:
    names = [
        part for part in problem["loc"] if isinstance(part, str) and not part.startswith(("function-", "literal["))
    ]
    key = names[-1] if len(names) > 1 or names[:1] not in (["body"], ["query"]) else "value"
    text = _text(problem)
    if text.startswith('"'):
        return {"message": text, "key": text.split('"')[1]}
    return {"message": f'"{key}" {text}', "key": key}


def _text(problem: Any) -> str:
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    template = _TEXTS.get(problem["type"])
    if template is None:
        return str(problem["msg"])
    return template.format(**{"expected": "", **(problem.get("ctx") or {})})
