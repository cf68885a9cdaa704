"""What an answer of the login service means: the table behind authenticationError and connectError.

Refusals need a person or an administrator; outages pass by themselves. They are never confused: a DNS failure
or a 5xx is not an authentication error (emailengine.md 4.1, graph.md 12.7).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared.errors import CredentialError
from shared.oauth_apps import OauthApp

TRANSIENT_CODES = frozenset({50196, 90055, 90033, 90024})
TRANSIENT_ERRORS = frozenset({"temporarily_unavailable", "server_error"})

# Flags the contract derives from the identity platform's answer (4.3).
APP_FLAGS: Mapping[int, str] = {
    7000222: "OUTLOOK_CLIENT_SECRET_EXPIRED_OR_NOT_VALID",
    7000215: "OUTLOOK_CLIENT_SECRET_INVALID",
    700016: "OUTLOOK_APP_ID_INVALID",
}
USER_FLAGS: Mapping[int, str] = {50173: "OUTLOOK_USER_PASSWORD_CHANGED"}

_SIGN_IN = "The user must sign in again: open a new link from POST /v1/authentication/form for this account."
_ADMIN = "An administrator must act in the Microsoft Entra admin center: "
HINTS: Mapping[int, str] = {
    **dict.fromkeys((50173, 700082, 70043, 700084, 70008, 70000, 50133, 50132, 54005, 50055), _SIGN_IN),
    **dict.fromkeys((50078, 50076, 50079, 50072, 50074), _SIGN_IN + " Multi-factor sign-in is asked for."),
    **dict.fromkeys((53003, 53000, 530032, 50131, 50158), _ADMIN + "a Conditional Access policy blocks the app."),
    **dict.fromkeys((65001, 65004), "Consent is missing. " + _SIGN_IN),
    **dict.fromkeys((90094, 90095), _ADMIN + "az ad app permission admin-consent --id <client id> grants the scopes."),
    50057: _ADMIN + "the user is disabled. Update-MgUser -UserId <user> -AccountEnabled:$true",
    50034: _ADMIN + "the user does not exist in this tenant.",
    50053: _ADMIN + "the user is locked.",
    50105: _ADMIN + "the user is not assigned to the app.",
    50020: _ADMIN + "the user belongs to another tenant.",
    7000215: "The client secret is wrong (often the secret's id instead of its value). Use PUT /v1/oauth2/<id>.",
    7000222: "The client secret expired. az ad app credential reset --id <client id>, then PUT /v1/oauth2/<id>.",
    7000218: "The app has no credential. Set clientSecret with PUT /v1/oauth2/<id>.",
    700027: "The certificate is not the one registered for the app.",
    700016: "The client id is not known in this tenant. Check clientId and authority of the OAuth2 app.",
    700213: "No federated credential of the app registration matches the managed identity.",
    70021: "No federated credential of the app registration matches the managed identity.",
    90002: "The tenant in the app's authority does not exist.",
}


def code_of(answer: Mapping[str, Any]) -> int:
    """The AADSTS number, 0 when there is none."""
    codes = answer.get("error_codes") or []
    if codes and str(codes[0]).isdigit():
        return int(codes[0])
    text = str(answer.get("error_description") or "")
    digits = text.partition("AADSTS")[2].partition(":")[0]
    return int(digits) if digits.isdigit() else 0


def unreachable(app: OauthApp, grant: str, problem: Exception) -> CredentialError:
    """The login service did not answer, or with a 5xx. The exception's own text stays out: it may hold URLs."""
    response = f"The login service {app.hosts.login} could not be reached ({type(problem).__name__})"
    return CredentialError(
        response,
        transient=True,
        last_error={"response": response, "serverResponseCode": "TokenGenerationError", **_request(app, grant)},
    )


def refused(app: OauthApp, grant: str, answer: Mapping[str, Any]) -> CredentialError:
    """The login service answered with an error object."""
    code, error = code_of(answer), str(answer.get("error") or "unknown_error")
    first_line = str(answer.get("error_description") or "").splitlines() or [""]
    text = first_line[0].split(" Trace ID:")[0]
    response = f"Token request failed for {app.provider} ({grant}, HTTP 400): {error} - {text}"
    renewal = "OauthRenewError" if grant == "refresh_token" else "TokenGenerationError"
    last_error: dict[str, Any] = {"response": response, "serverResponseCode": renewal}
    if hint := HINTS.get(code):
        last_error["description"] = hint
    shown = {"error": error, "error_codes": [code] if code else []}
    last_error |= _request(app, grant, status=401 if error == "invalid_client" else 400, response=shown)
    if flag := USER_FLAGS.get(code) or APP_FLAGS.get(code):
        last_error["tokenRequest"]["userFlag"] = {"code": flag, "message": hint or text}
    transient = code in TRANSIENT_CODES or error in TRANSIENT_ERRORS
    return CredentialError(response, transient=transient, last_error=last_error)


def missing(response: str) -> CredentialError:
    """There is nothing to ask for a token with."""
    return CredentialError(
        response,
        transient=False,
        last_error={"response": response, "serverResponseCode": "TokenGenerationError", "description": _SIGN_IN},
    )


def unreadable(problem: str, first: str = "") -> CredentialError:
    """What is stored to ask for a token with can not be opened; `first` is what to try before a new sign-in."""
    response = f"The stored credentials can not be opened: {problem}"
    last_error = {"response": response, "serverResponseCode": "TokenGenerationError", "description": first + _SIGN_IN}
    return CredentialError(response, transient=False, last_error=last_error)


def app_broken(app: OauthApp, grant: str) -> CredentialError:
    """The app's secret can not be opened, so the login service need not be asked."""
    response, _, fix = app.broken.partition(". ")
    last_error = {"response": response, "serverResponseCode": "TokenGenerationError", "description": fix}
    return CredentialError(response, transient=False, last_error=last_error | _request(app, grant))


def contended() -> CredentialError:
    """Others wrote to the record at every look; it passes by itself."""
    response = "The token is being renewed by another process"
    return CredentialError(
        response, transient=True, last_error={"response": response, "serverResponseCode": "TokenGenerationError"}
    )


def _request(app: OauthApp, grant: str, **outcome: Any) -> dict[str, Any]:
    return {
        "tokenRequest": {
            "url": f"{app.hosts.login}/{app.authority}/oauth2/v2.0/token",
            "method": "post",
            "grant": grant,
            "provider": app.provider,
            "clientId": app.client_id,
            "authority": app.authority,
            **outcome,
        }
    }
