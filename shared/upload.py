"""Storing a mail in a folder without sending it: a draft, or a message of the past (emailengine.md 13)."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from shared import raw_mail, traces
from shared.access import Access
from shared.accounts import Accounts, Reach, Record
from shared.attaching import Attaching
from shared.attachments import References
from shared.composing import bracketed
from shared.drafts import erase
from shared.errors import ApiError, CredentialError, GraphFailure
from shared.folder_changes import NO_FOLDER, failed
from shared.graph import edits
from shared.graph.failures import to_api
from shared.graph.uploads import SessionLost
from shared.mail_parts import REQUEST_LIMIT, Part, check_foreign, divided, too_large
from shared.mailboxes import Mailboxes
from shared.references import Originals
from shared.stored_message import DRAFT, FLAGGED, SEEN, checked, lowered, rendered
from shared.unfinished import Unfinished
from shared.waiting import Sleep, Waiting, call

# Given beside `raw`, these are worked into it, and it can not stay as it is.
_BESIDE = "from to cc bcc replyTo subject text html attachments messageId headers reference".split()
_REPLACED = [name for name in _BESIDE if name not in ("headers", "reference")]


@dataclass(frozen=True)
class _Mail:
    """What is to be stored: the rest that one request carries, and the parts that follow."""

    body: bytes = field(repr=False)
    parts: tuple[Part, ...]
    message_id: str
    is_own_id: bool  # made here, so that a message that has it is ours


class UploadedMail:
    """Stores mails in the folders of accounts."""

    def __init__(
        self,
        accounts: Accounts,
        access: Access,
        mailboxes: Mailboxes,
        references: References,
        originals: Originals,
        attaching: Attaching,
        unfinished: Unfinished,
        sleep: Sleep,
        new_uuid: Callable[[], uuid.UUID] = uuid.uuid4,
    ) -> None:
        self._accounts, self._access, self._mailboxes = accounts, access, mailboxes
        self._references, self._originals, self._attaching = references, originals, attaching
        self._unfinished, self._sleep, self._new_uuid = unfinished, sleep, new_uuid

    async def store(self, account: str, fields: dict[str, Any]) -> dict[str, Any]:
        """The contract's answer. One Graph call; more for large attachments and for what is referred to.

        Raises NotFound for an account, folder, message or attachment that is not there, StateRefuses, InvalidInput,
        ApiError for what Graph refuses, CredentialError. A message that could not be stored whole is taken away.
        """
        record, reach = await self._accounts.usable(account)
        place = await self._mailboxes.resolve(account, reach, fields["path"])
        if place is None:
            raise failed("Upload", 404, "NotFound", NO_FOLDER)
        flags = lowered(fields.get("flags") or ())
        if _stays_as_it_is(fields, flags):
            made, shown = await self._verbatim(reach, place.id, fields["raw"], flags), None
        else:
            mail, shown = await self._mail(record, reach, fields, flags)
            if mail.parts:
                made = await self._in_steps(account, reach, place.id, mail, flags)
            else:
                made = await self._created(reach, place.id, mail)
        answer = {"id": made["id"], "path": place.path, "messageId": made.get("internetMessageId") or ""}
        return answer | ({"reference": shown} if shown else {})

    # -- the mail ------------------------------------------------------------------------------------------

    async def _mail(
        self, record: Record, reach: Reach, fields: dict[str, Any], flags: frozenset[str]
    ) -> tuple[_Mail, dict[str, Any] | None]:
        if fields.get("reference") and record.get("sendOnly"):
            text = "Reference actions (reply, forward) are not supported for send-only accounts"
            raise ApiError(400, text, "ReferenceNotSupported")
        fields = _with_raw(fields)
        continued = await self._originals.continued(record, fields, code="MessageNotFound")
        whole = checked(continued.fields, given=fields.get("headers") or {})
        if whole.get("attachments"):
            whole["attachments"] = await self._references.resolved(record["account"], whole["attachments"])
        own = bracketed(whole.get("messageId"))
        message_id = own or f"<{self._new_uuid()}@{_domain(record, whole)}>"
        body, parts = divided(
            whole, lambda some: rendered(some, message_id, flags, fields.get("internalDate")), as_sent=int
        )
        if parts and reach.is_foreign:
            check_foreign(parts, reach.mailbox.user or record["account"])
        return _Mail(body, tuple(parts), message_id, not own), continued.shown

    # -- storing -------------------------------------------------------------------------------------------

    async def _created(self, reach: Reach, folder_id: str, mail: _Mail) -> dict[str, Any]:
        try:
            return await self._post(reach, lambda c: edits.create(c, reach.mailbox, folder_id, mail.body))
        except GraphFailure as failure:
            return await self._found(reach, mail, failure)

    async def _in_steps(
        self, account: str, reach: Reach, folder_id: str, mail: _Mail, flags: frozenset[str]
    ) -> dict[str, Any]:
        """The message with the parts that one request could not carry. It is noted until it is whole, so that the
        sweep takes away what is left of a failure."""
        # By a Message-ID that the caller gave, other drafts could be meant: those are told apart by the id alone.
        noted = await self._unfinished.begin(account, mail.message_id if mail.is_own_id else f"<{self._new_uuid()}>")
        made = await self._created(reach, folder_id, mail)
        noted = await self._unfinished.made(noted, made["id"])
        await self._whole(reach, made["id"], mail.parts, flags)
        await self._unfinished.done(noted)
        return made

    async def _found(self, reach: Reach, mail: _Mail, failure: GraphFailure) -> dict[str, Any]:
        """The message after an unclear answer, when it was stored all the same."""
        if failure.may_have_acted and mail.is_own_id:
            with suppress(GraphFailure, CredentialError):
                for one in await traces.copies(self._access, reach, mail.message_id):
                    return one
        raise _refusal(failure)

    async def _whole(self, reach: Reach, message_id: str, parts: tuple[Part, ...], flags: frozenset[str]) -> None:
        """Puts the parts on the message; where that fails, the message goes."""
        try:
            await self._attaching.add(reach, message_id, parts)
        except Exception as problem:
            with suppress(GraphFailure, CredentialError):
                await erase(self._access, reach, message_id)
            if isinstance(problem, SessionLost):
                raise _refusal(GraphFailure(503, "SessionLost", "The upload session has ended")) from None
            if not isinstance(problem, GraphFailure):
                raise
            if DRAFT not in flags and 400 <= problem.status < 500 and problem.status != 429:
                text = 'Microsoft Graph adds attachments of this size to drafts only: give "\\Draft" in "flags"'
                raise too_large(text, "attachments") from None
            raise _refusal(problem) from None

    async def _verbatim(self, reach: Reach, folder_id: str, raw: str, flags: frozenset[str]) -> dict[str, Any]:
        """A draft from the MIME as it is, with its flags."""
        content = raw_mail.read(raw).whole()
        try:
            made = await self._post(reach, lambda c: edits.create_mime(c, reach.mailbox, folder_id, content))
        except GraphFailure as failure:
            raise _refusal(failure) from None
        changes: dict[str, Any] = {} if made.get("isRead") == (SEEN in flags) else {"isRead": SEEN in flags}
        changes |= {"flag": {"flagStatus": "flagged"}} if FLAGGED in flags else {}
        if changes:
            try:
                change = lambda c: edits.change(c, reach.mailbox, made["id"], changes)  # noqa: E731
                await call(self._access, reach, change, Waiting(self._sleep))
            except Exception as problem:
                with suppress(GraphFailure, CredentialError):
                    await erase(self._access, reach, made["id"])
                raise (_refusal(problem) if isinstance(problem, GraphFailure) else problem) from None
        return made

    async def _post(self, reach: Reach, build: Callable[[Any], Any]) -> dict[str, Any]:
        answer = await call(self._access, reach, build, Waiting(self._sleep), repeatable=False)
        made = answer.json()
        if not isinstance(made, dict) or not made.get("id"):
            raise GraphFailure(502, "InvalidAnswer", "Graph's answer has no id", may_have_acted=True)
        return made


def _stays_as_it_is(fields: Mapping[str, Any], flags: frozenset[str]) -> bool:
    """Whether Graph can store the MIME itself: it makes a draft of it, dated now (graph.md 4)."""
    raw = fields.get("raw")
    plain = raw and DRAFT in flags and not fields.get("internalDate") and len(raw) <= REQUEST_LIMIT
    return bool(plain) and not any(fields.get(name) for name in _BESIDE)


def _with_raw(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields with what the MIME says, where nothing is given beside it."""
    if not fields.get("raw"):
        return fields
    from shared import mime_fields  # the mail library is loaded for this alone

    mail = raw_mail.read(fields["raw"])
    given = {name: value for name, value in fields.items() if name != "raw" and value not in (None, "")}
    given |= {"headers": fields.get("headers") or {}}
    transport = {} if any(fields.get(name) for name in _REPLACED) else {"transport": mime_fields.header_block(mail)}
    found = mime_fields.fields_of(mail)
    if not _is_sound(found.get("messageId", "")):
        found.pop("messageId", None)
    return found | transport | given


def _is_sound(message_id: str) -> bool:
    try:
        return bool(bracketed(message_id))
    except ApiError:
        return False


def _domain(record: Record, fields: Mapping[str, Any]) -> str:
    address = (fields.get("from") or {}).get("address") or record.get("email") or ""
    return address.rpartition("@")[2] or "localhost"


def _refusal(failure: GraphFailure) -> ApiError:
    """The contract's answer when Graph does not store the message."""
    if failure.status == 400:
        return ApiError(400, "Invalid message format", failure.code, info={"response": failure.message})
    if failure.status == 404:
        return failed("Upload", 404, "NotFound", NO_FOLDER)
    return to_api(failure)
