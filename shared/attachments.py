"""Attachments by reference: a submit names an attachment of a stored message instead of carrying its bytes.

The content is fetched while the caller waits, so that a message deleted later does not matter
(docs/decisions/0008-large-mail.md).
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from shared.access import Access
from shared.accounts import Accounts, Reach
from shared.errors import GraphFailure, InvalidInput, NotFound
from shared.graph import requests
from shared.graph.failures import is_transient
from shared.mail_parts import check_total
from shared.vault import decode, encode

LONGEST_ID = 2048  # emailengine.md 1.6
_NOT_THERE = frozenset({400, 403, 404, 405})  # a broken id, no right on the item, gone (graph.md 9.1)


def attachment_id(message: str, attachment: str) -> str:
    """The public id of an attachment: opaque to clients, the message and the attachment in one (1.6)."""
    return encode(f"{message}\n{attachment}".encode())


def parse_attachment_id(text: str) -> tuple[str, str] | None:
    """(message id, attachment id) behind a public id; None when it is not one of ours."""
    if len(text) > LONGEST_ID:
        return None
    try:
        message, _, attachment = decode(text).decode("ascii").partition("\n")
    except ValueError:
        return None
    # Two dots lead elsewhere in an address.
    sound = all(one.isprintable() and one not in (".", "..") for one in (message, attachment))
    return (message, attachment) if message and attachment and sound else None


def not_found() -> NotFound:
    return NotFound("Referenced attachment was not found", "ReferenceNotFound")


class References:
    """Fetches what a submit refers to."""

    def __init__(self, accounts: Accounts, access: Access) -> None:
        self._accounts, self._access = accounts, access

    async def resolved(self, account: str, attachments: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The attachments, each with its content. One Graph call for each file referred to, two for a message.

        Raises NotFound for an id that leads nowhere, StateRefuses when the account's state allows no mail
        operation, ApiError 413 above what a mail holds, and GraphFailure or CredentialError when Graph is out of
        reach.
        """
        if not any(one.get("reference") for one in attachments):
            return attachments
        found: dict[str, dict[str, Any]] = {}
        for reference in dict.fromkeys(one["reference"] for one in attachments if one.get("reference")):
            ids = parse_attachment_id(reference)
            if ids is None:
                raise not_found()
            found[reference] = {"ids": ids}
        _, reach = await self._accounts.usable(account)
        for stored in found.values():
            stored |= await self._fetch(reach, *stored.pop("ids"))
            check_total([one for one in found.values() if "content" in one])
        return [_merged(one, found[one["reference"]]) if one.get("reference") else one for one in attachments]

    async def _fetch(self, reach: Reach, message: str, attachment: str) -> dict[str, Any]:
        """The stored attachment in the form of a submit."""
        try:
            answer = await self._access.call(
                reach, lambda c: requests.attachment(c, reach.mailbox, message, attachment)
            )
            shown = answer.json()
            kind = str(shown.get("@odata.type", "")).rpartition(".")[2]
            if kind == "itemAttachment":
                value = await self._access.call(
                    reach, lambda c: requests.attachment_value(c, reach.mailbox, message, attachment)
                )
                return _item(shown, value.body)
        except GraphFailure as failure:
            if is_transient(failure) or failure.status not in _NOT_THERE:
                raise
            raise not_found() from None
        if kind != "fileAttachment":
            raise InvalidInput.field("reference", '"reference" is a link to a file elsewhere, which has no content')
        return _file(shown)


def _file(shown: dict[str, Any]) -> dict[str, Any]:
    content = shown.get("contentBytes") or ""
    try:
        base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise GraphFailure(502, "InvalidContent", "Graph answered with content that is not base64") from None
    return {"content": content} | _named(shown, shown.get("name"), shown.get("contentType"))


def item_kind(raw: bytes) -> tuple[str, str]:
    """The type of an attached item's content, and the ending of its file name (graph.md 7.2)."""
    start = raw[:64].lstrip().upper()
    if start.startswith(b"BEGIN:VCALENDAR"):
        return "text/calendar", ".ics"
    return ("text/vcard", ".vcf") if start.startswith(b"BEGIN:VCARD") else ("message/rfc822", ".eml")


def _item(shown: dict[str, Any], raw: bytes) -> dict[str, Any]:
    """A message, an event or a contact, as MIME, iCalendar or vCard (graph.md 7.2)."""
    kind, ending = item_kind(raw)
    name = str(shown.get("name") or "message")
    name = name if name.lower().endswith(ending) else name[: 256 - len(ending)] + ending
    return {"content": base64.b64encode(raw).decode()} | _named(shown, name, kind)


def _named(shown: dict[str, Any], name: Any, kind: Any) -> dict[str, Any]:
    named = {"filename": name, "contentType": str(kind).lower() if kind else None}
    if shown.get("isInline") and shown.get("contentId"):
        named |= {"cid": shown["contentId"], "contentDisposition": "inline"}
    return {key: value for key, value in named.items() if value}


def _merged(given: dict[str, Any], stored: dict[str, Any]) -> dict[str, Any]:
    """What the caller says beside the reference counts more than what is stored."""
    own = {key: value for key, value in given.items() if value is not None and key != "reference"}
    if own.get("cid") and "contentDisposition" not in own:
        stored = {key: value for key, value in stored.items() if key != "contentDisposition"}
    return stored | own
