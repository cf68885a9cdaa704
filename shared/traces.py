"""Looking for a mail in its mailbox after a send whose outcome is unclear (graph.md 6.5).

Exchange has no idempotency key, so what a mailbox holds is the only witness. What it says is checked here and not
taken from the server's filter: a caller may use one Message-ID for two mails, and the stamp tells them apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from shared.access import Access
from shared.accounts import Reach
from shared.errors import GraphFailure
from shared.graph import requests
from shared.mime import STAMP, STAMP_PROPERTY

FOUND, DRAFT, ABSENT, UNREACHABLE = "sent", "draft", "absent", "unreachable"
GONE = "gone"  # neither the draft of a large mail nor its copy is there
# A filter on the property that the server does not take (graph.md 5.1, 5.5) says nothing about the mail.
_NO_SUCH_WAY = (400, 501)


async def look(access: Access, reach: Reach, message_id: str, queue_id: str) -> str:
    """FOUND, DRAFT (there but not sent) or ABSENT. One Graph call, one more when the first finds nothing.

    Raises GraphFailure and CredentialError when the mailbox cannot be asked.
    """
    verdict = verdict_of(await copies(access, reach, message_id), message_id, queue_id)
    if verdict != ABSENT:
        return verdict
    try:
        answer = await access.call(reach, lambda c: requests.stamped_copies(c, reach.mailbox, STAMP_PROPERTY, queue_id))
    except GraphFailure as failure:
        if failure.status not in _NO_SUCH_WAY:
            raise
        return ABSENT
    return verdict_of(answer.json().get("value", ()), None, queue_id)


async def copies(access: Access, reach: Reach, message_id: str) -> list[dict[str, Any]]:
    """The messages with this Message-ID, with our stamp where the mailbox shows named properties."""
    try:
        answer = await access.call(reach, lambda c: requests.copies(c, reach.mailbox, message_id, STAMP_PROPERTY))
    except GraphFailure as failure:
        if failure.status not in _NO_SUCH_WAY:
            raise
        answer = await access.call(reach, lambda c: requests.copies(c, reach.mailbox, message_id))
    found: list[dict[str, Any]] = answer.json().get("value", [])
    return found


def verdict_of(candidates: Iterable[Mapping[str, Any]], message_id: str | None, queue_id: str) -> str:
    """What these messages say about the mail. With a Message-ID, one without any stamp counts as ours; without one,
    only our stamp counts."""
    ours = [one for one in candidates if _is_ours(one, message_id, queue_id)]
    if any(not one.get("isDraft") for one in ours):
        return FOUND
    return DRAFT if ours else ABSENT


def _is_ours(candidate: Mapping[str, Any], message_id: str | None, queue_id: str) -> bool:
    found = stamps(candidate)
    if message_id is None:
        return queue_id in found
    same = (candidate.get("internetMessageId") or "").strip().casefold() == message_id.casefold()
    return same and (not found or queue_id in found)


def stamps(candidate: Mapping[str, Any]) -> set[str]:
    """The queue ids a message carries, as a header and as a property."""
    headers = candidate.get("internetMessageHeaders") or ()
    properties = candidate.get("singleValueExtendedProperties") or ()
    found = [one.get("value") for one in headers if str(one.get("name")).casefold() == STAMP.casefold()]
    found += [one.get("value") for one in properties if str(one.get("id")).casefold() == STAMP_PROPERTY.casefold()]
    return {str(value).strip() for value in found if value}
