"""Records in Table Storage: JSON documents with a few indexable columns, changed by compare-and-swap.

A document is packed into binary properties of 64 KiB, since one text property holds only 32 Ki characters;
together an entity holds 1 MiB (docs: "Understanding the Table service data model").
"""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from shared.errors import RecordTooLarge, StorageConflict
from shared.storage.account import TIMEOUTS, StorageAccount

_CHUNK = 64 * 1024
_LARGEST = 14 * _CHUNK
_COMPRESSED = b"z"  # JSON begins with a brace


@dataclass(frozen=True)
class Row:
    """One record: its keys, its document, its indexable columns, and the version read."""

    partition: str
    key: str
    value: dict[str, Any]
    etag: str = ""
    columns: dict[str, Any] = field(default_factory=dict)


def _pack(row: Row) -> dict[str, Any]:
    raw = json.dumps(row.value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    if len(raw) > _CHUNK:
        raw = _COMPRESSED + zlib.compress(raw, 6)
    if len(raw) > _LARGEST:
        raise RecordTooLarge(f"{len(raw)} bytes; a record holds {_LARGEST}")
    chunks = {f"v{i // _CHUNK:02d}": raw[i : i + _CHUNK] for i in range(0, len(raw), _CHUNK)}
    return {"PartitionKey": row.partition, "RowKey": row.key, **row.columns, **chunks}


def _unpack(entity: Any) -> Row:
    names = sorted(name for name in entity if name.startswith("v") and name[1:].isdigit())
    raw = b"".join(entity[name] for name in names)
    columns = {k: v for k, v in entity.items() if k not in names and k not in ("PartitionKey", "RowKey")}
    if raw.startswith(_COMPRESSED):
        raw = zlib.decompress(raw[len(_COMPRESSED) :])
    value = json.loads(raw.decode("utf-8", "surrogatepass")) if raw else {}
    return Row(entity["PartitionKey"], entity["RowKey"], value, entity.metadata.get("etag", ""), columns)


class Table:
    """One table. It is created on the first write to it; reads of a missing table find nothing."""

    def __init__(self, account: StorageAccount, name: str) -> None:
        self.name = name
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

    async def get(self, partition: str, key: str) -> Row | None:
        """The record, or None. One transaction."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            return _unpack(await self._client.get_entity(partition, key))
        except ResourceNotFoundError:
            return None

    async def insert(self, row: Row) -> Row:
        """Writes a new record; StorageConflict when it exists."""
        from azure.core.exceptions import ResourceExistsError

        try:
            answer = await self._write("create_entity", _pack(row))
        except ResourceExistsError:
            raise StorageConflict(f"{self.name} {row.key} exists") from None
        return Row(row.partition, row.key, row.value, answer.get("etag", ""), row.columns)

    async def replace(self, row: Row) -> Row:
        """Writes over the version `row.etag`; StorageConflict when it changed or vanished meanwhile."""
        from azure.core import MatchConditions
        from azure.core.exceptions import ResourceModifiedError, ResourceNotFoundError
        from azure.data.tables import UpdateMode

        try:
            answer = await self._client.update_entity(
                _pack(row),
                mode=UpdateMode.REPLACE,
                etag=row.etag,
                match_condition=MatchConditions.IfNotModified,
            )
        except (ResourceModifiedError, ResourceNotFoundError):
            raise StorageConflict(f"{self.name} {row.key} changed") from None
        return Row(row.partition, row.key, row.value, answer.get("etag", ""), row.columns)

    async def put(self, row: Row) -> None:
        """Writes the record whatever was there."""
        from azure.data.tables import UpdateMode

        await self._write("upsert_entity", _pack(row), mode=UpdateMode.REPLACE)

    async def delete(self, partition: str, key: str, etag: str | None = None) -> bool:
        """True when the record is gone by this call. With `etag`: StorageConflict when it changed."""
        from azure.core import MatchConditions
        from azure.core.exceptions import ResourceModifiedError

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
    ) -> AsyncIterator[Row]:
        """The records that fit an OData filter with `@name` parameters, ordered by keys."""
        from azure.core.exceptions import ResourceNotFoundError

        if query:
            pages = self._client.query_entities(query, parameters=dict(parameters or {}), results_per_page=limit)
        else:
            pages = self._client.list_entities(results_per_page=limit)
        found = 0
        try:
            async for entity in pages:
                yield _unpack(entity)
                found += 1
                if limit is not None and found >= limit:
                    return
        except ResourceNotFoundError:
            return

    async def partition(self, partition: str) -> list[Row]:
        """Every record of one partition, ordered by key."""
        return [row async for row in self.scan("PartitionKey eq @p", {"p": partition})]

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
