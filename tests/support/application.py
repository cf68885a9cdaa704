"""The app under test, as a client sees it."""

import json as json_module
from typing import Any, NamedTuple

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from local.services import BOOTSTRAP_TOKEN, App


class Answer(NamedTuple):
    """An HTTP answer; `body` is parsed if it is JSON, else bytes."""

    status: int
    body: Any
    headers: CIMultiDictProxy[str]


async def call(
    method: str, url: str, *, json: Any = None, body: Any = None, headers: dict[str, str] | None = None
) -> Answer:
    """Send one request, its URL exactly as given, and read the whole answer. Redirects are not followed."""
    sent = dict(headers or {})
    if json is not None:
        body, sent = json_module.dumps(json).encode(), {"Content-Type": "application/json", **sent}
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
        session.request(
            method, URL(url, encoded=True), data=body, headers=sent, allow_redirects=False
        ) as response,
    ):
        content = await response.read()
        parsed = json_module.loads(content) if "json" in response.content_type and content else content
        return Answer(response.status, parsed, response.headers)


class Application:
    """A running function app: where it is, and a way to call it."""

    def __init__(self, host: App, token: str = BOOTSTRAP_TOKEN) -> None:
        self.host = host
        self.token = token

    @property
    def url(self) -> str:
        """Its base URL, without a slash at the end."""
        return self.host.url

    async def call(
        self,
        method: str,
        path: str,
        json: Any = None,
        headers: dict[str, str] | None = None,
        *,
        body: Any = None,
        token: str | None = "",
    ) -> Answer:
        """One request, with the bootstrap token unless another is given (None: without any)."""
        sent = dict(headers or {})
        if token is not None and "Authorization" not in sent:
            sent["Authorization"] = f"Bearer {token or self.token}"
        return await call(method, self.url + path, json=json, body=body, headers=sent)
