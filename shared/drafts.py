"""Removing drafts of our own from a mailbox, without a trace where Graph offers that."""

from __future__ import annotations

from shared.access import Access
from shared.accounts import Reach
from shared.errors import GraphFailure
from shared.graph import requests

# permanentDelete is refused, or not known at all: national clouds (graph.md 4), a draft that is gone already.
_NOT_FOR_GOOD = frozenset({400, 403, 404, 405, 501})
_NOTHING_LEFT_TO_DO = frozenset({403, 404})


async def erase(access: Access, reach: Reach, message_id: str) -> None:
    """Gone for good, else moved to Deleted Items; again does no harm. At most two Graph calls.

    Raises GraphFailure when Graph could not say, and CredentialError.
    """
    try:
        await access.call(reach, lambda c: requests.purge(c, reach.mailbox, message_id))
    except GraphFailure as failure:
        if failure.status not in _NOT_FOR_GOOD:
            raise
        try:
            await access.call(reach, lambda c: requests.delete(c, reach.mailbox, message_id))
        except GraphFailure as second:
            if second.status not in _NOTHING_LEFT_TO_DO:
                raise
