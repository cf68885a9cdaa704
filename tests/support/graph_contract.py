"""Every exchange at Graph, of every test, against Microsoft's own description of the API.

What our app sends must fit the strict description (no misspelt property, parameter, path); what the tenant answers must
fit the open one. tests/conftest.py applies it to the tenant's journal after every module. The descriptions are
read in place; where they are not beside the project, nothing is checked and test_graph_contract.py says so.
"""

import base64
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

REFERENCE = Path(__file__).parents[3] / "shared" / "reference"
STRICT, OPEN = "graph-mail-openapi-strict.yaml", "graph-mail-openapi.yaml"
MISSING = "the official API description is not beside the project"
Json = dict[str, Any]
Exchange = dict[str, Any]
# Every request's headers, beside those the description names (graph.md 2.2, 2.4; the SDK's own; HTTP's).
HEADERS = set(
    "accept accept-encoding connection content-length content-type client-request-id consistencylevel host prefer "
    "sdkversion traceparent tracestate user-agent x-anchormailbox transfer-encoding if-match if-none-match "
    "cookie".split()
)


def is_available() -> bool:
    """Whether the descriptions are there."""
    return (REFERENCE / STRICT).exists() and (REFERENCE / OPEN).exists()


def is_ours(exchange: Exchange) -> bool:
    """Whether the app sent it: it speaks through httpx, and tests that ask the tenant themselves do not."""
    return "python-httpx" in exchange["headers"].get("user-agent", "")


@cache
def description(name: str) -> Json:
    """One of the two, as JSON Schema where it has schemas."""
    import yaml

    loaded: Json = yaml.load((REFERENCE / name).read_text(), Loader=yaml.CSafeLoader)
    loaded["components"] = _as_json_schema(loaded["components"])
    return loaded


def _as_json_schema(node: Any) -> Any:
    """OpenAPI 3.0 says `nullable` where JSON Schema has a type more."""
    if isinstance(node, list):
        return [_as_json_schema(one) for one in node]
    if not isinstance(node, dict):
        return node
    found = {name: _as_json_schema(one) for name, one in node.items()}
    if found.get("nullable") is True:
        del found["nullable"]
        if "type" in found:
            found["type"] = [found["type"], "null"]
        if "enum" in found:
            found["enum"] = [*found["enum"], None]
    return found


def resolved(name: str, node: Json) -> Json:
    """The node itself, or what its `$ref` names."""
    while "$ref" in node:
        found: Any = description(name)
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part.replace("~1", "/").replace("~0", "~")]
        node = found
    return node


@cache
def templates(name: str) -> list[tuple[re.Pattern[str], str]]:
    """Every path of a description as a pattern, literal segments before parameters."""
    found = []
    for template in description(name)["paths"]:
        pattern = re.sub(r"\\\{[^}]*\\\}", "[^/$][^/]*", re.escape(template))
        found.append((template.count("{"), re.compile(pattern), template))
    return [(pattern, template) for _, pattern, template in sorted(found, key=lambda entry: entry[0])]


def _found(name: str, exchange: Exchange) -> tuple[str, str | None]:
    """The path in its plain spelling, and the template it fits. Graph takes `users('x')` for `users/x`, and function
    names with their namespace (graph.md 2.2)."""
    path = exchange["path"].partition("?")[0].removeprefix("/v1.0").replace("%24", "$").replace("%27", "'")
    path = re.sub(r"\('([^/]*)'\)", r"/\1", path).replace("/microsoft.graph.", "/")
    return path, next((template for pattern, template in templates(name) if pattern.fullmatch(path)), None)


@cache
def validator(name: str, *place: str) -> Any:
    """A compiled check of the schema at a place of the description."""
    import jsonschema_rs

    node: Any = description(name)
    for part in place:
        node = resolved(name, node[part]) if isinstance(node[part], dict) else node[part]
    schema = _as_json_schema(node) | {"components": description(name)["components"]}
    return jsonschema_rs.Draft7Validator(schema, validate_formats=True)


def complaints(name: str, place: tuple[str, ...], value: Any) -> Iterator[str]:
    """What is wrong with a value, short; at most five."""
    check = validator(name, *place)
    if check.is_valid(value):
        return
    for number, error in enumerate(check.iter_errors(value)):
        if number == 5:
            return
        where = "/".join(map(str, error.instance_path))
        yield f"{where or 'body'}: {error.message[:300]}"


# -- requests -------------------------------------------------------------------------------------------------


def request_problems(exchange: Exchange) -> list[str]:
    """What of a request the strict description does not allow."""
    path, template = _found(STRICT, exchange)
    query = exchange["path"].partition("?")[2]
    method = exchange["method"].lower()
    if template is None or method not in description(STRICT)["paths"][template]:
        return [f"{exchange['method']} {path}: no such operation"]
    name = f"{exchange['method']} {template}"
    return [f"{name}: {problem}" for problem in _details(exchange, template, method, query)]


def _details(exchange: Exchange, template: str, method: str, query: str) -> Iterator[str]:
    item = description(STRICT)["paths"][template]
    operation = item[method]
    parameters = [resolved(STRICT, one) for one in [*item.get("parameters", ()), *operation.get("parameters", ())]]
    yield from _query_problems(parameters, query)
    named = {one["name"].lower() for one in parameters if one["in"] == "header"}
    yield from (f"unknown header {one}" for one in exchange["headers"] if one not in HEADERS | named)
    if exchange["body"] is None:
        return  # too long to have been kept
    body = base64.b64decode(exchange["body"])
    contents = resolved(STRICT, operation.get("requestBody") or {}).get("content") or {}
    kind = exchange["headers"].get("content-type", "").split(";")[0].strip()
    if not body:
        if resolved(STRICT, operation.get("requestBody") or {}).get("required"):
            yield "the body is missing"
    elif kind not in contents:
        yield f"a body of {kind or 'no type'} is not described"
    else:
        yield from _body_problems(template, method, kind, body)


# What stands in links that Graph gave, which are followed as they are (graph.md 4).
OF_LINKS = ("$skiptoken", "$deltatoken")


def _query_problems(parameters: list[Json], query: str) -> Iterator[str]:
    known = {one["name"]: one["schema"] for one in parameters if one["in"] == "query"}
    given = parse_qsl(query, keep_blank_values=True)
    for name, value in given:
        if name in OF_LINKS:
            continue
        if name not in known:
            yield f"unknown parameter {name}"
        elif known[name].get("type") == "integer" and not re.fullmatch("[0-9]+", value):
            yield f"{name} is no number: {value[:80]}"
        elif known[name].get("type") == "boolean" and value not in ("true", "false"):
            yield f"{name} is neither true nor false: {value[:80]}"
        elif not value:
            yield f"{name} is empty"
    names = [name for name, _ in given]
    yield from (f"{name} comes twice" for name in sorted({name for name in names if names.count(name) > 1}))


def _body_problems(template: str, method: str, kind: str, body: bytes) -> Iterator[str]:
    if kind == "application/json":
        # Locally the app is plain http on loopback; in Azure it is https, which Graph demands.
        value = json.loads(re.sub(rb'"http://(127\.0\.0\.1|localhost)', rb'"https://\1', body))
    else:
        value = body.decode("latin-1")
    place = ("paths", template, method, "requestBody", "content", kind, "schema")
    yield from complaints(STRICT, place, value)
    if template == "/$batch" and isinstance(value, dict):
        for part in value.get("requests", []):
            yield from request_problems(_part(part))


def _part(part: Json) -> Exchange:
    """One request of a batch as if it had come by itself."""
    headers = {name.lower(): value for name, value in (part.get("headers") or {}).items()}
    body = part.get("body")
    raw = b"" if body is None else json.dumps(body).encode()
    return {
        "method": part.get("method", ""),
        "path": "/v1.0" + part.get("url", ""),
        "headers": headers,
        "body": base64.b64encode(raw).decode(),
    }


# -- answers --------------------------------------------------------------------------------------------------


def answer_problems(exchange: Exchange) -> list[str]:
    """What of an answer is not as the open description has it; of a path that it does not know, nothing but errors."""
    path, template = _found(OPEN, exchange)
    if path.endswith("/$count"):
        return []  # cut from the description, as its heading says
    method, status = exchange["method"].lower(), exchange["status"]
    known = template is not None and method in description(OPEN)["paths"][template]
    if not known:
        found = ["the tenant answers what the description does not have"] if status < 400 else []
        return [f"{exchange['method']} {path} {status}: {one}" for one in found]
    return [f"{exchange['method']} {template} {status}: {one}" for one in _answer(exchange, str(template), method)]


def _answer(exchange: Exchange, template: str, method: str) -> Iterator[str]:
    responses = description(OPEN)["paths"][template][method]["responses"]
    status = str(exchange["status"])
    key = status if status in responses else f"{status[0]}XX"
    if key not in responses:
        yield f"this status is not described, only {', '.join(responses)}"
        return
    contents = resolved(OPEN, responses[key]).get("content") or {}
    if exchange["answer"] is None:
        return
    body = base64.b64decode(exchange["answer"])
    kind = exchange["answer_headers"].get("content-type", "").split(";")[0].strip()
    if not contents or not body:
        if bool(contents) != bool(body) and "application/octet-stream" not in contents and "text/plain" not in contents:
            yield "a body that is not described" if body else "the described body is missing"
    elif kind not in contents and "*/*" not in contents and "application/octet-stream" not in contents:
        yield f"{kind} instead of {', '.join(contents)}"
    elif kind == "application/json" and kind in contents:
        place = ("paths", template, method, "responses", key, "content", kind, "schema")
        yield from complaints(OPEN, place, json.loads(body))


# -- a whole run ----------------------------------------------------------------------------------------------


class Observer:
    """Takes exchanges from journals and tells what was wrong since it was last asked."""

    def __init__(self) -> None:
        self._files: dict[Path, int] = {}
        self._kept: list[Exchange] = []
        self.requests = self.answers = 0

    def take(self, exchange: Exchange) -> None:
        """The journal of a tenant in this process."""
        self._kept.append(exchange)

    def watch(self, path: Path) -> None:
        """Looks into a file, too, from its beginning."""
        self._files[path] = 0

    def problems(self) -> list[str]:
        """What is wrong with the exchanges since the last call, each kind once."""
        found: dict[str, int] = {}
        for exchange in self._new():
            wrong = answer_problems(exchange)
            self.answers += 1
            if is_ours(exchange):
                self.requests += 1
                wrong += request_problems(exchange)
            for problem in wrong:
                found[problem] = found.get(problem, 0) + 1
        return [f"{problem} ({times} times)" for problem, times in found.items()]

    def _new(self) -> Iterator[Exchange]:
        kept, self._kept = self._kept, []
        yield from kept
        for path in self._files:
            yield from self._lines(path)

    def _lines(self, path: Path) -> Iterator[Exchange]:
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._files[path])
            for line in file:
                if not line.endswith(b"\n"):
                    return  # still being written
                self._files[path] += len(line)
                yield json.loads(line)
