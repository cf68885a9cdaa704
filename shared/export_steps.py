"""The work of an export, in steps: each reads one page, writes its part of the file, and notes how far it is.

A step may run twice or die anywhere. Its part of the file has the step's own number, so that it is written over and
not added; the record moves on by compare-and-swap, so that one of two goes on; and a job that comes late only looks
whether the others do. Deleted, moved or arriving mail shifts the pages behind it, as in any listing of Graph.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from datetime import timedelta
from typing import Any

from shared.access import Access
from shared.accounts import Accounts, Reach
from shared.attachments import attachment_id
from shared.clock import Clock, iso, parse_time
from shared.errors import CredentialError, GraphFailure, StorageConflict
from shared.events import Events
from shared.exports import CANCELLED, COMPLETED, FAILED, KEPT, PROCESSING, UNDER_WAY, Exports, blob_of
from shared.graph import export_requests, requests
from shared.graph.failures import is_transient
from shared.html_text import text_of
from shared.mailboxes import Mailboxes, Tree
from shared.messages import attachment_view, cut, message_view, text_part
from shared.storage.blobs import Blobs
from shared.storage.tables import Row

PATIENCE_S = (5, 15, 60, 300, 900, 1800, 3600, *(7200,) * 6)
WATCH_S = 60
FULL = 8 * 1024 * 1024  # characters of one part, about; a page may be divided
LARGEST_ATTACHMENT, LARGEST_CONTENTS = 20 * 1024 * 1024, 40 * 1024 * 1024  # of one, of all in one message
Json = dict[str, Any]


class ExportSteps:
    """Does the work of exports."""

    def __init__(
        self, exports: Exports, blobs: Blobs, accounts: Accounts, access: Access, mailboxes: Mailboxes, events: Events,
        clock: Clock,
    ) -> None:  # fmt: skip
        self._exports, self._blobs, self._accounts, self._access = exports, blobs, accounts, access
        self._mailboxes, self._events, self._clock = mailboxes, events, clock

    async def step(self, job: Json) -> None:
        """One step of one export; nothing for one that has ended or is gone."""
        row = await self._exports.row(job["account"], job["export"])
        if row is None or row.value["status"] == CANCELLED:
            return
        if row.value["status"] not in UNDER_WAY:
            await self._tell(row)
            return
        record = await self._accounts.find(job["account"])
        if record is None or record.get("birth", "") != row.value["birth"]:
            await self._exports.drop(row)
            return
        if job["step"] != row.value["step"]:
            await self._exports.queue(row.value, WATCH_S)
            return
        wait_s = self._to_wait_s(row.value)
        if wait_s > 0:
            await self._exports.queue(row.value, wait_s)
            return
        try:
            value = await self._worked(row.value, await self._accounts.reading_reach(record))
        except (CredentialError, GraphFailure) as failure:
            value, wait_s = self._failed(row.value, failure)
        try:
            row = await self._exports.save(row, value)
        except StorageConflict:
            return  # another run of this step was faster, or the export was cancelled
        if value["status"] in UNDER_WAY:
            await self._exports.queue(value, wait_s)
        else:
            await self._tell(row)

    def _failed(self, value: Json, failure: CredentialError | GraphFailure) -> tuple[Json, float]:
        """The record after a failure, and when to try again."""
        transient = failure.transient if isinstance(failure, CredentialError) else is_transient(failure)
        if transient and value["failures"] < len(PATIENCE_S):
            asked = failure.retry_after_s if isinstance(failure, GraphFailure) else 0
            wait_s = max(asked or 0, PATIENCE_S[value["failures"]])
            until = iso(self._clock() + timedelta(seconds=wait_s))
            return value | {"failures": value["failures"] + 1, "notBefore": until}, wait_s
        text = failure.code if isinstance(failure, GraphFailure) else "The account can not be authenticated"
        return self._ended(value, FAILED, f"The mailbox could not be read: {text}"), 0

    def _to_wait_s(self, value: Json) -> float:
        """What is left of the wait after a failure."""
        until = value["notBefore"]
        return (parse_time(until) - self._clock()).total_seconds() if until else 0

    def _ended(self, value: Json, status: str, error: str | None = None) -> Json:
        expires = iso(self._clock() + KEPT)
        phase = "complete" if status == COMPLETED else value["phase"]
        return value | {"status": status, "error": error, "phase": phase, "expiresAt": expires, "link": ""}

    async def _tell(self, row: Row) -> None:
        """Tells the end once, also after a process died in between."""
        value = row.value
        if value["told"]:
            return
        event = "exportCompleted" if value["status"] == COMPLETED else "exportFailed"
        told = {name: value[name] for name in ("status", "created", "expiresAt", "truncated", "error")}
        data = {"exportId": value["id"], **told, **value["progress"]}
        await self._events.emit(value["account"], event, data, happening=f"{event} {value['id']}")
        try:
            await self._exports.save(row, value | {"told": True})
        except StorageConflict:
            return  # told twice is one event; or it was deleted

    # -- work --------------------------------------------------------------------------------------------------

    async def _worked(self, value: Json, reach: Reach) -> Json:
        """The record after the next piece of work."""
        if value["phase"] == "indexing":
            done = await self._indexed(value, reach)
        elif value["at"] >= len(value["targets"]):
            done = await self._finished(value)
        else:
            done = await self._page(value, reach)
        return done | {"step": value["step"] + 1, "failures": 0}

    async def _indexed(self, value: Json, reach: Reach) -> Json:
        """Finds the folders that were asked for."""
        tree = await self._mailboxes.tree(value["account"], reach)
        asked, targets = value["request"]["folders"], [""]
        if asked:
            if any(folder_of(tree, path) is None for path in asked):
                tree = await self._mailboxes.refresh(value["account"], reach, tree)
            found = {path: folder_of(tree, path) for path in asked}
            missing = next((path for path, folder in found.items() if folder is None), None)
            if missing is not None:
                return self._ended(value, FAILED, f"Requested mailbox folder was not found: {missing[:200]}")
            targets = [""] if "" in found.values() else list(dict.fromkeys(map(str, found.values())))
        progress = value["progress"] | {"foldersTotal": len(targets)}
        return value | {"targets": targets, "phase": "exporting", "status": PROCESSING, "progress": progress}

    async def _page(self, value: Json, reach: Reach) -> Json:
        """Writes the next messages, as many as make up a part."""
        graph, asked = self._access.graph(reach), value["request"]
        folder, link = value["targets"][value["at"]], value["link"]
        page = (
            await self._access.call(
                reach,
                lambda c: (
                    graph.follow(link)
                    if link
                    else export_requests.received_between(
                        c, reach.mailbox, folder, asked["startDate"], asked["endDate"]
                    )
                ),
            )
        ).json()
        messages = page.get("value") or []
        tree = await self._mailboxes.tree(value["account"], reach)
        room = value["mostMessages"] - value["progress"]["messagesExported"]
        lines, size, skipped = [], 0, 0
        for message in messages[value["offset"] : value["offset"] + room]:
            line, left_out = await self._line(message, tree, asked, reach)
            lines.append(line)
            size, skipped = size + len(line), skipped + left_out
            if size > FULL:
                break
        written = await self._written(value, lines)
        used = value["offset"] + len(lines)
        following = {"offset": used}
        if used >= len(messages):
            following = {"offset": 0, "link": page.get("@odata.nextLink") or ""}
        return self._moved(written | following, len(lines), bool(skipped))

    def _moved(self, value: Json, number: int, skipped: bool) -> Json:
        """The record behind a page: in the next folder at the end of one, at the end when a limit is reached."""
        progress = dict(value["progress"])
        progress["messagesExported"] += number
        progress["messagesQueued"] = progress["messagesExported"]
        done = value | {"progress": progress, "truncated": value["truncated"] or skipped}
        is_through = not value["link"] and not value["offset"]
        if is_through:
            progress["foldersScanned"] += 1
            done["at"] += 1
        full = progress["bytesWritten"] >= value["mostBytes"] or progress["messagesExported"] >= value["mostMessages"]
        if full and done["at"] < len(value["targets"]):
            done |= {"at": len(value["targets"]), "link": "", "offset": 0, "truncated": True}
        return done

    async def _written(self, value: Json, lines: list[str]) -> Json:
        if not lines:
            return value
        raw = await asyncio.to_thread(_packed, lines)
        await self._blobs.stage(blob_of(value["id"]), value["blocks"], raw)
        written = value["progress"]["bytesWritten"] + len(raw)
        return value | {"blocks": value["blocks"] + 1, "progress": value["progress"] | {"bytesWritten": written}}

    async def _finished(self, value: Json) -> Json:
        """Puts the file together from its parts; one without messages has an empty part."""
        blob, parts = blob_of(value["id"]), value["blocks"]
        if not parts:
            await self._blobs.stage(blob, 0, _packed([]))
        await self._blobs.commit(blob, max(parts, 1))
        return self._ended(value, COMPLETED)

    async def _line(self, message: Json, tree: Tree, asked: Json, reach: Reach) -> tuple[str, int]:
        """One message as a line of the file, and how many of its attachments are too large to be in it."""
        attachments, left_out, room = [], 0, LARGEST_CONTENTS
        for one in message.get("attachments") or ():
            view = attachment_view(attachment_id(message["id"], one["id"]), one)
            if asked["includeAttachments"]:
                room -= one.get("size") or 0
                content = await self._content(message["id"], one, reach) if room >= 0 else None
                left_out += content is None
                view |= {"content": content} if content is not None else {}
            attachments.append(view)
        view = message_view(message, attachments)
        folder = message.get("parentFolderId") or ""
        if path := tree.path(folder):
            view["path"] = path
        if use := tree.special_use(folder):
            view["messageSpecialUse"] = use
        view["text"] = view["text"] | texts_of(message, asked["textType"], asked["maxBytes"])
        return json.dumps(view, ensure_ascii=False, separators=(",", ":")), left_out

    async def _content(self, message: str, attachment: Json, reach: Reach) -> str | None:
        """The base64 of an attachment; None for one that is too large, gone meanwhile, or has no content."""
        if (attachment.get("size") or 0) > LARGEST_ATTACHMENT:
            return None
        try:
            answer = await self._access.call(
                reach, lambda c: requests.attachment(c, reach.mailbox, message, attachment["id"])
            )
            found = answer.json()
            if str(found.get("@odata.type", "")).endswith("itemAttachment"):
                import base64

                value = await self._access.call(
                    reach, lambda c: requests.attachment_value(c, reach.mailbox, message, attachment["id"])
                )
                return base64.b64encode(value.body).decode()
        except GraphFailure as failure:
            if failure.status not in (404, 405, 410):
                raise
            return None
        content = found.get("contentBytes")
        return content if isinstance(content, str) else None


def folder_of(tree: Tree, asked: str) -> str | None:
    """The folder that a path or a special use (`\\Sent`, `INBOX`) names; "" for the whole mailbox; None for none."""
    if asked.lower() == "\\all":
        return ""
    use = "\\Inbox" if asked.upper() == "INBOX" else asked
    by_role = next((one for one, role in tree.roles.items() if role.lower() == use.lower()), None)
    return by_role or next((one for one in tree.folders if tree.path(one) == asked), None)


def texts_of(message: Json, text_type: str, max_bytes: int) -> Json:
    """The text content that was asked for, each part cut to so many bytes (0: whole), with `hasMore`."""
    kind, content = text_part(message)
    found = {kind: content}
    if kind == "html" and text_type in ("plain", "*"):
        found["plain"] = text_of(content)
    if text_type != "*":
        found = {text_type: found.get(text_type, "")}
    parts = {name: cut(text, max_bytes or None) for name, text in found.items()}
    return {name: text for name, (text, _) in parts.items()} | {"hasMore": any(more for _, more in parts.values())}


def _packed(lines: list[str]) -> bytes:
    text = "".join(f"{line}\n" for line in lines)
    return gzip.compress(text.encode("utf-8", "replace"), 6, mtime=0)
