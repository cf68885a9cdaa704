"""Where sealed values stand, as one table of facts, and how they get under the newest key of the ring.

Reads re-seal what they meet under an older key, and the job of `resealing.py` all the rest. Both work on records
alone, without knowing what the values mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from shared.errors import StorageConflict
from shared.storage.tables import Row, Table
from shared.vault import SealBroken, Vault

REMEMBERED = 10_000


@dataclass(frozen=True)
class Sealed:
    """One kind of sealed value: its table, the field of the record that holds it, and the place that it is sealed
    for. `query` leaves out records whose value nobody will open again."""

    table: str
    field: str
    place: Callable[[Row], str]
    query: str | None = None


SETTINGS = Sealed("settings", "sealed", lambda row: "settings/service/service", "RowKey eq 'service'")
OAUTH_APP = Sealed("oauth2apps", "clientSecret", lambda row: f"oauth2apps/{row.key}/clientSecret")
CREDENTIALS = Sealed("credentials", "sealed", lambda row: f"credentials/{row.partition}/{row.key}")
ACCOUNT = Sealed("accounts", "webhooksSealed", lambda row: f"accounts/{row.partition}/webhooks")
PENDING = Sealed("pending", "sealed", lambda row: f"pending/{row.partition}")
# An event that outlives its account carries the account's sealed target; delivered and skipped ones are not read.
EVENT = Sealed(
    "events", "target", lambda row: f"accounts/{row.partition}/webhooks", "state ne 'delivered' and state ne 'skipped'"
)
ENDPOINT = Sealed("endpoints", "url", lambda row: f"endpoints/{row.key}/url")
EVERYWHERE = (SETTINGS, OAUTH_APP, CREDENTIALS, ACCOUNT, PENDING, EVENT, ENDPOINT)


class Resealer:
    """Writes values that are under an older key back under the newest.

    Once for each record in the life of a process: while the order of the ring is being changed, instances with the
    older and the newer order would otherwise write against each other at every read.
    """

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._tried: set[tuple[str, str, str]] = set()

    async def renewed(self, table: Table, row: Row, kind: Sealed) -> Row:
        """The row, its value under the newest key if this process had not tried that before. At most one
        conditional write; when it is lost somebody else wrote, and that will do."""
        name = (kind.table, row.partition, row.key)
        if name in self._tried or not self.is_stale(row, kind):
            return row
        if len(self._tried) >= REMEMBERED:
            self._tried.clear()
        self._tried.add(name)
        try:
            return await self.write(table, row, kind)
        except (SealBroken, StorageConflict):
            return row

    def is_stale(self, row: Row, kind: Sealed) -> bool:
        """True when the row holds such a value and it is not under the newest key."""
        sealed = row.value.get(kind.field)
        return isinstance(sealed, str) and bool(sealed) and self._vault.is_stale(sealed)

    async def write(self, table: Table, row: Row, kind: Sealed) -> Row:
        """The row as stored with its value under the newest key. SealBroken, StorageConflict."""
        place = kind.place(row)
        sealed = self._vault.seal(self._vault.open(row.value[kind.field], place), place)
        return await table.replace(replace(row, value=row.value | {kind.field: sealed}))
