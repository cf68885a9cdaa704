"""Accounts in the running app, made as a client makes them, and waiting for what becomes of them."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support.application import Answer, Application
from tests.support.tenant import Tenant

Json = dict[str, Any]
TENANT_ID = "84bd8158-6d4d-4958-8b9f-9d6445542f95"
DELEGATED = {
    "provider": "outlook",
    "enabled": True,
    "clientId": "11111111-2222-3333-4444-555555555555",
    "clientSecret": "local-secret",
    "authority": "common",
    "extraScopes": ["User.ReadBasic.All", "Mail.ReadWrite.Shared", "Mail.Send.Shared"],
}
APPLICATION = {
    "provider": "outlookService",
    "enabled": True,
    "clientId": "22222222-3333-4444-5555-666666666666",
    "clientSecret": "local-app-secret",
    "authority": TENANT_ID,
}


async def eventually(look: Callable[[], Awaitable[Any]], what: str, timeout_s: float = 60) -> Any:
    """The first result of `look` that is true. AssertionError, naming `what`, if none comes in time."""
    deadline = time.monotonic() + timeout_s
    while not (found := await look()):
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:.0f} s, last {found!r}"
        await asyncio.sleep(0.05)
    return found


def soon(seconds: float) -> str:
    """A moment that many seconds from now, as the API writes it."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Desk:
    """One test's accounts; `close` deletes them, so that they do not go on polling."""

    def __init__(self, app: Application, tenant: Tenant) -> None:
        self.app, self.tenant = app, tenant
        self.accounts: list[str] = []
        self._apps: dict[str, str] = {}

    async def ok(self, method: str, path: str, json: Any = None) -> Any:
        """The body of an answer that has to be 200."""
        answer = await self.app.call(method, path, json)
        assert answer.status == 200, f"{method} {path}: {answer.status} {answer.body!r}"
        return answer.body

    async def settings(self, **values: Any) -> None:
        """Changes service settings."""
        await self.ok("POST", "/v1/settings", values)

    async def hear(self, url: str, **more: Any) -> None:
        """Sends every event to this receiver."""
        await self.settings(**{"webhooksEnabled": True, "webhooks": url, "webhookEvents": ["*"], **more})

    async def oauth_app(self, fields: Json) -> str:
        """The id of an OAuth2 app with these fields, made at most once for this desk."""
        provider = str(fields["provider"])
        if provider not in self._apps:
            name = f"{provider} {secrets.token_hex(3)}"
            self._apps[provider] = (await self.ok("POST", "/v1/oauth2", {"name": name, **fields}))["id"]
        return self._apps[provider]

    async def add(self, name: str, oauth2: Json, *, wait: bool = True, **fields: Any) -> str:
        """A new account; connected when this returns, unless `wait` is false."""
        account = f"{name}-{secrets.token_hex(4)}"
        self.accounts.append(account)
        body = {"account": account, "name": fields.pop("label", name.title()), "oauth2": oauth2, **fields}
        await self.ok("POST", "/v1/account", body)
        if wait:
            await self.connected(account)
        return account

    async def signed_in(self, user: str) -> Json:
        """`oauth2` fields with tokens of a person, as after a sign-in elsewhere."""
        tokens = await self.tenant.token(user=user)
        return {
            "provider": await self.oauth_app(DELEGATED),
            "accessToken": tokens["access_token"],
            "refreshToken": tokens["refresh_token"],
            "expires": soon(tokens["expires_in"]),
        }

    async def own(self, user: str = "ann@contoso.example", **fields: Any) -> str:
        """A person's own mailbox."""
        oauth2 = {**await self.signed_in(user), "auth": {"user": user}}
        return await self.add(user.partition("@")[0], oauth2, **{"email": user, **fields})

    async def direct(self, mailbox: str, user: str = "ann@contoso.example", **fields: Any) -> str:
        """A shared mailbox with the sign-in of a person in its own record."""
        oauth2 = {**await self.signed_in(user), "auth": {"user": user, "delegatedUser": mailbox}}
        return await self.add(mailbox.partition("@")[0], oauth2, **{"email": mailbox, **fields})

    async def delegated(self, mailbox: str, holder: str, **fields: Any) -> str:
        """A shared mailbox that borrows the credentials of another account."""
        oauth2 = {"auth": {"delegatedUser": mailbox, "delegatedAccount": holder}}
        return await self.add(mailbox.partition("@")[0], oauth2, **{"email": mailbox, **fields})

    async def application(self, mailbox: str, **fields: Any) -> str:
        """A mailbox reached with application permissions."""
        oauth2 = {"provider": await self.oauth_app(APPLICATION), "auth": {"user": mailbox}}
        return await self.add(mailbox.partition("@")[0], oauth2, **{"email": mailbox, **fields})

    async def account(self, account: str) -> Json:
        """The account as the API shows it."""
        return await self.ok("GET", f"/v1/account/{account}")

    async def connected(self, account: str) -> Json:
        """The account once it is connected and listens for changes."""

        async def look() -> Json | None:
            record = await self.account(account)
            assert record["state"] != "authenticationError", record["lastError"]
            listens = record.get("notifications") and (
                record["notifications"]["mode"] == "poll" or (record.get("outlookSubscription") or {}).get("id")
            )
            return record if record["state"] == "connected" and listens else None

        return await eventually(look, f"{account} connected")

    async def submit(self, account: str, query: str = "", **fields: Any) -> Answer:
        """One submit; fields whose names end in `_` lose it, since `from` is a word of the language."""
        body = {name.rstrip("_"): value for name, value in fields.items()}
        return await self.app.call("POST", f"/v1/account/{account}/submit{query}", body)

    async def accepted(self, account: str, query: str = "", **fields: Any) -> Json:
        """One submit that has to be accepted."""
        answer = await self.submit(account, query, **fields)
        assert answer.status == 200, f"submit: {answer.status} {answer.body!r}"
        return answer.body

    async def mail(
        self, mailbox: str, message_id: str, folder: str | None = "inbox", timeout_s: float = 60
    ) -> Json:
        """The mail with this Message-ID once it is in the mailbox, as the tenant itself holds it."""

        async def look() -> Json | None:
            return next(iter(await self.copies(mailbox, message_id, folder)), None)

        return await eventually(look, f"{message_id} in {mailbox}", timeout_s)

    async def copies(self, mailbox: str, message_id: str, folder: str | None = "inbox") -> list[Json]:
        """Every mail with this Message-ID in a folder; None means the whole mailbox."""
        found = await self.tenant.messages(mailbox, folder)
        return [one for one in found if one["internetMessageId"] == message_id]

    async def close(self) -> None:
        """Deletes the accounts of this desk."""
        for account in self.accounts:
            await self.app.call("DELETE", f"/v1/account/{account}")
