"""Bodies too large for a table entity, in one private container."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from shared.storage.account import RETRIES, StorageAccount

CONTAINER = "bodies"


class Blobs:
    """Bytes by name. The container is created on the first write."""

    def __init__(self, account: StorageAccount) -> None:
        self._account = account
        self._made: Any = None

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
        from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError

        try:
            await self._client.upload_blob(name, body, overwrite=True)
        except ResourceNotFoundError:
            with suppress(ResourceExistsError):  # another worker made it first
                await self._client.create_container()
            await self._client.upload_blob(name, body, overwrite=True)

    async def get(self, name: str) -> bytes | None:
        """The bytes, or None when there is no such blob."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            stream = await self._client.download_blob(name)
            body: bytes = await stream.readall()
        except ResourceNotFoundError:
            return None
        return body

    async def delete(self, name: str) -> None:
        from azure.core.exceptions import ResourceNotFoundError

        with suppress(ResourceNotFoundError):  # gone already is what was asked for
            await self._client.delete_blob(name)

    async def close(self) -> None:
        if self._made is not None:
            await self._made.close()
