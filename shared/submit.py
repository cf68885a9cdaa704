"""Accepting a mail: checked, built, made durable, queued. It costs the caller no Graph call (D7)."""

from __future__ import annotations

import json
import re
import secrets
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from shared import mime
from shared.accounts import Accounts, Record, auth_of, lane_of
from shared.attachments import References
from shared.clock import Clock, iso, parse_time
from shared.errors import ApiError, CredentialError, InvalidInput
from shared.idempotency import Idempotency, KeyedCall, payload_hash
from shared.lanes import Lanes
from shared.mail_parts import Part, check_foreign, divided
from shared.outbox import Outbox
from shared.outbox_records import Sending
from shared.rendering import Rendering
from shared.service_settings import ServiceSettings
from shared.storage.keys import queue_id
from shared.storage.tables import Row

ATTEMPTS = 10
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,76}")


class Submit:
    """Accepts mails for accounts."""

    def __init__(
        self,
        accounts: Accounts,
        outbox: Outbox,
        idempotency: Idempotency,
        lanes: Lanes,
        settings: ServiceSettings,
        clock: Clock,
        send_format: str,
        references: References,
        rendering: Rendering,
        new_uuid: Callable[[], uuid.UUID] = uuid.uuid4,
    ) -> None:
        self._accounts, self._outbox, self._settings, self._references = accounts, outbox, settings, references
        self._idempotency, self._lanes = idempotency, lanes
        self._clock, self._send_format, self._new_uuid, self._rendering = clock, send_format, new_uuid, rendering

    async def accept(
        self, account: str, fields: dict[str, Any], *, structured: bool = False, key: str = ""
    ) -> dict[str, Any]:
        """The contract's answer (14.2) once the mail is durable. With an idempotency key, of a repeat too: the answer
        of the first call, and whether its payload was the same (14.10).

        Raises NotFound, InvalidInput, and ApiError for an account that has nothing to send with or a mail that is
        too large. Only attachments by reference cost Graph calls, and raise what `References.resolved` raises.
        """
        return await self.accept_for(await self._accounts.get(account), fields, structured=structured, key=key)

    async def accept_for(
        self, record: Record, fields: dict[str, Any], *, structured: bool = False, key: str = ""
    ) -> dict[str, Any]:
        """The same for an account whose record is at hand."""
        mine: list[Sending] = []

        async def first(identity: str) -> Row:
            sending, send_at = await self._built(record, fields, identity, structured, key)
            mine.append(sending)
            return await self._stored(sending, send_at, fields)

        if not key:
            return answer_of(await first(self._identity(fields)))
        call = KeyedCall(record["account"], record.get("birth", ""), key)
        row = await self._idempotency.once(call, lambda: self._identity(fields), first)
        seen: dict[str, Any] = {"key": key, "status": "MISS"}
        if not any(row.value["writer"] == sending.writer for sending in mine):
            matches = row.value["payload"] == payload_of(fields, structured)
            seen = {"key": key, "status": "HIT", "payloadMatches": matches}
        return answer_of(row) | {"idempotency": seen}

    def _send_at(self, fields: dict[str, Any]) -> datetime:
        now = self._clock()
        return max(now, parse_time(fields["sendAt"])) if fields.get("sendAt") else now

    def _identity(self, fields: dict[str, Any]) -> str:
        return queue_id(int(self._send_at(fields).timestamp() * 1000))

    async def _built(
        self, record: Record, fields: dict[str, Any], identity: str, structured: bool, key: str
    ) -> tuple[Sending, datetime]:
        """The mail as it will be stored, and when it is to be sent."""
        if not record.get("oauth2"):
            raise ApiError(404, "SMTP configuration not found", "SMTPUnavailable")
        completed = self._completed(record, await self._rendering.rendered(record, fields))
        if fields.get("attachments"):
            completed["attachments"] = await self._references.resolved(record["account"], fields["attachments"])
        now, send_at = self._clock(), self._send_at(fields)
        sending = self._sending(record, completed, identity, now, send_at, structured)
        await self._check_reach(record, sending.parts)
        payload = payload_of(fields, structured) if key else ""
        return replace(sending, key=key, payload=payload), send_at

    async def _stored(self, sending: Sending, send_at: datetime, fields: dict[str, Any]) -> Row:
        limit = fields.get("deliveryAttempts") or (await self._settings.all()).get("deliveryAttempts") or ATTEMPTS
        is_now = send_at <= self._clock()
        busy = bool(is_now and sending.lane and self._lanes.note_accepted(sending.lane))
        return await self._outbox.add(sending, send_at, attempts=int(limit), busy=busy)

    def _completed(self, record: Record, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields with the sender filled in, checked for what no single field shows."""
        if not any(fields.get(name) for name in ("to", "cc", "bcc")):
            raise InvalidInput.field("to", 'At least one recipient is needed in "to", "cc" or "bcc"')
        sender = fields.get("from") or {}
        auth = auth_of(record)
        address = sender.get("address") or record.get("email") or auth.get("delegatedUser") or auth.get("user")
        if not address or "@" not in address:
            raise InvalidInput.field("from", '"from" is required: the account has no e-mail address of its own')
        name = sender.get("name") if fields.get("from") else record.get("name")
        check_headers(fields.get("headers") or {})
        return fields | {"from": {"name": name or "", "address": address}}

    def _sending(
        self,
        record: Record,
        fields: dict[str, Any],
        identity: str,
        now: datetime,
        send_at: datetime,
        structured: bool,
    ) -> Sending:
        sender = fields["from"]["address"]
        message_id = bracketed(fields.get("messageId")) or f"<{self._new_uuid()}@{sender.rpartition('@')[2]}>"
        as_json = structured or travels_structured(record, sender, self._send_format)
        if as_json:
            check_structured(fields)

        def render(some: Mapping[str, Any]) -> bytes:
            if as_json:
                return json.dumps(mime.structured(some, message_id=message_id, queue_id=identity)).encode()
            return mime.build(some, message_id=message_id, date=send_at, queue_id=identity)

        body, parts = divided(fields, render, as_sent=int if as_json else in_base64)
        everyone = [one["address"] for name in ("to", "cc", "bcc") for one in fields.get(name) or ()]
        given = {name: value for name, value in (fields.get("envelope") or {}).items() if value}
        envelope = {"from": sender, "to": everyone} | given  # informative on Graph (14.1)
        return Sending(
            queue_id=identity,
            account=record["account"],
            message_id=message_id,
            envelope=envelope,
            subject=fields.get("subject") or "",
            created=iso(now),
            structured=as_json,
            body=body,
            birth=record.get("birth", ""),
            lane=lane_of(record),
            writer=secrets.token_hex(8),
            parts=tuple(parts),
        )

    async def _check_reach(self, record: Record, parts: Sequence[Part]) -> None:
        """ApiError for attachments that this way to the mailbox cannot carry. Without a way at all, which may
        change until the mail is sent, nothing is said."""
        if not parts:
            return
        with suppress(CredentialError):
            reach = await self._accounts.reach(record)
            if reach.is_foreign:
                check_foreign(parts, reach.mailbox.user or record["account"])


def in_base64(size: int) -> int:
    """What so many bytes take when they travel in base64 (graph.md 6.3)."""
    return -(-size // 3) * 4


def answer_of(row: Row) -> dict[str, Any]:
    """The contract's answer (14.2) from what is stored of the mail."""
    return {
        "response": "Queued for delivery",
        "messageId": row.value["messageId"],
        "sendAt": row.value["scheduled"],
        "queueId": row.key,
    }


def payload_of(fields: Mapping[str, Any], structured: bool) -> str:
    """Tells one request from another under the same idempotency key."""
    return payload_hash(fields, useStructuredFormat=structured)


def travels_structured(record: Record, sender: str, send_format: str) -> bool:
    """Whether this mail goes as Graph JSON: when configured, or when the sender is not the mailbox itself.

    Reports on From in MIME disagree (graph.md 6.3): with MIME, Graph is only trusted to send as the mailbox of
    the path.
    """
    auth = auth_of(record)
    own = {record.get("email"), auth.get("delegatedUser") or auth.get("user")}
    return send_format == "structured" or sender.lower() not in {(one or "").lower() for one in own}


def check_headers(headers: Mapping[str, str]) -> None:
    """InvalidInput for headers that cannot travel, or that a field of the request sets."""
    if len({name.lower() for name in headers}) < len(headers):
        raise InvalidInput.field("headers", "The same header is given in two spellings")
    for name, value in headers.items():
        field = mime.FIELD_HEADERS.get(name.lower())
        if field:
            raise InvalidInput.field("headers", f'The header "{name}" is set with the field "{field}"')
        if name.lower().startswith("content-") or name.lower() in ("mime-version", mime.STAMP.lower(), "sender"):
            raise InvalidInput.field("headers", f'The header "{name}" follows from the content and can not be set')
        if not _HEADER_NAME.fullmatch(name):
            raise InvalidInput.field("headers", f'"{name[:80]}" is not a header name')
        if mime.CONTROLS.search(value.replace("\t", " ")):
            raise InvalidInput.field("headers", f'The header "{name}" has a line break or control character')


def check_structured(fields: Mapping[str, Any]) -> None:
    """InvalidInput for what Graph's JSON form cannot carry (graph.md 6.4)."""
    headers = fields.get("headers") or {}
    wrong = [name for name in headers if not name.lower().startswith("x-")]
    why = "when the mail goes as a Graph message (another sender than the mailbox, or useStructuredFormat)"
    if wrong:
        raise InvalidInput.field(
            "headers", f'Microsoft Graph can not carry the header "{wrong[0]}" {why}; only X- headers'
        )
    if len(headers) > mime.STRUCTURED_HEADERS:
        raise InvalidInput.field("headers", f"At most {mime.STRUCTURED_HEADERS} headers can be set {why}")


def bracketed(message_id: str | None) -> str:
    """`<id>`, or "" for none. InvalidInput when it is not one."""
    text = (message_id or "").strip()
    if not text:
        return ""
    text = text if text.startswith("<") else f"<{text}>"
    if not re.fullmatch(r"<[^<>\s\x00-\x1f\x7f]+@?[^<>\s\x00-\x1f\x7f]*>", text) or not text.isascii():
        raise InvalidInput.field("messageId", '"messageId" must look like <unique@host>')
    return text
