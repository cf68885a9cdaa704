"""What each answer of the login service means, row by row."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from shared import login_failures
from shared.login_failures import HINTS, TRANSIENT_CODES, code_of, missing, refused, unreachable
from shared.oauth_apps import OauthApp

APP = OauthApp(
    id="app", name="Contoso", provider="outlook", client_id="client-id", secret="client-secret", authority="common"
)
SIGN_IN, ADMIN = "The user must sign in again", "An administrator must act"


def answer(code: int, error: str = "invalid_grant", text: str = "Some text.") -> dict[str, Any]:
    description = f"AADSTS{code}: {text} Trace ID: 3f Correlation ID: 5a Timestamp: 2026-11-20 07:45:00Z"
    return {"error": error, "error_codes": [code], "error_description": description}


ROWS = [
    *[(code, SIGN_IN) for code in (50173, 700082, 70043, 700084, 70008, 70000, 50133, 50132, 50055, 54005)],
    *[(code, "Multi-factor") for code in (50078, 50076, 50079, 50072, 50074)],
    *[(code, "Conditional Access") for code in (53003, 53000, 530032, 50131, 50158)],
    *[(code, "Consent is missing") for code in (65001, 65004)],
    *[(code, "admin-consent") for code in (90094, 90095)],
    (50057, "Update-MgUser"),
    (50034, ADMIN),
    (50053, "locked"),
    (50105, "not assigned"),
    (50020, "another tenant"),
    (7000215, "secret's id instead of its value"),
    (7000222, "az ad app credential reset"),
    (7000218, "clientSecret"),
    (700027, "certificate"),
    (700016, "clientId"),
    (700213, "federated credential"),
    (70021, "federated credential"),
    (90002, "tenant"),
]


@pytest.mark.parametrize(("code", "hint"), ROWS)
def test_every_refusal_says_what_to_do(code: int, hint: str) -> None:
    """A refusal is no outage, keeps Microsoft's text without its trace, and names the fix."""
    failure = refused(APP, "refresh_token", answer(code))
    assert not failure.transient
    assert hint in failure.last_error["description"]
    expected = "Token request failed for outlook (refresh_token, HTTP 400): invalid_grant - "
    assert str(failure) == failure.last_error["response"] == f"{expected}AADSTS{code}: Some text."
    assert failure.last_error["serverResponseCode"] == "OauthRenewError"


def test_every_hint_has_its_row() -> None:
    """No hint is left unchecked."""
    assert {code for code, _ in ROWS} == set(HINTS)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        *[(code, "invalid_grant") for code in sorted(TRANSIENT_CODES)],
        (0, "temporarily_unavailable"),
        (90024, "temporarily_unavailable"),
        (0, "server_error"),
    ],
)
def test_wait_and_retry_is_an_outage(code: int, error: str) -> None:
    """Throttling and transient errors of the login service are connectErrors."""
    assert refused(APP, "refresh_token", answer(code, error)).transient


@pytest.mark.parametrize(
    ("grant", "renewal"),
    [
        ("refresh_token", "OauthRenewError"),
        ("authorization_code", "TokenGenerationError"),
        ("client_credentials", "TokenGenerationError"),
    ],
)
def test_a_failed_renewal_is_told_from_a_failed_first_token(grant: str, renewal: str) -> None:
    """Only a refresh token can fail to renew."""
    assert refused(APP, grant, answer(50173)).last_error["serverResponseCode"] == renewal


@pytest.mark.parametrize(
    ("code", "flag"),
    [
        (7000222, "OUTLOOK_CLIENT_SECRET_EXPIRED_OR_NOT_VALID"),
        (7000215, "OUTLOOK_CLIENT_SECRET_INVALID"),
        (700016, "OUTLOOK_APP_ID_INVALID"),
        (50173, "OUTLOOK_USER_PASSWORD_CHANGED"),
    ],
)
def test_the_flags_of_the_contract(code: int, flag: str) -> None:
    """Four answers carry a flag with the message to show."""
    request = refused(APP, "refresh_token", answer(code)).last_error["tokenRequest"]
    assert request["userFlag"] == {"code": flag, "message": HINTS[code]}


def test_other_answers_carry_no_flag() -> None:
    """A refusal without a flag of its own has none."""
    assert "userFlag" not in refused(APP, "refresh_token", answer(53003)).last_error["tokenRequest"]


@pytest.mark.parametrize(("error", "status"), [("invalid_client", 401), ("invalid_grant", 400)])
def test_the_token_request_is_described_without_secrets(error: str, status: int) -> None:
    """The request's address, grant, app and answer are there; the secret is not, nor are trace ids."""
    failure = refused(APP, "refresh_token", answer(7000215, error))
    request = failure.last_error["tokenRequest"]
    assert request["url"] == "https://login.microsoftonline.com/common/oauth2/v2.0/token"
    assert (request["method"], request["grant"], request["provider"]) == ("post", "refresh_token", "outlook")
    assert (request["clientId"], request["authority"], request["status"]) == ("client-id", "common", status)
    assert request["response"] == {"error": error, "error_codes": [7000215]}
    assert "client-secret" not in str(failure.last_error)
    assert "Trace" not in str(failure.last_error)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({}, 0),
        ({"error_codes": []}, 0),
        ({"error_codes": None, "error_description": None}, 0),
        ({"error_codes": [50076, 1]}, 50076),
        ({"error_codes": ["700016"]}, 700016),
        ({"error_codes": ["x"], "error_description": "AADSTS53003: Blocked"}, 53003),
        ({"error_description": "AADSTS: nothing"}, 0),
        ({"error_description": "no number"}, 0),
    ],
)
def test_the_number_is_found_wherever_it_is(given: dict[str, Any], code: int) -> None:
    """The list of codes comes first, then the text; an answer without a number has 0."""
    assert code_of(given) == code


def test_an_unknown_refusal_is_still_shown() -> None:
    """An answer nobody knows is a refusal with its own words and no invented advice."""
    failure = refused(APP, "refresh_token", {"error": "odd", "error_description": "First\nSecond"})
    assert str(failure).endswith("odd - First")
    assert "description" not in failure.last_error
    assert not failure.transient
    empty = refused(APP, "refresh_token", {"error": None})
    assert str(empty).endswith("unknown_error - ")


def test_an_unreachable_service_is_an_outage_without_details() -> None:
    """The exception's own text, which may hold addresses with secrets, stays out."""
    failure = unreachable(APP, "refresh_token", requests.ConnectionError("https://user:secret@proxy.example"))
    assert failure.transient
    assert "proxy.example" not in str(failure.last_error)
    assert str(failure) == "The login service https://login.microsoftonline.com could not be reached (ConnectionError)"
    assert failure.last_error["serverResponseCode"] == "TokenGenerationError"


def test_missing_credentials_ask_for_a_sign_in() -> None:
    """Without anything to ask with, the person has to sign in."""
    failure = missing("Nothing there")
    assert (str(failure), failure.transient) == ("Nothing there", False)
    assert failure.last_error["description"].startswith(SIGN_IN)


def test_no_flag_is_both_a_users_and_an_apps() -> None:
    """User level and application level are kept apart."""
    assert not set(login_failures.APP_FLAGS) & set(login_failures.USER_FLAGS)
