"""Records in Table Storage: JSON documents with a few indexable columns, changed by compare-and-swap.

A document is packed into binary properties of 64 KiB, since one text property holds only 32 Ki characters;
together an entity holds 1 MiB (docs: "Understanding the Table service data model"). A checksum goes before it, so
that a record cut, mixed up or edited by hand is known as damaged and never half understood. Bytes that are written
once and read rarely (a mail's body) lie beside the document in properties of their own: `merge` changes a document
without sending them again, and reads with `columns` leave them out.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from shared.errors import RecordDamaged, RecordTooLarge, StorageConflict
from shared.storage.account import TIMEOUTS, StorageAccount
from shared.storage.keys import possible

_CHUNK = 64 * 1024
_CHUNKS = 14
_LARGEST = _CHUNKS * _CHUNK
_CHECKED, _COMPRESSED = b"c", b"z"  # JSON begins with a brace
_SUM_BYTES = 4
_BATCH = 100  # operations in one transaction of a table, at most
_DOCUMENT = ("PartitionKey", "RowKey", *(f"v{number:02d}" for number in range(_CHUNKS)))
log = logging.getLogger("graphpost.storage")


@dataclass(frozen=True)
class Row:
    """One record: its keys, its document, its indexable columns, the version read, and the bytes beside it."""

    partition: str
    key: str
    value: dict[str, Any]
    etag: str = ""
    columns: dict[str, Any] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)


def _pack(row: Row) -> dict[str, Any]:
    raw = json.dumps(row.value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    if len(raw) > _CHUNK:
        raw = _COMPRESSED + zlib.compress(raw, 6)
    raw = _CHECKED + zlib.crc32(raw).to_bytes(_SUM_BYTES, "big") + raw
    if len(raw) + len(row.body) > _LARGEST:
        raise RecordTooLarge(f"{len(raw)} bytes and {len(row.body)} beside them; a record holds {_LARGEST}")
    chunks = _split("v", raw) | _split("b", row.body)
    return {"PartitionKey": row.partition, "RowKey": row.key, **row.columns, **chunks}


def _pack_change(row: Row) -> dict[str, Any]:
    """The document and the columns for a merge. What is not named stays, so an empty chunk ends the document: the
    one before may have been longer."""
    entity = _pack(Row(row.partition, row.key, row.value, columns=row.columns))
    used = sum(name in entity for name in _DOCUMENT) - 2
    return entity | ({f"v{used:02d}": b""} if used < _CHUNKS else {})


def _split(letter: str, raw: bytes) -> dict[str, bytes]:
    return {f"{letter}{i // _CHUNK:02d}": raw[i : i + _CHUNK] for i in range(0, len(raw), _CHUNK)}


def _join(letter: str, entity: Any) -> bytes:
    """The chunks in order, up to the first that is empty or missing."""
    chunks = []
    for number in range(_CHUNKS):
        chunk = entity.get(f"{letter}{number:02d}")
        if not chunk:
            break
        if not isinstance(chunk, bytes):
            raise ValueError("not binary")
        chunks.append(chunk)
    return b"".join(chunks)


def _unpack(entity: Any) -> Row:
    """The row of an entity. ValueError when its document is not what was written."""
    columns = {k: v for k, v in entity.items() if not _is_chunk(k) and k not in ("PartitionKey", "RowKey")}
    value, etag = _document(_join("v", entity)), entity.metadata.get("etag") or ""
    return Row(entity["PartitionKey"], entity["RowKey"], value, etag, columns, _join("b", entity))


def _is_chunk(name: str) -> bool:
    return name[:1] in ("v", "b") and name[1:].isdigit()


def _document(raw: bytes) -> dict[str, Any]:
    if raw.startswith(_CHECKED):
        start = len(_CHECKED) + _SUM_BYTES
        expected, raw = raw[len(_CHECKED) : start], raw[start:]
        if zlib.crc32(raw).to_bytes(_SUM_BYTES, "big") != expected:
            raise ValueError("the checksum does not fit")
    if raw.startswith(_COMPRESSED):
        try:
            raw = zlib.decompress(raw[len(_COMPRESSED) :])
        except zlib.error as problem:
            raise ValueError(str(problem)) from None
    value = json.loads(raw.decode("utf-8", "surrogatepass")) if raw else {}
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


class Table:
    """One table. It is created on the first write to it; reads of a missing table find nothing.

    `rebuilt`: what it holds is made anew when it is missing, so a damaged record is removed when it is met and
    counts as absent. Elsewhere `get` raises RecordDamaged, and what reads many leaves the damaged one out, so that
    it does not hold up the others.
    """

    def __init__(self, account: StorageAccount, name: str, *, rebuilt: bool = False) -> None:
        self.name, self.rebuilt = name, rebuilt
        self._account = account
        self._made: Any = None

    @property
    def _client(self) -> Any:
        if self._made is None:
            from azure.data.tables.aio import TableClient

            options: dict[str, Any] = {"table_name": self.name, "raw_request_hook": self._account.count, **TIMEOUTS}
            if self._account.connection_string:
                self._made = TableClient.from_connection_string(self._account.connection_string, **options)
            else:
                self._made = TableClient(
                    self._account.endpoint("table"), credential=self._account.credential(), **options
                )
        return self._made

    async def get(self, partition: str, key: str, columns: Iterable[str] | None = None) -> Row | None:
        """The record, or None. One transaction. With `columns`: the document and these, without the bytes beside.
        RecordDamaged when it cannot be read."""
        from azure.core.exceptions import ResourceNotFoundError

        if not possible(partition, key):
            return None
        select = None if columns is None else [*_DOCUMENT, *columns]
        try:
            entity = await self._client.get_entity(partition, key, select=select)
        except ResourceNotFoundError:
            return None
        row = await self._read(entity)
        if row is None and not self.rebuilt:
            raise RecordDamaged(self.name)
        return row

    async def _read(self, entity: Any) -> Row | None:
        """The row of an entity; None, and a line in the log, for a damaged one."""
        try:
            return _unpack(entity)
        except ValueError:  # what JSON, UTF-8 and the checks above raise
            log.error("graphpost.storage.damaged table=%s removed=%s", self.name, self.rebuilt)
        if self.rebuilt:
            with suppress(StorageConflict):  # written anew meanwhile
                await self.delete(entity["PartitionKey"], entity["RowKey"], entity.metadata.get("etag", ""))
        return None

    async def insert(self, row: Row) -> Row:
        """Writes a new record; StorageConflict when it exists."""
        from azure.core.exceptions import ResourceExistsError

        try:
            answer = await self._write("create_entity", _pack(row))
        except ResourceExistsError:
            raise StorageConflict(f"{self.name} {row.key} exists") from None
        return replace(row, etag=answer.get("etag", ""))

    async def replace(self, row: Row) -> Row:
        """Writes over the version `row.etag`, bytes beside the document included; StorageConflict when it changed or
        vanished meanwhile."""
        return await self._update(row, _pack(row), "replace")

    async def merge(self, row: Row) -> Row:
        """Writes document and columns over the version `row.etag` and leaves the bytes beside them as they are;
        StorageConflict when it changed or vanished meanwhile."""
        return await self._update(row, _pack_change(row), "merge")

    async def _update(self, row: Row, entity: dict[str, Any], mode: str) -> Row:
        from azure.core import MatchConditions
        from azure.core.exceptions import ResourceModifiedError, ResourceNotFoundError
        from azure.data.tables import UpdateMode

        try:
            answer = await self._client.update_entity(
                entity, mode=UpdateMode(mode), etag=row.etag, match_condition=MatchConditions.IfNotModified
            )
        except (ResourceModifiedError, ResourceNotFoundError):
            raise StorageConflict(f"{self.name} {row.key} changed") from None
        return replace(row, etag=answer.get("etag", ""))

    async def set_columns(self, partition: str, key: str, columns: Mapping[str, Any]) -> bool:
        """Writes these columns and leaves the rest of the record as it is, unread; False when it is gone."""
        from azure.core.exceptions import ResourceNotFoundError
        from azure.data.tables import UpdateMode

        entity = {"PartitionKey": partition, "RowKey": key, **columns}
        try:
            await self._client.update_entity(entity, mode=UpdateMode.MERGE)
        except ResourceNotFoundError:
            return False
        return True

    async def put(self, row: Row) -> None:
        """Writes the record whatever was there."""
        from azure.data.tables import UpdateMode

        await self._write("upsert_entity", _pack(row), mode=UpdateMode.REPLACE)

    async def delete(self, partition: str, key: str, etag: str | None = None) -> bool:
        """True when the record is gone by this call. With `etag`: StorageConflict when it changed."""
        from azure.core import MatchConditions
        from azure.core.exceptions import ResourceModifiedError

        if not possible(partition, key):
            return False
        condition = {"etag": etag, "match_condition": MatchConditions.IfNotModified} if etag else {}
        statuses: list[int] = []

        def note(response: Any) -> None:
            statuses.append(response.http_response.status_code)

        try:
            # The SDK answers the same for a record that was there and one that was not: the status tells.
            await self._client.delete_entity(partition, key, raw_response_hook=note, **condition)
        except ResourceModifiedError:
            raise StorageConflict(f"{self.name} {key} changed") from None
        return statuses[-1:] == [204]

    async def scan(
        self,
        query: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        limit: int | None = None,
        columns: Iterable[str] | None = None,
        only: Sequence[str] | None = None,
    ) -> AsyncIterator[Row]:
        """The records that fit an OData filter with `@name` parameters, ordered by keys; damaged ones are left out.

        With `columns`: the documents and these, without the bytes beside them. With `only`: these columns and no
        document, for looking through many records whose documents are large.
        """
        from azure.core.exceptions import ResourceNotFoundError

        select = None if columns is None else [*_DOCUMENT, *columns]
        if only is not None:
            select = ["PartitionKey", "RowKey", *only]
        options: dict[str, Any] = {"results_per_page": limit, "select": select}
        if query:
            pages = self._client.query_entities(query, parameters=dict(parameters or {}), **options)
        else:
            pages = self._client.list_entities(**options)
        found = 0
        try:
            async for entity in pages:
                row = await self._read(entity)
                if row is not None:
                    yield row
                found += 1
                if limit is not None and found >= limit:
                    return
        except ResourceNotFoundError:
            return

    async def partition(self, partition: str) -> list[Row]:
        """Every record of one partition, ordered by key."""
        return [row async for row in self.scan("PartitionKey eq @p", {"p": partition})]

    async def supplant(self, row: Row, aside: str) -> bool:
        """Writes `row` in the place of a record that is not read but kept as it is under the key `aside`, both or
        neither. False when it changed meanwhile."""
        from azure.core import MatchConditions
        from azure.core.exceptions import ResourceNotFoundError
        from azure.data.tables import TableTransactionError, UpdateMode

        try:
            entity = await self._client.get_entity(row.partition, row.key)
            held = {"etag": entity.metadata["etag"], "match_condition": MatchConditions.IfNotModified}
            kept = ("upsert", dict(entity) | {"RowKey": aside})
            written = ("update", _pack(row), {"mode": UpdateMode.REPLACE, **held})
            await self._client.submit_transaction([kept, written])
        except (TableTransactionError, ResourceNotFoundError):
            return False
        return True

    async def page(
        self, after: str, size: int, query: str | None = None
    ) -> tuple[list[Row], list[tuple[str, str]], str]:
        """At most `size` records behind the place `after` ("" for the start), the keys of the damaged ones among
        them, and the place of the next page, "" at the end. Rows written meanwhile may be met or not."""
        from azure.core.exceptions import ResourceNotFoundError

        source = self._client.query_entities(query, results_per_page=size) if query else None
        source = source or self._client.list_entities(results_per_page=size)
        pages = source.by_page(continuation_token=json.loads(after) if after else None)
        rows: list[Row] = []
        damaged: list[tuple[str, str]] = []
        try:
            async for entity in await anext(pages):
                try:
                    rows.append(_unpack(entity))
                except ValueError:
                    damaged.append((entity["PartitionKey"], entity["RowKey"]))
        except (ResourceNotFoundError, StopAsyncIteration):
            return [], [], ""
        following = pages.continuation_token
        return rows, damaged, json.dumps(following) if following else ""

    async def keys(
        self, query: str | None = None, parameters: Mapping[str, Any] | None = None
    ) -> list[tuple[str, str]]:
        """The keys of every record that fits, without its content, damaged ones included."""
        from azure.core.exceptions import ResourceNotFoundError

        names = ["PartitionKey", "RowKey"]
        if query:
            pages = self._client.query_entities(query, parameters=dict(parameters or {}), select=names)
        else:
            pages = self._client.list_entities(select=names)
        try:
            return [(entity["PartitionKey"], entity["RowKey"]) async for entity in pages]
        except ResourceNotFoundError:
            return []

    async def clear(self, partition: str, keep: Collection[str] = ()) -> int:
        """Removes a partition's records, damaged ones too, a hundred in one transaction, but those whose keys are
        in `keep`; how many. Their content is not read."""
        found = [key for _, key in await self.keys("PartitionKey eq @p", {"p": partition}) if key not in keep]
        await self.delete_all(partition, found)
        return len(found)

    async def delete_all(self, partition: str, keys: Sequence[str]) -> None:
        """Removes these records of one partition, as far as they are there."""
        for start in range(0, len(keys), _BATCH):
            await self._delete_together(partition, keys[start : start + _BATCH])

    async def _delete_together(self, partition: str, keys: Sequence[str]) -> None:
        from azure.data.tables import TableTransactionError

        operations = [("delete", {"PartitionKey": partition, "RowKey": key}) for key in keys]
        try:
            await self._client.submit_transaction(operations)
        except TableTransactionError:
            for key in keys:  # one of them went meanwhile, which undoes the whole transaction
                await self.delete(partition, key)

    async def swap(self, old_key: str, row: Row) -> None:
        """Deletes `old_key` and writes `row` in the same partition, both or neither. One transaction."""
        from azure.core.exceptions import ResourceNotFoundError
        from azure.data.tables import TableTransactionError

        operations = [
            ("upsert", _pack(row)),
            ("delete", {"PartitionKey": row.partition, "RowKey": old_key}),
        ]
        try:
            await self._client.submit_transaction(operations)
        except (TableTransactionError, ResourceNotFoundError) as problem:
            raise StorageConflict(f"{self.name} {old_key} changed") from problem

    async def _write(self, method: str, entity: dict[str, Any], **options: Any) -> Any:
        from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError

        try:
            return await getattr(self._client, method)(entity, **options)
        except ResourceNotFoundError:
            with suppress(ResourceExistsError):  # another worker made it first
                await self._client.create_table()
            return await getattr(self._client, method)(entity, **options)

    async def close(self) -> None:
        if self._made is not None:
            await self._made.close()
