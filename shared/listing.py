"""Pages of messages: a folder, the whole mailbox, or what a search finds (emailengine.md 11.1, 11.2)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shared.access import Access
from shared.accounts import Accounts, Reach
from shared.attachments import attachment_id
from shared.errors import ApiError, GraphFailure, NotFound
from shared.graph import reading_requests
from shared.graph.failures import MEANINGS
from shared.mailboxes import WHOLE, Mailboxes, joined, well_known_name
from shared.messages import attachment_view, listed_view
from shared.search import SearchQuery
from shared.vault import decode, encode

LAST_PAGE = 1048576  # emailengine.md 1.5
MOST_HITS = 1000  # of a search; Graph may give fewer (graph.md 5.2)
_PREFIX = "ms_"
_LINK_QUERY = re.compile(r"[!\"$-~]{1,8000}")  # printable, and no `#`

Message = dict[str, Any]


@dataclass(frozen=True)
class Position:
    """A page of a list. `link_query` is the query of the link that Graph gave to it, where one is needed."""

    page: int
    size: int
    link_query: str = ""

    @classmethod
    def of(cls, page: int, size: int, cursor: str | None) -> Position:
        """The page asked for by number or, where one is given, by cursor. ApiError 400 for a cursor that is none of
        ours."""
        if not cursor:
            return cls(page, size)
        prefix, mark, text = cursor.partition("_")
        if mark and prefix + mark != _PREFIX:
            raise ApiError(400, "Invalid cursor", "InvalidCursorType")
        try:
            stored: Any = json.loads(decode(text)) if mark else None
            number, link_query = stored["page"], stored.get("skipToken") or ""
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            number, link_query = None, ""
        sound = type(number) is int and 0 <= number <= LAST_PAGE
        if not sound or not isinstance(link_query, str) or (link_query and not _LINK_QUERY.fullmatch(link_query)):
            raise ApiError(400, "Invalid paging cursor", "InvalidCursorValue")
        return cls(number, size, link_query)

    def cursor(self, step: int, link_query: str = "") -> str | None:
        """The cursor of a page before or after this one; None outside of what can be counted."""
        page = self.page + step
        if not 0 <= page <= LAST_PAGE:
            return None
        kept = {"page": page, "skipToken": link_query or None}
        return _PREFIX + encode(json.dumps(kept, separators=(",", ":")).encode())


def folder_missing() -> NotFound:
    """The 404 for a path that names no folder."""
    return NotFound("Listing failed", "NotFound", info={"response": "Not able to find mailbox folder"})


def is_gone(failure: GraphFailure) -> bool:
    """True when Graph does not find what was asked for, in a mailbox that it does find."""
    known = MEANINGS.get(failure.code)
    return failure.status == 404 and (known is None or known.code == "MessageNotFound")


class Listing:
    """Lists messages. One Graph call for a page; the folder tree is asked besides when a path is unknown."""

    def __init__(self, accounts: Accounts, access: Access, mailboxes: Mailboxes) -> None:
        self._accounts, self._access, self._mailboxes = accounts, access, mailboxes

    async def page(
        self, account: str, path: str | Sequence[str], position: Position, query: SearchQuery
    ) -> dict[str, Any]:
        """The answer of a listing. Raises NotFound for an unknown account or folder, StateRefuses, GraphFailure and
        CredentialError."""
        _, reach = await self._accounts.usable(account)
        wanted = joined(path)
        if query.search and not position.link_query and (position.page + 1) * position.size > MOST_HITS:
            return _search_view(position, [], "")
        try:
            found = await self._asked(reach, await self._folder(account, reach, wanted), position, query)
        except GraphFailure as failure:
            if not is_gone(failure) or wanted == WHOLE:
                raise
            # The tree of this process may be older than the folder.
            await self._mailboxes.refresh(account, reach, await self._mailboxes.stored(account))
            found = await self._again(account, reach, wanted, position, query)
        views = await self._views(account, reach, found.get("value") or [], wanted == WHOLE)
        following = _query_of(found.get("@odata.nextLink"))
        if query.search:
            return _search_view(position, views, following)
        return _view(position, views, _total(found, position))

    async def _folder(self, account: str, reach: Reach, path: str) -> str:
        """What Graph calls the folder; "" for the whole mailbox."""
        if path == WHOLE:
            return ""
        if name := well_known_name(path):
            return name
        place = await self._mailboxes.resolve(account, reach, path)
        if place is None:
            raise folder_missing()
        return place.id

    async def _again(
        self, account: str, reach: Reach, path: str, position: Position, query: SearchQuery
    ) -> dict[str, Any]:
        try:
            return await self._asked(reach, await self._folder(account, reach, path), position, query)
        except GraphFailure as failure:
            raise folder_missing() if is_gone(failure) else failure from None

    async def _asked(self, reach: Reach, folder: str, position: Position, query: SearchQuery) -> dict[str, Any]:
        """The page as Graph gives it, narrowed down to what the query keeps."""
        try:
            page = await self._call(reach, folder, position, query)
        except GraphFailure as failure:
            if failure.code != "InefficientFilter" or not query.orderby:
                raise
            page = await self._call(reach, folder, position, query.unordered())
            page["value"] = sorted(page["value"], key=lambda one: one.get("receivedDateTime") or "", reverse=True)
        if query.search and not position.link_query:
            page["value"] = page["value"][position.page * position.size :]  # hits can not be skipped (graph.md 5.2)
        if query.keeps is not None:
            page["value"] = [one for one in page["value"] if query.keeps(one)]
        return page

    async def _call(self, reach: Reach, folder: str, position: Position, query: SearchQuery) -> dict[str, Any]:
        start = position.page * position.size
        top, skip = (start + position.size, 0) if query.search else (position.size, start)

        def build(client: Any) -> Any:
            request = reading_requests.messages_page(
                client, reach.mailbox, folder, top=top, skip=skip, filter=query.filter, search=query.search,
                orderby=query.orderby, eventual=query.eventual,
            )  # fmt: skip
            if not query.search or not position.link_query:
                return request
            link = f"{request.url.partition('?')[0]}?{position.link_query}"
            return self._access.graph(reach).follow(link, request)

        page = (await self._access.call(reach, build)).json()
        if not isinstance(page.get("value"), list):
            raise GraphFailure(502, "InvalidJSON", "Graph answered a listing without messages")
        return page

    async def _views(
        self, account: str, reach: Reach, messages: list[Message], with_path: bool
    ) -> list[dict[str, Any]]:
        views = [listed_view(one, attached(one)) for one in messages]
        if with_path and messages:
            folders = {str(one.get("parentFolderId")) for one in messages}
            tree = await self._mailboxes.holding(account, reach, folders)
            for view, message in zip(views, messages, strict=True):
                path = tree.path(message.get("parentFolderId") or "")
                view |= {"path": path} if path else {}
        return views


def attached(message: Message) -> list[dict[str, Any]]:
    """The `attachments` of a message that came with them."""
    message_id = message["id"]
    return [attachment_view(attachment_id(message_id, one["id"]), one) for one in message.get("attachments") or ()]


def _query_of(link: Any) -> str:
    return str(link).partition("?")[2].partition("#")[0] if link else ""


def _total(page: dict[str, Any], position: Position) -> int:
    """As Graph counted; where it did not, what is known."""
    counted = page.get("@odata.count")
    known = position.page * position.size + len(page["value"]) + bool(page.get("@odata.nextLink"))
    return counted if type(counted) is int and counted >= 0 else known


def _view(position: Position, views: list[dict[str, Any]], total: int) -> dict[str, Any]:
    pages = max(1, -(-total // position.size))
    return {
        "total": total,
        "page": position.page,
        "pages": pages,
        "nextPageCursor": position.cursor(1) if position.page + 1 < pages else None,
        "prevPageCursor": position.cursor(-1),
        "messages": views,
    }


def _search_view(position: Position, views: list[dict[str, Any]], following: str) -> dict[str, Any]:
    """Graph does not count what `$search` finds, and leads forward only."""
    last = not following or (position.page + 1) * position.size >= MOST_HITS
    # A page that was reached by its number was cut from a longer one, whose link leads too far.
    by_link = following if position.page == 0 or position.link_query else ""
    following_cursor = None if last else position.cursor(1, by_link)
    return {"page": position.page, "nextPageCursor": following_cursor, "prevPageCursor": None, "messages": views}
