"""The API's own description, OpenAPI 3.1: what FastAPI knows of the routes, with what it can not know put in.

FastAPI knows bodies and queries. Put in are the path's parameters, the token, the error envelope, what every
operation takes in headers, and the examples of examples.py, which also say what an answer is made of.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

from shared.api.examples import EXAMPLES, PATH_VALUES, Example
from shared.api.queue_routes import QUEUES
from shared.api.settings_routes import KEYS

Json = dict[str, Any]

ABOUT = """EmailEngine's REST API for Microsoft 365 mailboxes, over Microsoft Graph alone.

Every answer but the binary ones is JSON; success is always 200, and an error is always `{statusCode, error, message}`,
mostly with a `code`. Fields that are not described here are refused, in bodies and in queries. Where a body has no
required field it may be left out, and `null` or `[]` stand for `{}`.
"""
STATUSES = {
    400: ("BadRequest", "The input is wrong; `fields` names every wrong field."),
    401: ("Unauthorized", "No token, or one that is unknown, expired or deleted."),
    403: ("Forbidden", "The token does not cover this call, or Microsoft 365 refuses it."),
    404: ("NotFound", "What the request names does not exist."),
    409: ("Conflict", "It can not be done to what is there now."),
    413: ("TooLarge", "More than fits."),
    429: ("Throttled", "Too many calls; `Retry-After` says how many seconds to wait."),
    500: ("Failed", "The service failed, or is not set up for this."),
    503: ("Unavailable", "The account's state, Microsoft Graph or the storage does not allow it now."),
    504: ("Timeout", "The work took longer than `x-ee-timeout`. Writing goes on."),
}
PATHS_LONG = {"attachment": 2048}  # the others are at most 256 characters long
PATH_CHOICES = {"queue": list(QUEUES)}
TAGS = ("Account", "Authentication", "Mailbox", "Message", "Submit", "Outbox", "Templates", "Webhooks")  # first
GUARDED = (400, 401, 403, 404, 429, 500, 503, 504)
_HEADERS: dict[str, Json] = {
    "x-ee-timeout": {
        "description": "Milliseconds after which a 504 is answered instead; 0 waits for the end.",
        "schema": {"type": "integer", "minimum": 0, "maximum": 7_200_000},
        "example": 30_000,
    },
    "Idempotency-Key": {
        "description": "Repeats with the same key have the effect of one request, for 24 hours.",
        "schema": {"type": "string", "maxLength": 1024, "pattern": r"^[\x21-\x7e]*$"},
        "example": "order-17-confirmation",
    },
}
IDEMPOTENT = {"POST /v1/account/{account}/submit"}
_ERROR: Json = {
    "type": "object",
    "description": "What every answer other than 200 holds. docs/errors.md lists the codes.",
    "required": ["statusCode", "error", "message"],
    "properties": {
        "statusCode": {"type": "integer"},
        "error": {"type": "string", "description": "The reason phrase of the status."},
        "message": {"type": "string"},
        "code": {"type": "string"},
        "fields": {
            "type": "array",
            "description": "Each wrong field, by the last part of its path.",
            "items": {
                "type": "object",
                "required": ["message", "key"],
                "properties": {"message": {"type": "string"}, "key": {"type": "string"}},
            },
        },
        "info": {"type": "object"},
        "state": {"type": "string"},
    },
}


def document(app: FastAPI) -> Json:
    """The whole description; made at the first call and kept with the app."""
    made: Json | None = getattr(app.state, "document", None)
    if made is None:
        made = app.state.document = _made(app.openapi())
    return made


def operations(described: Json) -> Iterator[tuple[str, str, Json]]:
    """(method, path, operation) of a description."""
    for path, item in described["paths"].items():
        for method, one in item.items():
            yield method.upper(), path, one


def operation_id(method: str, path: str) -> str:
    """`getV1AccountAccountMessages`: from what a client sees, so that no change of code changes it."""
    words = re.findall(r"[A-Za-z0-9]+", path)
    return method.lower() + "".join(word[0].upper() + word[1:] for word in words)


def _made(described: Json) -> Json:
    described["info"]["description"] = ABOUT
    described["servers"] = [{"url": "/"}]
    parts = described.setdefault("components", {})
    schemas = {name: one for name, one in parts.get("schemas", {}).items() if "ValidationError" not in name}
    parts["schemas"] = {name: _shape(one) for name, one in schemas.items()} | {"Error": _ERROR}
    parts["responses"] = {name: _refusal(status, text) for status, (name, text) in STATUSES.items()}
    parts["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "An access token: 64 hex digits."},
        "access_token": {"type": "apiKey", "in": "query", "name": "access_token"},
    }
    for method, path, one in operations(described):
        _complete(method, path, one)
    used = {tag: None for *_, one in operations(described) for tag in one["tags"]}
    described["tags"] = [{"name": tag} for tag in sorted(used, key=lambda tag: TAGS.index(tag) if tag in TAGS else 99)]
    return described


def _complete(method: str, path: str, one: Json) -> None:
    """One operation, with everything that a caller needs to know."""
    example = EXAMPLES.get(f"{method} {path}", Example())
    guarded = "x-permission" in one
    one["operationId"] = operation_id(method, path)
    one["tags"] = one.get("tags") or ["Service"]
    one["summary"], one["description"] = _said(one)
    one["parameters"] = _parameters(method, path, one, example, guarded)
    one["responses"] = _responses(path, one, example, guarded)
    one["security"] = [{"bearer": []}, {"access_token": []}] if guarded else []
    one.pop("x-names-in-query", None)
    if "requestBody" in one:
        _complete_body(one["requestBody"], example)


def _said(one: Json) -> tuple[str, str]:
    """The first sentence of the route's own words, and all of them."""
    text = " ".join(str(one.get("description") or one["summary"]).split())
    first = re.split(r"(?<=[a-z`)])[.;:] ", text)[0].rstrip(".")
    return first, text


def _parameters(method: str, path: str, one: Json, example: Example, guarded: bool) -> list[Json]:
    found = [_path_parameter(name, example) for name in re.findall(r"\{(\w+)", path)]
    for given in one.get("parameters", []):
        if given["in"] == "query":
            shown = {"example": example.query[given["name"]]} if given["name"] in example.query else {}
            schema = _shape(given["schema"])
            found.append(
                {"name": given["name"], "in": "query", "required": given["required"], "schema": schema} | shown
            )
    if one.get("x-names-in-query") and path == "/v1/settings":
        found += [_flag(name, name in example.query) for name in sorted({*KEYS, "eventTypes"})]
    names = ["Idempotency-Key"] if f"{method} {path}" in IDEMPOTENT else []
    names += ["x-ee-timeout"] if guarded else []
    return found + [{"name": name, "in": "header", "required": False} | _HEADERS[name] for name in names]


def _path_parameter(name: str, example: Example) -> Json:
    schema: Json = {"type": "string", "minLength": 1, "maxLength": PATHS_LONG.get(name, 256)}
    if name in PATH_CHOICES:
        schema = {"type": "string", "enum": PATH_CHOICES[name]}
    value = example.path.get(name, PATH_VALUES.get(name, name))
    return {"name": name, "in": "path", "required": True, "schema": schema, "example": value}


def _flag(name: str, shown: bool) -> Json:
    schema = {"type": "boolean", "default": False}
    return {"name": name, "in": "query", "required": False, "schema": schema} | ({"example": True} if shown else {})


def _responses(path: str, one: Json, example: Example, guarded: bool) -> Json:
    statuses = {*GUARDED} if guarded else {500} | ({400, 404, 503} if one["parameters"] else set())
    statuses |= {413} if "requestBody" in one else set()
    statuses |= {409} if "{account}" in path else set()
    statuses |= {int(status) for status in one["responses"] if int(status) in STATUSES}
    answer = {"description": example.answered, "content": _answer(example)}
    found = {"200": answer} | ({"302": {"description": "On to another page."}} if example.redirects else {})
    return found | {
        str(status): {"$ref": f"#/components/responses/{STATUSES[status][0]}"} for status in sorted(statuses)
    }


def _answer(example: Example) -> Json:
    if example.media == "application/json":
        return {example.media: {"schema": shape_of(example.answer), "example": example.answer}}
    shape = {"type": "string"} if example.media.startswith("text/") else {"type": "string", "format": "binary"}
    shown = {"example": example.answer} if isinstance(example.answer, str) else {}
    return {example.media: {"schema": shape} | shown}


def shape_of(value: Any) -> Json:
    """What an example tells of its kind. Other fields may come with it, and all may be null; what is null or false in
    the example may be of another kind, too."""
    if isinstance(value, dict):
        return {"type": ["object", "null"], "properties": {name: shape_of(inner) for name, inner in value.items()}}
    if isinstance(value, list):
        return {"type": ["array", "null"]} | ({"items": shape_of(value[0])} if value else {})
    if value is None or value is False:
        return {}
    names = {bool: "boolean", int: "number", float: "number", str: "string"}
    return {"type": [names[type(value)], "null"]}


def _complete_body(body: Json, example: Example) -> None:
    content = body["content"].get("application/json")
    if content is None:
        return
    schema = content["schema"]
    if alternatives := [one for one in schema.get("anyOf", ()) if "$ref" in one]:
        content["schema"] = alternatives[0]  # a body that may be left out
    if example.body is not None:
        content["example"] = example.body


def _refusal(status: int, text: str) -> Json:
    answer: Json = {
        "description": text,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    if status == 401:
        answer["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    if status in (429, 503):
        answer["headers"] = {
            "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds; not always there."}
        }
    return answer


def _shape(schema: Any) -> Any:
    """A schema of pydantic's as JSON Schema: its limits under their names, no titles, and the empty forms."""
    if isinstance(schema, list):
        return [_shape(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(schema.get("properties"), dict):
        inner = {name: _shape(one) for name, one in schema["properties"].items()}
        schema = {name: _shape(one) for name, one in schema.items() if name != "properties"} | {"properties": inner}
    else:
        schema = {name: _shape(one) for name, one in schema.items()}
    if isinstance(schema.get("title"), str):
        del schema["title"]
    if schema.get("type") == "integer":
        return _number(schema)
    closed = schema.get("type") == "object" and schema.get("additionalProperties") is False
    if closed and not schema.get("required"):
        # PHP clients send `null` or `[]` where they mean an empty object (emailengine.md 1.1).
        schema |= {"type": ["object", "array", "null"], "maxItems": 0}
    return schema


def _number(schema: Json) -> Json:
    """Numbers may come as text (emailengine.md 1.4)."""
    low, high = schema.pop("ge", None), schema.pop("le", None)
    limits = {name: value for name, value in (("minimum", low), ("maximum", high)) if value is not None}
    if high is None:
        return schema | limits
    digits = len(str(high + 1)) - 1
    first = "[1-9]" if low and digits else "[0-9]"
    rest = "" if digits <= 1 else f"[0-9]{{0,{digits - 1}}}"
    common = {name: schema.pop(name) for name in ("default", "description") if name in schema}
    return {"anyOf": [schema | limits, {"type": "string", "pattern": f"^{first}{rest}$"}]} | common
