"""The storage account: endpoints and credentials, and one count of transactions over all its clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_AZURITE = (
    f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={_AZURITE_KEY};"
    "BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1;"
    "TableEndpoint=http://127.0.0.1:10002/devstoreaccount1"
)

# The async storage clients wait 15 s before their first retry unless told otherwise; these are 1, 2, 4 and 8 s.
TIMEOUTS = {"connection_timeout": 5, "read_timeout": 20}
RETRIES = TIMEOUTS | {"initial_backoff": 1, "increment_base": 2, "retry_total": 4, "random_jitter_range": 1}


class StorageAccount:
    """How to reach the account; `transactions` counts every request our own clients sent."""

    def __init__(self, connection: Mapping[str, str]) -> None:
        self.transactions = 0
        self._connection = connection
        self._credential: Any = None

    @property
    def connection_string(self) -> str:
        """The connection string, or "" when the account is reached with an identity."""
        text = self._connection.get("connection_string", "")
        return _AZURITE if "UseDevelopmentStorage=true" in text else text

    def endpoint(self, service: str) -> str:
        """The service's URL for identity connections: `service` is blob, queue or table."""
        given = self._connection.get(f"{service}ServiceUri")
        return given or f"https://{self._connection['accountName']}.{service}.core.windows.net"

    def credential(self) -> Any:
        """The managed identity, system-assigned unless `__clientId` names a user-assigned one."""
        if self._credential is None:
            from azure.identity.aio import ManagedIdentityCredential

            self._credential = ManagedIdentityCredential(client_id=self._connection.get("clientId"))
        return self._credential

    def count(self, _request: Any) -> None:
        """Hook for the clients' pipelines: called once for each request on the wire."""
        self.transactions += 1

    async def close(self) -> None:
        if self._credential is not None:
            await self._credential.close()
