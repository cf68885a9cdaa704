"""The managed-identity endpoint of App Service and Functions (graph.md 12.5, 13.2): plain http, one GET."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jwt
from aiohttp import web

from .directory import ManagedIdentity
from .login_scopes import GRAPH

if TYPE_CHECKING:
    from .world import World


def add_managed_identity_route(app: web.Application, world: World) -> None:
    """Mount `GET /msi/token`."""

    async def token(request: web.Request) -> web.Response:
        if request.headers.get("X-IDENTITY-HEADER") != world.switches.identity_header:
            return _refusal(401, "The X-IDENTITY-HEADER is missing or wrong.")
        if request.query.get("api-version") != "2019-08-01":
            return _refusal(400, "The api-version is not supported.")
        resource = request.query.get("resource")
        if not resource:
            return _refusal(400, "The parameter resource is missing.")
        identity = _identity(world, request.query.get("client_id"))
        if identity is None:
            return _refusal(400, "No user-assigned managed identity found for the specified client id.")
        return web.json_response(_answer(world, identity, resource))

    app.router.add_get("/msi/token", token)


def _identity(world: World, client_id: str | None) -> ManagedIdentity | None:
    for identity in world.directory.identities:
        if client_id is None or identity.client_id == client_id.lower():
            return identity
    return None


def _refusal(status: int, message: str) -> web.Response:
    # The form of these errors is [P].
    return web.json_response({"statusCode": status, "message": message}, status=status)


def _answer(world: World, identity: ManagedIdentity, resource: str) -> dict[str, Any]:
    if resource.rstrip("/") == GRAPH:
        token = world.login.app_token(identity.client_id, identity.principal_id, set(), lifetime_s=24 * 3600)
    else:
        token = world.login.exchange_token(identity.principal_id, resource)
    expires = jwt.decode(token, options={"verify_signature": False})["exp"]
    return {"access_token": token, "expires_on": str(expires), "resource": resource, "token_type": "Bearer"}
