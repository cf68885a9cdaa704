"""The documents a client library reads first: OpenID configuration, key set, instance discovery.

They keep the real https names although the tenant answers on http: MSAL refuses http (graph.md 13.3 [S] [M]).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from .login_errors import LoginError, error_response
from .login_scopes import missing_parameter

if TYPE_CHECKING:
    from .world import World

HOST = "https://login.microsoftonline.com"
ALIASES = ["login.microsoftonline.com", "login.windows.net", "login.microsoft.com", "sts.windows.net"]


def openid_configuration(tenant: str) -> dict[str, Any]:
    """The document of graph.md 12.1 [D]; `tenant` is the GUID, or `common`/`organizations`."""
    issuer = "{tenantid}" if tenant in ("common", "organizations") else tenant
    root = f"{HOST}/{tenant}"
    return {
        "issuer": f"{HOST}/{issuer}/v2.0",
        "authorization_endpoint": f"{root}/oauth2/v2.0/authorize",
        "token_endpoint": f"{root}/oauth2/v2.0/token",
        "token_endpoint_auth_methods_supported": [
            "client_secret_post",
            "private_key_jwt",
            "client_secret_basic",
        ],
        "jwks_uri": f"{root}/discovery/v2.0/keys",
        "device_authorization_endpoint": f"{root}/oauth2/v2.0/devicecode",
        "end_session_endpoint": f"{root}/oauth2/v2.0/logout",
        "userinfo_endpoint": "https://graph.microsoft.com/oidc/userinfo",
        "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
        "response_modes_supported": ["query", "fragment", "form_post"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "tenant_region_scope": "EU",
        "cloud_instance_name": "microsoftonline.com",
        "msgraph_host": "graph.microsoft.com",
    }


def add_discovery_routes(app: web.Application, world: World) -> None:
    """Mount the documents."""

    async def configuration(request: web.Request) -> web.Response:
        segment = request.match_info["tenant"]
        try:
            home = world.login.home_tenant(segment)
        except LoginError as error:
            # Seen on the real document endpoint: `invalid_tenant` instead of `invalid_request` [P].
            error.error = "invalid_tenant"
            return error_response(world, error, request)
        return web.json_response(openid_configuration(world.directory.tenant_id if home else segment.lower()))

    async def keys(request: web.Request) -> web.Response:
        try:
            home = world.login.home_tenant(request.match_info["tenant"])
        except LoginError as error:
            return error_response(world, error, request)
        issuer = world.login.issuer if home else f"{HOST}/{{tenantid}}/v2.0"
        return web.json_response(world.login.keys.jwks(issuer))

    async def instance(request: web.Request) -> web.Response:
        wanted = request.query.get("authorization_endpoint")
        if not wanted:
            return error_response(world, missing_parameter("authorization_endpoint"), request)
        segment = wanted.removeprefix("https://").split("/")[1:2] or ["common"]
        metadata = {"preferred_network": ALIASES[0], "preferred_cache": ALIASES[1], "aliases": ALIASES}
        document = f"{HOST}/{segment[0]}/v2.0/.well-known/openid-configuration"
        body = {"tenant_discovery_endpoint": document, "api-version": "1.1", "metadata": [metadata]}
        return web.json_response(body)

    app.router.add_get("/{tenant}/v2.0/.well-known/openid-configuration", configuration)
    app.router.add_get("/{tenant}/discovery/v2.0/keys", keys)
    app.router.add_get("/{tenant}/discovery/instance", instance)
