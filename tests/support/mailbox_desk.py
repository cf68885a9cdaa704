"""One shared mailbox in the running app, for tests of what callers do in it."""

from __future__ import annotations

from typing import Any

from tests.support.application import Answer
from tests.support.desk import Desk, Json

SUPPORT = "support@contoso.example"
UNKNOWN = "AAkALgAAAAAAHYQDEapmEc2byACqAC-EWg0AAAAAAAA"  # an id that Graph takes and no message has


class MailboxDesk(Desk):
    """One shared mailbox, reached with a person's rights."""

    subject: str  # the account that requests are about

    async def opened(self) -> MailboxDesk:
        """This desk with its account, over a tenant as it is seeded."""
        await self.tenant.reset()
        await self.settings(webhooksEnabled=False)
        self.subject = await self.delegated(SUPPORT, await self.own())
        return self

    async def call(self, method: str, path: str, body: Any = None) -> Answer:
        """One request about the account."""
        return await self.app.call(method, f"/v1/account/{self.subject}{path}", body)

    async def done(self, method: str, path: str, body: Any = None) -> Any:
        """The body of an answer that has to be 200."""
        return await self.ok(method, f"/v1/account/{self.subject}{path}", body)

    async def arrived(self, subject: str = "Hello") -> str:
        """The id of a mail that has just arrived."""
        return str((await self.tenant.deliver("carl@customer.example", [SUPPORT], subject))[0]["id"])

    async def held(self, message_id: str, folder: str | None = None) -> Json | None:
        """The message as the tenant has it; None when it is not there."""
        found = await self.tenant.messages(SUPPORT, folder)
        return next((one for one in found if one["id"] == message_id), None)

    async def asked(self, method: str, path: str = "") -> int:
        """How many such requests reached Graph since the log was cleared."""
        return len(await self.tenant.log(surface="graph", method=method, path=path))

    async def folders(self) -> dict[str, str]:
        """The folders of the mailbox as the tenant has them: id to name, with the names above it."""
        listed = (await self.tenant.control("GET", f"/mailboxes/{SUPPORT}/folders"))["value"]
        known = {one["id"]: one for one in listed}

        def named(folder: Json) -> str:
            above = known.get(folder["parentFolderId"])
            return f"{named(above)} > {folder['displayName']}" if above else str(folder["displayName"])

        return {one["id"]: named(one) for one in listed}
