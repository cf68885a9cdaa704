"""The REST API as a customer uses it: app registrations, accounts, sign-ins, and waiting for what follows."""

import asyncio
import itertools
import json
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urljoin, urlsplit

from azure.data.tables import TableServiceClient

from tests.support.application import Answer, Application, call
from tests.support.receiver import Received, Receiver
from tests.support.tenant import Tenant

CLIENT_ID = "11111111-2222-3333-4444-555555555555"
CLIENT_SECRET = "local-secret"
APP_CLIENT_ID = "22222222-3333-4444-5555-666666666666"
APP_CLIENT_SECRET = "local-app-secret"
TENANT_ID = "84bd8158-6d4d-4958-8b9f-9d6445542f95"
SHARED_SCOPES = ["User.ReadBasic.All", "Mail.ReadWrite.Shared", "Mail.Send.Shared"]
SETTING_KEYS = (
    "serviceUrl notificationBaseUrl serviceSecret serviceSecretOld webhooksEnabled webhooks webhookEvents "
    "webhooksCustomHeaders notifyHeaders notifyText notifyTextSize inboxNewOnly deliveryAttempts templateHeader "
    "templateHtmlHead pageBrandName trackOpens trackClicks"
).split()
ENVELOPE_KEYS = {"statusCode", "error", "message"}
NOT_FOUND = {"statusCode": 404, "error": "Not Found", "message": "Requested page not found"}
NO_ACCOUNT = {
    "statusCode": 404,
    "error": "Not Found",
    "message": "Account record was not found for requested ID",
}

Json = dict[str, Any]
_numbers = itertools.count(1)


def unique(prefix: str) -> str:
    """An account id that no other test of this run uses."""
    return f"{prefix}-{os.getpid()}-{next(_numbers)}"


def segment(text: str) -> str:
    """One path segment."""
    return quote(text, safe="").replace(".", "%2E")


async def until(what: str, look: Callable[[], Awaitable[Any]], timeout_s: float = 60) -> Any:
    """The first result of `look` that is not empty; AssertionError if none comes in time."""
    deadline = time.monotonic() + timeout_s
    found = await look()
    while not found:
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:.0f} s"
        await asyncio.sleep(0.1)
        found = await look()
    return found


def is_envelope(answer_body: Any, status: int) -> bool:
    """Whether an error's body has the contract's shape."""
    return (
        isinstance(answer_body, dict)
        and set(answer_body) >= ENVELOPE_KEYS
        and answer_body["statusCode"] == status
        and isinstance(answer_body["error"], str)
        and isinstance(answer_body["message"], str)
    )


def keys_of(answer: Answer) -> set[str]:
    """The `key` of every entry of a validation error's `fields`."""
    assert answer.status == 400, answer
    assert answer.body["message"] == "Invalid input", answer.body
    for entry in answer.body["fields"]:
        assert set(entry) == {"message", "key"}
    return {entry["key"] for entry in answer.body["fields"]}


class Rest:
    """A customer with an unrestricted token."""

    def __init__(self, app: Application, tenant: Tenant, connection_string: str) -> None:
        self.app, self.tenant = app, tenant
        self.tables = TableServiceClient.from_connection_string(connection_string)

    async def call(self, method: str, path: str, json: Any = None, **more: Any) -> Answer:
        """One request; every answer is JSON, and an error has the envelope and is not the service's fault."""
        answer = await self.app.call(method, path, json, **more)
        assert answer.status < 500 or answer.status == 503, answer
        assert answer.headers["Content-Type"].startswith("application/json"), answer
        assert answer.status == 200 or is_envelope(answer.body, answer.status), answer
        return answer

    async def ok(self, method: str, path: str, json: Any = None, **more: Any) -> Any:
        """One request that must be answered 200; the parsed body."""
        answer = await self.call(method, path, json, **more)
        assert answer.status == 200, f"{method} {path}: {answer.status} {answer.body}"
        return answer.body

    # Applications and accounts

    async def outlook_app(self, **fields: Any) -> str:
        """The id of a new application for people's sign-ins."""
        given = {
            "name": "People", "provider": "outlook", "enabled": True, "clientId": CLIENT_ID,
            "clientSecret": CLIENT_SECRET, "authority": "common", "extraScopes": SHARED_SCOPES,
        }  # fmt: skip
        return (await self.ok("POST", "/v1/oauth2", given | fields))["id"]

    async def service_app(self, **fields: Any) -> str:
        """The id of a new application for application access."""
        given = {
            "name": "Service", "provider": "outlookService", "enabled": True, "clientId": APP_CLIENT_ID,
            "clientSecret": APP_CLIENT_SECRET, "authority": TENANT_ID,
        }  # fmt: skip
        return (await self.ok("POST", "/v1/oauth2", given | fields))["id"]

    async def create(self, account: str | None, oauth2: Json | None = None, **fields: Any) -> Json:
        """POST /v1/account."""
        body = {"account": account, "name": "A Name"} | ({"oauth2": oauth2} if oauth2 else {}) | fields
        return await self.ok("POST", "/v1/account", body)

    async def own(self, account: str, user: str = "ann@contoso.example", **fields: Any) -> Json:
        """A connected account with imported tokens of its own."""
        tokens = await self.tenant.token(user=user)
        oauth2 = {
            "provider": await self.outlook_app(),
            "auth": {"user": user},
            "accessToken": tokens["access_token"],
            "refreshToken": tokens["refresh_token"],
        }
        await self.create(account, oauth2, **({"email": user} | fields))
        return await self.connected(account)

    async def get(self, account: str) -> Json:
        """GET /v1/account/{account}."""
        return await self.ok("GET", f"/v1/account/{segment(account)}")

    async def in_state(self, account: str, state: str) -> Json:
        """The account once it is in a state."""

        async def look() -> Json | None:
            record = await self.get(account)
            return record if record["state"] == state else None

        return await until(f"{account} {state}", look)

    async def connected(self, account: str) -> Json:
        """The account once it is connected and knows how it hears of changes."""

        async def look() -> Json | None:
            record = await self.get(account)
            assert record["state"] != "authenticationError", record["lastError"]
            ready = record["state"] == "connected" and record.get("notifications")
            pushed = ready and (record["notifications"]["mode"] == "poll" or record.get("outlookSubscription"))
            # A subscription is called push once its first notification came.
            return record if pushed and "awaited" not in record["notifications"]["reason"] else None

        return await until(f"{account} connected", look)

    # Signing in without a browser

    async def sign_in(self, start: str, user: str) -> tuple[Json, Answer]:
        """Follows a set-up link or an authorize URL as a person does; the query of the way back, and the page."""
        if start.startswith(self.app.url):
            start = await self._redirected("GET", start)
        assert start.startswith(self.tenant.url), start
        form = urlencode({"user": user}).encode()
        callback = await self._redirected("POST", start, form)
        page = await call("GET", callback)
        assert page.status == 200, page
        target = page.body.decode().partition("0;url=")[2].partition('"')[0].replace("&amp;", "&")
        query = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
        return query | {"target": target.partition("?")[0]}, page

    @staticmethod
    async def _redirected(method: str, url: str, form: bytes | None = None) -> str:
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if form else None
        answer = await call(method, url, body=form, headers=headers)
        assert answer.status in (302, 303), answer
        return urljoin(url, answer.headers["Location"])

    # What storage holds

    def rows(self, *names: str) -> list[tuple[str, Json]]:
        """Every entity of these tables, or of all tables."""
        found = []
        for table in sorted(item.name for item in self.tables.list_tables()):
            if not names or table in names:
                entities = self.tables.get_table_client(table).list_entities()
                found += [(table, dict(entity)) for entity in entities]
        return found

    def bytes_at_rest(self) -> bytes:
        """Every property of every entity of every table, one after the other."""
        parts = []
        for table, entity in self.rows():
            for name, value in entity.items():
                raw = value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
                parts += [f"\n{table} {name}=".encode(), raw]
        return b"".join(parts)

    async def clear(self) -> None:
        """Deletes every account, application, token and setting."""
        for entry in (await self.ok("GET", "/v1/accounts?pageSize=1000"))["accounts"]:
            await self.ok("DELETE", f"/v1/account/{segment(entry['account'])}")
        for entry in (await self.ok("GET", "/v1/oauth2?pageSize=1000"))["apps"]:
            await self.ok("DELETE", f"/v1/oauth2/{entry['id']}")
        for entry in (await self.ok("GET", "/v1/tokens?pageSize=1000"))["tokens"]:
            await self.ok("DELETE", f"/v1/tokens/{entry['id']}")
        await self.ok("POST", "/v1/settings", dict.fromkeys(SETTING_KEYS))


class Hooks:
    """What a webhook receiver heard, by account and event."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver

    def of(self, account: str, event: str | None = None) -> list[Received]:
        """The requests about an account so far."""
        return [
            one
            for one in self.receiver.requests
            if one.json["account"] == account and event in (None, one.json["event"])
        ]

    async def wait(self, account: str, event: str, timeout_s: float = 60) -> Json:
        """The envelope of the first such event."""
        received = await self.receiver.wait_for(
            lambda one: one.json["account"] == account and one.json["event"] == event, timeout_s
        )
        return json.loads(received.body)
