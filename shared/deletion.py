"""Deleting accounts: everything an account has ends with it, however often the process dies on the way.

The record is marked first, from when on nothing finds or uses the account, and removed last. What stands between is
done again by a repeated call, by a job that was queued before the mark, or by the hourly sweep. What work in flight
writes after its account is gone is removed by a later look.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

from shared import delegation
from shared.accounts import Accounts, Record
from shared.clock import Clock, iso
from shared.credentials import Credentials
from shared.errors import RecordDamaged, account_not_found
from shared.events import Events
from shared.poison import Poison
from shared.storage.keys import storable
from shared.storage.tables import Row, Table
from shared.tokens import AccessTokens

RESUME_S = 60
# Looks for what was left behind: when nothing in flight can still live (a function ends after ten minutes), and
# later, since accountDeleted may be retried for long.
LOOKS_S = (900, 7200, 86_400, 5 * 86_400)
ORPHANED_AFTER = timedelta(hours=1)


class Deletion:
    """Deletes accounts and what is left of deleted ones."""

    def __init__(
        self,
        accounts: Accounts,
        credentials: Credentials,
        events: Events,
        clock: Clock,
        clean_up: Callable[[Record], Awaitable[None]],
        event_table: Table,
        credential_table: Table,
        others: Sequence[Table],
        tokens: AccessTokens,
        poison: Poison,
    ) -> None:
        """`clean_up` ends what hangs on an account elsewhere: subscription, queued mail, its API tokens. `others`
        are the tables with a partition for each account."""
        self._accounts, self._credentials, self._events, self._clock = accounts, credentials, events, clock
        self._clean_up, self._event_table, self._credential_table = clean_up, event_table, credential_table
        self._others, self._tokens, self._poison = others, tokens, poison

    async def delete(self, account: str) -> None:
        """Ends everything the account has; NotFound. Called again it finishes what an earlier call began."""
        try:
            if await self._accounts.find_whole(account) is None:
                raise account_not_found()
        except RecordDamaged:
            pass  # it can be deleted all the same
        await self._accounts.queue_job(account, "delete", RESUME_S)
        await self._finish(await self._accounts.begin_deletion(account))

    async def resume(self, account: str) -> None:
        """Finishes a deletion that was begun; does nothing for an account that is not being deleted."""
        try:
            record = await self._accounts.find_whole(account)
        except RecordDamaged:
            record = await self._accounts.begin_deletion(account)  # only a deletion asks for this
        if record is None:
            await self._afterwards(account)
        elif record.get("deleting"):
            await self._finish(record)

    async def _finish(self, record: Record) -> None:
        account = record["account"]
        if not record.get("birth") and not await self._accounts.is_ending(record):
            return  # what hangs on a damaged account is known by its id alone, which may be another account's by now
        await self._clean_up(record)
        if not await self._accounts.is_ending(record):
            return  # another call was faster, and what is here now is another account
        await self._credentials.forget(account)
        if parent := delegation.parent_of(record):
            await self._accounts.unlink(account, parent)
        await self._event_table.clear(storable(account), await self._still_due(account))
        happening = f"deleted {record['created']}"
        await self._events.emit(
            account, "accountDeleted", {"account": account}, happening=happening, target=record.get("webhooksSealed")
        )
        await self._accounts.remove(record)
        await self._afterwards(account)

    async def _afterwards(self, account: str) -> None:
        await self._accounts.queue_job(account, "relink")
        await self._accounts.queue_job(account, "purge", LOOKS_S[0], attempt=1)

    async def _still_due(self, account: str) -> set[str]:
        """The keys of this id's accountDeleted events that are not delivered: they outlive the account."""
        query = "PartitionKey eq @p and state ne 'delivered' and state ne 'skipped' and state ne 'discarded'"
        rows = self._event_table.scan(query, {"p": storable(account)})
        return {row.key async for row in rows if _is_end(row)}

    # -- afterwards ------------------------------------------------------------------------------------------

    async def purge(self, account: str, attempt: int) -> None:
        """Removes what was written for the account after it was gone."""
        partition = storable(account)
        found = [(table, await table.keys("PartitionKey eq @p", {"p": partition})) for table in self._others]
        events = await self._event_table.keys("PartitionKey eq @p", {"p": partition})
        due = await self._still_due(account)
        # In this order: of an account made again under the id, nothing can be among what was found before.
        if await self._accounts.find_whole(account) is not None:
            return
        await self._tokens.delete_of_account(account)
        for table, keys in [*found, (self._event_table, [key for key in events if key[1] not in due])]:
            await table.delete_all(partition, [key for _, key in keys])
        await self._poison.forget(account)
        if due and attempt < len(LOOKS_S):
            await self._accounts.queue_job(account, "purge", LOOKS_S[attempt], attempt=attempt + 1)

    async def sweep(self) -> int:
        """Finishes deletions that nobody finished, and removes credentials without an account; how many."""
        half = await self._accounts.half_deleted()
        for account in half:
            await self.resume(account)
        return len(half) + await self._remove_orphans()

    async def _remove_orphans(self) -> int:
        """Credentials are stored before their account is, so one whose account never came stays behind."""
        found = [key for key in await self._credential_table.keys() if not key[0].startswith("app=")]
        known = await self._accounts.known() if found else set()
        removed, limit = 0, iso(self._clock() - ORPHANED_AFTER)
        for partition, key in found:
            if partition in known:
                continue
            try:
                row = await self._credential_table.get(partition, key)
            except RecordDamaged:
                row = Row(partition, key, {})
            if row is not None and row.value.get("at", "") < limit:
                removed += await self._credential_table.delete(partition, key, row.etag or None)
        return removed


def _is_end(row: Row) -> bool:
    envelope = row.value.get("envelope") or {}
    return bool(envelope.get("event") == "accountDeleted")
