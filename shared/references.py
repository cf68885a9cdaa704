"""Answers: a new mail takes over from the message it refers to what the action asks for (emailengine.md 14.4)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from shared.access import Access
from shared.accounts import Accounts, Reach, Record, auth_of
from shared.answering import recipients_of, subject_of, threading_of
from shared.attachments import attachment_id
from shared.errors import ApiError, CredentialError, GraphFailure, NotFound
from shared.graph import requests
from shared.graph.failures import is_transient
from shared.html_tags import attributes, tags
from shared.messages import text_part
from shared.quoting import quoted
from shared.service_settings import ServiceSettings

PAUSES_S = (1.0, 2.0)  # before the second and the third try
MOST_PAGES = 10
NOT_FOUND = "Referenced message was not found"
_NOT_THERE = frozenset({400, 404, 405})  # a broken id, gone (graph.md 9.1)

_NO_IDS = (".", "..")  # in an address they lead to something else than a message


@dataclass(frozen=True)
class Continued:
    """A new mail's fields with what the reference brought, and what the answer says of it: None without one."""

    fields: dict[str, Any]
    shown: dict[str, Any] | None = None


class Originals:
    """Fetches the messages that new ones refer to."""

    def __init__(
        self,
        accounts: Accounts,
        access: Access,
        settings: ServiceSettings,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._accounts, self._access, self._settings, self.sleep = accounts, access, settings, sleep

    async def continued(self, record: Record, fields: dict[str, Any], *, code: str = "ReferenceNotFound") -> Continued:
        """The fields of a new mail with `reference` worked in: recipients, subject, quoted texts, attachments (by
        reference, still to be fetched), and `threading`, which the builders of mails write as headers.

        One Graph call; one more to find the newest message of a thread, and one where attachments come along. Raises
        NotFound with `code`, and with MessageNotFound for another Message-ID than expected; StateRefuses,
        CredentialError and GraphFailure when the mailbox is out of reach. With `ignoreMissing` only the second.
        """
        reference = fields.get("reference")
        if not reference:
            return Continued(fields)
        try:
            original, attached = await self._fetched(record["account"], reference)
        except (ApiError, GraphFailure, CredentialError) as problem:
            if not reference.get("ignoreMissing"):
                raise _refusal(problem, code) from None
            return Continued(_without(fields), _missing(reference, problem))
        expected = (reference.get("messageId") or "").strip().strip("<>")
        if expected and expected != str(original.get("internetMessageId") or "").strip("<>"):
            text = "The referenced message was found, but its Message-ID does not match the expected value"
            raise NotFound(text, "MessageNotFound")
        return Continued(await self._worked_in(record, fields, original, attached), _found(original))

    # -- fetching ------------------------------------------------------------------------------------------

    async def _fetched(self, account: str, reference: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The original, and of its attachments those that come along."""
        _, reach = await self._accounts.usable(account)
        message = reference.get("message") or await self._newest(reach, reference["threadId"])
        if message in _NO_IDS:
            raise NotFound(NOT_FOUND)
        original: dict[str, Any] = await self._read(reach, lambda c: requests.message(c, reach.mailbox, message))
        pictures = _pictures(original) if reference.get("inline") else set()
        forwards = reference.get("action") == "forward" and reference.get("forwardAttachments")
        if not pictures and not (forwards and _may_have_files(original)):
            return original, []
        listed = await self._read(reach, lambda c: requests.attachments(c, reach.mailbox, original["id"]))
        found = [one for one in listed.get("value", ()) if not _is_link(one)]
        return original, [one for one in found if forwards or _cid(one) in pictures]

    async def _newest(self, reach: Reach, thread: str) -> str:
        """The id of the newest message of a thread that was sent or received."""
        link, found = "", [("", "")]
        for _ in range(MOST_PAGES):
            page = await self._read(reach, lambda c: requests.in_thread(c, reach.mailbox, thread), link)
            for one in page.get("value", ()):
                if not one.get("isDraft"):
                    found.append((one.get("receivedDateTime") or "", one["id"]))
            link = page.get("@odata.nextLink") or ""
            if not link:
                break
        newest = max(found)[1]
        if not newest:
            raise NotFound(NOT_FOUND)
        return newest

    async def _read(self, reach: Reach, build: Callable[[Any], Any], link: str = "") -> dict[str, Any]:
        """The answer to a reading call; transient failures are tried again twice."""
        graph = self._access.graph(reach)
        for pause_s in (*PAUSES_S, 0.0):
            try:
                answer = await self._access.call(reach, (lambda _: graph.follow(link)) if link else build)
            except GraphFailure as failure:
                if not is_transient(failure) or not pause_s:
                    raise
                await self.sleep(pause_s)
            else:
                shown: dict[str, Any] = answer.json()
                return shown
        raise AssertionError("the last try raises")

    # -- working in ----------------------------------------------------------------------------------------

    async def _worked_in(
        self, record: Record, fields: dict[str, Any], original: dict[str, Any], attached: list[dict[str, Any]]
    ) -> dict[str, Any]:
        reference = fields["reference"]
        action, auth = reference.get("action") or "reply", auth_of(record)
        own = [(fields.get("from") or {}).get("address"), record.get("email"), auth.get("delegatedUser")]
        own.append(auth.get("user") if not auth.get("delegatedUser") else None)
        new = _without(fields) | recipients_of(action, original, fields, filter(None, own))
        new["threading"] = threading_of(action, original)
        if not fields.get("subject"):
            new["subject"] = subject_of(action, original)
        if reference.get("inline"):
            settings = await self._settings.all()
            locale = fields.get("locale") or record.get("locale") or settings.get("locale")
            tz = fields.get("tz") or record.get("tz") or settings.get("timezone")
            new |= quoted(fields, original, forward=action == "forward", locale=locale, tz=tz)
        taken = {(one.get("cid") or "").strip("<>") for one in fields.get("attachments") or ()} - {""}
        shown = _pictures(original) if reference.get("inline") and new.get("html") else set()
        more = [_again(original["id"], one, shown) for one in attached if _cid(one) not in taken]
        if more:
            new["attachments"] = [*(fields.get("attachments") or ()), *more]
        return new


def _without(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "reference"}


def _refusal(problem: Exception, code: str) -> Exception:
    """What the caller is told."""
    missing = isinstance(problem, GraphFailure) and problem.status in _NOT_THERE
    if missing or (isinstance(problem, NotFound) and problem.message == NOT_FOUND):
        return NotFound(NOT_FOUND, code)
    return problem


def _found(original: dict[str, Any]) -> dict[str, Any]:
    """`reference` of the answer (14.2)."""
    shown = {"message": original["id"], "documentStore": False, "success": True}
    return shown | ({"threadId": original["conversationId"]} if original.get("conversationId") else {})


def _missing(reference: dict[str, Any], problem: Exception) -> dict[str, Any]:
    refusal = _refusal(problem, "")
    text = refusal.message if isinstance(refusal, ApiError) else NOT_FOUND
    named = {name: reference[name] for name in ("message", "threadId") if reference.get(name)}
    return named | {"documentStore": False, "success": False, "error": text}


def _may_have_files(original: dict[str, Any]) -> bool:
    """`hasAttachments` does not count inline ones (graph.md 3.1)."""
    return bool(original.get("hasAttachments")) or "cid:" in text_part(original)[1]


def _pictures(original: dict[str, Any]) -> set[str]:
    """The cids that the original's HTML shows."""
    kind, content = text_part(original)
    if kind != "html" or "cid:" not in content:
        return set()
    values = (one.value for tag in tags(content) if tag.name for one in attributes(content, tag))
    return {value[4:].strip("<>") for value in values if value[:4].lower() == "cid:"}


def _cid(attachment: dict[str, Any]) -> str:
    return str(attachment.get("contentId") or "").strip("<>")


def _is_link(attachment: dict[str, Any]) -> bool:
    """A file elsewhere, which has no content to attach again (graph.md 7.1)."""
    return str(attachment.get("@odata.type", "")).endswith("referenceAttachment")


def _again(message: str, attachment: dict[str, Any], shown: set[str]) -> dict[str, Any]:
    """An attachment of a stored message as a submit names it: inline where the new HTML shows it."""
    again = {"reference": attachment_id(message, attachment["id"]), "contentDisposition": "attachment"}
    return again | ({"cid": _cid(attachment), "contentDisposition": "inline"} if _cid(attachment) in shown else {})
