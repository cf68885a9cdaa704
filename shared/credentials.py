"""Access tokens for credential holders.

One record per holder in Table Storage, sealed: MSAL's token cache of that holder alone, and the access token in
use with its end, so that a fresh process serves it without loading MSAL or asking Entra. Single flight inside a
process by one lock per holder, between processes by a claim on the record (token_records.py). Should two refresh at
once all the same, both succeed: Entra does not revoke the older refresh token (graph.md 12.6).
"""

from __future__ import annotations

import asyncio
import json
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from shared import login_failures
from shared.clock import Clock, iso
from shared.errors import CredentialError
from shared.id_tokens import IdTokens
from shared.login_http import LoginHttp, timed_session
from shared.oauth_apps import Cloud, OauthApp
from shared.storage.keys import digest, storable
from shared.token_records import AccessToken, Stored, TokenRecords

TURNS = 30  # looks at a record that others write to: each of their failed renewals takes two
REMEMBERED = 5000


@dataclass(frozen=True)
class SignIn:
    """What a finished sign-in yields: proven identity claims and what to store for the account."""

    claims: dict[str, Any]
    access_token: str = field(repr=False)
    stored: Stored = field(repr=False)


class Credentials:
    """Obtains, keeps and forgets tokens."""

    def __init__(self, records: TokenRecords, clock: Clock, login_endpoint: str) -> None:
        self._records, self._clock = records, clock
        self._login_endpoint = login_endpoint
        self._kept: dict[str, tuple[str, AccessToken]] = {}
        self._asked = 0  # how often the login service was asked to renew
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._http: dict[str, LoginHttp] = {}
        self._id_tokens: dict[str, IdTokens] = {}

    async def token(self, holder: str, app: OauthApp, rejected: str | None = None, version: str = "") -> str:
        """An access token of the holder, from memory, from storage, or from Entra, in that order.

        `rejected` is a token that Graph refused: it is not given again. `version` names the sign-in, so that what
        this process remembers of an earlier one is not used. Raises CredentialError.
        """
        key = self.key(holder, app)
        if token := self._remembered(key, rejected, version):
            return token
        async with self._locks.setdefault(key, asyncio.Lock()):
            token = self._remembered(key, rejected, version)
            if token is None:
                obtained = await self._obtain(key, app, rejected)
                self._remember(key, version, obtained)
                token = obtained.value
        return token

    async def current(self, holder: str, app: OauthApp, version: str = "") -> tuple[AccessToken, bool]:
        """The token that `token` gives, with its end, and whether it was there before. Raises CredentialError."""
        asked = self._asked
        await self.token(holder, app, version=version)
        _, kept = self._kept[self.key(holder, app)]
        return kept, asked == self._asked

    def _remember(self, key: str, version: str, token: AccessToken) -> None:
        """Tokens of accounts that are gone or idle leave the memory when it grows."""
        if len(self._kept) >= REMEMBERED:
            now = self._clock()
            fresh = {name: kept for name, kept in self._kept.items() if kept[1].is_fresh(now)}
            self._kept = fresh if len(fresh) < REMEMBERED // 2 else {}
        self._kept[key] = (version, token)

    def _remembered(self, key: str, rejected: str | None, version: str) -> str | None:
        known_version, kept = self._kept.get(key, ("", None))
        usable = kept is not None and known_version == version and kept.is_fresh(self._clock())
        return kept.value if kept is not None and usable and kept.value != rejected else None

    async def save(self, holder: str, stored: Stored) -> None:
        """Stores a finished sign-in or imported tokens, over whatever was there."""
        key = storable(holder)
        self._kept.pop(key, None)
        await self._records.put(key, stored)

    async def keep_renewable(self, holder: str, fresh: Stored) -> None:
        """Adds to a new access token what the holder's stored one is renewed with."""
        try:
            old = await self._records.load(storable(holder))
        except CredentialError:
            return  # what can not be opened can not be kept
        fresh.cache, fresh.imported = old.cache, old.imported | fresh.imported

    async def forget(self, holder: str) -> None:
        """Removes the holder's tokens."""
        self._kept.pop(storable(holder), None)
        await self._records.delete(storable(holder))

    @staticmethod
    def key(holder: str, app: OauthApp) -> str:
        """Application access needs one token for all its mailboxes, a person's sign-in one for each."""
        if not app.is_application:
            return storable(holder)
        return f"app={digest(app.id, app.client_id, app.authority, app.cloud)}"

    # -- sign-in -------------------------------------------------------------------------------------------

    async def begin_sign_in(self, app: OauthApp, **options: Any) -> tuple[str, dict[str, Any]]:
        """The address to send the browser to, and the flow to keep until the callback.

        `options` go to MSAL's initiate_auth_code_flow: redirect_uri, state, prompt, login_hint.
        Raises CredentialError.
        """

        def begin() -> dict[str, Any]:
            client = self._client(app, None)
            flow: dict[str, Any] = client.initiate_auth_code_flow(app.scopes(), **options)
            return flow

        flow = await self._ask(app, "authorization_code", begin)
        return self._login_http(app).to_reachable(flow["auth_uri"]), flow

    async def finish_sign_in(self, app: OauthApp, flow: dict[str, Any], query: dict[str, str]) -> SignIn:
        """Exchanges the code and proves who signed in. Nothing is stored. Raises CredentialError, IdTokenRefused."""
        import msal

        cache = msal.SerializableTokenCache()

        def exchange() -> dict[str, Any]:
            client = self._client(app, cache)
            answer: dict[str, Any] = client.acquire_token_by_auth_code_flow(flow, query)
            if "access_token" in answer:
                answer["claims"] = self._id_tokens_of(app).verify(
                    answer.get("id_token", ""),
                    authority=f"{app.hosts.login}/{app.authority}",
                    client_id=app.client_id,
                    nonce=flow["nonce"],
                )
            return answer

        answer = await self._ask(app, "authorization_code", exchange)
        stored = self._stored_from(answer, cache.serialize())
        return SignIn(answer["claims"], answer["access_token"], stored)

    # -- obtaining -----------------------------------------------------------------------------------------

    async def _obtain(self, key: str, app: OauthApp, rejected: str | None) -> AccessToken:
        """The stored token, or a new one. One process asks; the others use what it stored, and meanwhile the old
        token as long as it is valid."""
        for _ in range(TURNS):
            stored = await self._records.load(key)
            held = stored.current()
            token = held if held is not None and held.value != rejected else None
            if token and token.is_fresh(self._clock()):
                return token
            if stored.row is None and not app.is_application:
                raise login_failures.missing("The account has no usable credentials")
            claimed = await self._records.claim(key, stored)
            if claimed is not None:
                if renewed := await self._renewed(key, app, claimed, rejected):
                    return renewed
            elif token and token.is_valid(self._clock()):
                return token
            else:
                await self._records.wait(key, stored)
        raise login_failures.contended()

    async def _renewed(self, key: str, app: OauthApp, claimed: Stored, rejected: str | None) -> AccessToken | None:
        """A new token, asked for and stored under the claim. None when the record changed meanwhile: then what
        stands there now counts, and also no failure does, since it was about what stood there before."""
        try:
            fresh = await self._from_entra(app, claimed)
            token = fresh.current()
            if token is None or token.value == rejected:
                raise login_failures.missing("The login service answered without a new access token")
        except CredentialError as failure:
            if not await self._records.release(key, claimed):
                return None
            old = claimed.current()
            if failure.transient and old and old.value != rejected and old.is_valid(self._clock()):
                return old  # an outage of the login service matters only when the token has run out
            raise
        return token if await self._records.settle(key, claimed, fresh) else None

    async def _from_entra(self, app: OauthApp, stored: Stored) -> Stored:
        import msal

        self._asked += 1
        cache = msal.SerializableTokenCache()
        if stored.cache:
            cache.deserialize(stored.cache)

        def acquire() -> dict[str, Any]:
            client = self._client(app, cache)
            if app.is_application:
                answer: dict[str, Any] = client.acquire_token_for_client([f"{app.hosts.graph}/.default"])
            elif accounts := client.get_accounts():
                answer = client.acquire_token_silent_with_error(app.scopes(), accounts[0], force_refresh=True) or {}
            elif refresh_token := stored.imported.get("refreshToken"):
                answer = client.acquire_token_by_refresh_token(refresh_token, app.scopes())
            else:
                answer = {}
            return answer

        answer = await self._ask(app, "client_credentials" if app.is_application else "refresh_token", acquire)
        return self._stored_from(answer, "" if app.is_application else cache.serialize(), stored.imported)

    async def _ask(self, app: OauthApp, grant: str, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Runs MSAL, which blocks, off the event loop, and maps every way it fails."""
        import msal.exceptions
        import requests

        if app.broken:
            raise login_failures.app_broken(app, grant)
        try:
            answer = await asyncio.to_thread(call)
        except (msal.exceptions.MsalServiceError, requests.RequestException, RuntimeError) as problem:
            raise login_failures.unreachable(app, grant, problem) from None
        except ValueError as problem:
            # MSAL's word for an authority without a usable discovery document, or a wrong state.
            raise login_failures.refused(
                app, grant, {"error": "invalid_request", "error_description": str(problem)}
            ) from None
        if "error" in answer:
            raise login_failures.refused(app, grant, answer)
        if not answer:
            raise login_failures.missing("The account has no usable credentials")
        return answer

    def _stored_from(self, answer: dict[str, Any], cache: str, imported: dict[str, str] | None = None) -> Stored:
        ends = self._clock() + timedelta(seconds=int(answer.get("expires_in") or 0))
        kept = imported or {}
        if cache and not json.loads(cache).get("Account") and answer.get("refresh_token"):
            # An answer without client_info leaves MSAL no account to refresh silently; the refresh token is then
            # kept as an imported one.
            kept = {"refreshToken": answer["refresh_token"]}
        scope = str(answer.get("scope") or "").split()
        return Stored(cache=cache, token=answer.get("access_token", ""), ends=iso(ends), imported=kept, scope=scope)

    # -- MSAL ----------------------------------------------------------------------------------------------

    def _client(self, app: OauthApp, cache: Any) -> Any:
        """A new client each time: MSAL repeats a refused answer from memory for a minute (graph.md 13.5)."""
        import msal

        return msal.ConfidentialClientApplication(
            app.client_id,
            client_credential=self._client_credential(app),
            authority=f"{app.hosts.login}/{app.authority}",
            token_cache=cache,
            http_client=self._login_http(app),
            instance_discovery=False,
        )

    def _client_credential(self, app: OauthApp) -> Any:
        if app.certificate:
            return {"private_key": app.certificate, "public_certificate": app.certificate}
        if app.managed_identity:
            return {"client_assertion": lambda: self._assertion(app.managed_identity, app.hosts)}
        return app.secret or None

    def _assertion(self, client_id: str, cloud: Cloud) -> str:
        """A token of the managed identity that the app registration trusts (graph.md 12.5)."""
        import msal
        import requests

        identity = msal.ManagedIdentityClient(
            msal.UserAssignedManagedIdentity(client_id=client_id), http_client=timed_session()
        )
        answer = identity.acquire_token_for_client(resource=cloud.exchange_audience)
        if "access_token" not in answer:
            raise requests.ConnectionError(f"managed identity: {answer.get('error')}")
        return str(answer["access_token"])

    def _login_http(self, app: OauthApp) -> LoginHttp:
        host = app.hosts.login
        if host not in self._http:
            self._http[host] = LoginHttp(host, self._login_endpoint)
        return self._http[host]

    def _id_tokens_of(self, app: OauthApp) -> IdTokens:
        host = app.hosts.login
        if host not in self._id_tokens:
            self._id_tokens[host] = IdTokens(self._login_http(app))
        return self._id_tokens[host]


def imported(fields: Mapping[str, Any]) -> Stored:
    """Externally obtained tokens as they are kept until first use (6.1). An access token without an end is
    used only when there is nothing to renew it with, and then for at most an hour."""
    kept = {name: fields[name] for name in ("accessToken", "refreshToken") if fields.get(name)}
    ends = fields.get("expires") or fields["assumed_end"]
    usable = bool(fields.get("expires")) or "refreshToken" not in kept
    token = kept.get("accessToken", "") if usable else ""
    return Stored(token=token, ends=ends if token else "", imported=kept)
