"""The mail itself: one MIME message, or one Graph message resource, from the fields of a submit (D11). Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from datetime import datetime
from email.utils import format_datetime
from html import escape
from typing import Any

from shared.html_tags import inside_body
from shared.html_text import text_of
from shared.mail_headers import CONTROLS, address_field, check_size, given_field, ids_field, one_line, text_field
from shared.mime_parts import (
    MESSAGE,
    Boundaries,
    Entity,
    content_type_of,
    file_entity,
    filename_of,
    holding,
    invitation_entity,
    is_invitation,
    mail_entity,
    text_entity,
    wire_form,
)

__all__ = [  # what builds mails, and the words they are described with
    "CONTROLS",
    "FIELD_HEADERS",
    "MESSAGE",
    "STAMP",
    "STAMP_PROPERTY",
    "STRUCTURED_HEADERS",
    "build",
    "content_type_of",
    "filename_of",
    "html_of",
    "one_line",
    "structured",
    "threading_fields",
    "wire_form",
]

STAMP = "X-Graphpost-Queue-Id"
# The same as Exchange keeps it: an X- header is a named property of the set PS_INTERNET_HEADERS (graph.md 5.5).
STAMP_PROPERTY = f"String {{00020386-0000-0000-C000-000000000046}} Name {STAMP}"
# Where JSON has no header for it, threading travels as the properties behind the headers (graph.md 5.5).
IN_REPLY_TO_PROPERTY, REFERENCES_PROPERTY = "String 0x1042", "String 0x1039"
# Headers that a submit sets through fields of their own.
FIELD_HEADERS: Mapping[str, str] = {
    "from": "from",
    "to": "to",
    "cc": "cc",
    "bcc": "bcc",
    "reply-to": "replyTo",
    "subject": "subject",
    "message-id": "messageId",
    "date": "sendAt",
}
STRUCTURED_HEADERS = 4  # Graph takes five, one of them is the stamp (graph.md 6.4)
_ADDRESSES = (("To", "to"), ("Cc", "cc"), ("Bcc", "bcc"), ("Reply-To", "replyTo"))


def build(fields: Mapping[str, Any], *, message_id: str, date: datetime, queue_id: str) -> bytes:
    """The MIME message of a submit. Bcc stays in it: Graph strips it on delivery (emailengine.md 14.8)."""
    content = _content(fields, Boundaries(queue_id, message_id))
    head = _head(fields, message_id, date, queue_id)
    check_size(sum(map(len, head)), _longest_of(fields))
    return b"".join([*head, b"MIME-Version: 1.0\r\n", *content.pieces()])


def _head(fields: Mapping[str, Any], message_id: str, date: datetime, queue_id: str) -> list[bytes]:
    head = [address_field("From", [fields["from"]])]
    head += [address_field(header, fields[field]) for header, field in _ADDRESSES if fields.get(field)]
    head.append(text_field("Subject", fields.get("subject") or ""))
    head.append(given_field("Date", format_datetime(date)))
    head.append(ids_field("Message-ID", [message_id]))
    head += threading_fields(fields)
    head += [given_field(STAMP, queue_id)] if queue_id else []
    return head + [given_field(name, value) for name, value in (fields.get("headers") or {}).items()]


def threading_fields(fields: Mapping[str, Any]) -> list[bytes]:
    """In-Reply-To and References of an answer; a header of the caller's own wins."""
    threading, given = fields.get("threading") or {}, {name.lower() for name in fields.get("headers") or ()}
    head = []
    if threading.get("inReplyTo") and "in-reply-to" not in given:
        head.append(ids_field("In-Reply-To", [threading["inReplyTo"]]))
    if threading.get("references") and "references" not in given:
        head.append(ids_field("References", threading["references"]))
    return head


def _longest_of(fields: Mapping[str, Any]) -> str:
    return max(("headers", "to", "cc", "bcc", "replyTo", "subject"), key=lambda name: len(str(fields.get(name) or "")))


def _content(fields: Mapping[str, Any], boundaries: Boundaries) -> Entity:
    html = html_of(fields)
    attachments = list(fields.get("attachments") or ())
    invitation = next((number for number, one in enumerate(attachments) if is_invitation(one)), None)
    asks = [invitation_entity(attachments.pop(invitation))] if invitation is not None else []
    inline, attached = _split(attachments, bool(html))
    forms = [text_entity(fields.get("text") or (text_of(html) if html else ""), "plain")]
    if html:
        shown = text_entity(html, "html")
        pictures = [file_entity(one) for one in inline]
        forms.append(holding("related", [shown, *pictures], boundaries) if pictures else shown)
    forms += asks
    body = holding("alternative", forms, boundaries) if len(forms) > 1 else forms[0]
    return holding("mixed", [body, *_files(attached)], boundaries) if attached else body


def _files(attached: Iterable[Mapping[str, Any]]) -> list[Entity]:
    """Files in their order, then the mails among them."""
    files, mails = [], []
    for one in attached:
        content = wire_form(base64.b64decode(one["content"])) if content_type_of(one) == MESSAGE else None
        if content is None:
            files.append(file_entity(one))
        else:
            mails.append(mail_entity(one, content))
    return files + mails


def _split(attachments: Iterable[Mapping[str, Any]], has_html: bool) -> tuple[list[Any], list[Any]]:
    """What the HTML shows (named by a cid), and the others. Without HTML there is nothing to show it in."""
    inline: list[Any] = []
    others: list[Any] = []
    for one in attachments:
        is_shown = has_html and one.get("cid") and one.get("contentDisposition") != "attachment"
        is_mail = content_type_of(one) == MESSAGE
        (inline if is_shown and not is_mail else others).append(one)
    return inline, others


def html_of(fields: Mapping[str, Any]) -> str:
    """The HTML with the hidden preview text at its top (emailengine.md 14.1)."""
    html, preview = fields.get("html") or "", fields.get("previewText")
    if not html or not preview:
        return html
    hidden = f'<div style="display:none;max-height:0;overflow:hidden;mso-hide:all">{escape(preview)}</div>'
    at, _ = inside_body(html)
    return html[:at] + hidden + html[at:]


def structured(fields: Mapping[str, Any], *, message_id: str, queue_id: str) -> dict[str, Any]:
    """The Graph message resource of a submit (graph.md 6.2): one body, `x-` headers only."""
    html = html_of(fields)
    body = (
        {"contentType": "html", "content": html}
        if html
        else {"contentType": "text", "content": fields.get("text") or ""}
    )
    headers = [{"name": STAMP, "value": queue_id}]
    headers += [{"name": name, "value": value} for name, value in (fields.get("headers") or {}).items()]
    message: dict[str, Any] = {
        "subject": fields.get("subject") or "",
        "body": body,
        "from": _recipient(fields["from"]),
        "toRecipients": [_recipient(one) for one in fields.get("to") or ()],
        "ccRecipients": [_recipient(one) for one in fields.get("cc") or ()],
        "bccRecipients": [_recipient(one) for one in fields.get("bcc") or ()],
        "replyTo": [_recipient(one) for one in fields.get("replyTo") or ()],
        "internetMessageId": message_id,
        "internetMessageHeaders": headers,
        "singleValueExtendedProperties": [{"id": STAMP_PROPERTY, "value": queue_id}, *_threading_properties(fields)],
    }
    if fields.get("attachments"):
        message["attachments"] = [_attachment(one) for one in fields["attachments"]]
    return message


def _threading_properties(fields: Mapping[str, Any]) -> list[dict[str, str]]:
    threading = fields.get("threading") or {}
    found = {
        IN_REPLY_TO_PROPERTY: threading.get("inReplyTo"),
        REFERENCES_PROPERTY: " ".join(threading.get("references") or ()),
    }
    return [{"id": name, "value": value} for name, value in found.items() if value]


def _recipient(one: Mapping[str, str]) -> dict[str, Any]:
    return {"emailAddress": {"name": one_line(one.get("name")) or one["address"], "address": one["address"]}}


def _attachment(one: Mapping[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "@odata.type": "#microsoft.graph.fileAttachment",
        "name": filename_of(one),
        "contentType": content_type_of(one),
        "contentBytes": one["content"],
    }
    if one.get("cid"):
        shown |= {"contentId": one["cid"].strip("<>"), "isInline": one.get("contentDisposition") != "attachment"}
    return shown
