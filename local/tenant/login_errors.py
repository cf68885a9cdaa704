"""Errors of the login service: AADSTS numbers, their `error` words and texts, the JSON of graph.md 12.7."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from .world import World


@dataclass(frozen=True)
class Known:
    """What goes with an AADSTS number: the `error` word programs react to, the text, perhaps a suberror."""

    error: str
    text: str
    suberror: str | None = None


# Numbers and meaning: graph.md 12.7 [D]. The texts are paraphrased where that file does not quote them; the
# pairing of number and `error` is [P] where 12.2/12.7 do not state it.
KNOWN: dict[int, Known] = {
    50011: Known(
        "invalid_request",
        "The redirect URI specified in the request does not match the redirect URIs "
        "configured for the application.",
    ),
    50020: Known("invalid_grant", "User account from another tenant does not exist in this tenant."),
    50034: Known("invalid_grant", "The user account does not exist in the directory."),
    50053: Known("invalid_grant", "The account is locked."),
    50055: Known("invalid_grant", "The password is expired.", "user_password_expired"),
    50057: Known("invalid_grant", "The user account is disabled."),
    50058: Known("login_required", "A silent sign-in request was sent but no user is signed in."),
    50072: Known("invalid_grant", "The user must enrol in multi-factor authentication.", "basic_action"),
    50074: Known("invalid_grant", "Strong authentication is required.", "basic_action"),
    50076: Known(
        "invalid_grant", "You must use multi-factor authentication to access the resource.", "basic_action"
    ),
    50078: Known("invalid_grant", "Multi-factor authentication has expired.", "basic_action"),
    50079: Known("invalid_grant", "The user must enrol in multi-factor authentication.", "basic_action"),
    50105: Known("invalid_grant", "The signed in user is not assigned to a role for the application."),
    50131: Known("invalid_grant", "Access was refused by a conditional access policy."),
    50132: Known("invalid_grant", "The session is not valid.", "bad_token"),
    50133: Known("invalid_grant", "The session is not valid because the password changed.", "bad_token"),
    50158: Known("invalid_grant", "An external security challenge was not satisfied.", "basic_action"),
    50173: Known(
        "invalid_grant",
        "The provided grant has expired due to it being revoked, a fresh auth token is "
        "needed. The user might have changed or reset their password.",
        "bad_token",
    ),
    50194: Known(
        "invalid_request",
        "The application is not configured as a multi-tenant application. Usage of the "
        "/common endpoint is not supported for it.",
    ),
    50196: Known(
        "invalid_grant", "The server terminated an operation because it encountered a client request loop."
    ),
    53000: Known("invalid_grant", "Device is not in required device state: compliant.", "message_only"),
    53003: Known("invalid_grant", "Access has been blocked by Conditional Access policies.", "message_only"),
    54005: Known(
        "invalid_grant",
        "OAuth2 Authorization code was already redeemed, please retry with a new valid code "
        "or use an existing refresh token.",
    ),
    65001: Known(
        "invalid_grant",
        "The user or administrator has not consented to use the application. Send an "
        "interactive authorization request for this user and resource.",
        "consent_required",
    ),
    65004: Known("access_denied", "User declined to consent to access the app."),
    70000: Known("invalid_grant", "Provided grant is invalid or malformed.", "bad_token"),
    70003: Known("unsupported_grant_type", "The app requested an unsupported grant type."),
    70008: Known(
        "invalid_grant", "The provided authorization code or refresh token has expired.", "token_expired"
    ),
    70011: Known(
        "invalid_scope",
        "The provided request must include a 'scope' input parameter. The provided value "
        "for the input parameter 'scope' is not valid.",
    ),
    70021: Known("invalid_client", "No matching federated identity record found for presented assertion."),
    70043: Known(
        "invalid_grant",
        "The refresh token has expired or is invalid due to sign-in frequency checks by conditional access.",
        "token_expired",
    ),
    90002: Known(
        "invalid_request",
        "Tenant not found. Check to make sure you have the correct tenant ID and are "
        "signing into the correct cloud.",
    ),
    90024: Known("temporarily_unavailable", "A transient error has occurred. Please try again."),
    90033: Known("temporarily_unavailable", "A transient error has occurred. Please try again."),
    90055: Known("temporarily_unavailable", "The request was throttled."),
    90094: Known("consent_required", "An administrator must grant consent."),
    90095: Known("consent_required", "An administrator must approve the request."),
    500011: Known("invalid_resource", "The resource principal was not found in the tenant."),
    501481: Known(
        "invalid_grant",
        "The Code_Verifier does not match the code_challenge supplied in the authorization request.",
    ),
    530032: Known("invalid_grant", "Blocked by a security policy.", "message_only"),
    650052: Known(
        "invalid_client", "The app needs access to a service that the organization has not enabled."
    ),
    700005: Known(
        "invalid_grant", "The provided authorization code is intended to be used against another tenant."
    ),
    700016: Known(
        "unauthorized_client",
        "The application was not found in the directory. This can happen if it has "
        "not been installed by the administrator of the tenant or consented to by any user.",
    ),
    700022: Known("invalid_request", "Scope values of more than one resource were requested."),
    700024: Known("invalid_client", "Client assertion is not within its valid time range."),
    700027: Known("invalid_client", "Client assertion failed signature validation."),
    700054: Known("unsupported_response_type", "The response_type is not enabled for the application."),
    700082: Known(
        "invalid_grant",
        "The refresh token has expired due to inactivity. It was inactive for 90.00:00:00.",
        "bad_token",
    ),
    700084: Known(
        "invalid_grant",
        "The refresh token was issued to a single page app and has a fixed, limited "
        "lifetime, which cannot be extended.",
        "bad_token",
    ),
    700213: Known(
        "invalid_client", "No matching federated identity record found for presented assertion subject."
    ),
    900144: Known("invalid_request", "The request body must contain a parameter that is missing."),
    7000215: Known(
        "invalid_client",
        "Invalid client secret provided. Ensure the secret being sent in the request is "
        "the client secret value, not the client secret ID.",
    ),
    7000218: Known(
        "invalid_client",
        "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
    ),
    7000222: Known("invalid_client", "The provided client secret keys are expired."),
    9001023: Known(
        "invalid_request",
        "The grant type is not supported over the /common or /consumers endpoints. "
        "Please use the /organizations or tenant-specific endpoint.",
    ),
    9002313: Known("invalid_request", "Invalid request. Request is malformed or invalid."),
}


class LoginError(Exception):
    """A refusal of the login service. Whatever is not given comes from `KNOWN`."""

    def __init__(
        self,
        aadsts: int,
        text: str | None = None,
        *,
        error: str | None = None,
        suberror: str | None = None,
        claims: str | None = None,
    ) -> None:
        known = KNOWN.get(aadsts, Known("invalid_grant", "The request was refused."))
        self.aadsts = aadsts
        self.text = text or known.text
        self.error = error or known.error
        # A suberror belongs to the pairing with its `error` word.
        self.suberror = suberror or (known.suberror if self.error == known.error else None)
        self.claims = claims
        super().__init__(f"AADSTS{aadsts}: {self.text}")

    @property
    def status(self) -> int:
        """graph.md 12.7 [D]: 400, and 401 for invalid_client."""
        return 401 if self.error == "invalid_client" else 400


def error_body(world: World, error: LoginError, correlation_id: str | None = None) -> dict[str, Any]:
    """The JSON of graph.md 12.7 [D]."""
    stamp = world.clock.now().strftime("%Y-%m-%d %H:%M:%SZ")
    trace, correlation = world.new_guid(), correlation_id or world.new_guid()
    ids = f"Trace ID: {trace} Correlation ID: {correlation} Timestamp: {stamp}"
    body: dict[str, Any] = {
        "error": error.error,
        "error_description": f"AADSTS{error.aadsts}: {error.text} {ids}",
        "error_codes": [error.aadsts],
        "timestamp": stamp,
        "trace_id": trace,
        "correlation_id": correlation,
        "error_uri": f"https://login.microsoftonline.com/error?code={error.aadsts}",
    }
    if error.suberror:
        body["suberror"] = error.suberror
    if error.claims:
        body["claims"] = error.claims
    return body


def error_response(world: World, error: LoginError, request: web.Request) -> web.Response:
    """The refusal as HTTP answer of the token endpoint and the documents."""
    body = error_body(world, error, request.headers.get("client-request-id"))
    headers = {"Cache-Control": "no-store", "x-ms-request-id": body["trace_id"]}
    return web.json_response(body, status=error.status, headers=headers)
