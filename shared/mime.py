"""The mail itself: one MIME message, or one Graph message resource, from the fields of a submit (D11). Pure."""

from __future__ import annotations

import base64
import hashlib
import mimetypes
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Any

from shared.html_text import text_of

STAMP = "X-Graphpost-Queue-Id"
# The same as Exchange keeps it: an X- header is a named property of the set PS_INTERNET_HEADERS (graph.md 5.5).
STAMP_PROPERTY = f"String {{00020386-0000-0000-C000-000000000046}} Name {STAMP}"
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
# Everything Python or a mail server may take for the end of a line, and the other controls.
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
MESSAGE = "message/rfc822"
_POLICY = SMTP.clone(max_line_length=998, cte_type="7bit", utf8=False)
_FIRST_FIELD = re.compile(rb"[!-9;-~]{1,76}[ \t]*:")
_LONGEST_LINE = 998  # of an SMTP line, without its end (RFC 5322 2.1.1)


def _address(recipient: Mapping[str, str]) -> Address:
    local, _, domain = recipient["address"].rpartition("@")
    return Address(one_line(recipient.get("name")), username=local, domain=_ascii_domain(domain))


def one_line(text: str | None) -> str:
    """The text without line breaks and control characters, which would end the header it goes into."""
    return CONTROLS.sub(" ", text or "").strip()


def _ascii_domain(domain: str) -> str:
    """Internationalised domains travel in their ASCII form; what cannot be converted is left to Graph."""
    try:
        return domain.encode("idna").decode() if not domain.isascii() else domain
    except UnicodeError:
        return domain


def build(fields: Mapping[str, Any], *, message_id: str, date: datetime, queue_id: str) -> bytes:
    """The MIME message of a submit. Bcc stays in it: Graph strips it on delivery (emailengine.md 14.8)."""
    mail = EmailMessage(policy=_POLICY)
    mail["From"] = _address(fields["from"])
    for header, field in (("To", "to"), ("Cc", "cc"), ("Bcc", "bcc"), ("Reply-To", "replyTo")):
        if fields.get(field):
            mail[header] = [_address(one) for one in fields[field]]
    mail["Subject"] = fields.get("subject") or ""
    mail["Date"] = format_datetime(date)
    mail["Message-ID"] = message_id
    mail[STAMP] = queue_id
    for name, value in (fields.get("headers") or {}).items():
        mail[name] = value
    nested: dict[bytes, bytes] = {}
    _set_bodies(mail, fields, nested)
    raw = mail.as_bytes()
    for mark, content in nested.items():
        raw = raw.replace(mark, content, 1)
    return raw


def _set_bodies(mail: EmailMessage, fields: Mapping[str, Any], nested: dict[bytes, bytes]) -> None:
    html = html_of(fields)
    text = fields.get("text") or (text_of(html) if html else "")
    mail.set_content(text, cte=_encoding(text))
    mails, others = _mails(fields.get("attachments") or ())
    inline, attached = _split(others)
    if html:
        mail.add_alternative(html, subtype="html", cte=_encoding(html))
        part = mail.get_payload()[-1]  # type: ignore[index]
        for attachment in inline:
            _attach(part.add_related, attachment)  # type: ignore[union-attr]
    else:
        attached = [*inline, *attached]
    for attachment in attached:
        _attach(mail.add_attachment, attachment)
    for number, (attachment, content) in enumerate(mails):
        nested[_attach_mail(mail, attachment, content, number)] = content


def _mails(attachments: Iterable[Mapping[str, Any]]) -> tuple[list[tuple[Mapping[str, Any], bytes]], list[Any]]:
    """The attachments that are mails, with what travels of them, and the others."""
    mails, others = [], []
    for one in attachments:
        content = wire_form(base64.b64decode(one["content"])) if content_type_of(one) == MESSAGE else None
        if content is None:
            others.append(one)
        else:
            mails.append((one, content))
    return mails, others


def wire_form(content: bytes) -> bytes | None:
    """A mail as it may stand inside another one, where it must not be encoded (RFC 2046 5.2.1); None when it is
    not a mail, or has bytes or lines that no transport carries as they are.

    Line ends of CRLF are kept; a mail with bare line feeds throughout gets the CRLF that mail has on the wire.
    """
    if b"\r" not in content:
        content = content.replace(b"\n", b"\r\n")
    lines = content.split(b"\r\n")
    is_clean = not any(b"\r" in line or b"\n" in line or len(line) > _LONGEST_LINE for line in lines)
    return content if is_clean and b"\0" not in content and _FIRST_FIELD.match(content) else None


def _attach_mail(mail: EmailMessage, attachment: Mapping[str, Any], content: bytes, number: int) -> bytes:
    """Adds a mail whose content is a mark, since the mail library would rewrite the bytes; gives the mark."""
    if mail.get_content_type() != "multipart/mixed":
        mail.make_mixed()
    part = EmailMessage(policy=_POLICY)
    part["Content-Type"] = MESSAGE
    encoding = "7bit" if content.isascii() else "8bit"
    part["Content-Transfer-Encoding"] = encoding
    part.add_header("Content-Disposition", "attachment", filename=filename_of(attachment))
    if encoding == "8bit" and "Content-Transfer-Encoding" not in mail:
        mail["Content-Transfer-Encoding"] = encoding  # what holds it may not claim less (RFC 2045 6.4)
    # The queue id has random digits, so no text in the mail can have foreseen the mark.
    seed = f"{mail[STAMP]} {mail['Message-ID']} {number}".encode()
    mark = hashlib.sha256(seed + content).hexdigest()
    part.set_payload(mark)
    mail.attach(part)
    return mark.encode()


def _encoding(text: str) -> str:
    """7bit only for short plain lines; else quoted-printable, which every transport leaves alone."""
    short = all(len(line) < 900 for line in text.splitlines())
    return "7bit" if text.isascii() and short else "quoted-printable"


def _split(attachments: Iterable[Mapping[str, Any]]) -> tuple[list[Any], list[Any]]:
    """Inline parts (named by a cid) and the others."""
    found = list(attachments)
    inline = [one for one in found if one.get("cid") and one.get("contentDisposition") != "attachment"]
    return inline, [one for one in found if one not in inline]


def _attach(add: Any, attachment: Mapping[str, Any]) -> None:
    content = base64.b64decode(attachment["content"])
    maintype, _, subtype = content_type_of(attachment).partition("/")
    options: dict[str, Any] = {
        "filename": filename_of(attachment),
        "disposition": attachment.get("contentDisposition") or ("inline" if attachment.get("cid") else "attachment"),
    }
    if attachment.get("cid"):
        options["cid"] = f"<{attachment['cid'].strip('<>')}>"
    add(content, maintype, subtype or "octet-stream", **options)


def content_type_of(attachment: Mapping[str, Any]) -> str:
    """The type given, or guessed from the name. Types whose content readers take apart may not be encoded: a mail
    travels as one when its bytes allow it, anything else as plain bytes."""
    given = attachment.get("contentType") or ""
    guessed = mimetypes.guess_type(attachment.get("filename") or "")[0] or ""
    for kind in (given, guessed):
        if re.fullmatch(r"[\w.+-]+/[\w.+-]+", kind, re.ASCII) and not kind.startswith(("multipart/", "message/")):
            return kind
        if kind == MESSAGE and wire_form(base64.b64decode(attachment.get("content") or "")) is not None:
            return kind
    return "application/octet-stream"


def filename_of(attachment: Mapping[str, Any]) -> str:
    """The name given, or one made from the type."""
    given = attachment.get("filename")
    return given or "attachment" + (mimetypes.guess_extension(content_type_of(attachment)) or ".bin")


def html_of(fields: Mapping[str, Any]) -> str:
    """The HTML with the hidden preview text at its top (emailengine.md 14.1)."""
    html, preview = fields.get("html") or "", fields.get("previewText")
    if not html or not preview:
        return html
    from html import escape

    hidden = f'<div style="display:none;max-height:0;overflow:hidden;mso-hide:all">{escape(preview)}</div>'
    opening = re.search(r"<body[^>]*>", html, re.IGNORECASE)
    at = opening.end() if opening else 0
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
        "singleValueExtendedProperties": [{"id": STAMP_PROPERTY, "value": queue_id}],
    }
    if fields.get("attachments"):
        message["attachments"] = [_attachment(one) for one in fields["attachments"]]
    return message


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
