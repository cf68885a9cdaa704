"""One kind of route for the whole API: authenticated first, validated second, answered in the envelope."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import parse_qsl, unquote, urlencode

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute

from shared.api.deadline import patience_s, within
from shared.errors import InvalidInput, NotFound
from shared.tokens import Caller, Grant, Operation
from shared.wiring import Services


def operation(group: str, action: str, *, names_in_query: bool = False) -> dict[str, Any]:
    """The contract's permission coordinates of a route (emailengine.md 2); goes into `openapi_extra`.

    `names_in_query`: the route takes free names as query parameters and checks them itself.
    """
    return {"x-permission": {"group": group, "action": action}, "x-names-in-query": names_in_query}


class GuardedRoute(APIRoute):
    """Checks the token, then that no unknown query parameter is there, then lets FastAPI validate.

    The order is the contract's (1.2): a bad token with a bad body is a 401.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        extra = self.openapi_extra or {}
        coordinates = extra["x-permission"]
        takes_query = bool(self.dependant.query_params) or extra["x-names-in-query"]
        takes_body = bool(self.dependant.body_params)

        async def guarded(request: Request) -> Response:
            await authorize(request, coordinates["group"], coordinates["action"])
            if not takes_query:
                refuse_query(request)
            patience = patience_s(request)
            work = handle(await _with_body(request) if takes_body else request)
            response = await within(patience, work, is_read=request.method == "GET")
            _show_budget(request, response)
            return response

        return guarded


def _show_budget(request: Request, response: Response) -> None:
    """What is left of the mailbox's calls at Graph, as far as this process knows: the three fields of the IETF draft
    on rate limit headers, in their simple form."""
    if "account" not in request.path_params:
        return
    services: Services = request.app.state.services
    lane = services.accounts.lane(account_id(request))
    if lane:
        budget = services.lanes.budget(lane)
        response.headers["RateLimit-Limit"] = str(budget.limit)
        response.headers["RateLimit-Remaining"] = str(budget.remaining)
        response.headers["RateLimit-Reset"] = str(budget.reset_s)


async def authorize(request: Request, group: str, action: str) -> None:
    """Raises the contract's 401 or 403; leaves the grant in `request.state.grant`."""
    services: Services = request.app.state.services
    grant = await services.tokens.grant_of(_presented(request))
    account = request.path_params.get("account")
    if account is None and request.url.path.rstrip("/") in ("/v1/tokens", "/v1/templates"):
        account = request.query_params.get("account")
    else:
        account = unquote(account) if account is not None else None
    caller = Caller(_address(request), request.headers.get("referer", ""))
    grant.check(Operation(group, action, account), caller)
    request.state.grant = grant


def _presented(request: Request) -> str | None:
    """The token of the header, or of `access_token`, which is taken out of the query."""
    query = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
    from_query = next((value for name, value in query if name == "access_token"), None)
    if from_query is not None:
        kept = urlencode([pair for pair in query if pair[0] != "access_token"])
        request.scope["query_string"] = kept.encode("latin-1")
        request.__dict__.pop("_query_params", None)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else from_query


def _address(request: Request) -> str:
    """The caller's address: the last hop of X-Forwarded-For, which Azure's front end writes itself."""
    last = request.headers.get("x-forwarded-for", "").split(",")[-1].strip()
    if last.startswith("["):
        return last[1:].partition("]")[0]
    return last.partition(":")[0] if last.count(":") == 1 else last


def refuse_query(request: Request) -> None:
    names = list(request.query_params.keys())
    if names:
        raise InvalidInput([{"message": f'"{name}" is not allowed', "key": name} for name in names])


async def _with_body(request: Request) -> Request:
    """The request, with `{}` where it has no body or `null`: some clients send that for no fields (1.1)."""
    if (await request.body()).strip() not in (b"", b"null"):
        return request

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    headers = [header for header in request.scope["headers"] if header[0] != b"content-type"]
    return Request({**request.scope, "headers": headers}, receive)


def _decoded(request: Request, name: str) -> str:
    """One path segment, percent-decoded exactly once (1.1)."""
    try:
        value = unquote(request.path_params[name], errors="strict")
    except UnicodeDecodeError:
        raise InvalidInput.field(name, f'"{name}" is not valid UTF-8') from None
    if not value.strip() or len(value) > 256:
        raise InvalidInput.field(name, f'"{name}" length must be less than or equal to 256 characters long')
    return value.strip()


def account_id(request: Request) -> str:
    return _decoded(request, "account")


def services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def grant_of(request: Request) -> Grant:
    grant: Grant = request.state.grant
    return grant


def segment(name: str) -> Any:
    """A dependency that gives the decoded path segment of this name."""

    def read(request: Request) -> str:
        return _decoded(request, name)

    return Depends(read)


AccountPath = Annotated[str, Depends(account_id)]
Provided = Annotated[Services, Depends(services_of)]
Granted = Annotated[Grant, Depends(grant_of)]

PAGE_NOT_FOUND = NotFound("Requested page not found")
