"""HTTP requests and answers as the real host translates them on the way to and from the worker."""

import json
from collections.abc import Iterable
from email.utils import format_datetime, parsedate_to_datetime
from http.cookies import Morsel
from typing import Any
from urllib.parse import parse_qsl, quote

from aiohttp import web
from azure.functions.meta import Datum
from multidict import CIMultiDict

from local.host.functions import Function
from local.host.invocation import CONVERTERS, fail
from local.host.json_text import host_text, looks_like_json

_WRITTEN_BY_SERVER = {"connection", "keep-alive", "transfer-encoding", "content-length"}


def joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """One value per name: those of a repeated name are joined by commas, the first spelling stays."""
    spelling: dict[str, str] = {}
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(spelling.setdefault(name.lower(), name), []).append(value)
    return {name: ",".join(parts) for name, parts in values.items()}


async def request_datum(request: web.Request, route_params: dict[str, str]) -> Datum:
    """A request in the worker's terms. A body that came without Content-Length is lost, as in Azure."""
    body = await request.read()
    query = joined(parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True))
    headers = joined((name.lower(), value) for name, value in request.headers.items())
    return Datum(
        {
            "method": Datum(request.method, "string"),
            "url": Datum(f"{request.scheme}://{request.host}{request.raw_path}", "string"),
            "headers": _strings(headers),
            "query": _strings({name: value for name, value in query.items() if value}),
            "params": _strings(route_params),
            "body": Datum(body if request.content_length else b"", "bytes"),
        },
        "http",
    )


def _strings(values: dict[str, str]) -> dict[str, Datum]:
    return {name: Datum(value, "string") for name, value in values.items()}


def answer(function: Function, returned: Any, method: str) -> web.Response:
    """The answer a client sees for a returned value; InvocationFailed where the real host gives a 500."""
    if returned is None:
        raise fail(function, "returned None instead of an HttpResponse")
    try:
        datum = CONVERTERS.get("http").encode(returned, expected_type=None)
    except NotImplementedError:
        raise fail(function, f"cannot answer with a {type(returned).__name__}") from None
    if datum.type == "string":
        return _text_answer(datum.value)
    reply = datum.value
    body = reply["body"].value
    headers = _headers(function, {name: item.value for name, item in reply["headers"].items()}, body, method)
    # The worker parses Set-Cookie with SimpleCookie: a cookie with a flag it does not know is gone, and an
    # unknown attribute with a value becomes a cookie of its own.
    for jar in reply["cookies"] or ():
        for morsel in jar.values():
            headers.add("Set-Cookie", set_cookie(morsel))
    return web.Response(status=int(reply["status_code"].value), headers=headers, body=body or None)


def _text_answer(text: str) -> web.Response:
    """A returned str: JSON with a `body` describes the whole answer, other JSON is re-indented."""
    value = _parsed(text)
    status, headers = 200, {"Content-Type": "text/plain; charset=utf-8"}
    if isinstance(value, dict):
        described = {key.lower(): item for key, item in value.items()}
        if "body" in described:
            status = int(described.get("statuscode", described.get("status", 200)))
            headers |= described.get("headers") or {}
            value = described["body"]
    return web.Response(status=status, headers=headers, body=host_text(value).encode())


def _parsed(text: str) -> Any:
    try:
        return json.loads(text) if looks_like_json(text) else text
    except ValueError:
        return text


def _headers(function: Function, given: dict[str, str], body: bytes, method: str) -> CIMultiDict[str]:
    """The headers that get through; of a repeated one the last (the worker keeps one value per name)."""
    headers: CIMultiDict[str] = CIMultiDict()
    for name, value in given.items():
        if any(not 32 <= ord(character) <= 126 for character in name + value):
            raise fail(function, f"header {name} has a control or non-ASCII character")
        if name.lower() == "content-length":
            if int(value) != len(body) and method != "HEAD":
                raise fail(function, f"Content-Length says {value}, the body has {len(body)} bytes")
            if method == "HEAD":
                headers[name] = value
        elif name.lower() not in _WRITTEN_BY_SERVER:
            headers[name] = value
    return headers


def set_cookie(morsel: "Morsel[str]") -> str:
    """A Set-Cookie value as ASP.NET writes it: value percent-encoded, absent domain and path left empty."""
    parts = [f"{morsel.key}={quote(morsel.value, safe='')}"]
    if morsel["expires"]:
        parts.append("expires=" + format_datetime(parsedate_to_datetime(morsel["expires"]), usegmt=True))
    if morsel["max-age"]:
        parts.append(f"max-age={int(morsel['max-age'])}")
    parts += [f"domain={morsel['domain']}", f"path={morsel['path']}"]
    if morsel["secure"]:
        parts.append("secure")
    if morsel["samesite"]:
        parts.append(f"samesite={morsel['samesite'].lower()}")
    if morsel["httponly"]:
        parts.append("httponly")
    return "; ".join(parts)
