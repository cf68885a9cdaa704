"""One kind of route for the whole API: authenticated first, validated second, answered in the envelope."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import parse_qsl, unquote, urlencode

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute

from shared.api.deadline import patience_s, within
from shared.errors import ApiError, InvalidInput, NotFound
from shared.templates import belongs_to
from shared.tokens import Caller, Grant, Operation
from shared.vault import SealBroken
from shared.wiring import Services

NOT_JSON = "Invalid request payload JSON format"
DEEPEST = 100  # brackets that may all be nested in each other without anybody having to look
_HALF_A_CHARACTER = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}|\\u[dD][c-fC-F]|\xed[\xa0-\xbf]")


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
            services, outcome = services_of(request), "fail"
            try:
                await authorize(request, coordinates["group"], coordinates["action"])
                if not takes_query:
                    refuse_query(request)
                patience = patience_s(request)
                work = handle(await _with_body(request) if takes_body else request)
                response = await within(patience, work, is_read=request.method == "GET")
                _show_budget(request, response)
                outcome = "success"
                return response
            finally:
                services.service_counters.count(f"apiCall:{outcome}")
                await services.save_notes()

        return guarded


def _show_budget(request: Request, response: Response) -> None:
    """What is left of the token's own limit, and of the mailbox's calls at Graph as far as this process knows: the
    three fields of the IETF draft on rate limit headers, in their simple form."""
    if allowance := getattr(request.state, "allowance", None):
        response.headers.update(allowance.headers())
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
    """Raises the contract's 401, 403 or 429; leaves the grant in `request.state.grant`, and in
    `request.state.allowance` what is left of its rate limit."""
    services: Services = request.app.state.services
    grant = await services.tokens.grant_of(_presented(request))
    asked = Operation(group, action, _named_account(request) or _owner_of_template(request, grant))
    caller = Caller(caller_address(request), _referrer(request))
    reason = None
    try:
        grant.check(asked, caller)
        limit = grant.rate_limit
        request.state.allowance = await services.tokens.use.spend(limit) if limit else None
    except ApiError as refusal:
        reason = refusal.message
        raise
    finally:
        if not grant.is_bootstrap:
            await _note_use(request, grant, asked, caller.address, reason)
    request.state.grant = grant


def _named_account(request: Request) -> str | None:
    """The account that a call is about: in its path, or in the query of the lists that a bound token may read."""
    account = request.path_params.get("account")
    if account is not None:
        return unquote(account)
    if request.method == "GET" and request.url.path.rstrip("/") in ("/v1/tokens", "/v1/templates"):
        return request.query_params.get("account")
    return None


def _referrer(request: Request) -> str:
    return request.headers.get("referer", "")


async def _note_use(request: Request, grant: Grant, asked: Operation, address: str, reason: str | None) -> None:
    """Keeps the token's last use, and where the setting asks for it a line in its log."""
    services: Services = request.app.state.services
    await services.tokens.note_access(grant, address)
    try:
        is_logged = (await services.service_settings.all()).get("tokenAuditLog")
    except SealBroken:
        return  # what can be done then must not hang on it
    if is_logged:
        entry = {"ip": address or None, "method": request.method, "path": unquote(request.url.path)}
        entry |= {"action": asked.action, "group": asked.group, "account": asked.account}
        entry |= {"status": "denied" if reason else "allowed", "reason": reason}
        await services.tokens.use.note(grant.token_id, entry)


def _owner_of_template(request: Request, grant: Grant) -> str | None:
    """The account a bound token may name without saying so: of a template by its id, of a new one its own."""
    if grant.account is None:
        return None
    template = request.path_params.get("template")
    if template is None:
        return grant.account if request.url.path == "/v1/templates/template" else None
    return grant.account if belongs_to(unquote(template), grant.account) else None


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


def caller_address(request: Request) -> str:
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
    """The request, with `{}` where it has no body or `null`: some clients send that for no fields (1.1). ApiError for
    JSON that no text or record can hold."""
    body = await request.body()
    if body.strip() not in (b"", b"null"):
        is_deep = body.count(b"[") + body.count(b"{") > DEEPEST
        if is_deep or ((b"\\u" in body or b"\xed" in body) and _HALF_A_CHARACTER.search(body)):
            _check_json(body)
        return request

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    headers = [header for header in request.scope["headers"] if header[0] != b"content-type"]
    return Request({**request.scope, "headers": headers}, receive)


def _check_json(body: bytes) -> None:
    """ApiError for JSON nested too deep, InvalidInput for half of a surrogate pair, which is no character."""
    try:
        waiting = [(json.loads(body), "value", 0)]
    except RecursionError:
        raise ApiError(400, NOT_JSON) from None
    except ValueError:
        return  # not JSON at all, which validation says
    while waiting:
        value, key, depth = waiting.pop()
        if depth > DEEPEST:
            raise ApiError(400, NOT_JSON)
        if isinstance(value, dict):
            waiting += [(name, key, depth) for name in value]
            waiting += [(one, _shown(name, key), depth + 1) for name, one in value.items()]
        elif isinstance(value, list):
            waiting += [(one, key, depth + 1) for one in value]
        elif isinstance(value, str) and _shown(value, "") != value:
            raise InvalidInput.field(key, f'"{key}" has half of a surrogate pair, which is no character')


def _shown(text: str, otherwise: str) -> str:
    """The text, unless it can not be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return otherwise
    return text


def _decoded(request: Request, name: str, longest: int = 256) -> str:
    """One path segment, percent-decoded exactly once (1.1)."""
    try:
        value = unquote(request.path_params[name], errors="strict")
    except UnicodeDecodeError:
        raise InvalidInput.field(name, f'"{name}" is not valid UTF-8') from None
    if not value.strip() or len(value) > longest:
        raise InvalidInput.field(name, f'"{name}" length must be less than or equal to {longest} characters long')
    return value.strip()


def account_id(request: Request) -> str:
    return _decoded(request, "account")


def services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def grant_of(request: Request) -> Grant:
    grant: Grant = request.state.grant
    return grant


def segment(name: str, longest: int = 256) -> Any:
    """A dependency that gives the decoded path segment of this name."""

    def read(request: Request) -> str:
        return _decoded(request, name, longest)

    return Depends(read)


AccountPath = Annotated[str, Depends(account_id)]
Provided = Annotated[Services, Depends(services_of)]
Granted = Annotated[Grant, Depends(grant_of)]
CallerAddress = Annotated[str, Depends(caller_address)]

PAGE_NOT_FOUND = NotFound("Requested page not found")
