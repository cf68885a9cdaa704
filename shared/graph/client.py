"""The one function through which every Graph call goes.

msgraph-sdk's request builders make the request and its adapter sends it; we take the native answer and read the
JSON ourselves, because the SDK's first parsed entity costs most of a second (graph.md 14.1). The SDK's retries
are off: it repeats POST on 503 and 504, which sends a mail twice (14.4).
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.errors import GraphFailure
from shared.graph.failures import from_answer
from shared.graph.paths import MailboxPath, lane
from shared.oauth_apps import OauthApp

if TYPE_CHECKING:
    from kiota_abstractions.request_information import RequestInformation
    from msgraph.graph_service_client import GraphServiceClient

log = logging.getLogger("graphpost.graph")

IN_FLIGHT = 4  # requests at once for one app and mailbox (graph.md 11)
TIMEOUT_S = 60.0
CONNECT_S = 10.0
IMMUTABLE = 'IdType="ImmutableId"'

# rejected token -> token. The callable gets the token that Graph refused, or None for the first try.
TokenSource = Callable[[str | None], Awaitable[str]]


@dataclass(frozen=True)
class Answer:
    """A successful answer: its status, headers (lower-case names) and raw bytes."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        try:
            value: dict[str, Any] = json.loads(self.body)
        except ValueError:
            raise GraphFailure(502, "InvalidJSON", "Graph answered with something that is not JSON") from None
        return value


class Graph:
    """Calls Graph for one cloud."""

    def __init__(self, root: str, official: str = "", on_call: Callable[[str], None] | None = None) -> None:
        """`root` is where Graph is reached, without a version; `official` the cloud's own root when a
        development setting replaces it: links that Graph gives may name either. `on_call` hears the lane of every
        request that is sent."""
        self._root, self._official = root, official or root
        self._on_call = on_call or (lambda lane: None)
        self.on_answer: Callable[[str, str, RequestInformation, int, str, int], None] = lambda *_: None
        self._client: GraphServiceClient | None = None
        self._http: Any = None
        self._uploader: Any = None
        self._in_flight: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(IN_FLIGHT))
        self.calls = 0

    @property
    def client(self) -> GraphServiceClient:
        """The SDK's client, from which requests are built. Made on first use."""
        if self._client is None:
            self._client = self._make()
        return self._client

    def _make(self) -> GraphServiceClient:
        import httpx
        from kiota_abstractions.authentication import AnonymousAuthenticationProvider
        from kiota_http.middleware.options import RetryHandlerOption
        from msgraph.graph_request_adapter import GraphRequestAdapter, options
        from msgraph.graph_service_client import GraphServiceClient
        from msgraph_core import GraphClientFactory

        timeout = httpx.Timeout(TIMEOUT_S, connect=CONNECT_S)
        no_retry = {RetryHandlerOption.get_key(): RetryHandlerOption(max_retries=0, should_retry=False)}
        self._http = GraphClientFactory.create_with_default_middleware(
            client=httpx.AsyncClient(timeout=timeout, http2=True), options={**options, **no_retry}
        )
        # Anonymous, because the token is a header that `call` sets: it knows whose it is.
        adapter = GraphRequestAdapter(AnonymousAuthenticationProvider(), self._http)
        adapter.base_url = f"{self._root}/v1.0"
        return GraphServiceClient(request_adapter=adapter)

    async def call(
        self, mailbox: MailboxPath, app: OauthApp, token: TokenSource, request: RequestInformation
    ) -> Answer:
        """Sends a request for a mailbox. Raises GraphFailure for every answer that is not 2xx, and for none.

        A 401 is tried once more with a new token; nothing else is repeated here, because only the caller knows
        what is safe to repeat.
        """
        async with self._in_flight[f"{app.client_id} {mailbox.key}"]:
            bearer = await token(None)
            name = lane(app.id, mailbox)
            self._on_call(name)
            try:
                return await self._timed(name, request, bearer)
            except GraphFailure as failure:
                if failure.status != 401:
                    raise
            bearer = await token(bearer)
            self._on_call(name)
            return await self._timed(name, request, bearer)

    async def _timed(self, name: str, request: RequestInformation, bearer: str) -> Answer:
        """Sends it and tells `on_answer` of lane, method, request, status, error code and milliseconds."""
        started, status, code = time.monotonic(), 0, ""
        try:
            answer = await self._send(request, bearer)
            status = answer.status
            return answer
        except GraphFailure as failure:
            status, code = failure.status, failure.code
            raise
        finally:
            method = request.http_method.value if request.http_method is not None else ""
            self.on_answer(name, method, request, status, code, int((time.monotonic() - started) * 1000))

    async def _send(self, request: RequestInformation, bearer: str) -> Answer:
        from kiota_abstractions.native_response_handler import NativeResponseHandler
        from kiota_http.middleware.options import ResponseHandlerOption

        request.headers.remove("Authorization")
        request.headers.try_add("Authorization", f"Bearer {bearer}")
        if request.http_method and request.http_method.value == "POST" and not request.content:
            request.headers.try_add("Content-Length", "0")  # otherwise 411 (graph.md 2.2)
        request.add_request_options([ResponseHandlerOption(NativeResponseHandler())])
        was_write = request.http_method is not None and request.http_method.value != "GET"
        self.calls += 1
        try:
            return await _answered(self.client.request_adapter.send_primitive_async(request, "bytes", {}), was_write)
        except GraphFailure as failure:
            if failure.status:
                level = logging.INFO if failure.status == 404 else logging.WARNING
                log.log(level, "graph answered %s %s request-id %s", failure.status, failure.code, failure.request_id)
            raise

    async def upload(
        self, mailbox: MailboxPath, app: OauthApp, method: str, url: str, content: bytes = b"", **headers: str
    ) -> Answer:
        """Talks to the service behind an upload URL, which is another host than Graph: no token goes there, and
        the URL, a credential itself, into no log (graph.md 7.3). Nothing is repeated and no redirect followed.

        Raises GraphFailure as `call` does.
        """
        import httpx

        self._check_upload_url(url)
        if self._uploader is None:
            timeout = httpx.Timeout(TIMEOUT_S, connect=CONNECT_S)
            self._uploader = httpx.AsyncClient(timeout=timeout, follow_redirects=False)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        was_write = method != "GET"
        self.calls += 1
        async with self._in_flight[f"{app.client_id} {mailbox.key}"]:
            self._on_call(lane(app.id, mailbox))
            return await _answered(self._uploader.request(method, url, content=content, headers=sent), was_write)

    def _check_upload_url(self, url: str) -> None:
        """https, or this Graph itself where a development setting made it plain http."""
        from urllib.parse import urlsplit

        try:
            parts = urlsplit(url)
            sound = parts.scheme == "https" and bool(parts.hostname) and "@" not in parts.netloc
        except ValueError:
            sound = False
        if not sound and not url.startswith(self._root + "/"):
            raise GraphFailure(502, "ForeignUpload", "Graph gave an upload address that is not https")

    async def pages(
        self, mailbox: MailboxPath, app: OauthApp, token: TokenSource, request: RequestInformation
    ) -> AsyncIterator[dict[str, Any]]:
        """Every page from the request on, following `@odata.nextLink` as it is (graph.md 4)."""
        while True:
            page = (await self.call(mailbox, app, token, request)).json()
            yield page
            link = page.get("@odata.nextLink")
            if not link:
                return
            request = self.follow(link, request)

    def follow(self, link: str, like: RequestInformation | None = None) -> RequestInformation:
        """A GET of a link that Graph gave, with the headers of the request it came from.

        The link must lead back to this Graph: it is followed with a token.
        """
        from kiota_abstractions.method import Method
        from kiota_abstractions.request_information import RequestInformation

        if link.startswith(self._official + "/"):
            link = self._root + link[len(self._official) :]
        if not link.startswith(self._root + "/"):
            raise GraphFailure(410, "ForeignLink", "The stored link leads to another host")
        request = RequestInformation()
        request.http_method = Method.GET
        request.url = link
        request.headers.try_add("Accept", "application/json")
        request.headers.try_add("Prefer", IMMUTABLE)
        if like is not None:
            for name in like.headers.get_all():
                if name.lower() not in ("authorization", "content-length"):
                    for value in like.headers.get(name):
                        request.headers.try_add(name, value)
        return request

    async def close(self) -> None:
        for http in (self._http, self._uploader):
            if http is not None:
                await http.aclose()


async def _answered(sending: Awaitable[Any], was_write: bool) -> Answer:
    """The answer to a request under way. GraphFailure for every one that is not 2xx, and for none."""
    import httpx

    try:
        native = await sending
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as problem:
        raise GraphFailure(0, "Unreachable", type(problem).__name__) from None
    except httpx.HTTPError as problem:
        raise GraphFailure(0, "NoAnswer", type(problem).__name__, may_have_acted=was_write) from None
    headers = {name.lower(): value for name, value in native.headers.items()}
    if native.is_success:
        return Answer(native.status_code, headers, native.content)
    raise from_answer(native.status_code, headers, native.content, was_write=was_write)
