"""Reading mail: folders, lists, search, messages, attachments, sources (emailengine.md 9.2, 11)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from shared.api.downloads import attachment_named, download, json_answer
from shared.api.reading_schemas import (
    MailboxListing,
    MessageListing,
    MessageQuery,
    Search,
    SearchListing,
    TextQuery,
)
from shared.api.route import AccountPath, GuardedRoute, Provided, operation, segment
from shared.attachments import LONGEST_ID
from shared.listing import Position
from shared.mailboxes import WHOLE, joined
from shared.message_texts import TextWish
from shared.search import search_query

router = APIRouter(route_class=GuardedRoute)
MessageId = Annotated[str, segment("message")]
TextId = Annotated[str, segment("text")]
AttachmentId = Annotated[str, segment("attachment", LONGEST_ID)]
READ = operation("message", "read")
_BINARY: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {}}, "description": "The content"}
}


@router.get("/v1/account/{account}/mailboxes", openapi_extra=operation("mailbox", "read"), tags=["Mailbox"])
async def list_mailboxes(
    account: AccountPath, query: Annotated[MailboxListing, Query()], services: Provided
) -> Response:
    """The folders of the mailbox, special ones first, and the virtual folder of all mail."""
    return json_answer({"mailboxes": await services.mailbox_list.of(account, counters=query.counters)})


@router.get("/v1/account/{account}/messages", openapi_extra=READ, tags=["Message"])
async def list_messages(
    account: AccountPath, query: Annotated[MessageListing, Query()], services: Provided
) -> Response:
    """The messages of a folder, newest first."""
    position = Position.of(query.page, query.pageSize, query.cursor)
    return json_answer(await services.listing.page(account, query.path, position, search_query({})))


@router.post("/v1/account/{account}/search", openapi_extra=READ, tags=["Message"])
async def search_messages(
    account: AccountPath, query: Annotated[SearchListing, Query()], body: Search, services: Provided
) -> Response:
    """The messages of a folder, or of the whole mailbox, that fit the terms."""
    position = Position.of(query.page, query.pageSize, query.cursor)
    wanted = search_query(body.search.terms(), outlook=query.useOutlookSearch)
    path = joined(query.path or "") or WHOLE
    return json_answer(await services.listing.page(account, path, position, wanted))


@router.get("/v1/account/{account}/message/{message}", openapi_extra=READ, tags=["Message"])
async def get_message(
    account: AccountPath, message: MessageId, query: Annotated[MessageQuery, Query()], services: Provided
) -> Response:
    """One message, with as much of its text as asked for."""
    wish = TextWish.of(
        query.textType or "", query.maxBytes, query.webSafeHtml, query.embedAttachedImages, query.preProcessHtml
    )
    return json_answer(await services.reading.message(account, message, wish, mark_seen=query.markAsSeen))


@router.get("/v1/account/{account}/text/{text}", openapi_extra=READ, tags=["Message"])
async def get_text(
    account: AccountPath, text: TextId, query: Annotated[TextQuery, Query()], services: Provided
) -> Response:
    """The text of a message."""
    wish = TextWish.of(query.textType or "*", query.maxBytes, query.webSafeHtml, pictures=False, preprocess=False)
    return json_answer(await services.reading.text(account, text, wish))


@router.get("/v1/account/{account}/attachment/{attachment}", openapi_extra=READ, tags=["Message"], responses=_BINARY)
async def get_attachment(account: AccountPath, attachment: AttachmentId, services: Provided) -> Response:
    """The content of an attachment."""
    found = await services.reading.attachment(account, attachment)
    return download(found.content, found.content_type, attachment_named(found.name))


@router.get("/v1/account/{account}/message/{message}/source", openapi_extra=READ, tags=["Message"], responses=_BINARY)
async def get_source(account: AccountPath, message: MessageId, services: Provided) -> Response:
    """The message as it came, byte for byte."""
    content = await services.reading.source(account, message)
    return download(content, "message/rfc822", "attachment; filename=message.eml")
