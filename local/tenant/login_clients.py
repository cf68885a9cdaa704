"""How an application proves itself at the token endpoint: secret, certificate, federated assertion.

graph.md 12.4, 12.5 [D]; what MSAL really sends: 13.2 [S] [M].
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from .directory import Application
from .login_errors import LoginError
from .login_scopes import missing_parameter
from .tokens import SIGNATURE_ONLY, base64url

if TYPE_CHECKING:
    from .world import World

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def client_of(world: World, form: Mapping[str, str], authorization: str | None, tenant: str) -> Application:
    """The application of a token request, its credential checked.

    `tenant` is the path segment used. Raises LoginError 700016, 7000215, 7000222, 7000218, 700027, 700024
    or 700213.
    """
    basic = _basic(authorization)
    client_id = form.get("client_id") or (basic[0] if basic else None)
    if not client_id:
        raise missing_parameter("client_id")
    application = known_application(world, client_id)
    secret = form.get("client_secret") or (basic[1] if basic else None)
    if form.get("client_assertion"):
        if form.get("client_assertion_type") != ASSERTION_TYPE:
            raise missing_parameter("client_assertion_type")
        _check_assertion(world, application, form["client_assertion"], tenant)
    elif secret:
        _check_secret(application, secret, world.clock.now())
    else:
        raise LoginError(7000218)
    return application


def known_application(world: World, client_id: str) -> Application:
    """The registration; raises LoginError 700016."""
    application = world.directory.application(client_id)
    if application is None:
        domain = world.directory.domain
        text = f"Application with identifier '{client_id}' was not found in the directory '{domain}'."
        raise LoginError(700016, text)
    return application


def _basic(authorization: str | None) -> tuple[str, str] | None:
    scheme, _, value = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, _, secret = base64.b64decode(value).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    # RFC 6749 2.3.1: both halves are form encoded before they are joined.
    return unquote_plus(name), unquote_plus(secret)


def _check_secret(application: Application, secret: str, now: datetime) -> None:
    for value, expires_at in application.secrets:
        if value != secret:
            continue
        if expires_at is not None and expires_at <= now:
            name = application.client_id
            raise LoginError(7000222, f"The provided client secret keys for app '{name}' are expired.")
        return
    raise LoginError(7000215)


def _check_assertion(world: World, application: Application, assertion: str, tenant: str) -> None:
    try:
        header = jwt.get_unverified_header(assertion)
        claims = jwt.decode(assertion, options={"verify_signature": False})
    except jwt.InvalidTokenError as error:
        raise LoginError(700027, f"Client assertion could not be read: {error}.") from error
    if claims.get("iss") == application.client_id:
        _check_certificate(world, application, assertion, header, tenant)
    else:
        _check_federated(world, application, assertion, claims)


def _thumbprints(certificate: x509.Certificate) -> dict[str, str]:
    der = certificate.public_bytes(Encoding.DER)
    return {
        "x5t#S256": base64url(hashlib.sha256(der).digest()),
        "x5t": base64url(hashlib.sha1(der).digest()),
    }


def _certificate(application: Application, header: Mapping[str, Any]) -> x509.Certificate | None:
    for pem in application.certificates:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        for name, thumbprint in _thumbprints(certificate).items():
            # MSAL keeps the `=` padding in the thumbprint (graph.md 13.2 [M]).
            if str(header.get(name, "")).rstrip("=") == thumbprint:
                return certificate
    return None


def _check_certificate(
    world: World, application: Application, assertion: str, header: Mapping[str, Any], tenant: str
) -> None:
    """PS256 or RS256, found by thumbprint; `nbf` may be missing, times fractional (graph.md 13.2 [M])."""
    certificate = _certificate(application, header)
    if certificate is None:
        raise LoginError(700027, "Client assertion: the key was not found by the thumbprint of the header.")
    try:
        key: Any = certificate.public_key()
        claims = jwt.decode(assertion, key, algorithms=["PS256", "RS256"], options=SIGNATURE_ONLY)
    except (jwt.PyJWTError, TypeError) as error:
        # TypeError: a certificate whose key is not RSA.
        raise LoginError(700027) from error
    if claims.get("sub") != application.client_id:
        raise LoginError(700027, "Client assertion: 'sub' must be the client id.")
    if str(claims.get("aud")).rstrip("/") not in _token_endpoints(world, tenant):
        raise LoginError(
            700027, f"Client assertion audience {claims.get('aud')!r} is not the token endpoint."
        )
    _check_times(claims, world.clock.now())


def _token_endpoints(world: World, tenant: str) -> set[str]:
    names = {world.directory.tenant_id, world.directory.domain, tenant}
    return {f"https://login.microsoftonline.com/{name}/oauth2/v2.0/token" for name in names}


def _check_times(claims: Mapping[str, Any], now: datetime) -> None:
    """Five minutes of leeway for clock skew [P]."""
    moment = now.timestamp()
    try:
        expired = float(claims["exp"]) < moment - 300
        early = float(claims.get("nbf", 0)) > moment + 300
    except (KeyError, TypeError, ValueError) as error:
        raise LoginError(700024) from error
    if expired or early:
        raise LoginError(700024)


def _check_federated(
    world: World, application: Application, assertion: str, claims: Mapping[str, Any]
) -> None:
    """A token of a trusted issuer; only this tenant issues any (graph.md 12.5 [D], number 700213 [P])."""
    presented = {"issuer": claims.get("iss"), "subject": claims.get("sub"), "audience": claims.get("aud")}
    if presented not in application.federated:
        text = "No matching federated identity record found for presented assertion"
        raise LoginError(700213, f"{text} subject '{presented['subject']}'.")
    try:
        world.login.keys.verify(assertion)
    except jwt.InvalidTokenError as error:
        raise LoginError(700027) from error
    _check_times(claims, world.clock.now())
