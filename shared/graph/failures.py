"""What Graph's errors mean: which layer refused, what to say about it, and which command fixes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.errors import ApiError, GraphFailure


@dataclass(frozen=True)
class Meaning:
    """One row of the table. `hint` may name {mailbox} and {delegate}."""

    code: str
    status: int
    hint: str = ""


FULL_ACCESS = (
    "{delegate} lacks Full Access to {mailbox}, or the address is not a mailbox. Run: Add-MailboxPermission "
    "-Identity {mailbox} -User {delegate} -AccessRights FullAccess -InheritanceType All -AutoMapping $false "
    "(takes effect within about two hours)"
)
SEND_RIGHT = (
    "{delegate} has neither Send As nor Send on Behalf for {mailbox}. Run: Add-RecipientPermission -Identity "
    "{mailbox} -Trustee {delegate} -AccessRights SendAs -Confirm:$false  or: Set-Mailbox -Identity {mailbox} "
    '-GrantSendOnBehalfTo @{{Add="{delegate}"}} (takes effect within about two hours)'
)
SCOPE = (
    "The sign-in of {delegate} lacks a scope such as Mail.ReadWrite.Shared or Mail.Send.Shared, or an access "
    "policy blocks the app. Add the scopes to the OAuth2 app (extraScopes), then let {delegate} sign in again"
)

# graph.md 9.1 to the contract's codes (emailengine.md 22)
MEANINGS: Mapping[str, Meaning] = {
    # Asked for a message: it is gone. Asked for a mailbox (a probe, a send; only these show hints): no Full Access.
    "ErrorItemNotFound": Meaning("MessageNotFound", 404, FULL_ACCESS),
    "ErrorInvalidIdMalformed": Meaning("InvalidMessageId", 400),
    "ErrorExecuteSearchStaleData": Meaning("SearchCursorExpired", 400, "Start the search again."),
    "ErrorAccessDenied": Meaning("AccessDenied", 403, f"{SCOPE}. Or: {FULL_ACCESS}"),
    "ErrorSendAsDenied": Meaning("SendAsDenied", 403, SEND_RIGHT),
    "ErrorInvalidRecipients": Meaning("InvalidRecipients", 400, "Give at least one valid recipient address."),
    "ErrorMessageSizeExceeded": Meaning("MessageTooLarge", 413),
    "RequestEntityTooLarge": Meaning("MessageTooLarge", 413),
    "ErrorQuotaExceeded": Meaning("QuotaExceeded", 429, "The mailbox {mailbox} is full."),
    "ErrorMailboxNotEnabledForRESTAPI": Meaning("MailboxNotEnabled", 403, "{mailbox} has no Exchange Online mailbox."),
    "MailboxNotEnabledForRESTAPI": Meaning("MailboxNotEnabled", 403, "{mailbox} has no Exchange Online mailbox."),
    "ErrorNonExistentMailbox": Meaning("MailboxNotEnabled", 403, "{mailbox} has no Exchange Online mailbox."),
    "ErrorInvalidUser": Meaning(
        "MailboxNotFound",
        404,
        "{mailbox} is not a principal name, object id or primary address. Run: Get-User {mailbox} | Format-List "
        "UserPrincipalName, ExternalDirectoryObjectId",
    ),
    "Request_ResourceNotFound": Meaning("MailboxNotFound", 404, "The directory does not know {mailbox}."),
    "Authorization_RequestDenied": Meaning(
        "AccessDenied", 403, "Add the scope User.ReadBasic.All to the OAuth2 app and sign in again."
    ),
}


def from_answer(status: int, headers: Mapping[str, str], body: bytes, *, was_write: bool) -> GraphFailure:
    """The failure behind an answer of Graph with an error status."""
    code, message = "", ""
    try:
        error = json.loads(body)["error"]
        code, message = str(error.get("code") or ""), str(error.get("message") or "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        message = f"HTTP {status} without a readable error"  # a gateway's own page
    return GraphFailure(
        status,
        code or f"HTTP{status}",
        message,
        # An answer of 500 and above to a write may come after the work was done (graph.md 6.5). With Retry-After
        # it comes from the throttling in front of the mailbox, which turned the request away (graph.md 11).
        may_have_acted=was_write and status >= 500 and not (status == 503 and retry_after_s(headers) is not None),
        retry_after_s=retry_after_s(headers),
        request_id=headers.get("request-id", ""),
        date=headers.get("date", ""),
    )


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait; fractions are seen in the field, absence too (graph.md 11)."""
    try:
        wait = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return wait if 0 <= wait < 86400 else None


def is_throttled(failure: GraphFailure) -> bool:
    """True when the request was turned away unseen because there were too many (graph.md 11)."""
    return failure.status == 429 or (failure.status == 503 and failure.retry_after_s is not None)


def is_transient(failure: GraphFailure) -> bool:
    """True when the same request may succeed later without anybody acting."""
    return failure.status in (0, 408, 425, 429) or failure.status >= 500


def hint(failure: GraphFailure, mailbox: str, delegate: str) -> str:
    """What to do about it, with the command where one fixes it; "" when nothing special is known."""
    meaning = MEANINGS.get(failure.code)
    return meaning.hint.format(mailbox=mailbox, delegate=delegate) if meaning else ""


def to_api(failure: GraphFailure) -> ApiError:
    """The answer for a caller who waits (emailengine.md 22)."""
    response: dict[str, Any] = {"info": {"response": failure.message}}
    if failure.status == 0:
        return ApiError(503, "Microsoft Graph could not be reached", "ConnectionError", **response)
    if failure.status == 429:
        headers = {"Retry-After": str(int((failure.retry_after_s or 10) + 0.999))}
        return ApiError(429, "Microsoft Graph throttles this mailbox", "Throttled", headers, **response)
    if failure.status >= 500:
        return ApiError(503, "Microsoft Graph is not available", "ConnectionError", **response)
    if failure.status == 401:
        return ApiError(503, "Requested account can not be authenticated", "AuthenticationFails", **response)
    meaning = MEANINGS.get(failure.code)
    if meaning:
        return ApiError(meaning.status, failure.message, meaning.code, **response)
    return ApiError(failure.status, failure.message, failure.code, **response)
