"""Which of our own mails a report is about."""

from __future__ import annotations

from shared import traces
from shared.access import Access
from shared.accounts import Reach
from shared.errors import GraphFailure, RecordDamaged
from shared.events import Events
from shared.graph.failures import is_transient
from shared.mime import STAMP
from shared.mime_source import Headers, first
from shared.outbox import LAST
from shared.outbox_records import COLUMNS, is_queue_id, shard
from shared.storage.tables import Table


class SentMail:
    """Finds the queue ids of mails that went out through this service."""

    def __init__(self, outbox: Table, events: Events, access: Access) -> None:
        self._outbox, self._events, self._access = outbox, events, access

    async def queue_id_of(self, account: str, reach: Reach, message_id: str, headers: Headers) -> str:
        """The queue id behind a mail that came back, "" when it was not ours. At most two transactions where the
        stamp came back too; without it the mailbox is asked for its copy of the mail, one call.

        What came back may be forged, so a stamp counts only where our records know it.
        """
        stamp = first(headers, STAMP.lower()).strip()
        if await self._is_ours(account, stamp, message_id):
            return stamp
        if not message_id or stamp:
            return ""
        try:
            found = await traces.copies(self._access, reach, message_id)
        except GraphFailure as failure:
            if is_transient(failure):
                raise
            return ""
        for stamp in sorted({one for copy in found if not copy.get("isDraft") for one in traces.stamps(copy)}):
            if await self._is_ours(account, stamp, message_id):
                return stamp
        return ""

    async def _is_ours(self, account: str, stamp: str, message_id: str) -> bool:
        """Whether this account sent a mail under this queue id: its record says so for two days, its event for
        thirty. A mail sent in another mailbox's name returns to that one: there the Message-ID has to fit."""
        if not is_queue_id(stamp):
            return False
        try:
            row = await self._outbox.get(shard(stamp), stamp, COLUMNS)
        except RecordDamaged:
            row = None
        if row is not None:
            return bool(row.value["account"] == account or row.value.get("messageId") == message_id != "")
        return await self._events.seen(account, f"sent {stamp}", about=stamp, order=LAST)
