"""Changing many messages at once: those a search finds in a folder, or those that are named (emailengine.md 12.4)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shared.access import Access
from shared.accounts import Accounts, Reach
from shared.batches import Batches, Run
from shared.errors import GraphFailure, InvalidInput
from shared.folder_changes import NO_FOLDER, Paths, failed
from shared.graph import edits
from shared.graph.edits import MESSAGE_ID, Part
from shared.mailboxes import WHOLE, Mailboxes
from shared.marks import Marks
from shared.message_changes import CHANGED_MEANWHILE, MOST_TRIES, NO_TARGET
from shared.removal import TRASH, erase_all, folders_of, move_all, trash_of
from shared.search import SearchQuery, search_query
from shared.waiting import call

MOST_FOUND = 1000

Found = dict[str, str]  # the folder of each message by its id, "" where it is not known


class Bulk:
    """Changes many messages of an account."""

    def __init__(self, accounts: Accounts, access: Access, mailboxes: Mailboxes, batches: Batches) -> None:
        self._accounts, self._access, self._mailboxes, self._batches = accounts, access, mailboxes, batches

    async def update(self, account: str, path: str | None, terms: Mapping[str, Any], marks: Marks) -> dict[str, Any]:
        """The contract's answer: what was asked, and the ids of the messages that are so now.

        Raises NotFound for a folder that is not there, StateRefuses, InvalidInput and ApiError for what can not be
        searched for, GraphFailure and CredentialError when nothing could be done.
        """
        _, reach = await self._accounts.usable(account)
        run = self._batches.run(reach)
        found = await self._found(account, reach, run, path, terms, "Update")
        if not found:
            return marks.echo()
        return marks.echo() | {"emailIds": await _marked(run, list(found), marks)}

    async def move(self, account: str, path: str | None, terms: Mapping[str, Any], target: Paths) -> dict[str, Any]:
        """The contract's answer: the folder, and the ids of the messages in it now. Raises what `update` raises."""
        _, reach = await self._accounts.usable(account)
        place = await self._mailboxes.resolve(account, reach, target)
        if place is None:
            raise failed("Move", 404, "NotFound", NO_TARGET)
        run = self._batches.run(reach)
        found = await self._found(account, reach, run, path, terms, "Move")
        if not found:
            return {"path": place.path}
        return {"path": place.path, "emailIds": await move_all(run, list(found), place.id)}

    async def delete(self, account: str, path: str | None, terms: Mapping[str, Any], *, force: bool) -> dict[str, Any]:
        """The contract's answer: which messages lie in Deleted Items now, and which are gone for good, because that
        was forced or they lay there already. Raises what `update` raises."""
        _, reach = await self._accounts.usable(account)
        trash_id, trash_path = ("", "") if force else await trash_of(self._mailboxes, account, reach)
        run = self._batches.run(reach)
        found = await self._found(account, reach, run, path, terms, "Delete")
        if found and not force and "" in found.values():
            found = await folders_of(run, list(found))
        for_good = [one for one, folder in found.items() if force or folder == trash_id]
        others = [one for one in found if one not in set(for_good)]
        erased = await erase_all(run, for_good) if for_good else []
        moved = await _as_far_as(move_all(run, others, TRASH), bool(erased)) if others else []
        answer: dict[str, Any] = {"deleted": bool(erased or moved)}
        answer |= {"moved": {"destination": trash_path, "emailIds": moved}} if moved else {}
        return answer | ({"deletedMessages": {"emailIds": erased}} if erased else {})

    # -- finding -------------------------------------------------------------------------------------------

    async def _found(
        self, account: str, reach: Reach, run: Run, path: str | None, terms: Mapping[str, Any], what: str
    ) -> Found:
        """The messages named, or the newest that are found in the folder."""
        named = terms.get("emailIds")
        if named is None and path is None:
            raise InvalidInput.field("path", '"path" is required unless "search" names messages in "emailIds"')
        folder_id = ""
        if path is not None and path.casefold() != WHOLE.casefold():
            place = await self._mailboxes.resolve(account, reach, path)
            if place is None:
                raise failed(what, 404, "NotFound", NO_FOLDER)
            folder_id = place.id
        if named is not None:
            return dict.fromkeys(_checked(named), "")
        return await self._searched(reach, run, folder_id, search_query(terms))

    async def _searched(self, reach: Reach, run: Run, folder_id: str, query: SearchQuery) -> Found:
        try:
            return await self._pages(reach, run, folder_id, query)
        except GraphFailure as failure:
            if failure.code != "InefficientFilter" or not query.orderby:
                raise
            return await self._pages(reach, run, folder_id, query.unordered())

    async def _pages(self, reach: Reach, run: Run, folder_id: str, query: SearchQuery) -> Found:
        """What the pages of a listing hold, up to the most that one call changes."""
        graph = self._access.graph(reach)
        request = edits.listing(graph.client, reach.mailbox, folder_id, query)
        found: Found = {}
        while True:
            page = (await call(self._access, reach, _sent(request), run.waiting)).json()
            kept = [one for one in page.get("value", ()) if query.keeps is None or query.keeps(one)]
            found |= {str(one["id"]): str(one.get("parentFolderId") or folder_id) for one in kept}
            link = page.get("@odata.nextLink")
            if not link or len(found) >= MOST_FOUND or run.is_over:
                return dict(list(found.items())[:MOST_FOUND])
            request = graph.follow(link, request)


def _sent(request: Any) -> Callable[[Any], Any]:
    return lambda _: request


def _checked(ids: Sequence[str]) -> Sequence[str]:
    if not all(re.fullmatch(MESSAGE_ID, one) for one in ids):
        raise InvalidInput.field("emailIds", '"emailIds" has an entry that is no message id')
    return ids


async def _as_far_as(work: Any, something_is_done: bool) -> list[str]:
    """The ids; none when the work failed after other work of the same request was done, which has to be told."""
    try:
        done: list[str] = await work
    except GraphFailure:
        if not something_is_done:
            raise
        return []
    return done


async def _marked(run: Run, ids: list[str], marks: Marks) -> list[str]:
    """The messages that have the marks now. Where labels could not be read nothing is written."""
    if not marks.reads_labels:
        changes = marks.changes()
        if not changes:
            return ids
        answers = await run.send([Part(one, "PATCH", body=changes) for one in ids])
        return [one.message_id for one in answers if one.is_done]
    done: set[str] = set()
    left = ids
    for tries_left in reversed(range(MOST_TRIES)):
        left = await _mark_read(run, left, marks, done, last=not tries_left) if left else []
    return [one for one in ids if one in done]


async def _mark_read(run: Run, ids: list[str], marks: Marks, done: set[str], *, last: bool) -> list[str]:
    """One round of reading labels and writing the changed ones; the messages that somebody else changed in between.
    In the last round they are written all the same."""
    read = await run.send([Part(one, "GET", "?$select=id,categories") for one in ids])
    parts = []
    for answer in read:
        labels = answer.body.get("categories")
        if not answer.is_done or not isinstance(labels, list):
            continue
        changes = marks.changes([str(one) for one in labels])
        if changes:
            etag = "" if last else str(answer.body.get("@odata.etag") or "")
            parts.append(Part(answer.message_id, "PATCH", body=changes, headers={"If-Match": etag} if etag else {}))
        else:
            done.add(answer.message_id)
    written = await run.send(parts) if parts else []
    done |= {one.message_id for one in written if one.is_done}
    return [one.message_id for one in written if one.status == CHANGED_MEANWHILE]
