"""A running tenant without Graph, and MSAL pointed at it, for the tests of login and control."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import msal
import requests
from aiohttp import web
from aiohttp.test_utils import TestServer

from local.tenant.app import build_app
from local.tenant.seed import DELEGATED_APP
from local.tenant.world import World

LOGIN = "https://login.microsoftonline.com"
REDIRECT = "http://localhost:7071/oauth"
ANN = "ann@contoso.example"


class Rewriting:
    """An http_client for MSAL that sends the login host's requests to the tenant (graph.md 13.3 way 2)."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.session = requests.Session()

    def get(self, url: str, params: Any = None, headers: Any = None, **_: Any) -> Any:
        return self.session.get(url.replace(LOGIN, self.base_url), params=params, headers=headers, timeout=10)

    def post(self, url: str, params: Any = None, data: Any = None, headers: Any = None, **_: Any) -> Any:
        url = url.replace(LOGIN, self.base_url)
        return self.session.post(url, params=params, data=data, headers=headers, timeout=10)

    def close(self) -> None:
        self.session.close()


@dataclass
class Tenant:
    """The world, where it listens, and an HTTP session."""

    world: World
    url: str
    session: aiohttp.ClientSession
    work: list[str]

    async def control(self, method: str, path: str, body: Any = None, expect: int | None = None) -> Any:
        """The JSON a control call answers."""
        async with self.session.request(method, f"{self.url}/_tenant{path}", json=body) as response:
            if expect is None:
                assert response.status < 300, await response.text()
            else:
                assert response.status == expect, await response.text()
            return await response.json()

    async def msal_app(
        self,
        credential: Any = "local-secret",
        client_id: str = DELEGATED_APP,
        authority: str | None = None,
    ) -> msal.ConfidentialClientApplication:
        """A new MSAL application; its caches are empty."""
        authority = authority or f"{LOGIN}/{self.world.directory.tenant_id}"
        return await self.blocking(
            lambda: msal.ConfidentialClientApplication(
                client_id,
                client_credential=credential,
                authority=authority,
                http_client=Rewriting(self.url),
            )
        )

    @staticmethod
    async def blocking(call: Callable[[], Any]) -> Any:
        """MSAL is synchronous: run it beside the server's loop."""
        return await asyncio.to_thread(call)

    async def visit(self, url: str, form: dict[str, str] | None = None) -> tuple[int, dict[str, str], str]:
        """(status, fields at the redirect URI, page text) of a browser's visit at the login host."""
        url = url.replace(LOGIN, self.url)
        method = "GET" if form is None else "POST"
        async with self.session.request(method, url, data=form, allow_redirects=False) as response:
            location = response.headers.get("Location", "")
            return response.status, dict(parse_qsl(urlsplit(location).query)), await response.text()

    async def token(self, form: dict[str, str], tenant: str | None = None, **kw: Any) -> tuple[int, Any]:
        """(status, JSON) of a token request."""
        tenant = tenant or self.world.directory.tenant_id
        async with self.session.post(f"{self.url}/{tenant}/oauth2/v2.0/token", data=form, **kw) as response:
            return response.status, await response.json()


async def _work(request: web.Request) -> web.Response:
    """A Graph call that leaves a trace: the number of times it did its work."""
    request.app[WORK].append(request.path)
    return web.json_response({"done": len(request.app[WORK])})


WORK: web.AppKey[list[str]] = web.AppKey("work", list)


async def start(world: World, *, graph: bool = False) -> tuple[TestServer, Tenant]:
    """The tenant on a free port, with two stand-in Graph routes instead of the real ones, or with these."""
    app = build_app(world, graph=graph)
    app[WORK] = []
    if not graph:
        app.router.add_route("*", "/v1.0/me/work", _work)
        app.router.add_post("/v1.0/users/{user}/work", _work)
    server = TestServer(app)
    await server.start_server()
    world.base_url = str(server.make_url("")).rstrip("/")
    session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
    return server, Tenant(world, world.base_url, session, app[WORK])
