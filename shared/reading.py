"""One message: its content, its text, its attachments, its source (emailengine.md 11.3 to 11.6)."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shared.access import Access
from shared.accounts import Accounts, Reach
from shared.attachments import attachment_id, item_kind, parse_attachment_id
from shared.errors import ApiError, CredentialError, GraphFailure, NotFound
from shared.graph import reading_requests, requests
from shared.listing import is_gone
from shared.mailboxes import Mailboxes
from shared.message_texts import TextWish, text_view
from shared.messages import attachment_view, message_view, text_part
from shared.web_html import content_ids

LARGEST_PICTURES = 20_000_000  # bytes put into one HTML; what is over stays a reference
_PICTURE_TYPE = re.compile(r"image/[a-z0-9.+-]+")
# Ids are url-safe base64, or plain base64 (graph.md 2.2). A function of Graph is no id.
_ID = re.compile(r"(?!delta\Z)[A-Za-z0-9_=+/-]+", re.IGNORECASE)

Message = dict[str, Any]


@dataclass(frozen=True)
class Download:
    """The content of an attachment."""

    content: bytes
    content_type: str
    name: str


def unknown_message() -> NotFound:
    return NotFound("Unknown message", "NotFound", info={"response": "Message does not exist"})


def unknown_attachment() -> NotFound:
    return NotFound("Unknown attachment", "NotFound", info={"response": "Attachment does not exist"})


def check_message_id(message_id: str) -> None:
    """ApiError 400 for what can not be an id, and in a path would be something else than one."""
    if not _ID.fullmatch(message_id):
        raise malformed("InvalidMessageId", "Id is malformed.")


def malformed(code: str, response: str) -> ApiError:
    """The 400 for an id that Graph can not read."""
    return ApiError(400, "Invalid request", code, info={"response": response})


class Reading:
    """Reads single messages. Raises StateRefuses when the account's state allows no mail operation, NotFound for an
    unknown account or message, and GraphFailure or CredentialError when Graph is out of reach."""

    def __init__(self, accounts: Accounts, access: Access, mailboxes: Mailboxes) -> None:
        self._accounts, self._access, self._mailboxes = accounts, access, mailboxes

    async def message(self, account: str, message_id: str, wish: TextWish, *, mark_seen: bool = False) -> Message:
        """A message. One call, one more when something is attached, one for each picture put in, and one to mark."""
        reach = await self._reach(account, message_id)
        message = await self._fetch(
            reach, lambda c: reading_requests.message_as(c, reach.mailbox, message_id, wish.body_type)
        )
        attachments = await self._attachments(reach, message)
        if mark_seen and not message.get("isRead") and await self._mark(reach, message_id):
            message["isRead"] = True
        kind, content = text_part(message)
        html = content if kind == "html" and wish.wants_html else ""
        embedded = content_ids(html)
        view = message_view(message, [_attachment_view(message_id, one, embedded) for one in attachments])
        pictures = await self._pictures(reach, message_id, attachments, html) if wish.pictures else {}
        view["text"] |= text_view(kind, content, wish, pictures)
        return view | await self._place(account, reach, message)

    async def text(self, account: str, message_id: str, wish: TextWish) -> dict[str, Any]:
        """The text of a message alone."""
        reach = await self._reach(account, message_id)
        message = await self._fetch(
            reach, lambda c: reading_requests.body_as(c, reach.mailbox, message_id, wish.body_type)
        )
        kind, content = text_part(message)
        pictures: dict[str, str] = {}
        if wish.pictures and kind == "html" and content_ids(content):
            pictures = await self._pictures(reach, message_id, await self._attachments(reach, message), content)
        return text_view(kind, content, wish, pictures)

    async def source(self, account: str, message_id: str) -> bytes:
        """The message byte for byte as it came."""
        reach = await self._reach(account, message_id)
        try:
            return (
                await self._access.call(reach, lambda c: reading_requests.source(c, reach.mailbox, message_id))
            ).body
        except GraphFailure as failure:
            raise _told(failure) from None

    async def attachment(self, account: str, public_id: str) -> Download:
        """The content of an attachment: a file's bytes, an attached message as MIME. Two calls at once."""
        _, reach = await self._accounts.usable(account)
        ids = parse_attachment_id(public_id)
        if ids is None or not all(_ID.fullmatch(one) for one in ids):
            raise unknown_attachment()
        facts, content = await asyncio.gather(
            self._access.call(reach, lambda c: reading_requests.attachment_facts(c, reach.mailbox, *ids)),
            self._access.call(reach, lambda c: requests.attachment_value(c, reach.mailbox, *ids)),
            return_exceptions=True,
        )
        if isinstance(facts, GraphFailure) and (is_gone(facts) or facts.status == 400):
            raise unknown_attachment()
        if isinstance(facts, BaseException):
            raise facts
        shown = facts.json()
        if str(shown.get("@odata.type", "")).endswith("referenceAttachment"):
            raise ApiError(400, "The attachment is a link to a file elsewhere", "ReferenceAttachment")
        if isinstance(content, BaseException):
            raise content
        return _download(shown, content.body)

    # -- inside ----------------------------------------------------------------------------------------------------

    async def _reach(self, account: str, message_id: str) -> Reach:
        _, reach = await self._accounts.usable(account)
        check_message_id(message_id)
        return reach

    async def _fetch(self, reach: Reach, build: Callable[[Any], Any]) -> Message:
        try:
            message = (await self._access.call(reach, build)).json()
        except GraphFailure as failure:
            raise _told(failure) from None
        if not isinstance(message, dict) or "id" not in message:
            raise GraphFailure(502, "InvalidJSON", "Graph answered with something that is not a message")
        return message

    async def _attachments(self, reach: Reach, message: Message) -> list[dict[str, Any]]:
        """Asked for only where there can be some: `hasAttachments` says nothing of pictures (graph.md 3.1)."""
        if message.get("hasAttachments") is False and not content_ids(text_part(message)[1]):
            return []
        graph, token = self._access.graph(reach), self._access.token_source(reach)
        request = requests.attachments(graph.client, reach.mailbox, message["id"])
        pages = graph.pages(reach.mailbox, reach.app, token, request)
        return [one async for page in pages for one in page.get("value") or ()]

    async def _mark(self, reach: Reach, message_id: str) -> bool:
        """Whether the message counts as read now; reading it does not fail where marking it does."""
        try:
            await self._access.call(reach, lambda c: reading_requests.mark_seen(c, reach.mailbox, message_id))
        except (GraphFailure, CredentialError):
            return False
        return True

    async def _pictures(
        self, reach: Reach, message_id: str, attachments: list[dict[str, Any]], html: str
    ) -> dict[str, str]:
        """`data:` URIs of the pictures that the HTML refers to, by content id."""
        wanted, room = content_ids(html), LARGEST_PICTURES
        chosen = []
        for one in attachments:
            size = one.get("size") or 0
            if _bare_id(one) in wanted and _PICTURE_TYPE.fullmatch(_type_of(one)) and size <= room:
                chosen.append(one)
                room -= size
        found = await asyncio.gather(*(self._picture(reach, message_id, one) for one in chosen))
        return {_bare_id(one): uri for one, uri in zip(chosen, found, strict=True) if uri}

    async def _picture(self, reach: Reach, message_id: str, attachment: dict[str, Any]) -> str:
        try:
            value = await self._access.call(
                reach, lambda c: requests.attachment_value(c, reach.mailbox, message_id, attachment["id"])
            )
        except GraphFailure:
            return ""  # it stays a reference
        return f"data:{_type_of(attachment)};base64,{base64.b64encode(value.body).decode()}"

    async def _place(self, account: str, reach: Reach, message: Message) -> dict[str, str]:
        """`path` and `messageSpecialUse`, as far as they are known."""
        folder = message.get("parentFolderId") or ""
        tree = await self._mailboxes.holding(account, reach, [folder] if folder else [])
        shown = {"path": tree.path(folder), "messageSpecialUse": tree.special_use(folder)}
        return {name: value for name, value in shown.items() if value}


def _told(failure: GraphFailure) -> Exception:
    """The contract's answer for a message that Graph does not find or an id that it can not read."""
    if is_gone(failure):
        return unknown_message()
    if failure.status == 400:
        code = "InvalidMessageId" if failure.code == "ErrorInvalidIdMalformed" else failure.code
        return malformed(code, failure.message)
    return failure


def _type_of(attachment: dict[str, Any]) -> str:
    return str(attachment.get("contentType") or "").partition(";")[0].strip().lower()


def _bare_id(attachment: dict[str, Any]) -> str:
    return str(attachment.get("contentId") or "").strip("<>")


def _attachment_view(message_id: str, attachment: dict[str, Any], embedded: set[str]) -> dict[str, Any]:
    view = attachment_view(attachment_id(message_id, attachment["id"]), attachment)
    return view | ({"embedded": True} if _bare_id(attachment) in embedded else {})


def _download(shown: dict[str, Any], content: bytes) -> Download:
    kind, name = str(shown.get("contentType") or ""), str(shown.get("name") or "")
    if str(shown.get("@odata.type", "")).endswith("itemAttachment"):
        kind, ending = item_kind(content)
        name = name if name.lower().endswith(ending) else (name or "message") + ending
    return Download(content, kind or "application/octet-stream", name)
