"""The service's own settings, changed over `/v1/settings` (emailengine.md 17).

They are few and read by every function, so they live in one record that each process keeps for ten seconds; a
change is seen at once by the process that made it and within that time by the others.
"""

from __future__ import annotations

import secrets
from typing import Any

from shared.clock import Clock
from shared.errors import StorageConflict
from shared.storage.tables import Row, Table
from shared.vault import Vault

KEPT_S = 10
PLACE = "settings/service/service"


SECRET = frozenset({"serviceSecret"})  # read back as true or false (emailengine.md 1.7)


class ServiceSettings:
    """Reads and writes the settings record. The whole record is sealed: it holds secrets and header values."""

    def __init__(self, table: Table, vault: Vault, clock: Clock, configured_url: str) -> None:
        self._table, self._vault, self._clock = table, vault, clock
        self._configured_url = configured_url
        self._kept: tuple[float, dict[str, Any]] | None = None

    async def all(self) -> dict[str, Any]:
        """Every setting that was written, by name."""
        now = self._clock().timestamp()
        if self._kept is None or not self._kept[0] <= now < self._kept[0] + KEPT_S:
            row = await self._table.get("settings", "service")
            self._kept = (now, self._open(row))
        return self._kept[1]

    async def write(self, changes: dict[str, Any]) -> None:
        """Merges changes into the record; None removes a setting."""
        while True:
            row = await self._table.get("settings", "service")
            merged = self._open(row) | changes
            kept = {name: value for name, value in merged.items() if value is not None}
            if await self._save(row, kept):
                self._kept = (self._clock().timestamp(), kept)
                return

    async def service_url(self) -> str:
        """The public base URL without a trailing slash, or "" when nobody set one."""
        return str((await self.all()).get("serviceUrl") or self._configured_url).rstrip("/")

    async def notification_base(self) -> str:
        """Where Graph sends notifications."""
        return str((await self.all()).get("notificationBaseUrl") or await self.service_url()).rstrip("/")

    async def service_secret(self) -> str:
        """The key of all signatures, generated and stored when first needed."""
        while not (secret := (await self.all()).get("serviceSecret")):
            row = await self._table.get("settings", "service")
            values = self._open(row)
            if values.get("serviceSecret") or await self._save(row, values | {"serviceSecret": secrets.token_hex(32)}):
                self._kept = None
        return str(secret)

    def _open(self, row: Row | None) -> dict[str, Any]:
        import json

        if row is None:
            return {}
        values: dict[str, Any] = json.loads(self._vault.open(row.value["sealed"], PLACE))
        return values

    async def _save(self, row: Row | None, values: dict[str, Any]) -> bool:
        import json

        sealed = {"sealed": self._vault.seal(json.dumps(values).encode(), PLACE)}
        try:
            if row is None:
                await self._table.insert(Row("settings", "service", sealed))
            else:
                await self._table.replace(Row("settings", "service", sealed, row.etag))
        except StorageConflict:
            return False
        return True
