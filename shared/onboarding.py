"""Creating, changing and deleting accounts: the writes around a record, in an order that survives a crash.

Each step may be the last one done. What must follow a record's change (resolving chains, connecting) is put on
a queue *before* the change, a few seconds ahead, so that it happens even when the process dies right after it.
"""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Any

from shared import delegation
from shared.accounts import MASK, Accounts, Record, auth_of, masked_url
from shared.clock import Clock, iso, parse_time
from shared.credentials import Credentials, imported
from shared.deletion import Deletion
from shared.errors import ApiError, InvalidInput, StorageConflict, account_not_found
from shared.events import Events
from shared.oauth_apps import OauthApp, OauthApps
from shared.token_records import Stored

SOON_S = 3
ADDED_LATELY = timedelta(hours=1)
PLAIN_FIELDS = (
    "name email expectedEmail path subconnections copy logs notifyFrom syncFrom proxy smtpEhloName imapIndexer "
    "locale tz"
).split()
TOKENS = ("accessToken", "refreshToken")


class Onboarding:
    """Creates, changes and deletes accounts."""

    def __init__(
        self,
        accounts: Accounts,
        apps: OauthApps,
        credentials: Credentials,
        events: Events,
        clock: Clock,
        deletion: Deletion,
    ) -> None:
        self._accounts, self._apps, self._credentials = accounts, apps, credentials
        self._events, self._clock, self._deletion = events, clock, deletion

    async def create(self, fields: dict[str, Any], signed_in: Stored | None = None) -> dict[str, str]:
        """Creates the account, or updates the one that has this id (6.1): `{"account", "state"}`."""
        account = fields.get("account") or self._accounts.new_id()
        existing = await self._accounts.find_whole(account)
        if existing is not None and existing.get("deleting"):
            await self._deletion.resume(account)
        elif existing is not None:
            await self.update(account, fields, signed_in)
            return {"account": account, "state": "existing"}
        now = iso(self._clock())
        record: Record = {"account": account, "created": now, "state": "connecting", "logs": False}
        record |= {"notifyFrom": now, "birth": secrets.token_hex(8)}
        record = await self._applied(record, fields, signed_in)
        await self._before_change(account)
        await self._store_credentials(record, fields, signed_in)
        record = await self._linked(record, None)
        try:
            await self._accounts.insert(record)
        except StorageConflict:
            taken = await self._accounts.find(account)
            if taken is None or taken.get("birth") != record["birth"]:
                # Two creates of one id at once: the later one is an update, as if it had come later.
                await self.update(account, fields, signed_in)
                return {"account": account, "state": "existing"}
            # Else it is our own write, repeated by the storage client after an answer that was lost.
        await self._tell_added(record)
        await self._after_change(account)
        return {"account": account, "state": "new"}

    async def update(self, account: str, fields: dict[str, Any], signed_in: Stored | None = None) -> None:
        """Changes the given fields; NotFound."""
        before = await self._accounts.get(account)
        changed = await self._applied(dict(before), fields, signed_in)
        reconnects = "oauth2" in fields or signed_in is not None
        if reconnects:
            await self._before_change(account)
            await self._store_credentials(changed, fields, signed_in)
            changed = await self._linked(changed, delegation.parent_of(before))
        touched = {k: v for k, v in changed.items() if before.get(k) != v}
        dropped = [k for k in before if k not in changed]

        def merge(record: Record) -> Record:
            return {k: v for k, v in (record | touched).items() if k not in dropped}

        if await self._accounts.change(account, merge) is None:
            raise account_not_found()
        if reconnects:
            await self._after_change(account)

    async def delete(self, account: str) -> None:
        """Ends everything the account has; NotFound. Called again it finishes what a broken call began."""
        await self._deletion.delete(account)

    async def reconnect(self, account: str) -> None:
        """Starts the account anew (6.6); NotFound."""
        await self._accounts.get(account)
        await self._accounts.queue_job(account, "relink", reconnect=True)

    async def relink(self, account: str, reconnect: bool = False) -> None:
        """Resolves the chains of this account and of all that borrow through it, and connects what changed."""
        record = await self._accounts.find(account)
        if record is not None and self._clock() - parse_time(record["created"]) < ADDED_LATELY:
            await self._tell_added(record)  # the process that created it may have died before it could
        seen: dict[str, Record | None] = {}

        async def lookup(name: str) -> Record | None:
            if name not in seen:
                seen[name] = await self._accounts.find(name)
            return seen[name]

        for one in [account, *await self._accounts.borrowers(account)]:
            record = await lookup(one)
            if record is None:
                continue
            settled = await self._accounts.settle_reach(record, lookup)
            kept = {name: settled.get(name) for name in ("reach", "delegationError")}
            changed = any(record.get(name) != value for name, value in kept.items())
            if changed and record["state"] != "unset":
                kept["state"] = "connecting"  # another person, path or app: what was known of it holds no more
            if changed:
                await self._accounts.change(one, lambda current, kept=kept: _with(current, kept))  # type: ignore[misc]
            asked = reconnect and one == account and settled["state"] != "unset"
            if changed or asked or settled["state"] == "connecting":
                await self._accounts.queue_job(one, "initialise", force=asked)

    # -- parts of a change -----------------------------------------------------------------------------------

    async def _tell_added(self, record: Record) -> None:
        account, happening = record["account"], f"added {record['created']}"
        await self._events.emit(account, "accountAdded", {"account": account}, happening=happening)

    async def _before_change(self, account: str) -> None:
        await self._accounts.queue_job(account, "relink", SOON_S)

    async def _after_change(self, account: str) -> None:
        """At once what the delayed job would do a few seconds later."""
        record = await self._accounts.find(account)
        if record is not None and record["state"] != "unset":
            await self._accounts.queue_job(account, "initialise")
        if await self._accounts.is_borrowed_from(account):
            await self._accounts.queue_job(account, "relink")

    async def _applied(self, record: Record, fields: dict[str, Any], signed_in: Stored | None) -> Record:
        """The record with the caller's fields on it, checked against the OAuth2 apps."""
        for name in PLAIN_FIELDS:
            if name in fields:
                record[name] = fields[name]
        record["notifyFrom"] = record.get("notifyFrom") or iso(self._clock())
        if record.get("proxy"):
            record["proxy"] = masked_url(record["proxy"])  # has no effect, so its password need not be kept
        if {"webhooks", "webhooksCustomHeaders"} & set(fields):
            record["webhooksSealed"] = self._sealed_webhooks(record, fields)
        if "oauth2" in fields:
            record["oauth2"] = self._merged_oauth2(record, fields["oauth2"])
            app = await self._checked_app(record)
            record["credentials"] = self._kind_of_credentials(record, fields["oauth2"] or {}, app, signed_in)
            if signed_in is not None:
                record["oauth2"] |= {"scope": signed_in.scope, "tokenType": "Bearer"}
            if signed_in is not None or _new_tokens(fields["oauth2"]):
                record["credentialsVersion"] = secrets.token_hex(8)
        if "oauth2" in fields or "state" not in record or not record.get("oauth2"):
            connects = record.get("credentials") or delegation.parent_of(record)
            record["state"] = "connecting" if connects else "unset"
            record["lastError"] = None
        return record

    def _sealed_webhooks(self, record: Record, fields: dict[str, Any]) -> str:
        url, headers = self._accounts.webhook_of(record)
        given = fields.get("webhooksCustomHeaders")
        if given is not None:
            headers = unmasked_headers(given, headers)
        if "webhooks" in fields:
            url = unmasked_url(fields["webhooks"], url)
        return self._accounts.seal_webhooks(record["account"], url, headers)

    @staticmethod
    def _merged_oauth2(record: Record, given: dict[str, Any] | None) -> dict[str, Any] | None:
        if not given:
            return None
        kept = {k: v for k, v in given.items() if k in ("provider", "auth", "scope", "tokenType") and v is not None}
        if given.get("partial"):
            old = record.get("oauth2") or {}
            return old | kept | {"auth": (old.get("auth") or {}) | (kept.get("auth") or {})}
        return kept

    async def _checked_app(self, record: Record) -> OauthApp | None:
        """The account's own app; None for one that only borrows. 400 when it names none that exists."""
        auth, provider = auth_of(record), (record.get("oauth2") or {}).get("provider")
        if auth.get("delegatedAccount") and not auth.get("delegatedUser"):
            raise InvalidInput.field("delegatedUser", '"delegatedUser" is required together with "delegatedAccount"')
        if not record.get("oauth2") or (auth.get("delegatedAccount") and not provider):
            return None
        app = await self._apps.resolve(provider)
        if app is None:
            raise ApiError(400, "Invalid or missing OAuth2 provider")
        record["oauth2"]["provider"] = app.id
        return app

    @staticmethod
    def _kind_of_credentials(
        record: Record, given: dict[str, Any], app: OauthApp | None, signed_in: Stored | None
    ) -> str | None:
        if signed_in is not None:
            return "sign-in"
        if app is not None and app.is_application:
            return "application"
        if not given:
            return None
        if _new_tokens(given):
            return "imported"
        # Without new tokens an update keeps what the account has; a plain replacement of oauth2 does too,
        # since clients write back what they read, with the tokens masked.
        kept: str | None = record.get("credentials")
        return None if kept == "application" else kept

    async def _store_credentials(self, record: Record, fields: dict[str, Any], signed_in: Stored | None) -> None:
        account, given = record["account"], fields.get("oauth2") or {}
        tokens = _new_tokens(given)
        if not given and signed_in is None and "oauth2" in fields:
            await self._credentials.forget(account)
        if signed_in is not None:
            await self._credentials.save(account, signed_in)
        elif record.get("credentials") == "imported" and tokens:
            assumed_end = iso(self._clock() + timedelta(hours=1))
            stored = imported({"expires": given.get("expires"), "assumed_end": assumed_end, **tokens})
            refresh_stays = given.get("refreshToken") == MASK or (given.get("partial") and "refreshToken" not in given)
            if refresh_stays:
                await self._credentials.keep_renewable(account, stored)
            await self._credentials.save(account, stored)

    async def _linked(self, record: Record, old_parent: str | None) -> Record:
        """The record with its chain resolved, and the links between accounts brought up to date."""
        account, parent = record["account"], delegation.parent_of(record)
        if parent and parent != account:
            await self._accounts.link(account, parent)
        if old_parent and old_parent != parent:
            await self._accounts.unlink(account, old_parent)
        return await self._accounts.settle_reach(record)


def _new_tokens(given: dict[str, Any] | None) -> dict[str, str]:
    """The tokens a caller really gives: not absent, not the mask they are shown as."""
    return {name: given[name] for name in TOKENS if given.get(name) not in (None, "", MASK)} if given else {}


def _with(record: Record, kept: dict[str, Any]) -> Record:
    merged = record | {k: v for k, v in kept.items() if v is not None}
    return {k: v for k, v in merged.items() if k not in kept or kept[k] is not None}


def unmasked_url(given: str | None, stored: str | None, key: str = "webhooks") -> str:
    """The webhook target, or another URL with a password, to store. A masked one written back is unchanged; a mask
    that fits no stored value is an error (1.7)."""
    if not given or MASK not in given:
        return given or ""
    if stored and given == masked_url(stored):
        return stored
    raise InvalidInput.field(key, f'"{key}" holds a masked value that is not the stored one')


def unmasked_headers(given: list[dict[str, str]], stored: list[dict[str, str]]) -> list[dict[str, str]]:
    """The custom headers to store; masked values are those stored under the same name."""
    known = {header["key"]: header.get("value", "") for header in stored}
    for header in given:
        if header.get("value") == MASK and header["key"] not in known:
            raise InvalidInput.field("value", f'"value" of the header "{header["key"]}" is masked but none is stored')
    return [
        {"key": h["key"], "value": known[h["key"]] if h.get("value") == MASK else h.get("value", "")} for h in given
    ]
