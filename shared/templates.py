"""Stored templates (emailengine.md 16): what a mail says, kept under an id.

A template belongs to one account, or to all (`account` null). One of an account carries the account's birth: it
vanishes with it, also for a later account of the same id. The content lies beside the document, in a blob when it is
large, so that listings do not move it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from shared.accounts import Accounts
from shared.clock import Clock, iso
from shared.errors import ApiError, NotFound, RecordDamaged, StorageConflict
from shared.storage.blobs import Blobs
from shared.storage.keys import document_id, storable
from shared.storage.tables import Row, Table
from shared.vault import decode, encode

SHARED = "=shared"  # no account's partition: `=s` is no escaped byte
INLINE_LIMIT = 500_000  # content up to this size is kept in the record, larger in a blob
LONGEST_SUFFIX = 160  # bytes of an account id that an id of its templates holds; so ids stay below 256 characters
MOST = 5000  # templates of one account, or shared ones
BLOBS = "templates/"
_PREFIX = 12  # bytes of time and counter
_LISTED = ("id", "name", "description", "format", "created", "updated")


def template_id(account: str | None) -> str:
    """A new id of the contract's form (1.6): time and counter, and the account it is bound to."""
    raw = decode(document_id())
    return encode(raw + (_suffix(account) if account is not None else b""))


def _suffix(account: str) -> bytes:
    raw = account.encode("utf-8", "replace")
    if len(raw) <= LONGEST_SUFFIX and not raw.startswith(b"\0"):
        return raw
    return b"\0" + hashlib.sha256(raw).digest()


def belongs_to(identity: str, account: str) -> bool:
    """Whether a template of this id is bound to this account, as far as the id tells."""
    suffix = _suffix_of(identity)
    return suffix is not None and suffix == _suffix(account)


def _suffix_of(identity: str) -> bytes | None:
    """What stands behind time and counter; None for what is no id of ours."""
    try:
        raw = decode(identity)
    except ValueError:
        return None
    return raw[_PREFIX:] if len(raw) >= _PREFIX and encode(raw) == identity else None


def _partition_of(identity: str) -> str | None:
    """Where a template of this id lies; None for what is no id of ours, "" where the id does not tell: that of an
    account with a very long id does not hold it."""
    suffix = _suffix_of(identity)
    if suffix is None:
        return None
    try:
        account = suffix.decode()
    except UnicodeDecodeError:
        return "" if suffix.startswith(b"\0") else None
    if suffix.startswith(b"\0"):
        return ""
    return storable(account) if account else SHARED


def not_found() -> NotFound:
    return NotFound("Document was not found", "NotFound")


class Templates:
    """Stores and finds templates."""

    def __init__(self, table: Table, blobs: Blobs, accounts: Accounts, clock: Clock) -> None:
        self._table, self._blobs, self._accounts, self._clock = table, blobs, accounts, clock

    # -- changing ----------------------------------------------------------------------------------------------

    async def create(self, fields: dict[str, Any]) -> dict[str, Any]:
        """`{created, account, id}` of a new template; NotFound for an unknown account."""
        account, birth = fields["account"], ""
        if account is not None:
            birth = (await self._accounts.get(account)).get("birth", "")
        partition = storable(account) if account is not None else SHARED
        if len(await self._table.keys("PartitionKey eq @p", {"p": partition})) >= MOST:
            raise ApiError(400, f"There can be at most {MOST} templates. Delete some first", "TooManyTemplates")
        now, identity = iso(self._clock()), template_id(account)
        value = {name: fields.get(name) for name in ("account", "name", "description", "format")}
        value |= {"id": identity, "created": now, "updated": now, "birth": birth}
        row = await self._with_content(Row(partition, identity, value, columns={"at": now}), fields["content"])
        try:
            await self._table.insert(row)
        except StorageConflict:
            there = await self._row(identity)  # our own write, repeated by the storage client after a lost answer
            if there is None or there.value != row.value:
                raise
        if account is not None and (await self._accounts.get(account)).get("birth", "") != birth:
            await self._remove(row)
            raise not_found()
        return {"created": True, "account": account, "id": identity}

    async def update(self, identity: str, fields: dict[str, Any]) -> dict[str, Any]:
        """`{updated, account, id}`. Fields that are not given stay; `content` is replaced as a whole. NotFound."""
        while True:
            row = await self._live(identity)
            if row is None:
                raise not_found()
            kept = {name: fields[name] for name in ("name", "description", "format") if name in fields}
            changed = replace(row, value=row.value | kept | {"updated": iso(self._clock())})
            if "content" in fields:
                changed = await self._with_content(changed, fields["content"])
            try:
                await self._table.replace(changed)
            except StorageConflict:
                await self._drop_blob(changed, unless=row)
                continue
            await self._drop_blob(row, unless=changed)
            return {"updated": True, "account": row.value["account"], "id": identity}

    async def delete(self, identity: str) -> dict[str, Any]:
        """`{deleted, account, id}`; `deleted` is false for an unknown one."""
        try:
            row = await self._live(identity)
        except RecordDamaged:
            partition = _partition_of(identity) or ""  # the sweep finds its content
            return {"deleted": await self._table.delete(partition, identity), "account": None, "id": identity}
        if row is None:
            return {"deleted": False, "account": None, "id": identity}
        return {"deleted": await self._remove(row), "account": row.value["account"], "id": identity}

    async def flush(self, account: str) -> None:
        """Removes every template of an account; NotFound when there is no such account."""
        await self._accounts.get(account)
        await self._drop(account, "")

    async def drop_account(self, account: str, birth: str) -> None:
        """Removes the templates of an account that is going away, but not those of a later one with its id; without a
        `birth`, which a damaged account lacks, all."""
        await self._drop(account, birth)

    async def _drop(self, account: str, birth: str) -> None:
        for partition, key in await self._table.keys("PartitionKey eq @p", {"p": storable(account)}):
            try:
                row = await self._table.get(partition, key)
            except RecordDamaged:
                await self._table.delete(partition, key)
                continue
            if row is not None and (not birth or row.value.get("birth", birth) == birth):
                await self._remove(row)

    async def _remove(self, row: Row) -> bool:
        removed = await self._table.delete(row.partition, row.key)
        await self._drop_blob(row)
        return removed

    # -- reading -----------------------------------------------------------------------------------------------

    async def listed(self, account: str | None) -> list[dict[str, Any]]:
        """The templates of an account, or the shared ones, newest first, without their content. NotFound for an
        unknown account."""
        birth = (await self._accounts.get(account)).get("birth", "") if account is not None else ""
        partition = storable(account) if account is not None else SHARED
        rows = self._table.scan("PartitionKey eq @p", {"p": partition}, columns=())
        found = [row.value async for row in rows if row.value.get("birth", "") == birth]
        found.sort(key=lambda value: (value["created"], value["id"]), reverse=True)
        return [{name: value.get(name) for name in _LISTED} for value in found]

    async def view(self, identity: str) -> dict[str, Any]:
        """One template with its content; NotFound."""
        row = await self._live(identity)
        if row is None:
            raise not_found()
        value = row.value
        return {"account": value["account"]} | {name: value.get(name) for name in _LISTED} | {
            "content": await self._content(row)
        }  # fmt: skip

    async def for_mail(self, identity: str, account: str) -> dict[str, Any]:
        """`{format, content}` of a template that this account may use: its own, or a shared one. NotFound."""
        missing = NotFound(f"Requested template was not found [{identity}]", "TemplateNotFound")
        row = await self._live(identity)
        if row is None or row.value["account"] not in (None, account):
            raise missing
        return {"format": row.value.get("format") or "html", "content": await self._content(row)}

    async def _live(self, identity: str) -> Row | None:
        """The row of a template whose account is there."""
        row = await self._row(identity)
        if row is None or row.value["account"] is None:
            return row
        owner = await self._accounts.find(row.value["account"])
        return row if owner is not None and owner.get("birth", "") == row.value.get("birth", "") else None

    async def _row(self, identity: str) -> Row | None:
        partition = _partition_of(identity)
        if partition is None:
            return None
        if not partition:
            return next(iter([row async for row in self._table.scan("RowKey eq @k", {"k": identity}, limit=1)]), None)
        return await self._table.get(partition, identity)

    # -- content -----------------------------------------------------------------------------------------------

    async def _with_content(self, row: Row, content: dict[str, Any]) -> Row:
        """The row with this content in it, or in a new blob that is written before the row names it."""
        raw = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        value = {name: one for name, one in row.value.items() if name != "blob"}
        if len(raw) <= INLINE_LIMIT:
            return replace(row, value=value, body=raw)
        value["blob"] = f"{BLOBS}{row.key}/{secrets.token_hex(8)}"
        await self._blobs.put(value["blob"], raw)
        return replace(row, value=value, body=b"")

    async def _content(self, row: Row) -> dict[str, Any]:
        raw = row.body
        if "blob" in row.value:
            found = await self._blobs.get(row.value["blob"])
            if found is None:
                again = await self._row(row.key)  # changed since the row was read
                if again is None:
                    raise not_found()
                if again.value.get("blob") == row.value["blob"]:
                    raise RecordDamaged(self._table.name)
                return await self._content(again)
            raw = found
        content: dict[str, Any] = json.loads(raw) if raw else {}
        return content

    async def _drop_blob(self, row: Row, unless: Row | None = None) -> None:
        blob = row.value.get("blob")
        if blob and (unless is None or unless.value.get("blob") != blob):
            await self._blobs.delete(blob)

    # -- sweeping ----------------------------------------------------------------------------------------------

    async def sweep(self, older_than: timedelta) -> int:
        """Removes what belongs to nothing: contents that no template names, and templates of accounts that are gone;
        the number removed."""
        before = self._clock() - older_than
        return await self._sweep_orphans(before) + await self._sweep_blobs(before)

    async def _sweep_orphans(self, before: datetime) -> int:
        removed, known = 0, await self._accounts.known()
        async for row in self._table.scan(
            "at lt @t and PartitionKey ne @p", {"t": iso(before), "p": SHARED}, columns=()
        ):
            if row.partition not in known:
                removed += await self._remove(row)
        return removed

    async def _sweep_blobs(self, before: datetime) -> int:
        removed = 0
        async for name in self._blobs.old(BLOBS, before):
            row = await self._row(name.removeprefix(BLOBS).partition("/")[0])
            if row is None or row.value.get("blob") != name:
                await self._blobs.delete(name)
                removed += 1
        return removed
