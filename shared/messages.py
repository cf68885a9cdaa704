"""The public shape of a message, made from Graph's (emailengine.md 10). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from shared.clock import iso, parse_time

_AUTO_REPLY_SUBJECT = re.compile(r"(auto(matic)? (reply|response)|out of (the )?office|oof:|ooo:)", re.IGNORECASE)
_AUTO_REPLY_HEADERS = ("x-auto-response-suppress", "x-autoresponder", "x-autorespond", "x-autoreply")


def flags_of(message: dict[str, Any]) -> list[str]:
    """`\\Seen`, `\\Draft`, `\\Flagged` as Graph's properties say."""
    flags = ["\\Seen"] if message.get("isRead") else []
    flags += ["\\Draft"] if message.get("isDraft") else []
    flagged = (message.get("flag") or {}).get("flagStatus") == "flagged"
    return flags + (["\\Flagged"] if flagged else [])


def address_of(recipient: dict[str, Any] | None) -> dict[str, str] | None:
    """`{name, address}`, or None for an entry without an address."""
    mail = (recipient or {}).get("emailAddress") or {}
    if not mail.get("address"):
        return None
    return {"name": mail.get("name") or "", "address": mail["address"]}


def addresses_of(recipients: Iterable[dict[str, Any]] | None) -> list[dict[str, str]]:
    return [found for one in recipients or () if (found := address_of(one))]


def headers_of(message: dict[str, Any]) -> dict[str, list[str]]:
    """Lower-case name to values, in order of appearance."""
    headers: dict[str, list[str]] = {}
    for header in message.get("internetMessageHeaders") or ():
        headers.setdefault(str(header.get("name", "")).lower(), []).append(str(header.get("value", "")))
    return headers


def is_auto_reply(subject: str, headers: dict[str, list[str]]) -> bool:
    """The contract's rules for automatic answers (10)."""
    if _AUTO_REPLY_SUBJECT.match(subject):
        return True
    if subject.lower().startswith("auto:") and "in-reply-to" in headers:
        return True
    precedence = " ".join(headers.get("precedence", ())).lower()
    submitted = " ".join(headers.get("auto-submitted", ())).lower()
    if "auto-reply" in precedence or "auto_reply" in precedence or "auto-replied" in submitted:
        return True
    return any(name in headers for name in _AUTO_REPLY_HEADERS)


def attachment_view(attachment_id: str, attachment: dict[str, Any]) -> dict[str, Any]:
    """One entry of `attachments`."""
    view: dict[str, Any] = {
        "id": attachment_id,
        "contentType": attachment.get("contentType") or _type_of_item(attachment),
        "encodedSize": attachment.get("size") or 0,
        "inline": bool(attachment.get("isInline")),
    }
    if attachment.get("name"):
        view["filename"] = attachment["name"]
    if attachment.get("contentId"):
        view["contentId"] = f"<{str(attachment['contentId']).strip('<>')}>"
    return view


def _type_of_item(attachment: dict[str, Any]) -> str:
    """Graph names no type for an attached message (graph.md 7.1)."""
    is_item = str(attachment.get("@odata.type", "")).endswith("itemAttachment")
    return "message/rfc822" if is_item else "application/octet-stream"


def text_part(message: dict[str, Any]) -> tuple[str, str]:
    """(`plain` or `html`, content) of the one body Graph stores."""
    body = message.get("body") or {}
    kind = "plain" if str(body.get("contentType")).lower() == "text" else "html"
    return kind, body.get("content") or ""


def cut(text: str, max_bytes: int | None) -> tuple[str, bool]:
    """At most `max_bytes` of UTF-8, cut between characters, and whether anything was cut."""
    raw = text.encode("utf-8", "surrogatepass")
    if max_bytes is None or len(raw) <= max_bytes:
        return text, False
    return raw[:max_bytes].decode("utf-8", "ignore"), True


def _date(text: str | None) -> str | None:
    """Graph's time as the contract writes it. Mail has whole seconds (graph.md 2.2), which need no reading."""
    if not text:
        return None
    return text[:-1] + ".000Z" if len(text) == 20 and text[-1] == "Z" else iso(parse_time(text))


def listed_view(message: dict[str, Any], attachments: list[dict[str, Any]]) -> dict[str, Any]:
    """The form of a message in lists, without `path`. Empty values are left out."""
    kind, content = text_part(message)
    flags = flags_of(message)
    view: dict[str, Any] = {
        "id": message["id"],
        "emailId": message["id"],
        "threadId": message.get("conversationId"),
        "date": _date(message.get("receivedDateTime")),
        "flags": flags,
    }
    optional = {
        "labels": message.get("categories"),
        "unseen": "\\Seen" not in flags,
        "flagged": "\\Flagged" in flags,
        "draft": "\\Draft" in flags,
        "subject": message.get("subject"),
        "from": address_of(message.get("from")),
        "replyTo": addresses_of(message.get("replyTo")),
        "to": addresses_of(message.get("toRecipients")),
        "cc": addresses_of(message.get("ccRecipients")),
        "messageId": message.get("internetMessageId"),
        "preview": message.get("bodyPreview"),
        "attachments": attachments,
    }
    view |= {name: value for name, value in optional.items() if value}
    size = len(content.encode("utf-8", "surrogatepass"))
    return view | {"text": {"id": message["id"], "encodedSize": {kind: size}}}


def message_view(message: dict[str, Any], attachments: list[dict[str, Any]]) -> dict[str, Any]:
    """The single-message form, without `path` and without text content. Empty values are left out."""
    headers = headers_of(message)
    more = {
        "sender": address_of(message.get("sender")),
        "bcc": addresses_of(message.get("bccRecipients")),
        "inReplyTo": next(iter(headers.get("in-reply-to", ())), None),
        "headers": headers,
        "isAutoReply": is_auto_reply(message.get("subject") or "", headers),
    }
    return listed_view(message, attachments) | {name: value for name, value in more.items() if value}
