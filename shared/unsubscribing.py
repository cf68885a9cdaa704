"""Leaving a list: the headers that offer it, and what happens when somebody does (emailengine.md 14.6, 14.8).

Whoever leaves is told about once: the entry notes when everybody was, and a repeat of the request tells what a process
that died in between did not.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from shared.accounts import Accounts
from shared.blocklists import Blocklists
from shared.errors import RecordDamaged
from shared.events import Events
from shared.signed_links import SignedLinks, link

PATH = "/unsubscribe"
ONE_CLICK = "List-Unsubscribe=One-Click"


def list_headers(list_id: str, base: str, url: str) -> dict[str, str]:
    """The headers of a list's mail (RFC 2919, RFC 2369, RFC 8058)."""
    return {
        "List-ID": f"<{list_id}.{urlsplit(base).hostname}>",
        "List-Unsubscribe": f"<{url}>",
        "List-Unsubscribe-Post": ONE_CLICK,
    }


class Unsubscribing:
    """Makes the links, and does what they ask for."""

    def __init__(self, links: SignedLinks, blocklists: Blocklists, accounts: Accounts, events: Events) -> None:
        self._links, self._blocklists = links, blocklists
        self._accounts, self._events = accounts, events

    async def url(self, base: str, account: str, list_id: str, recipient: str, message_id: str) -> str:
        """The link with which this recipient leaves the list."""
        blob = {"act": "unsub", "acc": account, "list": list_id.lower(), "rcpt": recipient, "msg": message_id}
        return link(base, PATH, blob, await self._links.secret())

    async def base(self, given: str | None) -> str:
        """Where links lead: the caller's base, or the service's address; "" when it has none."""
        return await self._links.base(given)

    async def contains(self, list_id: str, recipient: str) -> bool:
        """Whether this recipient has left the list."""
        return await self._blocklists.contains(list_id, recipient)

    async def asked(self, data: str, signature: str) -> dict[str, str]:
        """Which address is to leave which list: `{list, rcpt, acc, msg}`. Forbidden for a link that is none of ours."""
        blob = await self._links.opened("unsub", data, signature)
        return {name: blob.get(name, "") for name in ("list", "rcpt", "acc", "msg")}

    async def is_off(self, asked: dict[str, str]) -> bool:
        """Whether the address has left the list."""
        return await self._blocklists.contains(asked["list"], asked["rcpt"])

    async def leave(self, asked: dict[str, str], caller: dict[str, str]) -> None:
        """The address leaves the list; listUnsubscribe, once."""
        about = {"account": asked["acc"], "messageId": asked["msg"], "source": "form", "reason": "unsubscribe"}
        await self._blocklists.add(asked["list"], asked["rcpt"], **about, **caller)
        try:
            row = await self._blocklists.entry(asked["list"], asked["rcpt"])
        except RecordDamaged:
            return
        if row is not None and row.value.get("source") == "form" and not row.value.get("told"):
            await self._tell("listUnsubscribe", asked, caller, row.value["created"])
            await self._blocklists.told(row)

    async def come_back(self, asked: dict[str, str], caller: dict[str, str]) -> None:
        """The address is on the list again; listSubscribe, once."""
        try:
            row = await self._blocklists.entry(asked["list"], asked["rcpt"])
        except RecordDamaged:
            row = None
        if row is not None:
            await self._tell("listSubscribe", asked, caller, row.value["created"])
        await self._blocklists.remove(asked["list"], asked["rcpt"])

    async def _tell(self, event: str, asked: dict[str, str], caller: dict[str, str], since: str) -> None:
        if await self._accounts.find(asked["acc"]) is None:
            return
        data: dict[str, Any] = {"recipient": asked["rcpt"], "messageId": asked["msg"], "listId": asked["list"]}
        happening = f"{event} {asked['list']} {asked['rcpt'].lower()} {since}"
        await self._events.emit(asked["acc"], event, data | caller, happening=happening)
