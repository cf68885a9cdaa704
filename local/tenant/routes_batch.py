"""JSON batching: several requests in one, each answered by itself (graph.md 5.4)."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from .errors import GraphError, as_graph_error, graph_error_body
from .graph_call import GraphCall
from .graph_path import split_path
from .surfaces import mailbox_reference

if TYPE_CHECKING:
    from .login import Caller
    from .world import World

MOST_PARTS = 20
_METHODS = frozenset({"GET", "POST", "PATCH", "PUT", "DELETE"})
Answer = Callable[[GraphCall], Awaitable[web.StreamResponse]]
FindRoute = Callable[[str, list[str]], tuple[Answer, dict[str, str]]]


class PartRequest:
    """One part, with what the routes read of a request; scheme and host are those of the whole batch."""

    def __init__(self, batch: web.Request, part: dict[str, Any]) -> None:
        self.method: str = part["method"].upper()
        self.rel_url = URL("/v1.0/" + part["url"].lstrip("/"), encoded=True)
        self.scheme, self.host = batch.scheme, batch.host
        self.query, self.path = self.rel_url.query, self.rel_url.path
        self.raw_path = self.rel_url.raw_path
        self.headers: CIMultiDict[str] = CIMultiDict(part.get("headers") or {})
        self._content = _content(part, self.content_type)
        self.headers.setdefault("Content-Length", str(len(self._content)))

    @property
    def content_type(self) -> str:
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    async def read(self) -> bytes:
        return self._content


def _content(part: dict[str, Any], kind: str) -> bytes:
    body = part.get("body")
    if body is None:
        return b""
    if not kind:
        raise _broken("The request body of a part needs a Content-Type header.")
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


def _broken(message: str) -> GraphError:
    return GraphError(400, "BadRequest", message)


def batch_of(find_route: FindRoute) -> Answer:
    """The route of `$batch`, whose parts are looked up with `find_route`."""

    async def batch(call: GraphCall) -> web.Response:
        parts = _checked((await call.json_body()).get("requests"))
        answers: dict[str, dict[str, Any]] = {}
        for part in parts:
            failed = [one for one in part.get("dependsOn") or () if answers[one.lower()]["status"] >= 400]
            if failed:
                text = "The request is not executed because a request it depends on has failed."
                answers[part["id"].lower()] = _refusal(call, part, GraphError(424, "FailedDependency", text))
            else:
                answers[part["id"].lower()] = await _answer(call, part, find_route)
        # In any order (graph.md 5.4): here the last comes first, so that nobody relies on places.
        return call.answer({"responses": list(reversed(answers.values()))})

    return batch


def _checked(parts: Any) -> list[dict[str, Any]]:
    """The parts of an envelope that is in order; 400 otherwise (graph.md 5.4 [D], texts assumed)."""
    if not isinstance(parts, list) or not parts or not all(isinstance(one, dict) for one in parts):
        raise _broken("Invalid batch payload format.")
    if len(parts) > MOST_PARTS:
        raise _broken(f"Number of batch request steps exceeds the maximum value of '{MOST_PARTS}'.")
    seen: list[str] = []
    for part in parts:
        _check_part(part, seen)
        seen.append(part["id"].lower())
    return parts


def _check_part(part: dict[str, Any], seen: list[str]) -> None:
    identity, url = part.get("id"), part.get("url")
    if not isinstance(identity, str) or not identity or not isinstance(url, str) or not url:
        raise _broken("A batch request step needs an id, a method and a url.")
    if str(part.get("method", "")).upper() not in _METHODS or "://" in url:
        raise _broken("A batch request step needs a known method and a url relative to the version root.")
    if identity.lower() in seen:
        raise _broken(f"The id '{identity}' of a batch request step is not unique.")
    depends = part.get("dependsOn") or []
    if not isinstance(depends, list) or any(str(one).lower() not in seen for one in depends):
        raise _broken("A batch request step depends on one that does not come before it.")
    # Either nobody, or each on the one before it.
    if depends and [str(one).lower() for one in depends] != seen[-1:]:
        raise _broken("The dependencies of batch request steps must form a sequence.")
    if url.strip("/").partition("?")[0].lower() == "$batch":
        raise _broken("A batch can not contain a batch.")


async def _answer(call: GraphCall, part: dict[str, Any], find_route: FindRoute) -> dict[str, Any]:
    try:
        request = PartRequest(call.request, part)
        _disturb(call.world, call.caller, request)
        route, keys = find_route(request.method, split_path(request.raw_path)[1:])
        response = await route(GraphCall(call.world, request, call.caller, keys))  # type: ignore[arg-type]
    except Exception as error:
        return _refusal(call, part, as_graph_error(error))
    return _shown(part, response)


def _disturb(world: World, caller: Caller, request: PartRequest) -> None:
    """Throttling and other refusals hit parts one by one (graph.md 5.4); a part can not be slow or dropped alone."""
    reference = mailbox_reference(request.path)
    mailbox = caller.principal if reference == "me" else world.directory.find(reference) if reference else None
    query = request.rel_url.query_string
    action = world.faults.take(request.method, request.path, mailbox.id if mailbox else None, query)
    world.faults.refuse(action)


def _shown(part: dict[str, Any], response: web.StreamResponse) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": part["id"], "status": response.status, "headers": dict(response.headers)}
    body = response.body if isinstance(response, web.Response) else None
    if not isinstance(body, bytes) or not body:
        return shown
    is_json = response.content_type == "application/json"
    return shown | {"body": json.loads(body) if is_json else base64.b64encode(body).decode()}


def _refusal(call: GraphCall, part: dict[str, Any], error: GraphError) -> dict[str, Any]:
    body = graph_error_body(error, call.request)
    return {"id": part["id"], "status": error.status, "headers": dict(error.headers), "body": body}
