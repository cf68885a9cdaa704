"""Exports (emailengine.md 19.9): the messages of a time, written into a file that can be fetched.

A record says what was asked for and how far it is; a chain of short jobs does the work, one page of messages each
(`ExportSteps`). Record and file go when they expire, when somebody deletes them, and with their account.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from shared.accounts import Accounts
from shared.clock import Clock, iso
from shared.errors import ApiError, InvalidInput, NotFound, RecordDamaged, StorageConflict
from shared.service_settings import ServiceSettings
from shared.storage.blobs import Blobs
from shared.storage.keys import storable
from shared.storage.tables import Row, Table

BLOBS = "exports/"
QUEUED, PROCESSING, COMPLETED, FAILED, CANCELLED = "queued", "processing", "completed", "failed", "cancelled"
UNDER_WAY = (QUEUED, PROCESSING)
KEPT = timedelta(hours=24)  # a finished file
LONGEST_RUN = timedelta(days=6)  # parts of a file that is not finished are kept for a week (docs: "Put Block")
STUCK_AFTER = timedelta(minutes=20)
AT_ONCE, AT_ONCE_OF_ALL = 3, 20
LARGEST = 100 * 1024 * 1024  # of a file: it is answered in one piece
MOST_MESSAGES = 1_000_000
_ID = re.compile(r"exp_[0-9a-f]{24}")
Json = dict[str, Any]


def not_found() -> NotFound:
    return NotFound("Export not found", "ExportNotFound")


class Exports:
    """Starts, shows and ends exports."""

    def __init__(
        self,
        table: Table,
        blobs: Blobs,
        accounts: Accounts,
        settings: ServiceSettings,
        clock: Clock,
        random_hex: Callable[[int], str] = secrets.token_hex,
    ) -> None:
        self._table, self._blobs, self._accounts = table, blobs, accounts
        self._settings, self._clock, self._random_hex = settings, clock, random_hex

    async def start(self, account: str, asked: Json) -> Json:
        """`{exportId, status, created}` of a new export. NotFound; ApiError 429 when too many are under way."""
        record = await self._accounts.get(account)
        if asked["startDate"] > asked["endDate"]:
            raise InvalidInput.field("endDate", '"endDate" must not be before "startDate"')
        settings = await self._settings.all()
        await self._check_room(account, settings)
        now, identity = self._clock(), f"exp_{self._random_hex(12)}"
        value = {
            "id": identity, "account": account, "birth": record.get("birth", ""), "request": asked,
            "status": QUEUED, "phase": "indexing", "created": iso(now), "expiresAt": iso(now + LONGEST_RUN),
            "targets": [], "at": 0, "link": "", "offset": 0, "step": 0, "blocks": 0, "failures": 0, "notBefore": "",
            "truncated": False, "error": None, "told": False,
            "mostBytes": min(settings.get("exportMaxSize") or LARGEST, LARGEST),
            "mostMessages": settings.get("exportMaxMessages") or MOST_MESSAGES,
            "progress": {
                "foldersScanned": 0, "foldersTotal": 0, "messagesQueued": 0, "messagesExported": 0,
                "messagesSkipped": 0, "bytesWritten": 0,
            },
        }  # fmt: skip
        await self._table.insert(Row(storable(account), identity, value, columns=self.columns(value)))
        await self.queue(value)
        return {"exportId": identity, "status": QUEUED, "created": value["created"]}

    async def _check_room(self, account: str, settings: Json) -> None:
        query = " or ".join(f"status eq '{status}'" for status in UNDER_WAY)
        found = [partition for partition, _ in await self._table.keys(query)]
        own = settings.get("exportMaxConcurrent") or AT_ONCE
        if found.count(storable(account)) >= own:
            raise _too_many(f"At most {own} exports of an account can be under way")
        every = settings.get("exportMaxGlobalConcurrent") or AT_ONCE_OF_ALL
        if len(found) >= every:
            raise _too_many(f"At most {every} exports can be under way")

    async def queue(self, value: Json, delay_s: float = 0) -> None:
        """Asks for the next step of an export."""
        await self._accounts.queue_job(value["account"], "export", delay_s, export=value["id"], step=value["step"])

    def columns(self, value: Json) -> Json:
        """What the sweep and the limits ask for."""
        return {"status": value["status"], "expires": value["expiresAt"], "at": iso(self._clock())}

    # -- looking -----------------------------------------------------------------------------------------------

    async def row(self, account: str, identity: str) -> Row | None:
        """The record of an export; None when there is none."""
        if not _ID.fullmatch(identity):
            return None
        row = await self._table.get(storable(account), identity)
        return row if row is not None and row.value["expiresAt"] > iso(self._clock()) else None

    async def _own(self, account: str, identity: str) -> Row:
        record = await self._accounts.get(account)
        row = await self.row(account, identity)
        if row is None or row.value["birth"] != record.get("birth", ""):
            raise not_found()
        return row

    async def view(self, account: str, identity: str) -> Json:
        """One export as the API shows it; NotFound."""
        return shown((await self._own(account, identity)).value)

    async def listed(self, account: str) -> list[Json]:
        """The exports of an account, newest first; NotFound for an unknown account."""
        record, now = await self._accounts.get(account), iso(self._clock())
        rows = await self._table.partition(storable(account))
        found = [one.value for one in rows if one.value["birth"] == record.get("birth", "")]
        found.sort(key=lambda value: (value["created"], value["id"]), reverse=True)
        return [shown(value) for value in found if value["expiresAt"] > now]

    async def file(self, account: str, identity: str) -> bytes:
        """The finished file: gzip over one JSON object a line. NotFound; ApiError 400 while it is not finished."""
        row = await self._own(account, identity)
        if row.value["status"] != COMPLETED:
            raise ApiError(400, f"Export is not ready for download: it is {row.value['status']}", "ExportNotReady")
        content = await self._blobs.get(blob_of(identity))
        if content is None:
            raise not_found()
        return content

    # -- ending ------------------------------------------------------------------------------------------------

    async def delete(self, account: str, identity: str) -> Json:
        """Cancels an export that is under way, or removes one that has ended. NotFound."""
        while True:
            try:
                row = await self._own(account, identity)
            except RecordDamaged:
                row = Row(storable(account), identity, {"status": FAILED})
            try:
                if row.value["status"] in UNDER_WAY:
                    expires = iso(self._clock() + KEPT)
                    await self.save(row, row.value | {"status": CANCELLED, "expiresAt": expires})
                else:
                    await self._table.delete(row.partition, row.key, row.etag or None)
            except StorageConflict:
                continue
            await self._blobs.delete(blob_of(identity))
            return {"deleted": True}

    async def save(self, row: Row, value: Json) -> Row:
        """Writes the record over the version read; StorageConflict."""
        return await self._table.replace(replace(row, value=value, columns=self.columns(value)))

    async def drop(self, row: Row) -> None:
        """Removes record and file."""
        await self._table.delete(row.partition, row.key)
        await self._blobs.delete(blob_of(row.key))

    async def drop_account(self, account: str, birth: str) -> None:
        """Removes the exports of an account that is going away, but not those of a later one with its id; without a
        `birth`, which a damaged account lacks, all."""
        for partition, key in await self._table.keys("PartitionKey eq @p", {"p": storable(account)}):
            try:
                row = await self._table.get(partition, key)
            except RecordDamaged:
                row = Row(partition, key, {})
            if row is not None and (not birth or row.value.get("birth", birth) == birth):
                await self.drop(row)

    async def take_up(self) -> int:
        """Queues again what lost its job; the number queued."""
        limit, found = iso(self._clock() - STUCK_AFTER), 0
        async for row in self._table.scan("at lt @t", {"t": limit}):
            is_untold = not row.value["told"] and row.value["status"] != CANCELLED
            if row.value["status"] in UNDER_WAY or is_untold:
                await self.queue(row.value)
                found += 1
        return found

    async def sweep(self) -> int:
        """Removes what has expired, and files without a record; the number removed."""
        now, removed = self._clock(), 0
        async for row in self._table.scan("expires lt @t", {"t": iso(now)}):
            await self.drop(row)
            removed += 1
        return removed + await self._sweep_files(now - LONGEST_RUN - KEPT)

    async def _sweep_files(self, before: datetime) -> int:
        removed = 0
        async for name in self._blobs.old(BLOBS, before):
            await self._blobs.delete(name)  # no record is kept that long
            removed += 1
        return removed


def blob_of(identity: str) -> str:
    """The file of an export."""
    return f"{BLOBS}{identity}.ndjson.gz"


def shown(value: Json) -> Json:
    """An export as the API shows it."""
    asked = value["request"]
    view = {"exportId": value["id"], "status": value["status"], "phase": value["phase"]}
    view |= {name: asked[name] for name in ("folders", "startDate", "endDate", "textType", "includeAttachments")}
    return view | {name: value[name] for name in ("created", "expiresAt", "progress", "truncated", "error")}


def _too_many(text: str) -> ApiError:
    return ApiError(429, f"{text}. Wait for one to end, or cancel it", "TooManyExports", {"Retry-After": "60"})
