"""The story of the service, told over HTTP against the running app and tenant.

A person connects her mailbox, three shared mailboxes borrow her rights, one of them sends, and mail that arrives
reaches a webhook receiver. Every step looks at what really happened: in the mailboxes, and at the receiver.
"""

import argparse
import asyncio
import base64
import hashlib
import hmac
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import aiohttp
from aiohttp import web

CLIENT_ID = "11111111-2222-3333-4444-555555555555"
CLIENT_SECRET = "local-secret"
SERVICE_SECRET = "the-story-of-the-shared-mailbox"
APP_NAME = "Local tenant"
SHARED = (
    ("shared-support", "Support Mailbox", "support@contoso.example", "support@contoso.example"),
    ("shared-sales", "Sales", "sales@contoso.example", "sales@contoso.example"),
    ("shared-info", "Info", "info@contoso.example", "infombx@contoso.onmicrosoft.example"),
)
PATIENCE_S = 60.0

Json = dict[str, Any]


class StoryFailed(Exception):
    """Something did not happen as told."""


@dataclass
class Stage:
    """Where the story plays, and what the receiver has heard."""

    app_url: str
    tenant_url: str
    receiver_port: int
    token: str
    http: aiohttp.ClientSession
    heard: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def api(self, method: str, path: str, body: Json | None = None) -> Json:
        """One call of the API; StoryFailed unless it is answered 200."""
        headers = {"Authorization": f"Bearer {self.token}"}
        async with self.http.request(method, self.app_url + path, json=body, headers=headers) as answer:
            text = await answer.text()
            if answer.status != 200:
                raise StoryFailed(f"{method} {path} answered {answer.status}: {text[:500]}")
            parsed: Json = json.loads(text)
            return parsed

    async def control(self, method: str, path: str, body: Json | None = None) -> Json:
        """One call of the tenant's control surface."""
        async with self.http.request(method, f"{self.tenant_url}/_tenant{path}", json=body) as answer:
            answer.raise_for_status()
            parsed: Json = await answer.json()
            return parsed

    async def messages(self, mailbox: str, folder: str) -> list[Json]:
        """What a folder of a mailbox really holds."""
        return list((await self.control("GET", f"/mailboxes/{mailbox}/messages?folder={folder}"))["value"])


def expect(fact: object, text: str) -> None:
    """StoryFailed with the text unless the fact holds."""
    if not fact:
        raise StoryFailed(text)


async def until(what: str, look: Callable[[], Awaitable[Any]]) -> Any:
    """The first result of `look` that is not empty; StoryFailed after a minute."""
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends:
        found = await look()
        if found:
            return found
        await asyncio.sleep(0.2)
    raise StoryFailed(f"{what}: nothing within {PATIENCE_S:.0f} s")


# -- the steps ------------------------------------------------------------------------------------------------


async def register_app(stage: Stage) -> str:
    """An OAuth2 app is registered"""
    known = (await stage.api("GET", "/v1/oauth2?pageSize=1000"))["apps"]
    fields = {
        "enabled": True,
        "clientId": CLIENT_ID,
        "clientSecret": CLIENT_SECRET,
        "authority": "common",
        "extraScopes": ["User.ReadBasic.All", "Mail.ReadWrite.Shared", "Mail.Send.Shared"],
    }
    for app in known:
        if app["name"] == APP_NAME:
            await stage.api("PUT", f"/v1/oauth2/{app['id']}", fields)
            return str(app["id"])
    created = await stage.api("POST", "/v1/oauth2", {"name": APP_NAME, "provider": "outlook", **fields})
    return str(created["id"])


async def point_webhooks(stage: Stage) -> None:
    """Webhooks are pointed at a receiver"""
    await stage.api(
        "POST",
        "/v1/settings",
        {
            "serviceUrl": stage.app_url,
            "serviceSecret": SERVICE_SECRET,
            "webhooksEnabled": True,
            "webhooks": f"http://127.0.0.1:{stage.receiver_port}/hook",
            "webhookEvents": ["*"],
        },
    )


async def connect_ann(stage: Stage, app_id: str) -> None:
    """Ann connects her own mailbox through the hosted form"""
    form = {
        "account": "ann",
        "name": "Ann Smith",
        "email": "ann@contoso.example",
        "redirectUrl": "https://myapp.example/settings?tab=mail",
        "type": app_id,
    }
    link = (await stage.api("POST", "/v1/authentication/form", form))["url"]
    sign_in = await redirect_of(stage, "GET", link)
    expect(sign_in.startswith(stage.tenant_url), f"the form should lead to the sign-in page, not to {sign_in}")
    callback = await redirect_of(stage, "POST", sign_in, {"user": "ann@contoso.example"})
    async with stage.http.get(callback) as answer:
        page = await answer.text()
    expect(answer.status == 200, f"the callback answered {answer.status}: {page[-600:]}")
    target = page.partition("0;url=")[2].partition('"')[0].replace("&amp;", "&")
    query = parse_qs(urlsplit(target).query)
    expect(target.startswith("https://myapp.example/settings"), "the page should lead back to the redirectUrl")
    expect(query.get("account") == ["ann"] and query.get("tab") == ["mail"], f"unexpected way back: {target}")
    expect(query.get("state") in (["new"], ["existing"]), f"unexpected state in {target}")
    await connected(stage, "ann")


async def redirect_of(stage: Stage, method: str, url: str, form: dict[str, str] | None = None) -> str:
    """Where a request is redirected to."""
    async with stage.http.request(method, url, data=form, allow_redirects=False) as answer:
        text = await answer.text()
        expect(answer.status in (302, 303), f"{method} {url.partition('?')[0]} answered {answer.status}: {text[-600:]}")
        return urljoin(url, answer.headers["Location"])


async def connected(stage: Stage, account: str) -> Json:
    """The account once it is connected."""

    async def look() -> Json | None:
        record = await stage.api("GET", f"/v1/account/{account}")
        if record["state"] == "authenticationError":
            raise StoryFailed(f"{account}: {record['lastError']}")
        return record if record["state"] == "connected" and record.get("notifications") else None

    record: Json = await until(f"{account} connected", look)
    return record


async def add_shared(stage: Stage) -> None:
    """Three shared mailboxes borrow Ann's credentials"""
    for account, name, email, user in SHARED:
        auth = {"delegatedUser": user, "delegatedAccount": "ann"}
        fields = {"account": account, "name": name, "email": email, "oauth2": {"auth": auth}}
        await stage.api("POST", "/v1/account", fields)
    for account, *_ in SHARED:
        record = await connected(stage, account)
        expect(record["type"] == "delegated", f"{account} is of type {record['type']}")
        expect(record["notifications"]["mode"] == "poll", f"{account}: {record['notifications']}")


async def send_from(stage: Stage, account: str, address: str) -> str:
    """One mail from a shared mailbox; its Message-ID."""
    subject = f"From {account} at {time.time():.3f}"
    body = {"to": [{"address": "rita@contoso.example"}], "subject": subject, "text": "This is a test email"}
    accepted = await stage.api("POST", f"/v1/account/{account}/submit", body)
    expect(accepted["queueId"], "no queue id")
    message_id = accepted["messageId"]

    async def arrived() -> Json | None:
        return find(await stage.messages("rita@contoso.example", "inbox"), message_id)

    mail = await until("mail in the recipient's inbox", arrived)
    sender = mail["from"]["emailAddress"]["address"]
    expect(sender == address, f"From is {sender}, not {address}")
    copies = await stage.messages(address, "sentitems")
    expect(find(copies, message_id), "no copy in the shared mailbox's Sent Items")
    own = await stage.messages("ann@contoso.example", "sentitems")
    expect(not find(own, message_id), "a copy is in Ann's Sent Items")
    return str(message_id)


async def send_mail(stage: Stage) -> None:
    """Support sends: From is the shared address, the copy is in its own Sent Items"""
    message_id = await send_from(stage, "shared-support", "support@contoso.example")
    await event(stage, "messageSent", lambda data: data["messageId"] == message_id)


async def send_mail_other_name(stage: Stage) -> None:
    """Info sends, whose principal name differs from its public address"""
    await send_from(stage, "shared-info", "info@contoso.example")


async def receive_own(stage: Stage) -> None:
    """Mail for Ann reaches the webhook receiver (push)"""
    await receive(stage, "ann", "ann@contoso.example")


async def receive_shared(stage: Stage) -> None:
    """Mail for Support reaches the webhook receiver (poll)"""
    await receive(stage, "shared-support", "support@contoso.example")


async def receive(stage: Stage, account: str, address: str) -> None:
    """Delivers a mail and waits for its signed webhook."""
    subject = f"To {address} at {time.time():.3f}"
    sender = {"name": "Carl Customer", "address": "carl@customer.example"}
    await stage.control("POST", "/deliver", {"from": sender, "to": [address], "subject": subject, "text": "Hello"})
    headers, envelope = await event(stage, "messageNew", lambda data: data.get("subject") == subject)
    expect(envelope["account"] == account, f"the event is of {envelope['account']}")
    expect(envelope["data"]["from"]["address"] == "carl@customer.example", "the sender is not in the event")
    expect(envelope["path"] and envelope["date"] and envelope["serviceUrl"] == stage.app_url, f"envelope: {envelope}")
    expect(headers.get("X-EE-Wh-Event-Id"), "no event id")


async def event(stage: Stage, name: str, fits: Callable[[Json], bool]) -> tuple[dict[str, str], Json]:
    """The first event of this name that fits, its signature checked."""

    async def look() -> tuple[dict[str, str], Json] | None:
        for headers, body in stage.heard:
            envelope = json.loads(body)
            if envelope["event"] == name and fits(envelope["data"]):
                check_signature(headers, body)
                return headers, envelope
        return None

    found: tuple[dict[str, str], Json] = await until(f"event {name}", look)
    return found


def check_signature(headers: dict[str, str], body: bytes) -> None:
    mac = hmac.new(SERVICE_SECRET.encode(), body, hashlib.sha256).digest()
    expected = base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
    expect(headers.get("X-EE-Wh-Signature") == expected, "the webhook's signature is wrong")


def find(messages: list[Json], message_id: str) -> Json | None:
    return next((one for one in messages if one.get("internetMessageId") == message_id), None)


# -- telling it -----------------------------------------------------------------------------------------------


async def tell(stage: Stage) -> bool:
    """Plays every step; False at the first that fails."""
    app_id = ""
    steps: list[tuple[Callable[..., Awaitable[Any]], bool]] = [
        (register_app, False),
        (point_webhooks, False),
        (connect_ann, True),
        (add_shared, False),
        (send_mail, False),
        (send_mail_other_name, False),
        (receive_own, False),
        (receive_shared, False),
    ]
    for step, needs_app in steps:
        title = (step.__doc__ or "").strip()
        print(f"  {title:<74} ", end="", flush=True)
        started = time.monotonic()
        try:
            outcome = await (step(stage, app_id) if needs_app else step(stage))
        except (StoryFailed, aiohttp.ClientError) as failure:
            print(f"FAILED\n      {failure}", flush=True)
            return False
        app_id = outcome if step is register_app else app_id
        print(f"{time.monotonic() - started:5.1f} s", flush=True)
        if step is send_mail:
            print(f"  {'':74} first mail {time.monotonic() - BEGAN:.1f} s after the story began", flush=True)
    return True


BEGAN = time.monotonic()


async def play(app_url: str, tenant_url: str, receiver_port: int, token: str) -> bool:
    """The whole story with a receiver of its own."""
    async with aiohttp.ClientSession() as http:
        stage = Stage(app_url, tenant_url, receiver_port, token, http)

        async def hook(request: web.Request) -> web.Response:
            stage.heard.append((dict(request.headers), await request.read()))
            return web.Response(text="ok")

        receiver = web.Application()
        receiver.router.add_post("/hook", hook)
        runner = web.AppRunner(receiver)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", receiver_port).start()
        try:
            print("\nThe story:", flush=True)
            green = await tell(stage)
        finally:
            await runner.cleanup()
    print("The story ends well." if green else "The story broke off.", flush=True)
    return green


def main() -> int:
    """Run the command line; 0 when the story ends well."""
    parser = argparse.ArgumentParser(prog="python -m local.demo", description=__doc__)
    parser.add_argument("--app-url", default="http://127.0.0.1:7071")
    parser.add_argument("--tenant-url", default="http://127.0.0.1:7080")
    parser.add_argument("--receiver-port", type=int, default=7090)
    parser.add_argument("--token", required=True)
    options = parser.parse_args()
    green = asyncio.run(play(options.app_url, options.tenant_url, options.receiver_port, options.token))
    return 0 if green else 1


if __name__ == "__main__":
    sys.exit(main())
