"""Field types of the contract: its lenient conversions and its limits (emailengine.md 1.4)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from shared.clock import iso, parse_time

_TRUE = {"true", "y", "1", "yes", "on"}
_FALSE = {"false", "n", "0", "no", "off"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EMAIL = re.compile(r"[^\s@<>\"(),:;\[\]\\\x00-\x1f\x7f]+@[^\s@<>\"(),:;\[\]\\\x00-\x1f\x7f]+")


class Input(BaseModel):
    """A request body or query: unknown fields are errors, `null` and `[]` stand for an empty object."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=False)

    @model_validator(mode="before")
    @classmethod
    def _empty_body(cls, value: Any) -> Any:
        # PHP clients send `null` or `[]` where they mean an empty object (emailengine.md 1.1).
        return {} if value is None or value == [] else value

    def given(self) -> dict[str, Any]:
        """The fields the caller gave, by their wire names."""
        return self.model_dump(exclude_unset=True, by_alias=True)


def boolean(value: Any) -> bool:
    """The contract's lenient booleans; ValueError for anything else."""
    if isinstance(value, str) and value.strip().lower() in _TRUE | _FALSE:
        return value.strip().lower() in _TRUE
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    raise ValueError("must be a boolean")


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return int(value) if isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,15}", value.strip()) else value


def _empty_is_absent(value: Any) -> Any:
    return None if value == "" else value


def _email(value: str) -> str:
    if not _EMAIL.fullmatch(value) or len(value) > 320 or ".." in value.rpartition("@")[2]:
        raise ValueError("must be a valid email")
    local, _, domain = value.rpartition("@")
    try:
        domain.encode("idna")
        local.encode("ascii")
    except UnicodeError:
        # Graph's MIME form has no way to carry such a local part, and no mail server finds such a domain.
        raise ValueError("must be a valid email, with a plain part before the @") from None
    return value


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        sound = False
    if not sound or any(ord(ch) <= 32 or ord(ch) == 127 for ch in value):
        raise ValueError("must be a valid uri with a scheme matching the http|https pattern")
    return value


def _moment(value: Any) -> str:
    """ISO 8601 text or epoch milliseconds, as ISO text."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("must be a valid date")
    try:
        if isinstance(value, str) and not re.fullmatch(r"\d{1,16}", value):
            return iso(parse_time(value))
        return iso(_EPOCH + timedelta(milliseconds=int(value) if isinstance(value, str) else value))
    except (ValueError, OverflowError):
        raise ValueError("must be a valid date") from None


def _moment_or_now(value: Any) -> str:
    return iso(datetime.now(UTC)) if value == "now" else _moment(value)


def _one_or_many(value: Any) -> Any:
    """*Single* fields accept one value instead of an array."""
    return value if isinstance(value, list) or value is None else [value]


@dataclass(frozen=True)
class Lenient:
    """A conversion before the check, and what it takes beyond the field's own type, for the API's description."""

    convert: Callable[[Any], Any]
    also: Callable[[dict[str, Any]], list[dict[str, Any]]]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.convert, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        shown = handler(schema)
        return either(shown, *self.also(shown))


def either(*schemas: dict[str, Any]) -> dict[str, Any]:
    """One schema that any of these satisfies; alternatives inside them come up one level."""
    flat: list[dict[str, Any]] = []
    for schema in schemas:
        flat += [one for one in (schema["anyOf"] if set(schema) == {"anyOf"} else [schema]) if one not in flat]
    return {"anyOf": flat} if len(flat) > 1 else flat[0]


def _entry(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The entry of a list that may also stand alone."""
    return [one["items"] for one in schema.get("anyOf", [schema]) if one.get("type") == "array"]


def _empty(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The empty text, where the field's own type does not take it anyhow."""
    special = {"pattern", "format", "minLength", "enum"}
    plain = [one for one in schema.get("anyOf", [schema]) if one.get("type") == "string" and not special & set(one)]
    return [] if plain else [{"type": "string", "maxLength": 0}]


_FLAGS = {"type": "boolean"}, {"type": "string", "pattern": "^(?:true|false|[YyNn]|[Yy]es|[Nn]o|on|off|0|1)$"}
_MOMENTS = (
    {"type": "string", "format": "date-time"},
    {"type": "string", "pattern": r"^[12]\d{3}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])$"},
    {"type": "integer", "minimum": -62135596800000, "maximum": 253402300799999},
)

Boolean = Annotated[bool, BeforeValidator(boolean), WithJsonSchema({"anyOf": [*_FLAGS, {"enum": [0, 1]}]})]
Number = Annotated[int, BeforeValidator(_number)]
Trimmed = StringConstraints(strip_whitespace=True)
Email = Annotated[
    str, Trimmed, AfterValidator(_email), WithJsonSchema({"type": "string", "format": "email", "maxLength": 320})
]
Url = Annotated[
    str,
    StringConstraints(max_length=4096),
    AfterValidator(_url),
    WithJsonSchema({"type": "string", "format": "uri", "pattern": "^https?://", "maxLength": 4096}),
]
Moment = Annotated[str, BeforeValidator(_moment), WithJsonSchema({"anyOf": [*_MOMENTS]})]
MomentOrNow = Annotated[str, BeforeValidator(_moment_or_now), WithJsonSchema({"anyOf": [{"const": "now"}, *_MOMENTS]})]
Text256 = Annotated[str, StringConstraints(max_length=256)]
_LINE = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$"
Name = Annotated[str, StringConstraints(max_length=256, strip_whitespace=True, pattern=_LINE)]
AccountId = Annotated[str, StringConstraints(max_length=256, min_length=1, strip_whitespace=True)]
Absent = Lenient(_empty_is_absent, _empty)
Single = Lenient(_one_or_many, _entry)


class Address(Input):
    """One recipient or sender."""

    name: Annotated[Text256 | None, Absent] = None
    address: Email


class Header(Input):
    """One custom webhook header."""

    key: Annotated[
        str, StringConstraints(max_length=1024, pattern=r"^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$", strip_whitespace=True)
    ]
    value: Annotated[str, StringConstraints(max_length=10240, pattern=r"^[\t\x20-\x7e]*$")] = ""


class NoQuery(Input):
    """An operation without query parameters."""


class Page(Input):
    """Zero-based paging (1.5)."""

    page: Annotated[Number, Field(ge=0, le=1048576)] = 0
    pageSize: Annotated[Number, Field(ge=1, le=1000)] = 20

    def of(self, items: list[Any]) -> tuple[dict[str, int], list[Any]]:
        """`{total, page, pages}` and the items of this page."""
        start = self.page * self.pageSize
        pages = -(-len(items) // self.pageSize)
        return {"total": len(items), "page": self.page, "pages": pages}, items[start : start + self.pageSize]
