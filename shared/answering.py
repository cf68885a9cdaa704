"""What an answer takes over from the message it answers: recipients, subject, threading headers. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from shared.messages import addresses_of, headers_of

MOST_REFERENCES = 100  # of a thread; the oldest one and the newest are kept
_MESSAGE_ID = re.compile(r"<[^<>\s]{1,990}>")
_PREFIXES = {"reply": "Re: ", "reply-all": "Re: ", "forward": "Fwd: "}

Original = dict[str, Any]
Recipients = list[dict[str, str]]


def subject_of(action: str, original: Original) -> str:
    """The original's subject under the prefix of the action, unless it has it already."""
    subject, prefix = original.get("subject") or "", _PREFIXES[action]
    return subject if subject.lower().startswith(prefix.strip().lower()) else prefix + subject


def threading_of(action: str, original: Original) -> dict[str, Any]:
    """`{inReplyTo, references}`: the thread so far with the original last; a forward answers nothing."""
    headers = headers_of(original)
    own = _ids([original.get("internetMessageId") or ""])
    known = _ids([*headers.get("references", ()), *headers.get("in-reply-to", ())])
    references = [one for one in dict.fromkeys(known) if one not in own] + own
    if len(references) > MOST_REFERENCES:
        references = [references[0], *references[1 - MOST_REFERENCES :]]
    return {"inReplyTo": own[0] if own and action != "forward" else "", "references": references}


def _ids(values: Iterable[str]) -> list[str]:
    return [found for value in values for found in _MESSAGE_ID.findall(value) if found.isascii()]


def recipients_of(action: str, original: Original, given: dict[str, Any], own: Iterable[str]) -> dict[str, Recipients]:
    """`to`, `cc` and `bcc` of the answer (emailengine.md 14.4): each address once, never the original's Bcc.

    `own` are the addresses of the mailbox, which answers to all leave out; what the caller gives stays.
    """
    answered = addresses_of(original.get("replyTo")) or addresses_of([original.get("from") or {}])
    to, cc = list(given.get("to") or ()), list(given.get("cc") or ())
    if action == "reply" and not to:
        to = answered
    elif action == "reply-all":
        mine = {address.lower() for address in own if address}
        others = answered + addresses_of(original.get("toRecipients"))
        # A mail that only came from the mailbox itself is answered there.
        to = [one for one in others if one["address"].lower() not in mine] + to
        cc = [one for one in addresses_of(original.get("ccRecipients")) if one["address"].lower() not in mine] + cc
        to = to if to or cc else answered
    seen: set[str] = set()
    wanted = {"to": to, "cc": cc, "bcc": list(given.get("bcc") or ())}
    return {name: [one for one in many if not _seen(one, seen)] for name, many in wanted.items()}


def _seen(one: dict[str, str], seen: set[str]) -> bool:
    address = one["address"].lower()
    known = address in seen
    seen.add(address)
    return known
