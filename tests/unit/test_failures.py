"""What Graph's errors mean, row by row."""

import json

import pytest

from shared.errors import GraphFailure
from shared.graph.failures import MEANINGS, from_answer, hint, is_transient, retry_after_s, to_api

BOX, ANN = "support@contoso.example", "ann@contoso.example"


def failure(status: int, code: str = "", message: str = "m", **more: object) -> GraphFailure:
    """A failure as `from_answer` makes it."""
    body = json.dumps({"error": {"code": code, "message": message}}).encode() if code else b""
    return from_answer(status, {"request-id": "r", **{k: str(v) for k, v in more.items()}}, body, was_write=True)


@pytest.mark.parametrize(
    ("graph_status", "graph_code", "status", "code"),
    [
        (404, "ErrorItemNotFound", 404, "MessageNotFound"),
        (403, "ErrorAccessDenied", 403, "AccessDenied"),
        (403, "ErrorSendAsDenied", 403, "SendAsDenied"),
        (400, "ErrorInvalidRecipients", 400, "InvalidRecipients"),
        (413, "ErrorMessageSizeExceeded", 413, "MessageTooLarge"),
        (413, "RequestEntityTooLarge", 413, "MessageTooLarge"),
        (403, "ErrorQuotaExceeded", 429, "QuotaExceeded"),
        (404, "ErrorMailboxNotEnabledForRESTAPI", 403, "MailboxNotEnabled"),
        (404, "MailboxNotEnabledForRESTAPI", 403, "MailboxNotEnabled"),
        (404, "ErrorNonExistentMailbox", 403, "MailboxNotEnabled"),
        (404, "ErrorInvalidUser", 404, "MailboxNotFound"),
        (404, "Request_ResourceNotFound", 404, "MailboxNotFound"),
        (403, "Authorization_RequestDenied", 403, "AccessDenied"),
        (409, "ErrorFolderExists", 409, "ErrorFolderExists"),
        (401, "InvalidAuthenticationToken", 503, "AuthenticationFails"),
        (429, "ApplicationThrottled", 429, "Throttled"),
        (500, "ErrorInternalServerError", 503, "ConnectionError"),
        (503, "ErrorServerBusy", 503, "ConnectionError"),
        (504, "", 503, "ConnectionError"),
    ],
)
def test_every_error_of_graph_has_its_answer(graph_status: int, graph_code: str, status: int, code: str) -> None:
    """Status and code of the contract, and Graph's own words in `info`."""
    answer = to_api(failure(graph_status, graph_code, "words of Graph"))
    assert (answer.status, answer.code) == (status, code)
    if graph_code:
        assert answer.envelope()["info"]["response"] == "words of Graph"


def test_no_answer_at_all_is_a_connection_error() -> None:
    """503, as for any other trouble on the way."""
    answer = to_api(GraphFailure(0, "NoAnswer", "ReadTimeout"))
    assert (answer.status, answer.code) == (503, "ConnectionError")


def test_throttling_is_passed_on_with_whole_seconds() -> None:
    """A fraction is rounded up, absence becomes a moderate wait."""
    assert to_api(failure(429, "TooManyRequests", **{"retry-after": "2.128"})).headers == {"Retry-After": "3"}
    assert to_api(failure(429, "TooManyRequests")).headers == {"Retry-After": "10"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2", 2), ("2.128", 2.128), ("0", 0), (" 7 ", 7), ("", None), ("soon", None), ("-1", None), ("nan", None),
     ("inf", None), ("1e99", None), ("Fri, 31 Dec 2027 23:59:59 GMT", None)],
)  # fmt: skip
def test_retry_after_is_read_whatever_form_it_has(text: str, seconds: float | None) -> None:
    """Whole and fractional seconds count, anything else is no advice."""
    assert retry_after_s({"retry-after": text}) == seconds
    assert retry_after_s({}) is None


@pytest.mark.parametrize(
    "body",
    [b"", b"<html><body><h1>504 Gateway Time-out</h1></body></html>", b"null", b"[]", b'"x"', b'{"error": null}',
     b'{"error": "text"}', b'{"error": []}', b"\xff\xfe", b'{"error": {"code": null, "message": 5}}', b"[" * 50_000],
    ids=range(11),
)  # fmt: skip
def test_a_gateways_own_page_is_a_failure_like_any_other(body: bytes) -> None:
    """No body makes the reading of a failure fail; the status is kept."""
    found = from_answer(504, {}, body, was_write=True)
    assert (found.status, found.may_have_acted) == (504, True)
    assert found.code


@pytest.mark.parametrize(
    ("status", "retry_after", "was_write", "unclear"),
    [
        (500, None, True, True),
        (502, None, True, True),
        (504, "1", True, True),
        (503, None, True, True),
        (503, "1.5", True, False),
        (429, None, True, False),
        (403, None, True, False),
        (500, None, False, False),
        (504, None, False, False),
    ],
)
def test_only_a_write_with_a_server_error_may_have_been_done(
    status: int, retry_after: str | None, was_write: bool, unclear: bool
) -> None:
    """Throttling (with its Retry-After) and refusals come before the work."""
    headers = {"retry-after": retry_after} if retry_after else {}
    assert from_answer(status, headers, b"", was_write=was_write).may_have_acted is unclear


@pytest.mark.parametrize(
    ("status", "passes"),
    [(0, True), (408, True), (425, True), (429, True), (500, True), (503, True), (400, False), (401, False),
     (403, False), (404, False), (413, False)],
)  # fmt: skip
def test_what_may_pass_by_itself_is_told_apart(status: int, passes: bool) -> None:
    """Retrying helps only where nobody has to act."""
    assert is_transient(GraphFailure(status, "c", "m")) is passes


@pytest.mark.parametrize(
    ("code", "command"),
    [
        ("ErrorItemNotFound", f"Add-MailboxPermission -Identity {BOX} -User {ANN} -AccessRights FullAccess"),
        ("ErrorSendAsDenied", f"Add-RecipientPermission -Identity {BOX} -Trustee {ANN} -AccessRights SendAs"),
        ("ErrorSendAsDenied", f'Set-Mailbox -Identity {BOX} -GrantSendOnBehalfTo @{{Add="{ANN}"}}'),
        ("ErrorAccessDenied", "Mail.Send.Shared"),
        ("ErrorAccessDenied", "Add-MailboxPermission"),
        ("ErrorInvalidUser", f"Get-User {BOX}"),
    ],
)
def test_a_missing_right_comes_with_its_command(code: str, command: str) -> None:
    """Ready to paste, with the mailbox and the person filled in."""
    assert command in hint(failure(403, code), BOX, ANN)


def test_every_hint_can_be_filled_in() -> None:
    """No row names anything but mailbox and delegate."""
    for code in MEANINGS:
        hint(failure(400, code), BOX, ANN)
    assert hint(failure(400, "NobodyKnows"), BOX, ANN) == ""
