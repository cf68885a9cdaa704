"""Account records: what is stored of a mailbox, how it is reached, and which state it shows.

A record is one document in Table Storage, changed by compare-and-swap only. How the mailbox is reached (whose
token, which path) is resolved when a link of its delegation chain changes and kept on the record, so that using
an account costs one read however long its chain is.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from shared import delegation
from shared.clock import iso
from shared.errors import (
    CredentialError,
    DelegationError,
    RecordDamaged,
    StateRefuses,
    StorageConflict,
    account_not_found,
)
from shared.graph import paths
from shared.graph.paths import MailboxPath
from shared.oauth_apps import OauthApp, OauthApps
from shared.sealed import ACCOUNT
from shared.storage.keys import storable
from shared.storage.queues import Queues
from shared.storage.tables import Row, Table
from shared.vault import SealBroken, Vault

log = logging.getLogger("graphpost.accounts")
KEY = "account"
QUEUE = "mailboxes"
MOST_LANES = 10_000  # what a process remembers of the accounts it has read
REFUSING = frozenset({"init", "authenticationError", "connectError", "unset", "disconnected", "paused"})
# Failures of the credentials themselves: they stop every account that borrows them. A failure of the holder's
# own mailbox does not: a person without a mailbox may still hold rights on others.
CREDENTIAL_CODES = frozenset({"TokenGenerationError", "OauthRenewError"})

MASK = "******"  # what a stored secret reads as (emailengine.md 1.7)

Record = dict[str, Any]


@dataclass(frozen=True)
class Reach:
    """How a mailbox is reached: the path at Graph, whose token, through which app.

    `version` names the holder's sign-in: a process that keeps a token of an older one does not use it. `reader`
    is true when the app is the one named to read for a person's app: then the holder's token is not used at all.
    """

    mailbox: MailboxPath
    holder: str
    app: OauthApp
    version: str = ""
    reader: bool = False

    @property
    def is_application(self) -> bool:
        return self.app.is_application

    @property
    def is_foreign(self) -> bool:
        """True for somebody else's mailbox opened with a person's token."""
        return self.mailbox.user is not None and not self.is_application

    @property
    def lane(self) -> str:
        """What the limits of Graph are kept for: this app and this mailbox."""
        return paths.lane(self.app.id, self.mailbox)


def auth_of(record: Record) -> dict[str, str]:
    """The `oauth2.auth` of a record; empty when there is none."""
    oauth2 = record.get("oauth2") or {}
    auth: dict[str, str] = oauth2.get("auth") or {}
    return auth


def is_send_only(holder: Record) -> bool:
    """True when the holder's sign-in granted sending but no reading (emailengine.md 4.4)."""
    granted = {scope.rsplit("/", 1)[-1] for scope in (holder.get("oauth2") or {}).get("scope") or ()}
    reading = {"Mail.Read", "Mail.ReadWrite", "Mail.Read.Shared", "Mail.ReadWrite.Shared"}
    return bool({"Mail.Send", "Mail.Send.Shared"} & granted) and not reading & granted


def lane_of(record: Record) -> str:
    """`Reach.lane` from the record alone; "" while it has no reach."""
    kept = record.get("reach")
    return paths.lane(kept["app"], _path(record)) if kept else ""


def _path(record: Record) -> MailboxPath:
    """The path of a record that has a reach. Its own mailbox is named by the address it is known by."""
    user = record["reach"]["user"]
    return MailboxPath(user, auth_of(record).get("user") or record.get("email") or record["account"])


def delegate_of(record: Record) -> str:
    """Who signed in, as far as the record says; for texts that people read."""
    return auth_of(record).get("user") or record.get("email") or record["account"]


def masked_url(url: str) -> str:
    """The URL with the password part hidden (emailengine.md 1.7)."""
    head, at, rest = url.partition("://")
    authority, slash, tail = rest.partition("/")
    if not at or "@" not in authority:
        return url
    user, _, host = authority.rpartition("@")
    shown = user.partition(":")[0] + f":{MASK}" if ":" in user else MASK
    return f"{head}://{shown}@{host}{slash}{tail}"


def shown_state(record: Record, holder: Record | None) -> tuple[str, dict[str, Any] | None]:
    """The state and last error a caller sees. A holder's credential failure is every borrower's failure."""
    if problem := record.get("delegationError"):
        return "authenticationError", {"response": problem, "serverResponseCode": "TokenGenerationError"}
    if holder is not None and holder["account"] != record["account"]:
        error = holder.get("lastError") or {}
        if error.get("serverResponseCode") in CREDENTIAL_CODES:
            return holder["state"], error | {"account": holder["account"]}
    return record["state"], record.get("lastError")


class Accounts:
    """Stores and finds account records."""

    def __init__(self, table: Table, links: Table, queues: Queues, vault: Vault, apps: OauthApps) -> None:
        self._table, self._links, self._queues = table, links, queues
        self._vault, self._apps = vault, apps
        self._lanes: dict[str, str] = {}
        self.on_read: Callable[[Record], None] = lambda record: None
        self.on_state: Callable[[Record], Awaitable[None]] | None = None

    # -- records -------------------------------------------------------------------------------------------

    async def find(self, account: str) -> Record | None:
        """The record, or None; an account that is being deleted is gone. One transaction."""
        record = await self.find_whole(account)
        return None if record is None or record.get("deleting") else record

    async def find_whole(self, account: str) -> Record | None:
        """The record even while it is being deleted."""
        row = await self._table.get(storable(account), KEY)
        if row is not None and (lane := lane_of(row.value)):
            if len(self._lanes) >= MOST_LANES:
                self._lanes.clear()
            self._lanes[account] = lane
        if row is not None:
            self.on_read(row.value)
        return row.value if row else None

    def lane(self, account: str) -> str:
        """The lane of an account that this process has read; "" when it has not."""
        return self._lanes.get(account, "")

    async def get(self, account: str) -> Record:
        """The record; NotFound."""
        record = await self.find(account)
        if record is None:
            raise account_not_found()
        return record

    async def all(self) -> AsyncIterator[Record]:
        """Every record, in storage order."""
        async for row in self._table.scan():
            if not row.value.get("deleting"):
                yield row.value

    async def half_deleted(self) -> list[str]:
        """The accounts whose deletion began and has not ended."""
        return [row.value["account"] async for row in self._table.scan() if row.value.get("deleting")]

    async def known(self) -> set[str]:
        """The partitions of all accounts, which name their rows in other tables too; without reading them."""
        return {partition for partition, _ in await self._table.keys()}

    async def insert(self, record: Record) -> None:
        """Stores a new record; StorageConflict when the id is taken."""
        await self._table.insert(Row(storable(record["account"]), KEY, record))
        self.on_read(record)
        await self._tell_state(record)

    async def change(self, account: str, mutate: Callable[[Record], Record | None]) -> Record | None:
        """Applies `mutate` to the newest version until it is stored. `mutate` gives the new record, or None to
        leave it. The stored record; None when the account is gone. A webhook target under an older key is sealed
        under the newest along with it."""
        while True:
            row = await self._table.get(storable(account), KEY)
            if row is None or row.value.get("deleting"):
                return None
            changed = mutate(json.loads(json.dumps(row.value)))
            if changed is None or changed == row.value:
                return row.value
            changed = self._resealed(row, changed)
            try:
                await self._table.replace(Row(row.partition, KEY, changed, row.etag))
            except StorageConflict:
                continue
            self.on_read(changed)
            if changed.get("state") != row.value.get("state"):
                await self._tell_state(changed)
            return changed

    async def _tell_state(self, record: Record) -> None:
        if self.on_state is not None:
            await self.on_state(record)

    def _resealed(self, row: Row, record: Record) -> Record:
        kept = record.get("webhooksSealed")
        if not kept or kept != row.value.get("webhooksSealed") or not self._vault.is_stale(kept):
            return record
        place = ACCOUNT.place(row)
        try:
            return record | {"webhooksSealed": self._vault.seal(self._vault.open(kept, place), place)}
        except SealBroken:
            return record

    async def begin_deletion(self, account: str) -> Record:
        """Marks the account as being deleted, from when on nothing finds it any more; NotFound. Its record, or what
        is needed of one where it is damaged."""
        while True:
            try:
                row = await self._table.get(storable(account), KEY)
            except RecordDamaged:
                return {"account": account, "created": "", "deleting": True}
            if row is None:
                raise account_not_found()
            if row.value.get("deleting"):
                return row.value
            try:
                await self._table.replace(replace(row, value=row.value | {"deleting": True}))
            except StorageConflict:
                continue
            return row.value

    async def is_ending(self, record: Record) -> bool:
        """True while this account, and not one made again under its id, is what is being deleted."""
        try:
            there = await self.find_whole(record["account"])
        except RecordDamaged:
            return True
        return there is not None and bool(there.get("deleting")) and there.get("birth") == record.get("birth")

    async def remove(self, record: Record) -> None:
        """Deletes the record of an account that is being deleted, alone; what hangs on it is deleted by the caller
        before. A later account of the same id stays."""
        partition = storable(record["account"])
        try:
            row = await self._table.get(partition, KEY)
        except RecordDamaged:
            await self._table.delete(partition, KEY)
            return
        if row is not None and row.value.get("deleting") and row.value.get("birth") == record.get("birth"):
            with suppress(StorageConflict):  # another call removed it, and somebody made the account again
                await self._table.delete(partition, KEY, row.etag)

    @staticmethod
    def new_id() -> str:
        """16 characters from 0-9a-z (emailengine.md 1.6)."""
        return "".join(secrets.choice("0123456789abcdefghijklmnopqrstuvwxyz") for _ in range(16))

    # -- secrets of a record -------------------------------------------------------------------------------

    def seal_webhooks(self, account: str, url: str, headers: list[dict[str, str]]) -> str:
        """The account's own webhook target and headers, sealed: both may hold passwords."""
        content = json.dumps({"url": url, "headers": headers}).encode()
        return self._vault.seal(content, f"accounts/{storable(account)}/webhooks")

    def webhook_of(self, record: Record) -> tuple[str, list[dict[str, str]]]:
        """The account's own webhook URL ("" for none) and custom headers, to be shown or changed; none when they
        cannot be opened."""
        try:
            return self.opened_webhook_of(record)
        except SealBroken:
            return "", []

    def opened_webhook_of(self, record: Record) -> tuple[str, list[dict[str, str]]]:
        """The same for sending: SealBroken when they cannot be opened, so that nothing goes to a wrong place."""
        sealed = record.get("webhooksSealed")
        if not sealed:
            return "", []
        content = json.loads(self._vault.open(sealed, f"accounts/{storable(record['account'])}/webhooks"))
        return content["url"], content["headers"]

    # -- reach ---------------------------------------------------------------------------------------------

    async def reach(self, record: Record) -> Reach:
        """How this mailbox is reached now. Raises CredentialError when it cannot be: a broken chain, no
        credentials, or an OAuth2 app that is gone."""
        if problem := record.get("delegationError"):
            raise _no_credentials(problem)
        kept = record.get("reach")
        if not kept:
            raise _no_credentials("The account has no credentials to reach a mailbox with")
        app = await self._apps.find(kept["app"])
        if app is None:
            raise _no_credentials("Missing or disabled OAuth2 app")
        return Reach(_path(record), kept["holder"], app, kept.get("version") or "")

    async def newer_app(self, app: OauthApp) -> OauthApp | None:
        """The OAuth2 app as it is now, if somebody changed it since this process read it; None otherwise."""
        return await self._apps.newer(app)

    async def reading_reach(self, record: Record) -> Reach:
        """How this mailbox is read: by the `readerApp` of the holder's app where one is named, able and not known
        to be refused, else as it is reached for everything. Raises CredentialError."""
        reach = await self.reach(record)
        refused = (record.get("reader") or {}).get("app")
        if not reach.is_foreign or not reach.app.reader or refused == reach.app.reader:
            return reach
        app = await self._apps.find(reach.app.reader)
        if app is None or not app.is_application or not app.enabled:
            return reach
        return Reach(reach.mailbox, reach.holder, app, reader=True)

    async def settle_reach(self, record: Record, lookup: delegation.Lookup | None = None) -> Record:
        """The record with its chain resolved: `reach`, or `delegationError` with the contract's text. `lookup`
        spares reads when many chains are resolved at once."""
        record = {k: v for k, v in record.items() if k not in ("reach", "delegationError")}
        try:
            chain = await delegation.resolve(record["account"], record, lookup or self.find)
        except DelegationError as problem:
            return record | {"delegationError": str(problem)}
        holder = chain.holder_record
        if not delegation.has_credentials(holder):
            return record
        app = await self._apps.resolve((holder.get("oauth2") or {}).get("provider"))
        if app is None:
            return record
        auth = auth_of(record)
        user = auth.get("delegatedUser")
        if app.is_application:
            user = user or auth.get("user") or record.get("email")
        version = holder.get("credentialsVersion") or ""
        return record | {"reach": {"user": user or None, "holder": chain.holder, "app": app.id, "version": version}}

    async def usable(self, account: str) -> tuple[Record, Reach]:
        """The record and its reach for a mail operation; StateRefuses when the account's state forbids it."""
        record = await self.get(account)
        if record["state"] in REFUSING or record.get("delegationError"):
            raise StateRefuses("authenticationError" if record.get("delegationError") else record["state"])
        return record, await self.reach(record)

    # -- links ---------------------------------------------------------------------------------------------

    async def link(self, child: str, parent: str) -> None:
        """Notes that `child` borrows from `parent`."""
        await self._links.put(Row(storable(parent), storable(child), {"account": child}))

    async def unlink(self, child: str, parent: str) -> None:
        await self._links.delete(storable(parent), storable(child))

    async def is_borrowed_from(self, account: str) -> bool:
        """True when some account names this one as its `delegatedAccount`. One transaction."""
        return bool(await self._links.partition(storable(account)))

    async def borrowers(self, account: str) -> list[str]:
        """Every account whose chain leads through this one, nearest first."""
        found: dict[str, None] = {}
        waiting = [account]
        while waiting:
            for row in await self._links.partition(storable(waiting.pop(0))):
                child = row.value["account"]
                if child not in found and child != account:
                    found[child] = None
                    waiting.append(child)
        return list(found)

    # -- jobs ----------------------------------------------------------------------------------------------

    async def queue_job(self, account: str, do: str, delay_s: float = 0, **more: Any) -> None:
        """Puts one job of one mailbox on the queue: initialise, relink, subscribe, catch_up."""
        await self._queues.put(QUEUE, {"account": account, "do": do, **more}, delay_s)

    async def count(self, account: str, **more: int) -> None:
        """Adds to the counters of what the account missed: `gaps`, `late`, `resyncs`."""

        def add(record: Record) -> Record:
            counted = record.get("watch") or {}
            return record | {"watch": counted | {name: counted.get(name, 0) + n for name, n in more.items()}}

        await self.change(account, add)
        if more.get("gaps"):
            log.error("graphpost.events.gaps count=%d", more["gaps"])

    async def note_contact(self, account: str, when: datetime, *, heard: bool = False) -> None:
        """Notes the time of the last successful contact, for `syncTime` (6.2); with `heard` also that everything
        received before it was looked at."""
        noted = {"syncTime": iso(when)} | ({"heardUntil": iso(when)} if heard else {})
        await self.change(account, lambda record: record | noted)


def _no_credentials(response: str) -> CredentialError:
    return CredentialError(
        response,
        transient=False,
        last_error={"response": response, "serverResponseCode": "TokenGenerationError"},
    )
