"""Deleting messages: into Deleted Items, or for good (emailengine.md 12.3, docs/decisions/0016-deleted-for-good.md)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from shared.access import Access
from shared.accounts import Reach
from shared.batches import Run
from shared.errors import GraphFailure, NotFound
from shared.graph import edits, requests
from shared.graph.edits import Part
from shared.graph.failures import is_transient
from shared.mailboxes import Mailboxes
from shared.waiting import Waiting, call

TRASH = "deleteditems"
# permanentDelete is refused, or not known at all: national clouds (graph.md 4), a message that is gone already.
NOT_FOR_GOOD = frozenset({400, 403, 404, 405, 501})


def not_found() -> NotFound:
    return NotFound("Requested message was not found", "MessageNotFound")


async def trash_of(mailboxes: Mailboxes, account: str, reach: Reach) -> tuple[str, str]:
    """Id and path of Deleted Items. Raises NotFound where there is none."""
    place = await mailboxes.resolve(account, reach, "\\Trash")
    if place is None:
        raise NotFound("Trash folder was not found", "TrashNotFound")
    return place.id, place.path


async def erase(access: Access, reach: Reach, message_id: str, waiting: Waiting) -> None:
    """The message is gone for good. One call; up to three in clouds without permanentDelete.

    Raises NotFound when it was not there, GraphFailure and CredentialError.
    """
    unclear = False
    try:
        await call(access, reach, lambda c: requests.purge(c, reach.mailbox, message_id), waiting, repeatable=False)
        return
    except GraphFailure as failure:
        unclear = is_transient(failure)
        if not unclear and failure.status not in NOT_FOR_GOOD:
            raise
    try:
        await call(access, reach, lambda c: requests.delete(c, reach.mailbox, message_id), waiting)
    except GraphFailure as failure:
        if failure.status != 404:
            raise
        if unclear:
            return  # the first request did it
        raise not_found() from None
    with suppress(GraphFailure):  # where the first one only moved it to Deleted Items (graph.md 4)
        await access.call(reach, lambda c: requests.delete(c, reach.mailbox, message_id))


async def erase_all(run: Run, message_ids: Sequence[str]) -> list[str]:
    """The messages that are gone for good by this call. Raises what `Run.send` raises."""
    purged = await run.send([Part(one, "POST", "/permanentDelete") for one in message_ids])
    done = {one.message_id for one in purged if one.is_done}
    left = [one.message_id for one in purged if one.status in NOT_FOR_GOOD]
    if left:
        deleted = [one.message_id for one in await run.send([Part(one, "DELETE") for one in left]) if one.is_done]
        done |= set(deleted)
        if deleted:
            with suppress(GraphFailure):
                await run.send([Part(one, "DELETE") for one in deleted])
    return [one for one in message_ids if one in done]


async def folders_of(run: Run, message_ids: Sequence[str]) -> dict[str, str]:
    """The folder each message lies in; those that could not be read are left out."""
    parts = [Part(one, "GET", "?$select=id,parentFolderId") for one in message_ids]
    answers = [one for one in await run.send(parts) if one.is_done]
    return {one.message_id: str(one.body.get("parentFolderId") or "") for one in answers}


async def move_all(run: Run, message_ids: Sequence[str], folder_id: str) -> list[str]:
    """The messages that lie in the folder by this call. Raises what `Run.send` raises."""
    body = {"destinationId": folder_id}
    answers = await run.send([Part(one, "POST", "/move", body) for one in message_ids])
    return [one.message_id for one in answers if one.is_done]


async def put_away(access: Access, reach: Reach, message_id: str, folder_id: str, waiting: Waiting) -> str:
    """Moves one message; its id in the folder, which is the same with immutable ids."""
    answer = await call(access, reach, lambda c: edits.move(c, reach.mailbox, message_id, folder_id), waiting)
    return str(answer.json().get("id") or message_id)
