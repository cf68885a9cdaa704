"""Checking an OAuth2 application step by step: is it whole, does the login service take it, does a mailbox open
(emailengine.md 8). Nothing is changed, apart from a token that may be renewed on the way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from shared.access import Access
from shared.accounts import Accounts, Reach, Record, auth_of, delegate_of
from shared.credentials import Credentials
from shared.errors import CredentialError, GraphFailure, InvalidInput
from shared.graph import requests
from shared.graph.failures import hint
from shared.oauth_apps import SHARED_AUTHORITIES, OauthApp

OK, FAIL, SKIP = "ok", "fail", "skip"


@dataclass
class Steps:
    """The steps so far; after one that failed the others are skipped."""

    found: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return all(step["status"] != FAIL for step in self.found)

    def add(self, name: str, label: str, status: str, message: str = "", hint: str = "") -> None:
        shown = {"id": name, "label": label, "status": status, "message": message or None, "hint": hint or None}
        self.found.append(shown)

    async def run(self, name: str, label: str, why_not: str, work: Callable[[], Awaitable[str]]) -> None:
        """One step that asks somebody else; skipped with the reason `why_not` when there is one."""
        if why_not or not self.ok:
            self.add(name, label, SKIP, why_not or "A step before this one failed")
            return
        try:
            self.add(name, label, OK, await work())
        except CredentialError as failure:
            self.add(name, label, FAIL, str(failure), str(failure.last_error.get("description") or ""))
        except GraphFailure as failure:
            self.add(name, label, FAIL, str(failure), "")


class AppVerification:
    """Checks applications."""

    def __init__(self, accounts: Accounts, access: Access, credentials: Credentials) -> None:
        self._accounts, self._access, self._credentials = accounts, access, credentials

    async def verify(self, app: OauthApp, account: str | None, connects: bool) -> dict[str, Any]:
        """`{app, provider, authMethod, account, ok, steps}`. `account` is one that uses the app; with `connects` its
        mailbox is opened. NotFound for an unknown account, InvalidInput for one of another app."""
        record = await self._accounts.get(account) if account else None
        reach = await self._reach(app, record)
        steps = Steps()
        _check_record(app, steps)
        await steps.run("token", "Access token", self._no_token(app, record), lambda: self._token(app, reach))
        why_not = "" if connects and reach else "Not asked for" if not connects else "No account was named"
        await steps.run("connection", "Mailbox", why_not, lambda: self._open(record, reach))
        view = {"app": app.id, "provider": app.provider, "authMethod": auth_method(app), "account": account}
        return view | {"ok": steps.ok, "steps": steps.found}

    async def _reach(self, app: OauthApp, record: Record | None) -> Reach | None:
        if record is None:
            return None
        if (record.get("reach") or {}).get("app") != app.id:
            raise InvalidInput.field("account", '"account" must be an account that is reached through this app')
        try:
            return await self._accounts.reach(record)
        except CredentialError as failure:
            raise InvalidInput.field("account", f'"account" can not be reached: {failure}') from None

    @staticmethod
    def _no_token(app: OauthApp, record: Record | None) -> str:
        return "" if app.is_application or record else "People sign in with this app: name an account to check one"

    async def _token(self, app: OauthApp, reach: Reach | None) -> str:
        holder, version = (reach.holder, reach.version) if reach else ("", "")
        token, cached = await self._credentials.current(holder, app, version)
        kind = "The token in use is valid" if cached else "The login service gave a token"
        return f"{kind} until {token.ends.isoformat(timespec='seconds')}"

    async def _open(self, record: Record | None, reach: Reach | None) -> str:
        assert record is not None
        assert reach is not None
        try:
            await self._access.call(reach, lambda c: requests.folder(c, reach.mailbox, "inbox"))
        except GraphFailure as failure:
            mailbox = auth_of(record).get("delegatedUser") or record.get("email") or record["account"]
            text = hint(failure, mailbox, delegate_of(record))
            raise CredentialError(str(failure), transient=False, last_error={"description": text}) from None
        return "The inbox opens"


def auth_method(app: OauthApp) -> str:
    """How the application proves itself to the login service."""
    if app.certificate:
        return "certificate"
    if app.managed_identity:
        return "managedIdentity"
    return "clientSecret" if app.secret else "none"


def _check_record(app: OauthApp, steps: Steps) -> None:
    """What can be seen without asking anybody."""
    missing = "" if app.client_id else "clientId is missing"
    missing = missing or ("" if auth_method(app) != "none" else app.broken or "There is no credential")
    is_shared = app.is_application and app.authority in SHARED_AUTHORITIES
    missing = missing or ("authority must be the tenant id for application access" if is_shared else "")
    fix = f"PUT /v1/oauth2/{app.id}" if not app.from_settings else "Change the settings OAUTH_APP_…"
    steps.add("config", "Configuration", FAIL if missing else OK, missing, fix if missing else "")
    if app.enabled:
        steps.add("enabled", "Enabled", OK)
    else:
        steps.add("enabled", "Enabled", SKIP, "The app is disabled: nobody can start a new sign-in with it")
