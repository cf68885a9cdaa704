"""Sending a mail that no single request carries: a draft is built, attachment by attachment, and then sent.

What is known of the draft is kept in a record of its own, changed by compare-and-swap before and after each step:

    building   steps are under way; when nobody works on it, the last one was interrupted and the draft is suspect
    paused     every step was answered; the work goes on from there
    sending    /send was called, or is about to be
    vanished   the draft is gone, though nobody here deleted it: by a person, who may have sent it

A suspect draft is deleted and built anew, so that no mail is sent half built or with an attachment twice. A draft
that vanished is looked for first, with patience, as after an unclear /send. A draft can be sent only once, so
repeating an unclear /send is safe: the second one finds no draft (graph.md 6.5).
"""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from shared import traces
from shared.access import Access
from shared.accounts import Accounts, Reach
from shared.clock import Clock, iso, parse_time
from shared.drafts import erase
from shared.errors import ApiError, CredentialError, GraphFailure, StorageConflict
from shared.graph import requests
from shared.graph.client import Answer
from shared.graph.uploads import OutOfTime, Patience, SessionLost, Upload
from shared.mail_parts import SIMPLE_BYTES, part_name
from shared.storage.blobs import Blobs
from shared.storage.tables import Row, Table
from shared.vault import SealBroken, Vault

BUILDING, PAUSED, SENDING, VANISHED = "building", "paused", "sending", "vanished"
RUN_FOR = timedelta(minutes=5)  # a function may run ten (host.json); a step takes a minute at most
GONE = 3  # looks that find neither draft nor copy after /send, before the draft counts as sent
CLOCKS_DIFFER = timedelta(minutes=2)
KEPT_FOR = timedelta(days=3)  # a draft that cannot be deleted for so long is left where it is
UPLOADS = (
    "Attachments above 3 MB need an upload session, which Graph allows in the signed-in person's own mailbox and "
    "with application access only"
)
log = logging.getLogger("graphpost.large_mail")


class _Draft:
    """The record of a draft in the hands of one run."""

    def __init__(self, table: Table, row: Row, run: str) -> None:
        self._table, self.row, self.run = table, row, run
        self.upload_url = ""

    @property
    def value(self) -> dict[str, Any]:
        return self.row.value

    async def change(self, **fields: Any) -> None:
        """Stores the changed record; StorageConflict when another run has taken over."""
        value = self.value | fields | {"run": self.run}
        row = Row(self.row.partition, self.row.key, value, self.row.etag)
        try:
            self.row = await (self._table.replace(row) if row.etag else self._table.insert(row))
        except StorageConflict:
            # Our own write, repeated by the storage client after a lost answer, names our run.
            stored = await self._table.get(row.partition, row.key)
            if stored is None or stored.value != value:
                raise
            self.row = stored


class LargeMail:
    """Builds drafts, sends them, and clears away what must not stay."""

    def __init__(
        self,
        table: Table,
        blobs: Blobs,
        accounts: Accounts,
        access: Access,
        vault: Vault,
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._table, self._blobs, self._accounts, self._access = table, blobs, accounts, access
        self._vault, self._clock, self.sleep = vault, clock, sleep

    # -- sending -------------------------------------------------------------------------------------------

    async def transmit(self, mail: Row, reach: Reach, body: bytes) -> None:
        """Sends the mail of this outbox record; `body` is its rest. Done when Graph has accepted it.

        Raises GraphFailure, with `may_have_acted` only when /send was unclear or the draft vanished; CredentialError;
        and StorageConflict when another run has taken the mail over.
        """
        kept = await self._table.get(mail.partition, mail.key)
        draft = _Draft(self._table, kept or self._new(mail), secrets.token_hex(8))
        if draft.value["stage"] == SENDING:
            await self._send(draft, reach, again=True)
            return
        if kept is not None and draft.value["stage"] != PAUSED and await self._is_over(draft, reach):
            return
        await draft.change(stage=BUILDING)
        await self._build(mail, draft, reach, body)
        await self._send(draft, reach, again=False)

    async def _is_over(self, draft: _Draft, reach: Reach) -> bool:
        """True when a suspect draft was sent, by a person. Else it is cleared away, and another can be built; once it
        was looked for, when it vanished."""
        await draft.change()  # from here on a run that was only slow fails at its next step
        found = await self._discard(draft.value["messageId"], draft.row, reach)
        if found == traces.GONE and draft.value["stage"] != VANISHED:
            raise await _vanished(draft)
        if found != traces.FOUND:
            late = draft.value["late"] or not draft.value["id"]
            await draft.change(id="", attached=0, upload="", late=late)
        return found == traces.FOUND

    def _new(self, mail: Row) -> Row:
        value = {
            "account": mail.value["account"],
            "messageId": mail.value["messageId"],
            "stage": BUILDING,
            "begun": iso(self._clock()),
            "id": "",
            "attached": 0,
            "upload": "",
            "late": False,  # a draft of ours whose id was never heard may still appear
            "gone": 0,
        }
        return Row(mail.partition, mail.key, value)

    async def _build(self, mail: Row, draft: _Draft, reach: Reach, body: bytes) -> None:
        """Creates the draft and puts on it what it lacks."""
        patience = Patience(self._clock, self._clock() + RUN_FOR, self.sleep)
        try:
            if not draft.value["id"]:
                await draft.change(id=await self._create(mail, reach, body))
            parts = mail.value["parts"]
            for number in range(draft.value["attached"], len(parts)):
                patience.check()
                await self._attach(mail, draft, reach, number, patience)
                draft.upload_url = ""
                await draft.change(attached=number + 1, upload="")
        except (GraphFailure, CredentialError) as failure:
            if getattr(failure, "status", 0) == 404 and draft.value["id"]:
                raise await _vanished(draft) from None
            if not getattr(failure, "may_have_acted", False):
                await draft.change(stage=PAUSED, upload=self._sealed(mail.key, draft.upload_url))
            raise _certain(failure) from None

    async def _create(self, mail: Row, reach: Reach, body: bytes) -> str:
        """The immutable id of a new draft."""
        structured = bool(mail.value["structured"])
        answer = await self._access.call(
            reach, lambda c: requests.create_draft(c, reach.mailbox, body, structured=structured)
        )
        return _named(answer, "id")

    async def _attach(self, mail: Row, draft: _Draft, reach: Reach, number: int, patience: Patience) -> None:
        part = mail.value["parts"][number]
        if part["size"] > SIMPLE_BYTES:
            await self._upload(mail, draft, reach, number, patience)
            return
        content = await self._content(part_name(mail.value["blob"], number))
        attached = _described(part) | {"contentBytes": base64.b64encode(content).decode()}
        await self._access.call(reach, lambda c: requests.attach(c, reach.mailbox, draft.value["id"], attached))

    async def _content(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        content = await self._blobs.get(name, start, length)
        if content is None:
            raise GraphFailure(400, "BodyMissing", "A stored attachment of the mail is gone")
        return content

    async def _upload(self, mail: Row, draft: _Draft, reach: Reach, number: int, patience: Patience) -> None:
        """One attachment by upload session; a session that ended before its time is followed by another."""
        part, name = mail.value["parts"][number], part_name(mail.value["blob"], number)
        while True:
            resumed = self._opened(mail.key, draft.value["upload"]) if not draft.upload_url else ""
            draft.upload_url = resumed or await self._session(draft, reach, part)
            graph = self._access.graph(reach)
            upload = Upload(graph, reach.mailbox, reach.app, draft.upload_url, part["size"], patience)
            try:
                await upload.run(lambda start, length: self._content(name, start, length), resumed=bool(resumed))
                return
            except SessionLost:
                patience.check()
                lost = GraphFailure(404, "SessionLost", "The upload session has ended", retry_after_s=1.0)
                await patience.wait(lost)
                draft.upload_url = ""
                await draft.change(upload="")

    async def _session(self, draft: _Draft, reach: Reach, part: dict[str, Any]) -> str:
        item = _described(part) | {"size": part["size"]}
        try:
            answer = await self._access.call(
                reach, lambda c: requests.upload_session(c, reach.mailbox, draft.value["id"], item)
            )
        except GraphFailure as failure:
            if failure.status == 403 and reach.is_foreign:
                raise GraphFailure(403, failure.code, f"{failure.message} {UPLOADS}.") from None
            # A session that nobody uses attaches nothing, so even an unclear answer leaves the draft as it was.
            raise _certain(failure) from None
        return _named(answer, "uploadUrl")

    def _sealed(self, queue_id: str, url: str) -> str:
        """The address is a credential (graph.md 7.3)."""
        return self._vault.seal(url.encode(), f"drafts/{queue_id}/upload") if url else ""

    def _opened(self, queue_id: str, sealed: str) -> str:
        try:
            return self._vault.open(sealed, f"drafts/{queue_id}/upload").decode() if sealed else ""
        except SealBroken:
            return ""

    async def _send(self, draft: _Draft, reach: Reach, *, again: bool) -> None:
        """Calls /send. `again`: after a call whose answer was unclear, and looks that found the draft unsent."""
        await draft.change(stage=SENDING)
        try:
            await self._access.call(reach, lambda c: requests.send_draft(c, reach.mailbox, draft.value["id"]))
        except GraphFailure as failure:
            if failure.status == 404 and again:
                return  # the earlier call did send it (graph.md 6.5)
            if failure.status == 404:
                raise await _vanished(draft) from None
            if not failure.may_have_acted and not again:
                await draft.change(stage=PAUSED)
            raise
        except CredentialError:
            if not again:
                await draft.change(stage=PAUSED)
            raise

    # -- looking -------------------------------------------------------------------------------------------

    async def finding(self, mail: Row, reach: Reach) -> str:
        """What became of a mail whose sending was unclear: sent, absent (not sent), or gone, when neither draft nor
        copy is there after /send. Such a draft that stays gone was sent (graph.md 6.5); one that vanished before was
        not."""
        kept = await self._table.get(mail.partition, mail.key)
        if kept is None or kept.value["stage"] not in (SENDING, VANISHED):
            return traces.ABSENT
        is_draft = await self._is_draft(kept.value["id"], reach)
        if is_draft is not None:
            return traces.ABSENT if is_draft else traces.FOUND
        if await traces.look(self._access, reach, mail.value["messageId"], mail.key) == traces.FOUND:
            return traces.FOUND
        return traces.ABSENT if kept.value["stage"] == VANISHED else await self._stays_gone(kept)

    async def _stays_gone(self, kept: Row) -> str:
        """Gone, and sent when that was seen often enough."""
        value = kept.value | {"gone": kept.value["gone"] + 1}
        with suppress(StorageConflict):  # another look at the same moment
            await self._table.replace(Row(kept.partition, kept.key, value, kept.etag))
        return traces.FOUND if value["gone"] >= GONE else traces.GONE

    async def _is_draft(self, message_id: str, reach: Reach) -> bool | None:
        """Whether this message is a draft still; None when it is not there."""
        if not message_id:
            return None
        try:
            answer = await self._access.call(reach, lambda c: requests.draft_state(c, reach.mailbox, message_id))
        except GraphFailure as failure:
            if failure.status != 404:
                raise
            return None
        return bool(answer.json().get("isDraft"))

    # -- clearing away -------------------------------------------------------------------------------------

    async def _discard(self, message_id: str, kept: Row, reach: Reach) -> str:
        """Deletes every draft of this mail. Found when it turns out that it was sent after all, gone when its draft is
        not there, else absent.

        Raises GraphFailure without `may_have_acted`, since deleting can be repeated.
        """
        try:
            known = kept.value["id"]
            is_draft = await self._is_draft(known, reach)
            if is_draft:
                await erase(self._access, reach, known)
            copies = await traces.copies(self._access, reach, message_id)
            for one in copies:
                if one["id"] != known and one.get("isDraft") and _is_ours(one, kept):
                    await erase(self._access, reach, one["id"])
        except GraphFailure as failure:
            raise _certain(failure) from None
        # A caller may use one Message-ID twice: while our draft is there, a copy has to show its stamp.
        seen = traces.verdict_of(copies, None if is_draft else message_id, kept.key)
        if is_draft is False or seen == traces.FOUND:
            return traces.FOUND
        return traces.GONE if known and is_draft is None else traces.ABSENT

    async def end(self, queue_id: str, partition: str, state: str) -> bool:
        """The mail has ended in this state, or was taken back (""): its draft goes, unless nobody knows whether it
        was sent. False while something is left to the sweep."""
        kept = await self._table.get(partition, queue_id)
        if kept is None:
            return True
        if state == "sent" and kept.value["late"] and self._is_young(kept):
            return False  # a draft may still appear; the sweep looks once more
        if state == "unknown" or (state == "sent" and not kept.value["late"]) or await self._cleared(kept):
            await self._table.delete(partition, queue_id)
            return True
        return False

    def _is_young(self, kept: Row) -> bool:
        return self._clock() - parse_time(kept.value["begun"]) < timedelta(minutes=15)

    async def _cleared(self, kept: Row) -> bool:
        """Whether nothing is left to do."""
        record = await self._accounts.find_whole(kept.value["account"])  # also while it is being deleted
        if record is None or self._clock() - parse_time(kept.value["begun"]) > KEPT_FOR:
            return True
        try:
            await self._discard(kept.value["messageId"], kept, await self._accounts.reach(record))
        except (GraphFailure, CredentialError, ApiError) as failure:
            log.warning("a draft could not be deleted yet: %s", type(failure).__name__)
            return False
        return True

    async def drafts(self, most: int) -> AsyncIterator[Row]:
        """The records of drafts, for the sweep; without those of uploads that may be under way."""
        async for row in self._table.scan(limit=most):
            if row.value.get("until", "") < iso(self._clock()):
                yield row


async def _vanished(draft: _Draft) -> GraphFailure:
    """The failure of a step that found no draft. A person who sent it did what the mail asks for, and Exchange files
    the copy later, so this is as unclear as a call without an answer."""
    await draft.change(stage=VANISHED)
    text = "The draft of the mail was taken away before it was sent"
    return GraphFailure(0, "DraftGone", text, may_have_acted=True)


def _named(answer: Answer, name: str) -> str:
    """One property of what was created. Without it nobody can say what there is."""
    try:
        return str(answer.json()[name])
    except (GraphFailure, KeyError, TypeError):
        raise GraphFailure(502, "InvalidAnswer", f"Graph's answer has no {name}", may_have_acted=True) from None


def _described(part: dict[str, Any]) -> dict[str, Any]:
    """Name and kind of a part in Graph's words (graph.md 7.1)."""
    shown = {"name": part["name"], "contentType": part["contentType"]}
    return shown | ({"contentId": part["cid"], "isInline": part["inline"]} if part["cid"] else {})


def _certain(failure: GraphFailure | CredentialError) -> GraphFailure | CredentialError:
    """The failure of a step before /send: whatever it did, it did not send the mail."""
    if not isinstance(failure, GraphFailure) or isinstance(failure, OutOfTime) or not failure.may_have_acted:
        return failure
    return GraphFailure(
        failure.status, failure.code, failure.message,
        retry_after_s=failure.retry_after_s, request_id=failure.request_id,
    )  # fmt: skip


def _is_ours(message: dict[str, Any], kept: Row) -> bool:
    """Whether a draft with our Message-ID was made for this mail: by its stamp where the mailbox shows it, else by
    its time. A caller may give a Message-ID that other drafts have."""
    stamps = traces.stamps(message)
    if stamps:
        return kept.key in stamps
    begun = parse_time(kept.value["begun"]) - CLOCKS_DIFFER
    return parse_time(message.get("createdDateTime") or "0001-01-01") >= begun
