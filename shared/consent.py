"""Hosted sign-in: signed set-up links, the redirect to Microsoft, and the callback (emailengine.md 7).

The set-up that a person is in the middle of is kept server side, sealed, under a nonce that works once. Nothing
is stored for an account before the identity is proven.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from datetime import timedelta
from typing import Any
from urllib.parse import unquote_plus, urlencode, urlsplit, urlunsplit

from shared.accounts import Accounts, Record, auth_of
from shared.clock import Clock, iso
from shared.credentials import Credentials, SignIn
from shared.errors import ApiError, CredentialError, GraphFailure, InvalidInput, RecordDamaged, StorageConflict
from shared.graph import requests
from shared.graph.client import Graph
from shared.graph.paths import MailboxPath
from shared.id_tokens import IdTokenRefused
from shared.oauth_apps import OauthApp, OauthApps
from shared.onboarding import Onboarding
from shared.service_settings import ServiceSettings
from shared.storage.tables import Row, Table
from shared.vault import SealBroken, Vault, decode, encode

LINK_LIFE = timedelta(hours=24) - timedelta(seconds=60)
LONGEST_URL = 8000  # characters that every server and proxy on the way takes
PENDING_LIFE = timedelta(hours=24)
STATE_PREFIX = "account:add:"
NONCE = re.compile(r"[A-Za-z0-9_\-+/]{21,22}={0,2}")
BLOB_KEYS = (
    "account name email expectedEmail syncFrom notifyFrom subconnections redirectUrl delegated path n t"
).split()
APPLICATION_ONLY = "Application-only OAuth providers do not support interactive authorization"
EXPIRED = "Invalid or expired account setup URL"
NO_TOKEN = "Oauth failed: did not get token"  # noqa: S105 - what a page says


class PageError(Exception):
    """An HTML page with this text and status; `detail` says more below the contract's words."""

    def __init__(self, status: int, text: str, detail: str = "") -> None:
        super().__init__(text)
        self.status, self.text, self.detail = status, text, detail


class Mismatch(Exception):
    """Somebody else than expected signed in. `retry` is a fresh link for the same set-up."""

    def __init__(self, expected: str, actual: str, retry: str) -> None:
        super().__init__("another account is expected")
        self.expected, self.actual, self.retry = expected, actual, retry


def new_nonce() -> str:
    """16 random bytes, 22 characters."""
    return encode(secrets.token_bytes(16))


def sign(raw: bytes, secret: str) -> str:
    """The signature of a set-up blob: HMAC-SHA256 over the JSON before base64 (7.1)."""
    return encode(hmac.new(secret.encode(), raw, hashlib.sha256).digest())


def add_query(url: str, **more: str) -> str:
    """The URL with parameters added to whatever query it had, which stays as it was written."""
    parts = urlsplit(url)
    own = [pair for pair in parts.query.split("&") if pair and unquote_plus(pair.partition("=")[0]) not in more]
    return urlunsplit(parts._replace(query="&".join([*own, urlencode(more)])))


class Consent:
    """Makes and follows sign-in links."""

    def __init__(
        self,
        pending: Table,
        nonces: Table,
        vault: Vault,
        settings: ServiceSettings,
        apps: OauthApps,
        credentials: Credentials,
        accounts: Accounts,
        onboarding: Onboarding,
        graph_of: Any,
        clock: Clock,
    ) -> None:
        self._pending, self._nonces, self._vault, self._settings = pending, nonces, vault, settings
        self._apps, self._credentials, self._accounts = apps, credentials, accounts
        self._onboarding, self._graph_of, self._clock = onboarding, graph_of, clock

    # -- links ---------------------------------------------------------------------------------------------

    async def form_url(self, fields: dict[str, Any]) -> str:
        """The signed link of POST /v1/authentication/form."""
        base = await self._base()
        app = await self._apps.resolve(fields.get("type") or None)
        blob = {name: fields[name] for name in BLOB_KEYS if fields.get(name) not in (None, "", False)}
        blob |= {"n": new_nonce(), "t": int(self._clock().timestamp() * 1000)}
        raw = json.dumps(blob, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        query = {"data": encode(raw), "sig": sign(raw, await self._settings.service_secret())}
        if app is not None and app.enabled:
            query["type"] = app.id
        url = f"{base}/accounts/new?{urlencode(query)}"
        if len(url) > LONGEST_URL:
            raise InvalidInput.field(
                "path", f"The link would have {len(url)} characters; shorten path or subconnections"
            )
        return url

    async def _base(self) -> str:
        base = await self._settings.service_url()
        if not base:
            raise ApiError(500, "Service URL not set up", "MissingServiceURLSetup")
        return base

    async def open_link(self, data: str, signature: str) -> dict[str, Any]:
        """The set-up in a link; PageError when it is malformed, forged, used or too old."""
        try:
            raw = decode(data)
            given = decode(signature)
        except (ValueError, UnicodeError):
            raise PageError(400, "Invalid request. Check your input and try again.") from None
        if not data or not signature:
            raise PageError(400, "Invalid request. Check your input and try again.")
        if not hmac.compare_digest(given, decode(sign(raw, await self._settings.service_secret()))):
            raise PageError(403, "Signature validation failed")
        blob = _object(raw)
        if "act" in blob:  # a link out of a mail, which is signed with the same key, sets up nothing
            raise PageError(403, "Signature validation failed")
        await self._check_age(blob)
        return blob

    async def _check_age(self, blob: dict[str, Any]) -> None:
        """Links without a nonce come from clients that sign themselves; they do not expire (7.1)."""
        if "n" not in blob and "t" not in blob:
            return
        nonce, made = blob.get("n"), blob.get("t")
        if not isinstance(nonce, str) or not NONCE.fullmatch(nonce):
            raise PageError(400, "Invalid nonce format. Please generate a new authentication URL.")
        age_s = self._clock().timestamp() - (made / 1000 if isinstance(made, int | float) else 0)
        life_s = LINK_LIFE.total_seconds()
        if not -life_s <= age_s <= life_s or await self._is_claimed(nonce):
            raise PageError(403, EXPIRED)

    async def _is_claimed(self, nonce: str) -> bool:
        try:
            return await self._nonces.get(_storable(nonce), "claimed") is not None
        except RecordDamaged:
            return True  # that it is there says it all

    async def offered_apps(self) -> list[OauthApp]:
        """The apps a person may choose from."""
        return [app for app in await self._apps.all() if app.enabled and not app.is_application]

    # -- to Microsoft --------------------------------------------------------------------------------------

    async def begin_form(self, blob: dict[str, Any], app: OauthApp) -> str:
        """The address to redirect to for the set-up of a signed link."""
        if app.is_application:
            raise PageError(400, APPLICATION_ONLY)
        setup = {name: blob[name] for name in BLOB_KEYS if name in blob and name not in ("n", "t")}
        setup["claim"] = blob.get("n") or new_nonce()
        hint = blob.get("expectedEmail") or ("" if blob.get("delegated") else blob.get("email"))
        return await self._begin(setup, app, login_hint=hint or None)

    async def begin_api(self, fields: dict[str, Any]) -> str:
        """The address for POST /v1/account with `authorize` (6.1). Nothing is created before the callback."""
        oauth2 = fields["oauth2"]
        app = await self._apps.resolve(oauth2.get("provider"))
        if app is None or not app.enabled:
            raise ApiError(400, "Invalid or missing OAuth2 provider")
        if app.is_application:
            raise ApiError(400, APPLICATION_ONLY)
        setup = {"fields": {k: v for k, v in fields.items() if k != "oauth2"}, "auth": oauth2.get("auth") or {}}
        setup |= {"redirectUrl": oauth2.get("redirectUrl"), "expectedEmail": fields.get("expectedEmail")}
        setup["claim"] = new_nonce()
        await self._base()
        return await self._begin(setup, app)

    async def _begin(
        self, setup: dict[str, Any], app: OauthApp, *, login_hint: str | None = None, prompt: str = "select_account"
    ) -> str:
        key = new_nonce()
        redirect_uri = app.redirect_url or f"{await self._base()}/oauth"
        address, flow = await self._credentials.begin_sign_in(
            app,
            redirect_uri=redirect_uri,
            state=STATE_PREFIX + key,
            response_mode="query",
            prompt=prompt,
            login_hint=login_hint,
        )
        ends = iso(self._clock() + PENDING_LIFE)
        content = json.dumps({"setup": setup, "app": app.id, "flow": flow, "ends": ends})
        sealed = self._vault.seal(content.encode(), f"pending/{key}")
        await self._pending.insert(Row(key, "setup", {"sealed": sealed, "ends": ends}))
        return address

    # -- from Microsoft ------------------------------------------------------------------------------------

    async def callback(self, query: dict[str, str]) -> tuple[dict[str, str], str]:
        """What GET /oauth does (7.3): the created account and the URL to end at, "" for none.

        Raises PageError, and Mismatch when somebody else than expected signed in.
        """
        if query.get("error"):
            raise PageError(400, f"Oauth failed: {query['error']}")
        if not query.get("code"):
            raise PageError(400, "Oauth failed: no code received")
        setup, app, flow = await self._take_pending(query.get("state", ""))
        signed_in = await self._exchange(app, flow, query)
        profile = await self._profile(app, signed_in)
        address = profile.get("mail") or profile.get("userPrincipalName")
        user = profile.get("userPrincipalName") or address
        if not address or not user:
            raise PageError(400, "Oauth failed: failed to retrieve account email address")
        await self._check_expected(setup, app, address, user)
        wanted = setup.get("account") or (setup.get("fields") or {}).get("account")
        existing = await self._accounts.find(wanted) if wanted else None
        fields = account_fields(setup, app, address, user, profile.get("displayName") or "", existing)
        created = await self._claimed(setup["claim"], fields, signed_in)
        target = setup.get("redirectUrl") or ""
        return created, add_query(target, **created) if target else ""

    async def _take_pending(self, state: str) -> tuple[dict[str, Any], OauthApp, dict[str, Any]]:
        if not state.startswith(STATE_PREFIX):
            raise PageError(400, "Oauth failed: invalid state received")
        key = state.removeprefix(STATE_PREFIX)
        if not NONCE.fullmatch(key):
            raise PageError(400, "Oauth failed: invalid state format")
        row = await self._pending.get(_storable(key), "setup")
        try:
            taken = row is not None and await self._pending.delete(row.partition, row.key, row.etag)
        except StorageConflict:
            taken = False
        if row is None or not taken or row.value["ends"] < iso(self._clock()):
            raise PageError(400, "Oauth failed: session expired")
        try:
            content = json.loads(self._vault.open(row.value["sealed"], f"pending/{key}"))
        except SealBroken:
            raise PageError(400, "Oauth failed: invalid session") from None
        app = await self._apps.find(content["app"])
        if app is None or not app.enabled:
            raise PageError(404, "Missing or disabled OAuth2 app")
        return content["setup"], app, content["flow"]

    async def _exchange(self, app: OauthApp, flow: dict[str, Any], query: dict[str, str]) -> SignIn:
        from requests import RequestException

        try:
            return await self._credentials.finish_sign_in(app, flow, query)
        except IdTokenRefused as refusal:
            raise PageError(403, f"Oauth failed: {refusal}") from None
        except CredentialError as failure:
            await self._apps.note_failure(app.id, str(failure))
            hint = failure.last_error.get("description") or ""
            raise PageError(400, NO_TOKEN, f"{failure} {hint}".strip()) from None
        except (RuntimeError, RequestException):
            # MSAL's word for an id_token of another sign-in, or keys that could not be fetched.
            raise PageError(400, NO_TOKEN) from None

    async def _profile(self, app: OauthApp, signed_in: SignIn) -> dict[str, Any]:
        graph: Graph = self._graph_of(app)

        async def token(_rejected: str | None) -> str:
            return signed_in.access_token

        me = MailboxPath()
        try:
            return (await graph.call(me, app, token, requests.profile(graph.client, me))).json()
        except GraphFailure as failure:
            status = failure.status if 400 <= failure.status <= 599 else 500
            raise PageError(status, f"Oauth failed: {failure}") from None

    async def _check_expected(self, setup: dict[str, Any], app: OauthApp, address: str, user: str) -> None:
        """Only what the provider proved counts: mail and principal name."""
        expected = setup.get("expectedEmail") or (setup.get("fields") or {}).get("expectedEmail")
        account = setup.get("account") or (setup.get("fields") or {}).get("account")
        if not expected and account and (record := await self._accounts.find(account)):
            expected = record.get("expectedEmail")
        if expected and expected.lower() not in (address.lower(), user.lower()):
            retry = await self._begin(setup, app, prompt="select_account")
            raise Mismatch(expected, address, retry)

    async def _claimed(self, nonce: str, fields: dict[str, Any], signed_in: SignIn) -> dict[str, str]:
        """Creates the account while holding the claim on the link's nonce; a failure gives the claim back."""
        key = _storable(nonce)
        try:
            await self._nonces.insert(Row(key, "claimed", {"at": iso(self._clock())}))
        except StorageConflict:
            raise PageError(403, EXPIRED) from None
        try:
            return await self._onboarding.create(fields, signed_in.stored)
        except BaseException:
            await self._nonces.delete(key, "claimed")
            raise

    async def sweep(self) -> int:
        """Removes set-ups nobody finished and nonces whose links are too old to open."""
        now, removed = self._clock(), 0
        async for row in self._pending.scan():
            if row.value["ends"] < iso(now):
                removed += await self._pending.delete(row.partition, row.key)
        async for row in self._nonces.scan():
            if row.value["at"] < iso(now - 2 * PENDING_LIFE):
                removed += await self._nonces.delete(row.partition, row.key)
        return removed


def account_fields(
    setup: dict[str, Any],
    app: OauthApp,
    address: str,
    user: str,
    display_name: str,
    existing: Record | None = None,
) -> dict[str, Any]:
    """The fields of the account that a finished sign-in creates: who owns the mailbox is decided here (7.3).

    A link that names no mailbox, for an account that leads to a shared one, renews the sign-in alone.
    """
    fields = dict(setup.get("fields") or {})
    for name in ("account", "name", "email", "expectedEmail", "syncFrom", "notifyFrom", "path", "subconnections"):
        if setup.get(name) is not None:
            fields[name] = setup[name]
    auth = {name: value for name, value in (setup.get("auth") or {}).items() if value}
    if auth.get("delegatedUser"):
        fields["email"] = fields.get("email") or auth["delegatedUser"]
    elif setup.get("delegated") and fields.get("email") and fields["email"].lower() != address.lower():
        auth["delegatedUser"] = fields["email"]
    elif (shared := auth_of(existing or {}).get("delegatedUser")) and not fields.get("email"):
        auth["delegatedUser"] = shared
    else:
        fields["email"] = address
    auth["user"] = user
    if existing is None or fields.get("name"):
        fields["name"] = fields.get("name") or display_name or fields["email"]
    fields["oauth2"] = {"provider": app.id, "auth": auth}
    return fields


def _object(raw: bytes) -> dict[str, Any]:
    """The blob, with every field of the type our own form makes. A signed blob may still be made by a client."""
    try:
        blob = json.loads(raw)
    except ValueError:
        blob = None
    texts = ("account", "name", "email", "expectedEmail", "redirectUrl", "n")
    if not isinstance(blob, dict) or any(not isinstance(blob.get(name, ""), str | None) for name in texts):
        raise PageError(400, "Invalid request. Check your input and try again.")
    if blob.get("redirectUrl") and urlsplit(blob["redirectUrl"]).scheme not in ("http", "https"):
        raise PageError(400, "Invalid request. Check your input and try again.")
    return blob


def _storable(nonce: str) -> str:
    """Nonces of old clients may hold `/` and `+`, which keys must not."""
    return nonce.replace("/", "_").replace("+", "-").rstrip("=")
