"""A mailbox for tests that read: what arrives in it, what its owner does in Outlook, and what the API answers."""

import itertools
from typing import Any
from urllib.parse import quote

from tests.support.application import Answer, call
from tests.support.desk import Desk, Json

SENDER = {"name": "Carl", "address": "carl@customer.example"}
LISA = "lisa@contoso.example"
_numbers = itertools.count(1)


class Library(Desk):
    """One mailbox, Lisa's."""

    lisa: str

    async def arrive(self, **mail: Any) -> Json:
        """A mail for Lisa; where it lies."""
        subject = mail.pop("subject", f"Mail {next(_numbers)}")
        to = mail.pop("to", [LISA])
        (placed,) = await self.tenant.deliver(SENDER, to, subject, mailbox=LISA, **mail)  # type: ignore[arg-type]
        return placed

    async def read(self, what: str, /, **query: Any) -> Any:
        """What this account's path answers."""
        return await self.ok("GET", self.at(what, **query))

    def at(self, what: str, /, **query: Any) -> str:
        """The address of something of this account."""
        pairs = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query.items())
        return f"/v1/account/{self.lisa}/{what}" + (f"?{pairs}" if pairs else "")

    async def get(self, what: str, /, **query: Any) -> Answer:
        """The answer, whatever it is."""
        return await self.app.call("GET", self.at(what, **query))

    async def search(self, search: Json, **query: Any) -> Json:
        """What a search finds."""
        return await self.ok("POST", self.at("search", **query), {"search": search})

    async def graph(self, method: str, path: str, body: Any = None) -> Any:
        """What Lisa's Outlook does."""
        token = (await self.tenant.token(user=LISA))["access_token"]
        headers = {"Authorization": f"Bearer {token}", "Prefer": 'IdType="ImmutableId"'}
        answer = await call(method, f"{self.tenant.url}/v1.0/me{path}", json=body, headers=headers)
        assert answer.status < 300, answer
        return answer.body

    async def folder(self, name: str, parent: str = "") -> str:
        """A folder that Lisa makes; its id."""
        path = f"/mailFolders/{parent}/childFolders" if parent else "/mailFolders"
        return (await self.graph("POST", path, {"displayName": name}))["id"]


def ids(listing: Json) -> list[str]:
    """The messages of a list."""
    return [one["id"] for one in listing["messages"]]
