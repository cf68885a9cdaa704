"""Accepting a draft of the mailbox for sending (emailengine.md 14.9). It is read once, while the caller waits."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from shared.access import Access
from shared.accounts import Accounts, Reach, Record, auth_of, lane_of
from shared.clock import Clock, iso, parse_time
from shared.errors import ApiError, GraphFailure
from shared.graph import edits
from shared.idempotency import Idempotency, KeyedCall, payload_hash
from shared.lanes import Lanes
from shared.message_changes import message_failure
from shared.messages import addresses_of
from shared.outbox import Outbox
from shared.outbox_records import Sending
from shared.service_settings import ServiceSettings
from shared.storage.keys import queue_id
from shared.storage.tables import Row
from shared.submit import ATTEMPTS, answer_of
from shared.waiting import Waiting, call

FIELDS = ("id", "isDraft", "subject", "from", "toRecipients", "ccRecipients", "bccRecipients", "internetMessageId")


class DraftSubmit:
    """Accepts drafts for sending; the outbox sends them."""

    def __init__(
        self,
        accounts: Accounts,
        access: Access,
        outbox: Outbox,
        idempotency: Idempotency,
        lanes: Lanes,
        settings: ServiceSettings,
        clock: Clock,
    ) -> None:
        self._accounts, self._access, self._outbox = accounts, access, outbox
        self._idempotency, self._lanes, self._settings, self._clock = idempotency, lanes, settings, clock

    async def accept(self, account: str, message_id: str, fields: dict[str, Any], key: str = "") -> dict[str, Any]:
        """The contract's answer (14.2) once the sending is durable; with an idempotency key, of a repeat too.

        Raises NotFound for an account or message that is not there, StateRefuses, ApiError for a message that is no
        draft or has no recipients, GraphFailure and CredentialError when the mailbox can not be asked.
        """
        if not key:
            row, _ = await self._stored(account, message_id, fields, self._identity(fields), "")
            return answer_of(row)
        record, mine = await self._accounts.get(account), list[str]()

        async def first(identity: str) -> Row:
            row, writer = await self._stored(account, message_id, fields, identity, key)
            mine.append(writer)
            return row

        once = KeyedCall(account, record.get("birth", ""), key)
        row = await self._idempotency.once(once, lambda: self._identity(fields), first)
        seen: dict[str, Any] = {"key": key, "status": "MISS"}
        if row.value["writer"] not in mine:
            seen = {"key": key, "status": "HIT", "payloadMatches": row.value["payload"] == _payload(message_id, fields)}
        return answer_of(row) | {"idempotency": seen}

    def _identity(self, fields: dict[str, Any]) -> str:
        return queue_id(int(parse_time(self._send_at(fields)).timestamp() * 1000))

    def _send_at(self, fields: dict[str, Any]) -> str:
        now = self._clock()
        return iso(max(now, parse_time(fields["sendAt"])) if fields.get("sendAt") else now)

    async def _stored(
        self, account: str, message_id: str, fields: dict[str, Any], identity: str, key: str
    ) -> tuple[Row, str]:
        """The row that stands for the queue id, and the name of this call, which tells whether it is its own."""
        record, reach = await self._accounts.usable(account)
        draft = await self._draft(reach, message_id)
        sending = self._sending(record, draft, fields, identity)
        if key:
            sending |= {"key": key, "payload": _payload(message_id, fields)}
        send_at = parse_time(self._send_at(fields))
        limit = fields.get("deliveryAttempts") or (await self._settings.all()).get("deliveryAttempts") or ATTEMPTS
        is_now = send_at <= self._clock()
        busy = bool(is_now and sending["lane"] and self._lanes.note_accepted(sending["lane"]))
        row = await self._outbox.add(Sending(**sending), send_at, attempts=int(limit), busy=busy)
        return row, sending["writer"]

    async def _draft(self, reach: Reach, message_id: str) -> dict[str, Any]:
        """The draft, by its immutable id, which finds the sent copy too (graph.md 2.4)."""
        build = lambda c: edits.state(c, reach.mailbox, message_id, FIELDS)  # noqa: E731
        try:
            draft = (await call(self._access, reach, build, Waiting(asyncio.sleep))).json()
        except GraphFailure as failure:
            raise message_failure(failure) from None
        if not draft.get("isDraft"):
            raise ApiError(400, "Requested message is not a draft", "MessageNotDraft")
        if not _recipients(draft):
            raise ApiError(400, "Draft message has no recipients", "DraftHasNoRecipients")
        return draft

    def _sending(self, record: Record, draft: dict[str, Any], fields: dict[str, Any], identity: str) -> dict[str, Any]:
        auth = auth_of(record)
        own = record.get("email") or auth.get("delegatedUser") or auth.get("user") or ""
        sender = next((one["address"] for one in addresses_of([draft.get("from") or {}])), own)
        given = {name: value for name, value in (fields.get("envelope") or {}).items() if value}
        return {
            "queue_id": identity,
            "account": record["account"],
            "message_id": draft.get("internetMessageId") or "",
            "envelope": {"from": sender, "to": _recipients(draft)} | given,  # informative on Graph (14.1)
            "subject": draft.get("subject") or "",
            "created": iso(self._clock()),
            "structured": False,
            "body": b"",
            "birth": record.get("birth", ""),
            "lane": lane_of(record),
            "writer": secrets.token_hex(8),
            "draft": draft["id"],
        }


def _recipients(draft: dict[str, Any]) -> list[str]:
    kinds = ("toRecipients", "ccRecipients", "bccRecipients")
    return [one["address"] for kind in kinds for one in addresses_of(draft.get(kind))]


def _payload(message_id: str, fields: dict[str, Any]) -> str:
    return payload_hash(fields, draft=message_id)
