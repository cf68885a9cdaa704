"""How a mail is divided when one request cannot carry it: the rest, and attachments that travel by themselves. Pure.

The rest is the mail without the attachments that do not fit. Attachments up to SIMPLE_BYTES are posted to the
draft, in any mailbox; larger ones need an upload session, which with a person's token works in his own mailbox
only (graph.md 7.3).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.errors import ApiError
from shared.mail_headers import one_line
from shared.mime_parts import content_type_of, filename_of, is_invitation

# What one request carries: 4 MB (graph.md 2.2), of base64 for MIME (6.3), of JSON otherwise.
REQUEST_LIMIT = 4 * 1024 * 1024
# Posted to a draft as JSON, with room for names: "under 3 MB" (graph.md 7.3).
SIMPLE_BYTES = (REQUEST_LIMIT - 8192) * 3 // 4
LARGEST_MAIL = 150 * 1024 * 1024  # graph.md 7.3; the mailbox's own limit may be lower (6.6)
MOST_PARTS = 250  # the attachments Exchange Online takes in one message (docs: "Exchange Online limits")
_PART_OVERHEAD = 400  # header lines of one attachment, about

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """One attachment that travels by itself."""

    name: str
    content_type: str
    cid: str
    inline: bool
    content: bytes = field(repr=False)

    def listed(self) -> dict[str, Any]:
        """As the mail's record lists it; the content is kept beside it."""
        return {
            "name": self.name,
            "contentType": self.content_type,
            "cid": self.cid,
            "inline": self.inline,
            "size": len(self.content),
        }


def content_size(attachment: Fields) -> int:
    """The bytes behind an attachment's base64."""
    text: str = attachment["content"]
    return len(text) * 3 // 4 - text[-2:].count("=")


def check_total(attachments: Iterable[Fields]) -> None:
    """ApiError 413 when the attachments alone are more than any mail holds."""
    total = sum(map(content_size, attachments))
    if total > LARGEST_MAIL:
        raise too_large(f"The attachments are too large: {total} bytes, {LARGEST_MAIL} are allowed.", "attachments")


def too_large(text: str, key: str, detail: str = "") -> ApiError:
    """413 that names the field."""
    shown = detail or f'"{key}" is too large'
    return ApiError(413, text, "MessageTooLarge", fields=[{"message": shown, "key": key}])


def divided(
    fields: Fields, render: Callable[[Fields], bytes], as_sent: Callable[[int], int]
) -> tuple[bytes, list[Part]]:
    """The body of the one request that carries the mail or its rest, and the attachments left out of it.

    `render` builds the body from the fields, `as_sent` tells from a body's size, or from the size of an
    attachment's base64, how much of the request it takes. The largest attachments are left out first, so that as
    few calls as possible are needed. Raises ApiError 413 when the mail cannot be sent either way.
    """
    attachments = list(fields.get("attachments") or ())
    check_total(attachments)
    weights = [as_sent(len(one["content"])) for one in attachments]
    # An invitation is one of the forms of the text, and no attachment of a draft.
    waiting = [index for index in range(len(attachments)) if not is_invitation(attachments[index])]
    waiting.sort(key=lambda index: weights[index])
    apart: set[int] = set()
    over = sum(weights) - REQUEST_LIMIT  # certainly too much: not even tried
    while True:
        while over > 0 and waiting:
            largest = waiting.pop()
            apart.add(largest)
            over -= weights[largest] + _PART_OVERHEAD
        kept = [one for index, one in enumerate(attachments) if index not in apart]
        body = render({**fields, "attachments": kept})
        over = as_sent(len(body)) - REQUEST_LIMIT
        if over <= 0:
            break
        if not waiting:
            raise _rest_too_large(fields, over + REQUEST_LIMIT)
    if len(apart) > MOST_PARTS:
        raise too_large(f"{len(apart)} attachments would travel by themselves, {MOST_PARTS} can.", "attachments")
    return body, [part_of(attachments[index], bool(fields.get("html"))) for index in sorted(apart)]


def part_of(attachment: Fields, has_html: bool) -> Part:
    """An attachment in the form in which it travels by itself; inline only where HTML can show it."""
    cid = (attachment.get("cid") or "").strip("<>")
    return Part(
        name=one_line(filename_of(attachment)) or "attachment",
        content_type=content_type_of(attachment),
        cid=cid,
        inline=bool(cid) and has_html and attachment.get("contentDisposition") != "attachment",
        content=base64.b64decode(attachment["content"]),
    )


def _rest_too_large(fields: Fields, size: int) -> ApiError:
    """Which field fills the request by itself."""
    key = max(("html", "text", "headers", "to", "cc", "bcc"), key=lambda name: len(str(fields.get(name) or "")))
    text = f"The mail is too large: {size} bytes as sent without its attachments, {REQUEST_LIMIT} fit into one request."
    return too_large(f'{text} Send less in "{key}".', key, f'"{key}" is too large for one request')


def check_foreign(parts: Sequence[Part], mailbox: str) -> None:
    """ApiError 413 for parts that need an upload session, in another person's mailbox with a user token: Graph
    answers 403 there (graph.md 7.3)."""
    wrong = [part for part in parts if len(part.content) > SIMPLE_BYTES]
    if not wrong:
        return
    why = (
        f"Microsoft Graph takes attachments above {SIMPLE_BYTES} bytes (3 MB) only in the signed-in person's own "
        f"mailbox or with application access; {mailbox} is reached with a person's rights"
    )
    fix = (
        "Reach this mailbox through an OAuth2 app with application access (provider outlookService), or send "
        "smaller attachments; several of them may be together in one mail"
    )
    fields = [
        {"message": f'"attachments" has "{part.name}" with {len(part.content)} bytes. {why}', "key": "attachments"}
        for part in wrong
    ]
    raise ApiError(413, f"{why}. {fix}.", "MessageTooLarge", fields=fields)


def part_name(blob: str, number: int) -> str:
    """The blob of one part of the mail whose body is in `blob`."""
    return f"{blob}/{number}"
