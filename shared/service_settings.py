"""The service's own settings, changed over `/v1/settings` (emailengine.md 17).

They are few and read by every function, so they live in one record that each process keeps for ten seconds; a
change is seen at once by the process that made it and within that time by the others.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from shared.clock import Clock, iso
from shared.errors import ApiError, RecordDamaged, StorageConflict
from shared.sealed import SETTINGS, Resealer
from shared.storage.tables import Row, Table
from shared.vault import SealBroken, Vault

KEPT_S = 10
PARTITION, KEY = "settings", "service"
# Read back as true or false (emailengine.md 1.7). Those without an effect here are another service's secrets.
SECRET = frozenset(
    "serviceSecret serviceSecretOld smtpServerPassword imapProxyServerPassword gmailClientSecret openAiAPIKey "
    "documentStorePassword".split()
)
# URLs that may hold a password, which reads as a mask.
WITH_PASSWORD = frozenset("webhooks proxyUrl httpProxyUrl documentStoreUrl openAiAPIUrl sentryDsn".split())
OLD_SECRET_FOR = timedelta(hours=24)


class ServiceSettings:
    """Reads and writes the settings record. The whole record is sealed: it holds secrets and header values."""

    def __init__(
        self, table: Table, vault: Vault, clock: Clock, configured_url: str, resealer: Resealer | None = None
    ) -> None:
        self._table, self._vault, self._clock = table, vault, clock
        self._configured_url, self._resealer = configured_url, resealer or Resealer(vault)
        self._kept: tuple[float, dict[str, Any]] | None = None

    async def all(self) -> dict[str, Any]:
        """Every setting that was written, by name. SealBroken when the record can not be read: its key is not in
        the ring, or it was damaged. It is asked for anew each time until it can."""
        now = self._clock().timestamp()
        if self._kept is None or not self._kept[0] <= now < self._kept[0] + KEPT_S:
            row = await self._row()
            self._kept = (now, self._open(row))
            if row is not None:
                await self._resealer.renewed(self._table, row, SETTINGS)
        return self._kept[1]

    @property
    def known(self) -> dict[str, Any]:
        """The settings as this process read them last, however long ago; nothing is read for it."""
        return self._kept[1] if self._kept else {}

    async def write(self, changes: dict[str, Any]) -> None:
        """Merges changes into the record; None removes a setting. A service secret that is replaced signs webhooks
        beside the new one for a day, unless the same changes drop `serviceSecretOld`."""
        await self.change(lambda stored: stored | self._kept_secret(stored, changes) | changes)

    async def change(self, mutate: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Applies `mutate` to the newest settings until they are stored; None removes one."""
        while True:
            row = await self._row()
            changed = mutate(self._open(row))
            kept = {name: value for name, value in changed.items() if value is not None}
            if await self._save(row, kept):
                self._kept = (self._clock().timestamp(), kept)
                return

    async def recover(self, values: dict[str, Any]) -> None:
        """Starts anew with these values where the record can not be read; 409 where it can. What can not be read
        is kept aside under a row of its own, so that nothing is lost should its key come back."""
        try:
            self._open(await self._row())
        except SealBroken:
            row = Row(PARTITION, KEY, self._sealed(values))
            written = await self._table.supplant(row, f"unreadable~{iso(self._clock())}")
        else:
            raise ApiError(409, "The settings can be read: change them with POST /v1/settings", "SettingsReadable")
        if not written:
            raise ApiError(409, "Somebody else changed the settings at the same moment. Look again", "SettingsChanged")
        self._kept = (self._clock().timestamp(), values)

    async def _row(self) -> Row | None:
        try:
            return await self._table.get(PARTITION, KEY)
        except RecordDamaged:
            raise SealBroken("the record of the settings is damaged") from None

    async def service_url(self) -> str:
        """The public base URL without a trailing slash, or "" when nobody set one."""
        return str((await self.all()).get("serviceUrl") or self._configured_url).rstrip("/")

    async def notification_base(self) -> str:
        """Where Graph sends notifications."""
        return str((await self.all()).get("notificationBaseUrl") or await self.service_url()).rstrip("/")

    async def service_secret(self) -> str:
        """The key of all signatures, generated and stored when first needed."""
        while not (secret := (await self.all()).get("serviceSecret")):
            row = await self._row()
            values = self._open(row)
            if values.get("serviceSecret") or await self._save(row, values | {"serviceSecret": secrets.token_hex(32)}):
                self._kept = None
        return str(secret)

    async def signing_secrets(self) -> list[str]:
        """The secrets that sign webhooks: the one in use, then the one it replaced, while that is kept."""
        newest, old = await self.service_secret(), await self.old_secret()
        return [newest, old] if old else [newest]

    async def old_secret(self) -> str | None:
        """The secret that was replaced within the last day; None when there is none or it was dropped."""
        old = (await self.all()).get("serviceSecretOld")
        return str(old["secret"]) if old and iso(self._clock()) < old["until"] else None

    def _kept_secret(self, stored: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
        replaced = stored.get("serviceSecret")
        if not replaced or changes.get("serviceSecret", replaced) == replaced:
            return {}
        return {"serviceSecretOld": {"secret": replaced, "until": iso(self._clock() + OLD_SECRET_FOR)}}

    def _open(self, row: Row | None) -> dict[str, Any]:
        import json

        if row is None:
            return {}
        values: dict[str, Any] = json.loads(self._vault.open(row.value.get("sealed") or "", SETTINGS.place(row)))
        return values

    def _sealed(self, values: dict[str, Any]) -> dict[str, Any]:
        import json

        return {"sealed": self._vault.seal(json.dumps(values).encode(), SETTINGS.place(Row(PARTITION, KEY, {})))}

    async def _save(self, row: Row | None, values: dict[str, Any]) -> bool:
        sealed = self._sealed(values)
        try:
            if row is None:
                await self._table.insert(Row(PARTITION, KEY, sealed))
            else:
                await self._table.replace(Row(PARTITION, KEY, sealed, row.etag))
        except StorageConflict:
            return False
        return True
