"""Control over sign-in: minted tokens, revocation, errors on demand, key rollover."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from aiohttp import web

from .control_input import ControlError, json_object, known_principal, required
from .directory import Application
from .login import Injected
from .login_scopes import GRAPH
from .login_token import service_principal_id

if TYPE_CHECKING:
    from .world import World

# The lists of Login that /login_errors may fill.
WAITING = {
    "next_authorize_error": "authorize_errors",
    "token_errors": "token_errors",
    "token_status": "token_statuses",
}


def _application(world: World, client_id: str | None, *, delegated: bool) -> Application:
    """The one named, or the first that can do what is wanted."""
    if client_id:
        application = world.directory.application(client_id)
        if application is None:
            raise ControlError(404, f"No application {client_id!r}.")
        return application
    for application in world.directory.applications.values():
        if application.delegated_scopes if delegated else application.application_roles:
            return application
    raise ControlError(400, "There is no application for such a token; name one as app.")


def mint(world: World, body: dict[str, Any]) -> dict[str, Any]:
    """Tokens as the token endpoint would answer them; scopes are not held against the registration.

    `{user?, app?, scopes?, expires_in?, audience?}`; without user the token is the application's own.
    """
    application = _application(world, body.get("app"), delegated=bool(body.get("user")))
    scopes = body.get("scopes")
    if isinstance(scopes, str):
        scopes = scopes.split()
    audience = str(body.get("audience") or GRAPH)
    if not body.get("user"):
        roles = set(scopes) if scopes is not None else application.application_roles
        lifetime = int(body.get("expires_in", 3599))
        object_id = service_principal_id(application)
        token = world.login.app_token(
            application.client_id, object_id, roles, lifetime_s=lifetime, audience=audience
        )
        return {"token_type": "Bearer", "expires_in": lifetime, "access_token": token}
    principal = known_principal(world.directory.find(str(body["user"])), body["user"])
    names = tuple(scopes if scopes is not None else sorted(application.delegated_scopes - {"offline_access"}))
    lifetime = int(body.get("expires_in", world.switches.access_token_lifetime_s))
    token = world.login.user_token(
        principal, application.client_id, names, lifetime_s=lifetime, audience=audience
    )
    refresh = world.login.issue_refresh_token(principal, application.client_id, " ".join(names) or "openid")
    return {
        "token_type": "Bearer",
        "expires_in": lifetime,
        "scope": " ".join(names),
        "access_token": token,
        "refresh_token": refresh,
        "home_account_id": f"{principal.id}.{world.directory.tenant_id}",
    }


def _injected(value: object) -> Injected:
    known = {field.name for field in fields(Injected)}
    if not isinstance(value, dict) or set(value) - known:
        raise ControlError(400, f"An error on demand is an object of {', '.join(sorted(known))}.")
    return Injected(**value)


def add_login_control(app: web.Application, world: World, prefix: str) -> None:
    """Mount /tokens, /revoke, /login_errors and /keys/roll under the prefix."""

    async def tokens(request: web.Request) -> web.Response:
        return web.json_response(mint(world, await json_object(request)), status=201)

    async def revoke(request: web.Request) -> web.Response:
        body = await json_object(request)
        (user,) = required(body, "user")
        principal = known_principal(world.directory.find(user), user)
        revoked = world.login.revoke(principal, access_tokens=bool(body.get("access_tokens")))
        return web.json_response({"user": principal.upn, "refresh_tokens_revoked": revoked})

    async def errors(request: web.Request) -> web.Response:
        body = await json_object(request)
        if set(body) - set(WAITING) or not body:
            raise ControlError(400, f"Give one or more of {', '.join(WAITING)}.")
        waiting = {
            name: [_injected(one) for one in (value if isinstance(value, list) else [value])]
            for name, value in body.items()
        }
        for name, entries in waiting.items():
            getattr(world.login, WAITING[name]).extend(entries)
        return web.json_response({name: len(getattr(world.login, WAITING[name])) for name in WAITING})

    async def forget_errors(_: web.Request) -> web.Response:
        for attribute in WAITING.values():
            getattr(world.login, attribute).clear()
        return web.json_response(dict.fromkeys(WAITING, 0))

    async def roll(request: web.Request) -> web.Response:
        body = await json_object(request)
        return web.json_response({"kid": world.login.keys.roll(drop_old=bool(body.get("drop_old")))})

    app.router.add_post(f"{prefix}/tokens", tokens)
    app.router.add_post(f"{prefix}/revoke", revoke)
    app.router.add_post(f"{prefix}/login_errors", errors)
    app.router.add_delete(f"{prefix}/login_errors", forget_errors)
    app.router.add_post(f"{prefix}/keys/roll", roll)
