"""The error tree. Each error knows its HTTP answer, so that no layer above has to guess.

Every answer has the contract's envelope `{statusCode, error, message}`, most a `code`, and extra fields where
the contract names them. docs/errors.md lists the codes with what to do about each.

    ApiError                      anything a caller is told about
      InvalidInput          400   validation, names every wrong field
      Unauthorized          401   no token, bad token
      Forbidden             403   token lacks a scope, permission, account, address
      NotFound              404
      StateRefuses          503   the account's state does not allow mail operations
      OutcomeOpen           503   storage failed when asked whether the request was accepted
    DelegationError               a chain that does not end at a credential holder
    CredentialError               no usable token; `transient` tells an outage from a refusal
    GraphFailure                  Microsoft Graph answered with an error, or not at all
    StorageConflict               somebody else changed the record first
    RecordTooLarge                a record over what Table Storage holds
    RecordDamaged                 a record whose bytes are not those that were written
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any


class ApiError(Exception):
    """An answer other than 200, in the contract's envelope."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        headers: dict[str, str] | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code
        self.headers, self.fields = headers or {}, fields

    def envelope(self) -> dict[str, Any]:
        """The JSON body of the answer (emailengine.md 1.3)."""
        body: dict[str, Any] = {
            "statusCode": self.status,
            "error": HTTPStatus(self.status).phrase,
            "message": self.message,
        }
        if self.code:
            body["code"] = self.code
        return body | self.fields


class InvalidInput(ApiError):
    """400 with one `{message, key}` per wrong field."""

    def __init__(self, fields: list[dict[str, str]]) -> None:
        super().__init__(400, "Invalid input", fields=fields)

    @classmethod
    def field(cls, key: str, message: str) -> InvalidInput:
        """One wrong field. `message` is a whole sentence that says what to do instead."""
        return cls([{"message": message, "key": key}])


class NotFound(ApiError):
    """404."""

    def __init__(self, message: str, code: str | None = None, **fields: Any) -> None:
        super().__init__(404, message, code, **fields)


def account_not_found() -> NotFound:
    return NotFound("Account record was not found for requested ID")


class Unauthorized(ApiError):
    """401 with the contract's WWW-Authenticate header."""

    def __init__(self, message: str) -> None:
        challenge = "Bearer" if message == "Missing authentication" else f'Bearer error="{message}"'
        super().__init__(401, message, headers={"WWW-Authenticate": challenge})


class Forbidden(ApiError):
    """403 of the access checks."""

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(403, message, **fields)


_STATE_ANSWERS = {
    "init": ("Requested account is not yet initialized", "NotYetConnected"),
    "authenticationError": ("Requested account can not be authenticated", "AuthenticationFails"),
    "connectError": ("Can not establish server connection for requested account", "ConnectionError"),
    "unset": ("Syncing is disabled for the requested account", "NotSyncing"),
}


class StateRefuses(ApiError):
    """503: the account's state does not allow mail operations (emailengine.md 4.1)."""

    def __init__(self, state: str) -> None:
        message, code = _STATE_ANSWERS.get(state, ("Requested account currently not available", "NoAvailable"))
        super().__init__(503, message, code, state=state)


class OutcomeOpen(ApiError):
    """503: storage failed, and could not even tell whether the mail was accepted."""

    def __init__(self) -> None:
        message = "The storage is not available. It is not known whether the mail was accepted"
        super().__init__(503, message, "StorageUnavailable", {"Retry-After": "5"})


class DelegationError(Exception):
    """The delegation chain does not end at an account with credentials. The text is the contract's (5.2)."""


class CredentialError(Exception):
    """No access token for this credential holder.

    `transient` separates "the login service is unreachable" (connectError) from "the login service refused"
    (authenticationError); the two are never mixed up. `last_error` is the record the contract shows (4.3).
    """

    def __init__(self, response: str, *, transient: bool, last_error: dict[str, Any]) -> None:
        super().__init__(response)
        self.transient, self.last_error = transient, last_error


class GraphFailure(Exception):
    """Microsoft Graph refused, failed, or did not answer.

    `status` is Graph's status, 0 when there was no answer. `may_have_acted` is true when the request may have
    been carried out all the same (a time-out, a dropped connection or a 5xx after a write).
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        may_have_acted: bool = False,
        retry_after_s: float | None = None,
        request_id: str = "",
        date: str = "",
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.status, self.code, self.message = status, code, message
        self.may_have_acted, self.retry_after_s, self.request_id = may_have_acted, retry_after_s, request_id
        self.date = date  # Graph's own time of the answer, as its Date header writes it; "" when unknown


class StorageConflict(Exception):
    """The record changed, appeared or vanished between read and write."""


class RecordTooLarge(Exception):
    """A record over what one table entity holds."""


class RecordDamaged(Exception):
    """A stored record is not as it was written. Its keys stay out of the text: they may hold addresses."""

    def __init__(self, table: str) -> None:
        super().__init__(f"a record of the table {table} is damaged")
        self.table = table
