"""A seeded tenant with Graph, clients for its people, a webhook receiver, and the OpenAPI description."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from local.tenant.app import build_app
from local.tenant.directory import Principal
from local.tenant.seed import APPLICATION_APP, DELEGATED_APP
from local.tenant.world import World

OPENAPI = Path(__file__).parents[3] / "shared" / "reference" / "graph-mail-openapi.yaml"
EVERY_SCOPE = (
    "User.Read User.ReadBasic.All Mail.Read Mail.ReadWrite Mail.Send "
    "Mail.Read.Shared Mail.ReadWrite.Shared Mail.Send.Shared"
)
IMMUTABLE = {"Prefer": 'IdType="ImmutableId"'}


@dataclass
class Answer:
    """What came back: status, headers, JSON (or None) and bytes."""

    status: int
    headers: Any
    body: bytes
    json: Any

    @property
    def error(self) -> tuple[int, str, str]:
        return self.status, self.json["error"]["code"], self.json["error"]["message"]

    def __getitem__(self, key: str) -> Any:
        return self.json[key]


@dataclass
class GraphClient:
    """Calls Graph with one token."""

    url: str
    token: str
    session: aiohttp.ClientSession

    async def call(self, method: str, path: str, json: Any = None, **options: Any) -> Answer:
        """Any call; `path` below /v1.0 or a whole URL."""
        url = path if path.startswith("http") else f"{self.url}/v1.0{path}"
        headers = {"Authorization": f"Bearer {self.token}", **options.pop("headers", {})}
        async with self.session.request(method, url, json=json, headers=headers, **options) as response:
            body = await response.read()
            parsed = await response.json() if "json" in response.content_type else None
            return Answer(response.status, response.headers, body, parsed)

    async def get(self, path: str, expect: int = 200, **options: Any) -> Answer:
        return _expected(await self.call("GET", path, **options), expect)

    async def post(self, path: str, json: Any = None, expect: int = 201, **options: Any) -> Answer:
        return _expected(await self.call("POST", path, json, **options), expect)

    async def patch(self, path: str, json: Any, expect: int = 200, **options: Any) -> Answer:
        return _expected(await self.call("PATCH", path, json, **options), expect)

    async def delete(self, path: str, expect: int = 204, **options: Any) -> Answer:
        return _expected(await self.call("DELETE", path, **options), expect)

    async def send_mime(self, path: str, raw: bytes, expect: int = 202) -> Answer:
        headers = {"Content-Type": "text/plain"}
        answer = await self.call("POST", path, data=base64.b64encode(raw), headers=headers)
        return _expected(answer, expect)

    async def pages(self, path: str, **options: Any) -> list[Any]:
        """Every entry behind the nextLinks."""
        entries, link = [], path
        while link:
            page = (await self.get(link, **options)).json
            entries += page["value"]
            link = page.get("@odata.nextLink")
        return entries


def _expected(answer: Answer, status: int) -> Answer:
    assert answer.status == status, answer.body.decode(errors="replace")
    return answer


@dataclass
class Receiver:
    """A webhook endpoint: passes the handshake and remembers what is posted."""

    url: str = ""
    entries: list[dict[str, Any]] = field(default_factory=list)
    payloads: list[Any] = field(default_factory=list)
    handshakes: int = 0
    answers: list[int] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    handshake: Callable[[str], web.Response] = lambda token: web.Response(text=token)

    async def receive(self, request: web.Request) -> web.Response:
        token = request.query.get("validationToken")
        if token is not None:
            self.handshakes += 1
            return self.handshake(token)
        payload = await request.json()
        status = self.answers.pop(0) if self.answers else 202
        self.payloads.append(payload)
        if status < 300 and isinstance(payload, dict):
            self.entries += payload.get("value", [])
        self.arrived.set()
        return web.Response(status=status)

    async def until(self, count: int, within_s: float = 3.0) -> list[dict[str, Any]]:
        """The entries once there are at least `count`."""
        async with asyncio.timeout(within_s):
            while len(self.entries) < count:
                self.arrived.clear()
                await self.arrived.wait()
        return self.entries


@dataclass
class Office:
    """The tenant of one test."""

    world: World
    url: str
    session: aiohttp.ClientSession

    def person(self, name: str) -> Principal:
        found = self.world.directory.find(f"{name}@contoso.example")
        assert found is not None
        return found

    async def user(self, name: str, scopes: str = EVERY_SCOPE) -> GraphClient:
        """A client with a user token of exactly these scopes."""
        body = {"user": f"{name}@contoso.example", "app": DELEGATED_APP, "scopes": scopes.split()}
        return await self._client(body)

    async def app(self, roles: str = "Mail.ReadWrite Mail.Send User.Read.All") -> GraphClient:
        """A client with an app-only token of exactly these roles."""
        return await self._client({"app": APPLICATION_APP, "scopes": roles.split()})

    async def _client(self, body: dict[str, Any]) -> GraphClient:
        minted = await self.control("/tokens", body)
        return GraphClient(self.url, minted["access_token"], self.session)

    async def control(self, path: str, body: Any = None) -> Any:
        async with self.session.post(f"{self.url}/_tenant{path}", json=body or {}) as response:
            assert response.status < 300, await response.text()
            return await response.json()

    def deliver(self, to: str, subject: str = "Hello", **options: Any) -> str:
        """Mail from outside into a mailbox; its immutable id."""
        sender = {"name": "Ada", "address": "ada@fabrikam.example"}
        options.setdefault("text", f"Text of {subject}")
        placed = self.world.mail.deliver(sender, [f"{to}@contoso.example"], subject=subject, **options)
        return str(placed[0]["id"])

    def stored(self, name: str, folder: str | None = None) -> list[dict[str, Any]]:
        return self.world.mail.dump(f"{name}@contoso.example", folder)


@pytest_asyncio.fixture
async def office() -> AsyncIterator[Office]:
    """A freshly seeded tenant with Graph on a free port."""
    world = World()
    world.seed(7)
    server = TestServer(build_app(world))
    await server.start_server()
    world.base_url = str(server.make_url("")).rstrip("/")
    async with aiohttp.ClientSession() as session:
        yield Office(world, world.base_url, session)
    await world.notifier.close()
    await server.close()


@pytest_asyncio.fixture
async def hook() -> AsyncIterator[Receiver]:
    """A webhook endpoint on a free port."""
    listening = Receiver()
    app = web.Application()
    app.router.add_post("/hook", listening.receive)
    server = TestServer(app)
    await server.start_server()
    listening.url = str(server.make_url("/hook"))
    yield listening
    await server.close()


@cache
def _description() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load(OPENAPI.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return loaded


@pytest.fixture
def fits_openapi() -> Callable[[str, Any], None]:
    """Checks JSON against a schema of the OpenAPI description, named without `microsoft.graph.`."""
    if not OPENAPI.exists():
        pytest.skip(f"the OpenAPI description is not beside the project ({OPENAPI.name})")
    from openapi_schema_validator import OAS30Validator
    from referencing import Registry, Resource
    from referencing.jsonschema import DRAFT4

    registry = Registry().with_resource("urn:graph", Resource(contents=_description(), specification=DRAFT4))

    def check(name: str, value: Any) -> None:
        reference = {"$ref": f"urn:graph#/components/schemas/microsoft.graph.{name}"}
        OAS30Validator(reference, registry=registry).validate(value)

    return check


def mail(to: str = "rita@contoso.example", **properties: Any) -> dict[str, Any]:
    """A message body for sendMail or a draft."""
    return {
        "subject": "Order 4711",
        "body": {"contentType": "html", "content": "<p>Good morning</p>"},
        "toRecipients": [{"emailAddress": {"address": to}}],
        **properties,
    }


def who(address: str) -> dict[str, Any]:
    return {"emailAddress": {"address": address}}


def address(message: dict[str, Any], key: str) -> str:
    return str(message[key]["emailAddress"]["address"])
