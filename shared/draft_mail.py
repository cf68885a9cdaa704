"""Sending a draft that somebody wrote into the mailbox: Graph's own /send turns it into the sent copy.

A draft can be sent only once, so repeating an unclear /send does no harm (graph.md 6.5). It is the caller's draft and
not ours: when the mail fails or is taken back, it stays where it is.
"""

from __future__ import annotations

from shared import traces
from shared.access import Access
from shared.accounts import Reach
from shared.errors import GraphFailure
from shared.graph import requests
from shared.storage.tables import Row


async def send(access: Access, row: Row, reach: Reach) -> None:
    """Sends the draft of this outbox record; done when Graph has accepted it, or when it turns out to be sent.

    Raises CredentialError and GraphFailure, with `may_have_acted` also when the draft is gone after an earlier attempt.
    """
    try:
        await access.call(reach, lambda c: requests.send_draft(c, reach.mailbox, row.value["draft"]))
    except GraphFailure as failure:
        if failure.status != 404:
            raise
        gone = await _gone(access, row, reach)
        if gone is not None:
            raise gone from None


async def _gone(access: Access, row: Row, reach: Reach) -> GraphFailure | None:
    """The failure of a draft that is not there; None when it was sent, by an earlier attempt or by a person."""
    found = await finding(access, row, reach)
    if found == traces.FOUND:
        return None
    if found == traces.ABSENT:
        return GraphFailure(409, "ErrorIrresolvableConflict", "The draft is there, but Graph does not send it")
    if row.value["attemptsMade"] > 1:
        return GraphFailure(0, "DraftGone", "The draft is gone after an unclear attempt", may_have_acted=True)
    text = "The draft is gone: it was deleted, or sent by somebody, before it was to be sent"
    return GraphFailure(404, "ErrorItemNotFound", text)


async def finding(access: Access, row: Row, reach: Reach) -> str:
    """What became of a draft whose sending was unclear: sent, absent (a draft still), or gone, when neither the draft
    nor a copy is there. Raises GraphFailure and CredentialError when the mailbox cannot be asked."""
    try:
        answer = await access.call(reach, lambda c: requests.draft_state(c, reach.mailbox, row.value["draft"]))
    except GraphFailure as failure:
        if failure.status != 404:
            raise
    else:
        return traces.ABSENT if answer.json().get("isDraft") else traces.FOUND
    message_id = row.value["messageId"]
    if message_id and await traces.look(access, reach, message_id, row.key) == traces.FOUND:
        return traces.FOUND
    return traces.GONE
