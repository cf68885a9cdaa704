"""An administrator and the people at their browsers: what they do and see, over HTTP, at the app and its tenant."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from tests.support.application import Answer, Application, call
from tests.support.pages import Page
from tests.support.tenant import Tenant

CLIENT_ID = "11111111-2222-3333-4444-555555555555"
CLIENT_SECRET = "local-secret"
APPLICATION_ID = "22222222-3333-4444-5555-666666666666"
APPLICATION_SECRET = "local-app-secret"
TENANT_ID = "84bd8158-6d4d-4958-8b9f-9d6445542f95"
SHARED_SCOPES = ["User.ReadBasic.All", "Mail.ReadWrite.Shared", "Mail.Send.Shared"]
ANN, RITA, JOHN = "ann@contoso.example", "rita@contoso.example", "john@contoso.example"
SUPPORT = "support@contoso.example"
PATIENCE_S = 30.0
FORM = {"Content-Type": "application/x-www-form-urlencoded"}

Json = dict[str, Any]
Found = TypeVar("Found")


async def until(
    what: str, look: Callable[[], Awaitable[Found | None]], timeout_s: float = PATIENCE_S
) -> Found:
    """The first result of `look` that is not empty; AssertionError if none comes in time."""
    ends = time.monotonic() + timeout_s
    while not (found := await look()):
        assert time.monotonic() < ends, f"{what}: not within {timeout_s:.0f} s"
        await asyncio.sleep(0.1)
    return found


class People:
    """Everybody who has to do with one app and the tenant behind it."""

    def __init__(self, app: Application, tenant: Tenant) -> None:
        self.app, self.tenant = app, tenant

    async def api(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's body; AssertionError unless it is a 200."""
        answer = await self.app.call(method, path, body)
        assert answer.status == 200, f"{method} {path}: {answer.status} {answer.body!r}"
        return answer.body

    # -- what an administrator sets up ---------------------------------------------------------------------

    async def register(self, **fields: Any) -> str:
        """An OAuth2 app people sign in with, enabled; its id."""
        usual = {"name": "Contoso", "provider": "outlook", "enabled": True, "clientId": CLIENT_ID}
        usual |= {"clientSecret": CLIENT_SECRET, "authority": "common", "extraScopes": SHARED_SCOPES}
        return str((await self.api("POST", "/v1/oauth2", {**usual, **fields}))["id"])

    async def register_application(self, **fields: Any) -> str:
        """An OAuth2 app with application access; its id."""
        usual = {"name": "Contoso application", "provider": "outlookService", "clientId": APPLICATION_ID}
        usual |= {"clientSecret": APPLICATION_SECRET, "authority": TENANT_ID, "extraScopes": []}
        return await self.register(**{**usual, **fields})

    async def person(self, account: str, provider: str, user: str = ANN, **tokens: Any) -> None:
        """An account for the person's own mailbox, from tokens obtained elsewhere."""
        given = tokens or {"refreshToken": (await self.tenant.token(user=user))["refresh_token"]}
        oauth2 = {"provider": provider, "auth": {"user": user}, **given}
        await self.api("POST", "/v1/account", {"account": account, "name": account, "email": user, "oauth2": oauth2})

    async def borrower(self, account: str, parent: str, mailbox: str = SUPPORT, **fields: Any) -> None:
        """An account for somebody else's mailbox with the rights of `parent`."""
        auth = {"delegatedUser": mailbox, "delegatedAccount": parent}
        body = {"account": account, "name": account, "email": mailbox, "oauth2": {"auth": auth}, **fields}
        await self.api("POST", "/v1/account", body)

    async def remove_everything(self) -> None:
        """No accounts and no OAuth2 apps any more."""
        for listed in (await self.api("GET", "/v1/accounts?pageSize=1000"))["accounts"]:
            await self.app.call("DELETE", f"/v1/account/{quote(listed['account'], safe='')}")
        for listed in (await self.api("GET", "/v1/oauth2?pageSize=1000"))["apps"]:
            await self.api("DELETE", f"/v1/oauth2/{listed['id']}")

    # -- what can be seen ----------------------------------------------------------------------------------

    async def account(self, account: str) -> Json:
        """The account as the API shows it."""
        shown: Json = await self.api("GET", f"/v1/account/{quote(account, safe='')}")
        return shown

    async def in_state(self, account: str, *states: str, timeout_s: float = PATIENCE_S) -> Json:
        """The account once it is in one of the states."""
        seen: list[Any] = []

        async def look() -> Json | None:
            shown = await self.account(account)
            if (shown["state"], shown["lastError"]) not in seen:
                seen.append((shown["state"], shown["lastError"]))
            return shown if shown["state"] in states else None

        try:
            return await until(f"{account} in {states}", look, timeout_s)
        except AssertionError as late:
            raise AssertionError(f"{late}; seen: {seen}") from None

    async def submit(self, account: str, to: str = RITA, **fields: Any) -> str:
        """A mail is accepted for sending; its Message-ID."""
        body = {"to": [{"address": to}], "subject": "Hello", "text": "A test", **fields}
        return str((await self.api("POST", f"/v1/account/{quote(account, safe='')}/submit", body))["messageId"])

    async def arrived(self, message_id: str, mailbox: str = RITA) -> Json:
        """The mail in the recipient's inbox."""

        async def look() -> Json | None:
            held = await self.tenant.messages(mailbox, "inbox")
            return next((mail for mail in held if mail.get("internetMessageId") == message_id), None)

        return await until(f"{message_id} in the inbox of {mailbox}", look)

    # -- what a person does at a browser -------------------------------------------------------------------

    async def form(self, **fields: Any) -> str:
        """A signed set-up link."""
        body = {"redirectUrl": "https://myapp.example/done", **fields}
        return str((await self.api("POST", "/v1/authentication/form", body))["url"])

    async def visit(self, url: str) -> Answer:
        """Opens an address without any token."""
        return await call("GET", url)

    async def post(self, url: str, **fields: str) -> Answer:
        """Sends a form."""
        return await call("POST", url, body=urlencode(fields), headers=FORM)

    async def authorize_address(self, link: str) -> str:
        """Where a set-up link leads to at Microsoft."""
        answer = await self.visit(link)
        assert answer.status == 302, f"{answer.status}: {answer.body[-600:]!r}"
        return answer.headers["Location"]

    async def approve(self, authorize: str, user: str = ANN) -> str:
        """Signs in at the tenant; the address the browser is sent back to."""
        answer = await self.post(authorize, user=user)
        assert answer.status == 302, f"{answer.status}: {answer.body[-600:]!r}"
        return answer.headers["Location"]

    async def sign_in(self, link: str, user: str = ANN) -> Page:
        """The whole way from a set-up link to the page at its end."""
        callback = await self.approve(await self.authorize_address(link), user)
        return Page(await self.visit(callback))
