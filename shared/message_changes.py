"""Changing one message: flags, labels, folder, and deleting it (emailengine.md 12.1 to 12.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shared.access import Access
from shared.accounts import Accounts, Reach
from shared.errors import ApiError, GraphFailure
from shared.folder_changes import Paths, failed, refused
from shared.graph import edits
from shared.mailboxes import Mailboxes
from shared.marks import Marks
from shared.removal import TRASH, erase, not_found, put_away, trash_of
from shared.waiting import Sleep, Waiting, call

NO_TARGET, NO_SOURCE = "Not able to find target folder", "Not able to find source message"
CHANGED_MEANWHILE = 412  # graph.md 2.3
MOST_TRIES = 3


class MessageChanges:
    """Changes messages of accounts, one at a time."""

    def __init__(self, accounts: Accounts, access: Access, mailboxes: Mailboxes, sleep: Sleep) -> None:
        self._accounts, self._access, self._mailboxes, self._sleep = accounts, access, mailboxes, sleep

    # -- flags and labels ----------------------------------------------------------------------------------

    async def update(self, account: str, message_id: str, marks: Marks) -> dict[str, Any]:
        """The contract's answer (12.1): what was asked, and flags and labels as they are now.

        One Graph call, two when labels are added or taken away. Labels are only ever written over those that were
        read; when somebody else changes the message in between, they are read again. Raises NotFound, StateRefuses,
        GraphFailure and CredentialError.
        """
        _, reach = await self._accounts.usable(account)
        waiting = Waiting(self._sleep)
        try:
            return marks.echo(await self._updated(reach, message_id, marks, waiting))
        except GraphFailure as failure:
            raise message_failure(failure) from None

    async def _updated(self, reach: Reach, message_id: str, marks: Marks, waiting: Waiting) -> dict[str, Any]:
        """The message after the change."""
        tries_left = MOST_TRIES
        while True:
            tries_left -= 1
            known = await self._state(reach, message_id, waiting) if marks.reads_labels else None
            changes = marks.changes(_labels(known) if known is not None else ())
            if not changes:
                return known if known is not None else await self._state(reach, message_id, waiting)
            # Who is changed all the time is written in the end, over what was read a moment ago.
            etag = str((known or {}).get("@odata.etag") or "") if tries_left else ""
            try:
                build = self._changing(reach, message_id, changes, etag)
                return (await call(self._access, reach, build, waiting)).json()
            except GraphFailure as failure:
                if failure.status != CHANGED_MEANWHILE or not tries_left:
                    raise

    @staticmethod
    def _changing(reach: Reach, message_id: str, changes: dict[str, Any], etag: str) -> Callable[[Any], Any]:
        return lambda c: edits.change(c, reach.mailbox, message_id, changes, etag)

    async def _state(self, reach: Reach, message_id: str, waiting: Waiting) -> dict[str, Any]:
        return (await call(self._access, reach, lambda c: edits.state(c, reach.mailbox, message_id), waiting)).json()

    # -- move and delete -----------------------------------------------------------------------------------

    async def move(self, account: str, message_id: str, path: Paths) -> dict[str, Any]:
        """The contract's answer (12.2). Raises NotFound for a folder or message that is not there."""
        _, reach = await self._accounts.usable(account)
        place = await self._mailboxes.resolve(account, reach, path)
        if place is None:
            raise failed("Move", 404, "NotFound", NO_TARGET)
        try:
            moved = await put_away(self._access, reach, message_id, place.id, Waiting(self._sleep))
        except GraphFailure as failure:
            missing = NO_TARGET if failure.code == "ErrorFolderNotFound" else NO_SOURCE
            raise refused("Move", failure, missing) from None
        return {"path": place.path, "id": moved}

    async def delete(self, account: str, message_id: str, *, force: bool) -> dict[str, Any]:
        """The contract's answer (12.3): moved to Deleted Items; gone for good when forced, or when it lay there
        already. Raises NotFound."""
        _, reach = await self._accounts.usable(account)
        waiting = Waiting(self._sleep)
        try:
            if force:
                await erase(self._access, reach, message_id, waiting)
                return {"deleted": True}
            trash_id, trash_path = await trash_of(self._mailboxes, account, reach)
            if (await self._state(reach, message_id, waiting)).get("parentFolderId") == trash_id:
                await erase(self._access, reach, message_id, waiting)
                return {"deleted": True}
            moved = await put_away(self._access, reach, message_id, TRASH, waiting)
        except GraphFailure as failure:
            raise message_failure(failure) from None
        return {"deleted": True, "moved": {"destination": trash_path, "message": moved}}


def _labels(message: dict[str, Any]) -> list[str]:
    """The labels of a message that was read. What does not say which there are was not read."""
    labels = message.get("categories")
    if not isinstance(labels, list):
        raise GraphFailure(502, "InvalidAnswer", "Graph's answer does not say which labels there are")
    return [str(one) for one in labels]


def message_failure(failure: GraphFailure) -> Exception:
    """The contract's words for a message that is not there or an id that is none; other failures as they are."""
    if failure.status == 404 and failure.code in ("ErrorItemNotFound", "HTTP404"):
        return not_found()
    if failure.code == "ErrorInvalidIdMalformed":
        return malformed_id()
    return failure


def malformed_id() -> ApiError:
    return ApiError(400, "Id is malformed", "InvalidMessageId")
