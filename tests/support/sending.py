"""Mails submitted over HTTP to services in this process, and what becomes of them in the mailboxes."""

import base64
from collections.abc import AsyncIterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from local.services import Azurite
from tests.support.workshop import ANN, RITA, SUPPORT, TOKEN, Workshop

Json = dict[str, Any]
TO = [{"name": "Rita Recipient", "address": RITA}]


def parsed(mail: Json) -> EmailMessage:
    """The MIME that really arrived."""
    found: Any = message_from_bytes(base64.b64decode(mail["_raw"]), policy=policy.default)
    return found


def body_of(mail: EmailMessage, kind: str) -> str:
    """The text or html alternative, with the line ends of Python."""
    part = mail.get_body((kind,))
    assert part is not None, f"no {kind} part"
    return str(part.get_content()).replace("\r\n", "\n").rstrip("\n")


def addresses(found: list[Json]) -> list[str]:
    """The addresses of Graph recipients."""
    return [one["emailAddress"]["address"] for one in found]


def keys_of(body: Json) -> list[str]:
    """The fields that a 400 names."""
    assert body["message"] == "Invalid input", body
    return [one["key"] for one in body["fields"]]


class Mailroom(Workshop):
    """A workshop with a person's account and that of a shared mailbox."""

    ann: str
    support: str

    async def submit(self, account: str, query: str = "", **fields: Any) -> tuple[int, Json]:
        """One submit; fields whose names end in `_` lose it."""
        body = {name.rstrip("_"): value for name, value in fields.items()}
        return await self.call("POST", f"/v1/account/{account}/submit{query}", body)

    async def sent(self, account: str, query: str = "", **fields: Any) -> Json:
        """One submit that has to be accepted, and is sent; its answer."""
        status, answer = await self.submit(account, query, **fields)
        assert status == 200, answer
        await self.run_due()
        return answer

    async def received(self, account: str, query: str = "", **fields: Any) -> Json:
        """The mail that a submit to Rita becomes in her inbox."""
        answer = await self.sent(account, query, **fields)
        (mail,) = self.arrived(RITA, answer["messageId"])
        return mail

    async def post_bytes(self, path: str, body: bytes) -> tuple[int, Any]:
        """A request whose body is written by hand."""
        import httpx

        from shared.api.app import create_app

        transport = httpx.ASGITransport(create_app(self.services))
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        async with httpx.AsyncClient(transport=transport, base_url="http://app", headers=headers) as client:
            answer = await client.post(path, content=body)
        return answer.status_code, answer.json()

    def copies(self, address: str, message_id: str) -> list[Json]:
        """The mails with this Message-ID in Sent Items."""
        return [one for one in self.world.mail.dump(address, "sentitems") if one["internetMessageId"] == message_id]

    def left(self, address: str, message_id: str) -> list[Json]:
        """The mails with this Message-ID that left the tenant for an address."""
        found = self.world.mail.dump(f"external:{address}")
        return [one for one in found if one["internetMessageId"] == message_id]


async def open_mailroom(azurite: Azurite) -> AsyncIterator[Mailroom]:
    """One for the tests of a file."""
    room = Mailroom(azurite.connection_string)
    await room.start()
    room.ann = await room.own()
    room.support = await room.delegated(SUPPORT, room.ann, label="Support Desk", locale="en", tz="UTC")
    yield room
    await room.stop()


__all__ = [
    "ANN", "RITA", "SUPPORT", "TO", "Json", "Mailroom", "addresses", "body_of", "keys_of", "open_mailroom", "parsed",
]  # fmt: skip
