"""Accepting a mail: checked, built, made durable, queued. It costs the caller no Graph call (D7)."""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from shared import mime
from shared.accounts import Accounts, Record, auth_of
from shared.clock import Clock, iso, parse_time
from shared.errors import ApiError, InvalidInput
from shared.outbox import Outbox, Sending
from shared.service_settings import ServiceSettings
from shared.storage.keys import queue_id

# What one sendMail request carries: 4 MB of base64 (graph.md 6.3), or of JSON with the attachments in base64.
REQUEST_LIMIT = 4 * 1024 * 1024
ATTEMPTS = 10
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,76}")


class Submit:
    """Accepts mails for accounts."""

    def __init__(
        self,
        accounts: Accounts,
        outbox: Outbox,
        settings: ServiceSettings,
        clock: Clock,
        send_format: str,
        new_uuid: Callable[[], uuid.UUID] = uuid.uuid4,
    ) -> None:
        self._accounts, self._outbox, self._settings = accounts, outbox, settings
        self._clock, self._send_format, self._new_uuid = clock, send_format, new_uuid

    async def accept(self, account: str, fields: dict[str, Any], *, structured: bool = False) -> dict[str, Any]:
        """The contract's answer (14.2) once the mail is durable.

        Raises NotFound, InvalidInput, and ApiError for an account that has nothing to send with.
        """
        record = await self._accounts.get(account)
        if not record.get("oauth2"):
            raise ApiError(404, "SMTP configuration not found", "SMTPUnavailable")
        fields = self._completed(record, fields)
        now = self._clock()
        send_at = max(now, parse_time(fields["sendAt"])) if fields.get("sendAt") else now
        sending = self._sending(record, fields, now, send_at, structured)
        limit = fields.get("deliveryAttempts") or (await self._settings.all()).get("deliveryAttempts") or ATTEMPTS
        await self._outbox.add(sending, send_at, attempts=int(limit))
        return {
            "response": "Queued for delivery",
            "messageId": sending.message_id,
            "sendAt": iso(send_at),
            "queueId": sending.queue_id,
        }

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
        self, record: Record, fields: dict[str, Any], now: datetime, send_at: datetime, structured: bool
    ) -> Sending:
        sender = fields["from"]["address"]
        identity = queue_id(int(send_at.timestamp() * 1000))
        message_id = bracketed(fields.get("messageId")) or f"<{self._new_uuid()}@{sender.rpartition('@')[2]}>"
        as_json = structured or travels_structured(record, sender, self._send_format)
        if as_json:
            check_structured(fields)
            message = mime.structured(fields, message_id=message_id, queue_id=identity)
            body = json.dumps(message).encode()
            size = len(body)
        else:
            body = mime.build(fields, message_id=message_id, date=send_at, queue_id=identity)
            size = len(base64.b64encode(body))
        if size > REQUEST_LIMIT:
            raise ApiError(
                413,
                f"The mail is too large: {size} bytes as sent, {REQUEST_LIMIT} fit into one request. "
                'Send less in "attachments".',
                "MessageTooLarge",
                fields=[{"message": '"attachments" is too large for one request', "key": "attachments"}],
            )
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
        )


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
