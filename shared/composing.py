"""A mail from the fields of a submit, ready to be built: the sender filled in, an answer's original worked in,
attachments fetched, pictures and tracking put into its HTML."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from shared import mime, raw_mail
from shared.accounts import Record, auth_of
from shared.attachments import References
from shared.data_images import with_attached_images
from shared.errors import InvalidInput
from shared.html_text import text_of
from shared.mail_headers import CONTROLS, check_recipients, check_size, text_field
from shared.raw_mail import RawMail
from shared.references import Continued, Originals
from shared.tracking import Tracking

_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,76}")
_MESSAGE_ID = re.compile(r"<[^<>\s\x00-\x1f\x7f]+@?[^<>\s\x00-\x1f\x7f]*>")

Fields = dict[str, Any]


@dataclass(frozen=True)
class Composed:
    """A mail ready to be built: from `fields`, or from the MIME that was given, with `fields` for what it says."""

    fields: Fields
    message_id: str
    reference: dict[str, Any] | None = None  # what the answer says of it
    mail: RawMail | None = None


class Composer:
    """Completes mails."""

    def __init__(
        self,
        references: References,
        originals: Originals,
        tracking: Tracking,
        new_uuid: Callable[[], uuid.UUID] = uuid.uuid4,
    ) -> None:
        self._references, self._originals, self._tracking = references, originals, tracking
        self._new_uuid = new_uuid

    async def composed(self, record: Record, fields: Fields) -> Composed:
        """The whole mail. Only what it refers to costs Graph calls.

        Raises InvalidInput, and what `Originals.continued` and `References.resolved` raise.
        """
        mail = fields.get("mail")
        fields = with_sender(record, fields, mail)
        if mail is not None:
            return await self._from_raw(record, fields, mail)
        continued = await self._originals.continued(record, fields)
        fields = continued.fields
        check_recipients(fields)
        check_headers(fields.get("headers") or {})
        message_id = self._message_id(fields)
        if fields.get("attachments"):
            fields = fields | {"attachments": await self._fetched(record, fields)}
        fields = with_attached_images(fields, fields["from"]["address"].rpartition("@")[2])
        rewrite = await self._tracking.rewriting(record["account"], fields, message_id)
        if rewrite is not None and fields.get("html"):
            # The text is what was written: nobody reads our addresses in it.
            text = fields.get("text") or text_of(fields["html"])
            fields = fields | {"text": text, "html": rewrite(fields["html"])}
        return Composed(fields, message_id, continued.shown)

    async def _fetched(self, record: Record, fields: Fields) -> list[dict[str, Any]]:
        return await self._references.resolved(record["account"], fields["attachments"])

    def _message_id(self, fields: Fields) -> str:
        own = bracketed(fields.get("messageId"))
        return own or f"<{self._new_uuid()}@{fields['from']['address'].rpartition('@')[2]}>"

    async def _from_raw(self, record: Record, fields: Fields, mail: RawMail) -> Composed:
        """The given MIME with the header fields beside it in the place of its own."""
        check_headers(fields.get("headers") or {})
        own = raw_mail.recipients(mail)
        given = {name: fields.get(name) or own[name] for name in own}
        continued = await self._originals.continued(record, fields | given)
        changed = {name: many for name in own if (many := continued.fields.get(name) or []) != own[name]}
        mail = raw_mail.overridden(mail, _beside(continued, fields) | changed)
        if continued.fields.get("subject") and not mail.text("subject"):
            mail = mail.with_fields(text_field("Subject", continued.fields["subject"]))
        fields = {**continued.fields, **raw_mail.recipients(mail), "subject": mail.subject()}
        check_recipients(fields)
        in_mail = mail.text("message-id")
        named = fields.get("messageId") or (in_mail if _MESSAGE_ID.fullmatch(in_mail) and in_mail.isascii() else "")
        message_id = self._message_id(fields | {"messageId": named})
        rewrite = await self._tracking.rewriting(record["account"], fields, message_id)
        if rewrite is not None:
            mail = await asyncio.to_thread(raw_mail.with_html, mail, rewrite)
        return Composed(fields, message_id, continued.shown, mail)


def _beside(continued: Continued, fields: Fields) -> Fields:
    """What overrides the fields of a given MIME, apart from its recipients."""
    named = {name: fields.get(name) for name in ("replyTo", "headers")}
    named["from"] = fields["from"] if fields.get("overridesFrom") else None
    return named | {"threading": continued.fields.get("threading")}


def with_sender(record: Record, fields: Fields, mail: RawMail | None = None) -> Fields:
    """The fields with `from`: the one given, that of the MIME, or the account's. InvalidInput when there is none."""
    sender = fields.get("from") or {}
    if not sender and mail is not None and (own := mail.addresses("from")):
        return fields | {"from": {"name": "", "address": own[0]}}
    auth = auth_of(record)
    address = sender.get("address") or record.get("email") or auth.get("delegatedUser") or auth.get("user")
    if not address or "@" not in address:
        raise InvalidInput.field("from", '"from" is required: the account has no e-mail address of its own')
    name = sender.get("name") if fields.get("from") else record.get("name")
    return fields | {"from": {"name": name or "", "address": address}, "overridesFrom": True}


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
        if CONTROLS.search(value.replace("\t", " ")):
            raise InvalidInput.field("headers", f'The header "{name}" has a line break or control character')
    check_size(sum(len(name) + len(value.encode("utf-8", "replace")) for name, value in headers.items()), "headers")


def bracketed(message_id: str | None) -> str:
    """`<id>`, or "" for none. InvalidInput when it is not one."""
    text = (message_id or "").strip()
    if not text:
        return ""
    text = text if text.startswith("<") else f"<{text}>"
    if not _MESSAGE_ID.fullmatch(text) or not text.isascii():
        raise InvalidInput.field("messageId", '"messageId" must look like <unique@host>')
    return text
