"""The login service's memory and judgement: codes, refresh tokens, sessions, who a token stands for."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import jwt

from .directory import Application, Principal
from .errors import GraphError, invalid_token
from .login_errors import LoginError
from .login_scopes import GRAPH, GRAPH_NAMES, Granted
from .tokens import KeyRing, base64url

if TYPE_CHECKING:
    from .world import World

CODE_LIFETIME = timedelta(minutes=10)  # graph.md 12.2 [D]
REFRESH_LIFETIME = timedelta(days=90)  # graph.md 12.6 [D]
APP_TOKEN_LIFETIME_S = 3599  # graph.md 12.4 [D]
SHARED_TENANTS = ("common", "organizations")


@dataclass(frozen=True)
class Caller:
    """Who a Graph request comes from. `scopes` are short names; `principal` is None for an application."""

    kind: Literal["user", "app"]
    principal: Principal | None
    app_id: str
    scopes: frozenset[str]
    roles: frozenset[str]
    tenant_id: str


@dataclass
class Code:
    """An authorization code and what it was issued for; good once, for ten minutes."""

    principal_id: str
    client_id: str
    redirect_uri: str
    scope: str
    nonce: str | None
    challenge: str | None
    challenge_method: str
    expires_at: datetime
    used: bool = False


@dataclass
class RefreshToken:
    """A refresh token; it stays valid when a newer one is issued (graph.md 12.6 [D])."""

    principal_id: str
    client_id: str
    scope: str
    expires_at: datetime
    revoked: bool = False


@dataclass
class Injected:
    """An error to give on demand; `times` None means until removed."""

    times: int | None = 1
    aadsts: int | None = None
    error: str | None = None
    suberror: str | None = None
    description: str | None = None
    claims: str | None = None
    user: str | None = None
    status: int | None = None
    retry_after: str | None = None
    error_subcode: str | None = None


@dataclass
class Login:
    """Everything the login service remembers in one tenant."""

    world: World
    keys: KeyRing = field(default_factory=KeyRing)
    codes: dict[str, Code] = field(default_factory=dict)
    refresh_tokens: dict[str, RefreshToken] = field(default_factory=dict)
    sessions: dict[str, str] = field(default_factory=dict)
    authorize_errors: list[Injected] = field(default_factory=list)
    token_errors: list[Injected] = field(default_factory=list)
    token_statuses: list[Injected] = field(default_factory=list)
    _issued: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _revoked: set[str] = field(default_factory=set)

    @property
    def issuer(self) -> str:
        """The v2 issuer of the home tenant."""
        return f"https://login.microsoftonline.com/{self.world.directory.tenant_id}/v2.0"

    def home_tenant(self, segment: str) -> bool:
        """Whether a path segment names the tenant itself (True) or `common`/`organizations` (False).

        Raises LoginError 90002 for any other tenant.
        """
        directory = self.world.directory
        if segment.lower() in (directory.tenant_id, directory.domain):
            return True
        if segment.lower() in SHARED_TENANTS:
            return False
        raise LoginError(
            90002,
            f"Tenant '{segment}' not found. Check to make sure you have the correct tenant ID "
            "and are signing into the correct cloud.",
        )

    def check_audience(self, application: Application, segment: str) -> None:
        """Raises LoginError 50194 when a single-tenant application uses `common` or `organizations`."""
        if not self.home_tenant(segment) and not application.multi_tenant:
            text = (
                f"Application '{application.client_id}'({application.display_name}) is not configured as a "
                "multi-tenant application. Usage of the /common endpoint is not supported for such apps."
            )
            raise LoginError(50194, text)

    # -- issuing -----------------------------------------------------------------------------------

    def sign_in(self, principal: Principal) -> str:
        """A session id for the browser; a fresh sign-in settles a pending password change."""
        if principal.password_changed:
            self.revoke(principal)
            principal.password_changed = False
        session = self._opaque("session")
        self.sessions[session] = principal.id
        return session

    def issue_code(self, principal: Principal, query: dict[str, str]) -> str:
        """A code for an authorize request that was checked before."""
        code = "0." + self._opaque("code")
        self.codes[code] = Code(
            principal_id=principal.id,
            client_id=query["client_id"].lower(),
            redirect_uri=query["redirect_uri"],
            scope=query["scope"],
            nonce=query.get("nonce"),
            challenge=query.get("code_challenge"),
            challenge_method=query.get("code_challenge_method", "plain"),
            expires_at=self.world.clock.now() + CODE_LIFETIME,
        )
        return code

    def issue_refresh_token(self, principal: Principal, client_id: str, scope: str) -> str:
        """A new refresh token; older ones are not touched."""
        value = "1." + self._opaque("refresh")
        expires_at = self.world.clock.now() + REFRESH_LIFETIME
        self.refresh_tokens[value] = RefreshToken(principal.id, client_id.lower(), scope, expires_at)
        return value

    def _opaque(self, purpose: str) -> str:
        seed = f"{purpose}{self.world.random.getrandbits(256)}".encode()
        return base64url(hashlib.sha512(seed).digest())

    def _common_claims(self, audience: str, lifetime_s: float, issuer: str) -> dict[str, Any]:
        now = int(self.world.clock.now().timestamp())
        unique = base64url(self.world.random.getrandbits(128).to_bytes(16, "big"))
        times = {"iat": now, "nbf": now, "exp": now + int(lifetime_s)}
        return {"aud": audience, "iss": issuer, **times, "tid": self.world.directory.tenant_id, "uti": unique}

    def user_token(
        self,
        principal: Principal,
        app_id: str,
        scopes: tuple[str, ...],
        *,
        lifetime_s: float | None = None,
        audience: str = GRAPH,
    ) -> str:
        """An access token for Graph in the user's name (claims: graph.md 12.4 [D])."""
        lifetime = self.world.switches.access_token_lifetime_s if lifetime_s is None else lifetime_s
        issuer = f"https://sts.windows.net/{self.world.directory.tenant_id}/"
        claims = self._common_claims(audience, lifetime, issuer)
        self._issued[principal.id].add(claims["uti"])
        names = {"name": principal.display_name, "upn": principal.upn, "unique_name": principal.upn}
        ids = {"appid": app_id, "oid": principal.id, "sub": self.pairwise(principal, app_id)}
        claims |= {**ids, **names, "scp": " ".join(scopes), "idtyp": "user", "ver": "1.0"}
        return self.keys.sign(claims)

    def app_token(
        self,
        app_id: str,
        object_id: str,
        roles: set[str],
        *,
        lifetime_s: float = APP_TOKEN_LIFETIME_S,
        audience: str = GRAPH,
    ) -> str:
        """An access token of an application itself: `roles` instead of `scp`."""
        issuer = f"https://sts.windows.net/{self.world.directory.tenant_id}/"
        claims = self._common_claims(audience, lifetime_s, issuer)
        claims |= {"appid": app_id, "oid": object_id, "sub": object_id, "idtyp": "app", "ver": "1.0"}
        return self.keys.sign(claims | {"roles": sorted(roles)} if roles else claims)

    def exchange_token(self, principal_id: str, audience: str) -> str:
        """A managed identity's token for another resource, v2 issuer (graph.md 12.5 [D])."""
        claims = self._common_claims(audience, 24 * 3600, self.issuer)
        return self.keys.sign(
            claims | {"sub": principal_id, "oid": principal_id, "idtyp": "app", "ver": "2.0"}
        )

    def id_token(
        self, principal: Principal, application: Application, granted: Granted, nonce: str | None
    ) -> str:
        """The id_token of graph.md 12.4 [D]; `email` and the profile claims only with their scopes."""
        claims = self._common_claims(application.client_id, 3600, self.issuer)
        claims |= {"oid": principal.id, "sub": self.pairwise(principal, application.client_id), "ver": "2.0"}
        claims |= {"rh": "1.local.", "preferred_username": principal.upn, "name": principal.display_name}
        if "email" in granted.names and principal.mail:
            claims["email"] = principal.mail
        if nonce:
            claims["nonce"] = nonce
        return self.keys.sign(claims)

    @staticmethod
    def pairwise(principal: Principal, client_id: str) -> str:
        """`sub`: the same user looks different to each application (graph.md 12.1, 12.4 [D])."""
        return base64url(hashlib.sha256(f"{principal.id}|{client_id.lower()}".encode()).digest())

    # -- judging -----------------------------------------------------------------------------------

    def revoke(self, principal: Principal, *, access_tokens: bool = False) -> int:
        """How many refresh tokens were revoked; access tokens go on working unless asked for, too."""
        held = [t for t in self.refresh_tokens.values() if t.principal_id == principal.id and not t.revoked]
        for token in held:
            token.revoked = True
        self.sessions = {key: owner for key, owner in self.sessions.items() if owner != principal.id}
        if access_tokens:
            self._revoked |= self._issued.pop(principal.id, set())
        return len(held)

    def authenticate(self, authorization: str | None) -> Caller:
        """Who a Graph request comes from. Raises GraphError 401 with the messages of graph.md 2.3 [F]."""
        scheme, _, token = (authorization or "").strip().partition(" ")
        if not token.strip() or scheme.lower() != "bearer":
            raise invalid_token("Access token is empty.")
        try:
            claims = self.keys.verify(token.strip())
        except (jwt.InvalidTokenError, ValueError) as error:
            # The number is a common one [P]; 2.3 leaves it open.
            raise invalid_token("CompactToken parsing failed with error code: 80049217") from error
        if str(claims.get("aud")).rstrip("/") not in GRAPH_NAMES:
            raise invalid_token("Access token validation failure. Invalid audience.")
        if claims["exp"] <= self.world.clock.now().timestamp() or claims["uti"] in self._revoked:
            raise invalid_token("Lifetime validation failed, the token is expired.")
        return self._caller(claims)

    def _caller(self, claims: dict[str, Any]) -> Caller:
        principal = None
        if "scp" in claims:
            principal = self.world.directory.principals.get(claims["oid"])
            if principal is None:
                # The user was deleted after the token was issued; which text Graph uses is [P].
                raise invalid_token("Lifetime validation failed, the token is expired.")
        return Caller(
            kind="user" if "scp" in claims else "app",
            principal=principal,
            app_id=claims["appid"],
            scopes=frozenset(claims.get("scp", "").split()),
            roles=frozenset(claims.get("roles", ())),
            tenant_id=claims["tid"],
        )

    def peek(self, authorization: str | None) -> Caller | None:
        """As `authenticate`, but None instead of an error: for logging and counting."""
        try:
            return self.authenticate(authorization)
        except GraphError:
            return None

    # -- errors on demand --------------------------------------------------------------------------

    def take_injected(self, waiting: list[Injected], user: Principal | None) -> Injected | None:
        """The next error to give, counted down; entries with a user wait until that user is known."""
        for one in waiting:
            wanted = self.world.directory.find(one.user) if one.user else None
            if (one.user is None and user is not None) or (
                one.user and (wanted is None or wanted is not user)
            ):
                continue
            if one.times is not None:
                one.times -= 1
                if one.times <= 0:
                    waiting.remove(one)
            return one
        return None

    def refuse_if_injected(self, user: Principal | None) -> None:
        """Raises the LoginError waiting for this user, or with None the one waiting for anybody."""
        one = self.take_injected(self.token_errors, user)
        if one is not None and one.aadsts is not None:
            raise LoginError(
                one.aadsts, one.description, error=one.error, suberror=one.suberror, claims=one.claims
            )
