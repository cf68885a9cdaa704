"""What control is told: JSON bodies checked against dataclasses, with errors that say what is wrong."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from json import JSONDecodeError
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from aiohttp import web

from .directory import Principal


class ControlError(Exception):
    """A control request that cannot be done; answered as `{"error": message}`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


async def json_object(request: web.Request) -> dict[str, Any]:
    """The body as JSON object, {} when there is none. Raises ControlError 400."""
    text = await request.text()
    if not text.strip():
        return {}
    try:
        value = await request.json()
    except JSONDecodeError as error:
        raise ControlError(400, f"The body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ControlError(400, "The body must be a JSON object.")
    return value


def required(body: Mapping[str, Any], *names: str) -> tuple[Any, ...]:
    """The values of the names. Raises ControlError 400 listing the missing ones."""
    missing = [name for name in names if body.get(name) is None]
    if missing:
        raise ControlError(400, f"Missing: {', '.join(missing)}.")
    return tuple(body[name] for name in names)


def fits_type(value: object, wanted: Any) -> bool:
    """Whether a JSON value is of the annotated type; only the shapes that the dataclasses here use."""
    origin = get_origin(wanted)
    if origin is Literal:
        return value in get_args(wanted)
    if origin in (Union, types.UnionType):
        return any(fits_type(value, one) for one in get_args(wanted))
    if origin is list:
        return isinstance(value, list) and all(fits_type(one, get_args(wanted)[0]) for one in value)
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, origin or wanted)


def apply_changes(
    target: Any, changes: Mapping[str, Any], *, namespace: dict[str, Any] | None = None
) -> None:
    """Set the fields of a dataclass object. Raises ControlError 400 before anything is changed."""
    hints = get_type_hints(type(target), localns=namespace)
    names = {field.name for field in fields(target)}
    for name, value in changes.items():
        if name not in names:
            raise ControlError(400, f"Unknown: {name}. Known: {', '.join(sorted(names))}.")
        if not fits_type(value, hints[name]):
            raise ControlError(400, f"{name} cannot be {value!r}.")
    for name, value in changes.items():
        setattr(target, name, value)


def known_principal(found: Principal | None, reference: object) -> Principal:
    """The principal found. Raises ControlError 404."""
    if found is None:
        raise ControlError(404, f"No principal {reference!r}.")
    return found


def moment(text: str) -> datetime:
    """An ISO 8601 time as aware UTC. Raises ControlError 400."""
    try:
        value = datetime.fromisoformat(text)
    except ValueError as error:
        raise ControlError(400, f"Not a time: {text!r}.") from error
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def person(value: object) -> dict[str, str]:
    """A mail participant as {"name", "address"}, from an address or such an object. Raises ControlError."""
    if isinstance(value, str):
        return {"name": "", "address": value}
    if isinstance(value, dict) and isinstance(value.get("address"), str):
        return {"name": str(value.get("name") or ""), "address": value["address"]}
    raise ControlError(400, f"Not an address or {{name, address}}: {value!r}.")


def people(value: object) -> list[dict[str, str]]:
    """Several participants; one alone need not be in a list."""
    if value is None:
        return []
    return [person(one) for one in (value if isinstance(value, list) else [value])]
