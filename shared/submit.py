"""Accepting a mail: checked, built, made durable, queued. It costs the caller no Graph call (D7)."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from shared import mime, raw_mail
from shared.accounts import Accounts, Record, auth_of, lane_of
from shared.clock import Clock, iso, parse_time
from shared.composing import Composed, Composer
from shared.errors import ApiError, CredentialError, InvalidInput
from shared.idempotency import Idempotency, KeyedCall, payload_hash
from shared.lanes import Lanes
from shared.mail_parts import REQUEST_LIMIT, Part, check_foreign, divided, too_large
from shared.outbox import Outbox
from shared.outbox_records import Sending
from shared.raw_parts import without_files
from shared.rendering import Rendering
from shared.service_settings import ServiceSettings
from shared.storage.keys import queue_id
from shared.storage.tables import Row

T = TypeVar("T")
R = TypeVar("R")
ATTEMPTS = 10
_SMALL = 64 * 1024  # a mail up to this size is built on the spot, a larger one beside the other requests


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
        composer: Composer,
        rendering: Rendering,
    ) -> None:
        self._accounts, self._outbox, self._settings, self._composer = accounts, outbox, settings, composer
        self._idempotency, self._lanes = idempotency, lanes
        self._clock, self._send_format, self._rendering = clock, send_format, rendering

    async def accept(
        self, account: str, fields: dict[str, Any], *, structured: bool = False, key: str = ""
    ) -> dict[str, Any]:
        """The contract's answer (14.2) once the mail is durable. With an idempotency key, of a repeat too: the answer
        of the first call, and whether its payload was the same (14.10).

        Raises NotFound, InvalidInput, and ApiError for an account that has nothing to send with or a mail that is
        too large. Only what a mail refers to costs Graph calls, and raises what `Composer.composed` raises.
        """
        return await self.accept_for(await self._accounts.get(account), fields, structured=structured, key=key)

    async def accept_for(
        self, record: Record, fields: dict[str, Any], *, structured: bool = False, key: str = ""
    ) -> dict[str, Any]:
        """The same for an account whose record is at hand."""
        payload = payload_of(fields, structured) if key else ""
        fields = await _beside_loop(opened, fields, _weight(fields))
        mine: list[Sending] = []

        async def first(identity: str) -> Row:
            sending, send_at = await self._built(record, fields, identity, structured)
            mine.append(replace(sending, key=key, payload=payload))
            return await self._stored(mine[-1], send_at, fields)

        if not key:
            return answer_of(await first(self._identity(fields)))
        call = KeyedCall(record["account"], record.get("birth", ""), key)
        row = await self._idempotency.once(call, lambda: self._identity(fields), first)
        seen: dict[str, Any] = {"key": key, "status": "MISS"}
        if not any(row.value["writer"] == sending.writer for sending in mine):
            seen = {"key": key, "status": "HIT", "payloadMatches": row.value["payload"] == payload}
        return answer_of(row) | {"idempotency": seen}

    async def preview(self, account: str, fields: dict[str, Any]) -> dict[str, Any]:
        """The mail as it would be sent, and nothing stored or sent (14.7). Raises what `accept` raises."""
        record = await self._accounts.get(account)
        fields = await _beside_loop(opened, fields, _weight(fields))
        composed = await self._composer.composed(record, await self._rendering.rendered(record, fields))
        built = await _beside_loop(
            lambda one: self._mime(one, self._send_at(fields), ""), composed, _weight(composed.fields)
        )
        shown = {"response": "Dry run", "messageId": composed.message_id, "preview": base64.b64encode(built).decode()}
        return shown | ({"reference": composed.reference} if composed.reference else {})

    def _send_at(self, fields: dict[str, Any]) -> datetime:
        now = self._clock()
        return max(now, parse_time(fields["sendAt"])) if fields.get("sendAt") else now

    def _identity(self, fields: dict[str, Any]) -> str:
        return queue_id(int(self._send_at(fields).timestamp() * 1000))

    async def _built(
        self, record: Record, fields: dict[str, Any], identity: str, structured: bool
    ) -> tuple[Sending, datetime]:
        """The mail as it will be stored, and when it is to be sent."""
        if not record.get("oauth2"):
            raise ApiError(404, "SMTP configuration not found", "SMTPUnavailable")
        if structured and "mail" in fields:
            raise InvalidInput.field("raw", '"raw" travels as MIME: it can not be sent with useStructuredFormat')
        composed = await self._composer.composed(record, await self._rendering.rendered(record, fields))
        send_at = self._send_at(fields)
        sending = await _beside_loop(
            lambda one: self._sending(record, one, identity, send_at, structured), composed, _weight(composed.fields)
        )
        await self._check_reach(record, sending.parts)
        return sending, send_at

    async def _stored(self, sending: Sending, send_at: datetime, fields: dict[str, Any]) -> Row:
        limit = fields.get("deliveryAttempts") or (await self._settings.all()).get("deliveryAttempts") or ATTEMPTS
        is_now = send_at <= self._clock()
        busy = bool(is_now and sending.lane and self._lanes.note_accepted(sending.lane))
        return await self._outbox.add(sending, send_at, attempts=int(limit), busy=busy)

    def _mime(
        self, composed: Composed, send_at: datetime, identity: str, fields: Mapping[str, Any] | None = None
    ) -> bytes:
        """The MIME of a mail; of `fields` when only some of its attachments are to be in it."""
        message_id, now = composed.message_id, self._clock()
        if composed.mail is None:
            some = composed.fields if fields is None else fields
            return mime.build(some, message_id=message_id, date=send_at, queue_id=identity)
        later = send_at if send_at > now else None
        whole = raw_mail.completed(composed.mail, message_id=message_id, date=later, now=now, queue_id=identity)
        return whole.whole()

    def _sending(
        self, record: Record, composed: Composed, identity: str, send_at: datetime, structured: bool
    ) -> Sending:
        fields, sender = composed.fields, composed.fields["from"]["address"]
        as_json = composed.mail is None and (structured or travels_structured(record, sender, self._send_format))
        if as_json:
            check_structured(fields)

        def render(some: Mapping[str, Any]) -> bytes:
            if as_json:
                message = mime.structured(some, message_id=composed.message_id, queue_id=identity)
                return json.dumps(message).encode()
            return self._mime(composed, send_at, identity, some)

        if composed.mail is None:
            body, parts = divided(fields, render, as_sent=int if as_json else in_base64)
        else:
            body, parts = _fitting(render(fields))
        everyone = [one["address"] for name in ("to", "cc", "bcc") for one in fields.get(name) or ()]
        given = {name: value for name, value in (fields.get("envelope") or {}).items() if value}
        envelope = {"from": sender, "to": everyone} | given  # informative on Graph (14.1)
        return Sending(
            queue_id=identity,
            account=record["account"],
            message_id=composed.message_id,
            envelope=envelope,
            subject=fields.get("subject") or "",
            created=iso(self._clock()),
            structured=as_json,
            body=body,
            birth=record.get("birth", ""),
            lane=lane_of(record),
            writer=secrets.token_hex(8),
            parts=tuple(parts),
            reference=composed.reference,
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


async def _beside_loop(work: Callable[[T], R], given: T, weight: int) -> R:
    """The result of work that keeps a processor busy: of much of it in a thread, so that other requests go on."""
    return work(given) if weight <= _SMALL else await asyncio.to_thread(work, given)


def _weight(fields: Mapping[str, Any]) -> int:
    """About how much there is to build, in characters."""
    texts = sum(len(fields.get(name) or "") for name in ("text", "html", "raw"))
    files = sum(len(one.get("content") or "") for one in fields.get("attachments") or ())
    many = sum(len(fields.get(name) or ()) for name in ("to", "cc", "bcc", "replyTo"))
    headers = sum(map(len, (fields.get("headers") or {}).values()))
    body = len(fields["mail"].body) if "mail" in fields else 0
    return texts + files + headers + body + 100 * many


def opened(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields with a `raw` read: `mail` in its place, and what its control headers ask for unless the request says
    something else. InvalidInput when it is not a mail."""
    if not fields.get("raw"):
        return fields
    mail = raw_mail.read(fields["raw"])
    rest = {name: value for name, value in fields.items() if name != "raw"}
    return {**raw_mail.controls(mail), **rest, "mail": mail}


def _fitting(body: bytes) -> tuple[bytes, list[Part]]:
    """A given mail as far as one request carries it, and the attachments that travel by themselves. ApiError where
    that is not enough."""
    over = in_base64(len(body)) - REQUEST_LIMIT
    if over <= 0:
        return body, []
    rest, parts = without_files(body, over)
    if in_base64(len(rest)) > REQUEST_LIMIT:
        text = f"The mail is too large: {len(body)} bytes of MIME, {REQUEST_LIMIT // 4 * 3} fit into one request"
        raise too_large(f"{text}, and too few of them are attachments that could travel by themselves", "raw")
    return rest, parts


def in_base64(size: int) -> int:
    """What so many bytes take when they travel in base64 (graph.md 6.3)."""
    return -(-size // 3) * 4


def answer_of(row: Row) -> dict[str, Any]:
    """The contract's answer (14.2) from what is stored of the mail."""
    shown = {
        "response": "Queued for delivery",
        "messageId": row.value["messageId"],
        "sendAt": row.value["scheduled"],
        "queueId": row.key,
    }
    return shown | ({"reference": row.value["reference"]} if row.value.get("reference") else {})


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
