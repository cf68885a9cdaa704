"""The token endpoint: authorization_code, refresh_token, client_credentials (graph.md 12.4-12.7 [D])."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from aiohttp import web

from .directory import Application, Principal
from .login import APP_TOKEN_LIFETIME_S, Code
from .login_authorize import client_info
from .login_clients import client_of
from .login_errors import LoginError, error_response
from .login_scopes import GRAPH_NAMES, Granted, consented, missing_parameter, parse
from .tokens import base64url

if TYPE_CHECKING:
    from .world import World

Form = dict[str, str]


def add_token_route(app: web.Application, world: World) -> None:
    """Mount the token endpoint."""

    async def token(request: web.Request) -> web.Response:
        unavailable = _injected_status(world)
        if unavailable is not None:
            return unavailable
        form = {name: str(value) for name, value in (await request.post()).items()}
        authorization = request.headers.get("Authorization")
        try:
            answer = _answer(world, form, authorization, request.match_info["tenant"])
        except LoginError as error:
            return error_response(world, error, request)
        return web.json_response(answer, headers={"Cache-Control": "no-store", "Pragma": "no-cache"})

    app.router.add_post("/{tenant}/oauth2/v2.0/token", token)


def _injected_status(world: World) -> web.Response | None:
    """HTTP 429 or 5xx on demand."""
    one = world.login.take_injected(world.login.token_statuses, None)
    if one is None:
        return None
    headers = {"Retry-After": one.retry_after} if one.retry_after is not None else {}
    body = {
        "error": one.error or "temporarily_unavailable",
        "error_description": one.description or "Try again.",
    }
    return web.json_response(body, status=one.status or 503, headers=headers)


def _answer(world: World, form: Form, authorization: str | None, tenant: str) -> dict[str, Any]:
    home = world.login.home_tenant(tenant)
    world.login.refuse_if_injected(None)
    if not form.get("grant_type"):
        raise missing_parameter("grant_type")
    application = client_of(world, form, authorization, tenant)
    if form["grant_type"] == "client_credentials":
        if not home:
            raise LoginError(9001023)
        return _for_application(world, application, form)
    world.login.check_audience(application, tenant)
    if form["grant_type"] == "authorization_code":
        return _for_code(world, application, form)
    if form["grant_type"] == "refresh_token":
        return _for_refresh_token(world, application, form)
    raise LoginError(70003, f"The app requested an unsupported grant type '{form['grant_type']}'.")


# -- client_credentials ----------------------------------------------------------------------------


def _for_application(world: World, application: Application, form: Form) -> dict[str, Any]:
    """No refresh token, 3599 seconds, scope only `{resource}/.default` (graph.md 8.5, 12.4 [D])."""
    scope = form.get("scope", "").strip()
    resource, _, last = scope.rpartition("/")
    if last != ".default" or " " in scope:
        raise LoginError(
            70011,
            f"The provided value for the input parameter 'scope' is not valid. The scope {scope} "
            "is not valid.",
        )
    if resource.rstrip("/") not in GRAPH_NAMES:
        text = f"The resource principal named {resource} was not found in the tenant."
        raise LoginError(500011, text, error="invalid_resource")
    object_id = service_principal_id(application)
    token = world.login.app_token(application.client_id, object_id, application.application_roles)
    lifetime = {"expires_in": APP_TOKEN_LIFETIME_S, "ext_expires_in": APP_TOKEN_LIFETIME_S}
    return {"token_type": "Bearer", **lifetime, "access_token": token}


def service_principal_id(application: Application) -> str:
    """The object id of the enterprise application; made up, but always the same."""
    digest = hashlib.sha256(f"service principal {application.client_id}".encode()).hexdigest()
    return "-".join((digest[:8], digest[8:12], "4" + digest[13:16], "8" + digest[17:20], digest[20:32]))


# -- authorization_code ----------------------------------------------------------------------------


def _for_code(world: World, application: Application, form: Form) -> dict[str, Any]:
    for name in ("code", "redirect_uri"):
        if not form.get(name):
            raise missing_parameter(name)
    code = world.login.codes.get(form["code"])
    if code is None:
        raise LoginError(70000)
    principal = _account(world, code.principal_id)
    world.login.refuse_if_injected(principal)
    _check_code(world, application, form, code)
    asked = parse(form.get("scope") or code.scope)
    granted = consented(application, asked)
    code.used = True
    return _tokens(world, application, principal, granted, form, nonce=code.nonce, refresh_scope=code.scope)


def _check_code(world: World, application: Application, form: Form, code: Code) -> None:
    if code.client_id != application.client_id.lower():
        raise LoginError(70000, suberror="client_mismatch")
    if code.used:
        raise LoginError(54005)
    if code.expires_at <= world.clock.now():
        raise LoginError(70008)
    if code.redirect_uri != form["redirect_uri"]:
        # Number by 12.7; which `error` word goes with it at this endpoint is [P].
        raise LoginError(
            50011, "The reply address does not match the one of the authorization.", error="invalid_grant"
        )
    if code.challenge is not None and not _verifies(form.get("code_verifier", ""), code):
        raise LoginError(501481)
    if code.challenge is None and form.get("code_verifier"):
        raise LoginError(501481)


def _verifies(verifier: str, code: Code) -> bool:
    if code.challenge_method == "S256":
        return base64url(hashlib.sha256(verifier.encode()).digest()) == (code.challenge or "").rstrip("=")
    return verifier == code.challenge


def _account(world: World, principal_id: str) -> Principal:
    """The user a grant belongs to, still there and allowed in. Raises LoginError 50034 or 50057."""
    principal = world.directory.principals.get(principal_id)
    if principal is None:
        raise LoginError(50034)
    if not principal.can_sign_in:
        raise LoginError(50057)
    return principal


# -- refresh_token ---------------------------------------------------------------------------------


def _for_refresh_token(world: World, application: Application, form: Form) -> dict[str, Any]:
    """New tokens; the refresh token used stays valid (graph.md 12.6 [D])."""
    if not form.get("refresh_token"):
        raise missing_parameter("refresh_token")
    held = world.login.refresh_tokens.get(form["refresh_token"])
    if held is None:
        raise LoginError(70000)
    if held.client_id != application.client_id.lower():
        raise LoginError(70000, suberror="client_mismatch")
    principal = _account(world, held.principal_id)
    world.login.refuse_if_injected(principal)
    if principal.password_changed:
        world.login.revoke(principal)
    if held.revoked:
        raise LoginError(50173)
    if held.expires_at <= world.clock.now():
        raise LoginError(700082)
    granted = consented(application, parse(form.get("scope") or held.scope))
    return _tokens(world, application, principal, granted, form, nonce=None, refresh_scope=held.scope)


def _tokens(
    world: World,
    application: Application,
    principal: Principal,
    granted: Granted,
    form: Form,
    *,
    nonce: str | None,
    refresh_scope: str,
) -> dict[str, Any]:
    """The success answer of graph.md 12.4: which parts it has depends on what was asked for."""
    login, lifetime_s = world.login, world.switches.access_token_lifetime_s
    answer: dict[str, Any] = {
        "token_type": "Bearer",
        "scope": " ".join(granted.spellings),
        "expires_in": lifetime_s,
        "ext_expires_in": lifetime_s,
        "access_token": login.user_token(principal, application.client_id, granted.names),
    }
    if granted.offline_access or form["grant_type"] == "refresh_token":
        answer["refresh_token"] = login.issue_refresh_token(principal, application.client_id, refresh_scope)
    if granted.openid:
        answer["id_token"] = login.id_token(principal, application, granted, nonce)
    if form.get("client_info") == "1":
        answer["client_info"] = client_info(world, principal)
    return answer
