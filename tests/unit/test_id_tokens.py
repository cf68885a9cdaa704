"""The check of the id_token: every forged or foreign token ends here."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import jwt
import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from shared.id_tokens import IdTokenRefused, IdTokens

LOGIN = "https://login.microsoftonline.com"
TENANT = "84bd8158-6d4d-4958-8b9f-9d6445542f95"
CLIENT, NONCE = "client-id", "the-nonce-kept-with-the-sign-in"
KEYS = {name: rsa.generate_private_key(public_exponent=65537, key_size=2048) for name in ("one", "two", "three")}

Json = dict[str, Any]


class Answer:
    def __init__(self, text: str, status: int) -> None:
        self.text, self.status_code = text, status

    def raise_for_status(self) -> None:
        if self.status_code >= 400:
            raise requests.HTTPError(f"HTTP {self.status_code}")


class Http:
    """Answers as the login service would, and counts."""

    def __init__(self, *published: str, issuer: str = "{tenantid}") -> None:
        self.published, self.issuer, self.asked = list(published), issuer, []  # type: ignore[var-annotated]
        self.status = 200

    def get(self, url: str) -> Answer:
        self.asked.append(url)
        if url.endswith("openid-configuration"):
            tenant = url.removeprefix(LOGIN + "/").partition("/")[0]
            keys = f"{LOGIN}/{tenant}/discovery/v2.0/keys"
            return Answer(json.dumps({"issuer": f"{LOGIN}/{self.issuer}/v2.0", "jwks_uri": keys}), 200)
        keys = [{**public(name), "kid": name, "use": "sig"} for name in self.published]
        return Answer(json.dumps({"keys": [*keys, {"kty": "RSA"}]}), self.status)

    def to_official(self, text: str) -> str:
        return text

    @property
    def key_requests(self) -> int:
        return len([url for url in self.asked if url.endswith("/keys")])


def public(name: str) -> Json:
    numbers = KEYS[name].public_key().public_numbers()
    size = (numbers.n.bit_length() + 7) // 8
    return {"kty": "RSA", "n": part(numbers.n.to_bytes(size, "big")), "e": part(numbers.e.to_bytes(3, "big"))}


def part(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def claims(**changes: Any) -> Json:
    now = int(time.time())
    usual = {
        "aud": CLIENT,
        "iss": f"{LOGIN}/{TENANT}/v2.0",
        "iat": now,
        "nbf": now,
        "exp": now + 3600,
        "oid": "user-id",
        "tid": TENANT,
        "sub": "pairwise",
        "nonce": hashlib.sha256(NONCE.encode()).hexdigest(),
    }
    return {name: value for name, value in (usual | changes).items() if value is not ...}


def token(key: str = "one", kid: str | None = None, **changes: Any) -> str:
    return jwt.encode(claims(**changes), KEYS[key], algorithm="RS256", headers={"kid": kid or key})


def verify(text: str, http: Http | None = None, authority: str = "common", checker: IdTokens | None = None) -> Json:
    checker = checker or IdTokens(http or Http("one"))  # type: ignore[arg-type]
    return checker.verify(text, authority=f"{LOGIN}/{authority}", client_id=CLIENT, nonce=NONCE)


def test_a_genuine_token_gives_its_claims() -> None:
    """A token of the right key, issuer, audience, time and nonce proves who signed in."""
    proven = verify(token())
    assert (proven["oid"], proven["tid"]) == ("user-id", TENANT)


def test_the_issuer_of_shared_authorities_is_the_tokens_own_tenant() -> None:
    """`{tenantid}` in the published issuer stands for the tenant the token names."""
    other = "11111111-0000-0000-0000-000000000000"
    assert verify(token(tid=other, iss=f"{LOGIN}/{other}/v2.0"))["tid"] == other
    with pytest.raises(IdTokenRefused, match="issuer"):
        verify(token(tid=other))
    with pytest.raises(IdTokenRefused, match="issuer"):
        verify(token(tid=f"{TENANT}/v2.0/../x"))


def test_a_single_tenants_issuer_is_compared_as_it_is() -> None:
    """With a tenant's own authority a token of another tenant is refused, whatever `tid` it carries."""
    other = "11111111-0000-0000-0000-000000000000"
    http = Http("one", issuer=TENANT)
    assert verify(token(), http, TENANT)["tid"] == TENANT
    with pytest.raises(IdTokenRefused, match="issuer"):
        verify(token(tid=other, iss=f"{LOGIN}/{other}/v2.0"), http, TENANT)


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": f"https://evil.example/{TENANT}/v2.0"},
        {"iss": f"{LOGIN}/{TENANT}"},
        {"iss": f"{LOGIN}/{TENANT}/v2.0/"},
        {"iss": ""},
        {"aud": "another-client"},
        {"aud": ["another-client"]},
        {"aud": ""},
        {"exp": int(time.time()) - 301},
        {"exp": "soon"},
        {"iat": int(time.time()) + 3600},
        {"nbf": int(time.time()) + 3600},
        {"nonce": NONCE},
        {"nonce": hashlib.sha256(b"another").hexdigest()},
        {"nonce": ""},
        *[{name: ...} for name in ("aud", "iss", "exp", "iat", "oid", "tid", "nonce")],
    ],
)
def test_a_genuine_key_does_not_excuse_wrong_claims(changes: Json) -> None:
    """Wrong or missing issuer, audience, times, identity or nonce: each alone is enough to refuse."""
    with pytest.raises(IdTokenRefused):
        verify(token(**changes))


def test_clocks_may_differ_by_five_minutes() -> None:
    """A token that ended four minutes ago by our clock is still taken."""
    assert verify(token(exp=int(time.time()) - 240))


def test_a_token_signed_by_somebody_else_is_refused() -> None:
    """The key id of a published key does not help a signature of another key."""
    with pytest.raises(IdTokenRefused, match="Signature"):
        verify(token("two", kid="one"))


def test_changed_claims_break_the_signature() -> None:
    """A genuine token whose claims were exchanged afterwards is refused."""
    head, _, signature = token().split(".")
    changed = part(json.dumps(claims(oid="somebody-else")).encode())
    with pytest.raises(IdTokenRefused, match="Signature"):
        verify(f"{head}.{changed}.{signature}")


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE"])
def test_an_unsigned_token_is_refused(algorithm: str) -> None:
    """`alg` none, in any spelling, is no signature."""
    head = part(json.dumps({"alg": algorithm, "typ": "JWT", "kid": "one"}).encode())
    for signature in ("", part(b"x" * 256)):
        with pytest.raises(IdTokenRefused):
            verify(f"{head}.{part(json.dumps(claims()).encode())}.{signature}")


def test_the_public_key_is_no_shared_secret() -> None:
    """HS256 with the published key as its secret, in every form it may be taken in, is refused."""
    key = KEYS["one"].public_key()
    forms = [
        key.public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
        for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER)
    ]
    forms += [json.dumps(public("one")).encode(), public("one")["n"].encode(), b""]
    head = part(json.dumps({"alg": "HS256", "typ": "JWT", "kid": "one"}).encode())
    signed = f"{head}.{part(json.dumps(claims()).encode())}"
    for secret in forms:
        mac = part(hmac.new(secret, signed.encode(), hashlib.sha256).digest())
        with pytest.raises(IdTokenRefused):
            verify(f"{signed}.{mac}")


@pytest.mark.parametrize("algorithm", ["RS384", "PS256", "RS512"])
def test_only_the_algorithm_of_the_login_service_is_taken(algorithm: str) -> None:
    """Even the right key signs with RS256 or not at all."""
    other = jwt.encode(claims(), KEYS["one"], algorithm=algorithm, headers={"kid": "one"})
    with pytest.raises(IdTokenRefused):
        verify(other)


def test_a_key_that_travels_in_the_token_is_ignored() -> None:
    """Headers that bring a key or its address along change nothing."""
    headers: Json = {"kid": "one", "jwk": public("two"), "jku": "https://evil.example/keys", "x5u": "https://evil.example"}
    http = Http("one")
    with pytest.raises(IdTokenRefused, match="Signature"):
        verify(jwt.encode(claims(), KEYS["two"], algorithm="RS256", headers=headers), http)
    assert all(url.startswith(LOGIN) for url in http.asked)


@pytest.mark.parametrize(
    "text", ["", "a", "a.b", "a.b.c", "....", "é.b.c", part(b'{"alg":"RS256"}') + ".e30.AA", "e30.e30.e30"]
)
def test_what_is_no_token_is_refused(text: str) -> None:
    """Any text that is not a token is refused like a forged one."""
    with pytest.raises(IdTokenRefused):
        verify(text)


def test_an_unknown_key_is_fetched_once_and_kept() -> None:
    """Keys are kept between sign-ins; one that is not known is looked for anew, as after a rollover."""
    http = Http("one")
    checker = IdTokens(http)  # type: ignore[arg-type]
    for _ in range(3):
        verify(token(), checker=checker)
    assert http.key_requests == 1
    http.published = ["two", "one"]
    verify(token("two"), checker=checker)
    verify(token(), checker=checker)
    assert http.key_requests == 2


def test_a_key_no_longer_published_is_refused_after_the_rollover() -> None:
    """Once new keys were fetched, a token of a dropped key proves nothing."""
    http = Http("one")
    checker = IdTokens(http)  # type: ignore[arg-type]
    verify(token(), checker=checker)
    http.published = ["two"]
    verify(token("two"), checker=checker)
    with pytest.raises(IdTokenRefused, match="does not publish"):
        verify(token(), checker=checker)


def test_an_unpublished_key_is_refused() -> None:
    """A key id nobody publishes is refused after one look."""
    http = Http("one")
    with pytest.raises(IdTokenRefused, match="does not publish"):
        verify(token("three"), http)
    assert http.key_requests == 1


def test_keys_that_cannot_be_fetched_are_an_outage_not_a_refusal() -> None:
    """When the key set does not come, the token is neither proven nor refused."""
    http = Http("one")
    http.status = 503
    with pytest.raises(requests.HTTPError):
        verify(token(), http)
