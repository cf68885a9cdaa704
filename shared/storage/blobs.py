"""Bodies too large for a table entity, in one private container."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime
from typing import Any

from shared.storage.account import RETRIES, StorageAccount

CONTAINER = "bodies"
# The answer to a longer body for a missing container may come before it is read, and then shows as a broken
# connection; so the container is made first.
SHORT = 64 * 1024


def _part(number: int) -> str:
    return f"{number:06d}"  # the ids of a blob's blocks are of one length


class Blobs:
    """Bytes by name. The container is created on the first write."""

    def __init__(self, account: StorageAccount) -> None:
        self._account = account
        self._made: Any = None
        self._is_there = False

    @property
    def _client(self) -> Any:
        if self._made is None:
            from azure.storage.blob.aio import ContainerClient

            options: dict[str, Any] = {"raw_request_hook": self._account.count, **RETRIES}
            if self._account.connection_string:
                self._made = ContainerClient.from_connection_string(
                    self._account.connection_string, CONTAINER, **options
                )
            else:
                self._made = ContainerClient(
                    self._account.endpoint("blob"), CONTAINER, credential=self._account.credential(), **options
                )
        return self._made

    async def put(self, name: str, body: bytes) -> None:
        from azure.core.exceptions import ResourceNotFoundError

        if len(body) > SHORT and not self._is_there:
            await self._create()
        try:
            await self._client.upload_blob(name, body, overwrite=True)
        except ResourceNotFoundError:
            await self._create()
            await self._client.upload_blob(name, body, overwrite=True)
        self._is_there = True

    async def stage(self, name: str, number: int, part: bytes) -> None:
        """Writes one part of a blob, over the part of this number if there is one. It is seen after `commit`, and
        forgotten a week after it was written (docs: "Put Block")."""
        if not self._is_there:
            await self._create()
        await self._client.get_blob_client(name).stage_block(_part(number), part)

    async def commit(self, name: str, parts: int) -> None:
        """Makes the blob from its parts 0 to `parts` - 1. Again with the same parts it stays as it is."""
        from azure.storage.blob import BlobBlock

        blocks = [BlobBlock(block_id=_part(number)) for number in range(parts)]
        await self._client.get_blob_client(name).commit_block_list(blocks)

    async def _create(self) -> None:
        from azure.core.exceptions import ResourceExistsError

        with suppress(ResourceExistsError):  # another worker made it first
            await self._client.create_container()
        self._is_there = True

    async def get(self, name: str, start: int = 0, length: int | None = None) -> bytes | None:
        """The bytes, all or `length` from `start` on, or None when there is no such blob."""
        from azure.core.exceptions import ResourceNotFoundError

        part: dict[str, int] = {} if length is None else {"offset": start, "length": length}
        try:
            stream = await self._client.download_blob(name, **part)
            body: bytes = await stream.readall()
        except ResourceNotFoundError:
            return None
        return body

    async def delete(self, name: str) -> None:
        from azure.core.exceptions import ResourceNotFoundError

        with suppress(ResourceNotFoundError):  # gone already is what was asked for
            await self._client.delete_blob(name)

    async def old(self, prefix: str, before: datetime) -> AsyncIterator[str]:
        """The names of blobs under a prefix that were last written before that time, in order of name."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            async for blob in self._client.list_blobs(name_starts_with=prefix):
                if blob.last_modified < before:
                    yield str(blob.name)
        except ResourceNotFoundError:
            return

    async def close(self) -> None:
        if self._made is not None:
            await self._made.close()
