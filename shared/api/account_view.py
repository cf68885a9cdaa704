"""An account as the API shows it: secrets masked, state and last error with the credential holder's part."""

from __future__ import annotations

from typing import Any

from shared.accounts import MASK, Accounts, Record, auth_of, masked_url, shown_state
from shared.oauth_apps import OauthApps

_STORED = (
    "account name email expectedEmail path subconnections copy logs notifyFrom syncFrom proxy smtpEhloName "
    "imapIndexer locale tz syncTime created notifications"
).split()

_LISTED = (
    "account name email type app state webhooks proxy smtpEhloName syncTime counters lastError notifications "
    "delegationError"
).split()


async def type_of(record: Record, apps: OauthApps) -> str:
    """The contract's `type` (4.2)."""
    oauth2 = record.get("oauth2")
    if not oauth2:
        return "sending"
    if auth_of(record).get("delegatedAccount"):
        return "delegated"
    app = await apps.resolve(oauth2.get("provider"))
    return app.provider if app else "oauth2"


def _oauth2_view(record: Record) -> dict[str, Any] | None:
    oauth2 = record.get("oauth2")
    if not oauth2:
        return None
    shown = {name: oauth2[name] for name in ("provider", "auth", "scope", "tokenType") if oauth2.get(name)}
    shown["auth"] = {name: value for name, value in auth_of(record).items() if value}
    if record.get("credentials") in ("sign-in", "imported"):
        shown |= {"accessToken": MASK, "refreshToken": MASK}
    return shown


async def account_view(
    record: Record, holder: Record | None, accounts: Accounts, apps: OauthApps, counters: dict[str, int]
) -> dict[str, Any]:
    """The answer of GET /v1/account/{account} (6.2)."""
    state, last_error = shown_state(record, holder)
    view: dict[str, Any] = {name: record[name] for name in _STORED if record.get(name) is not None}
    url, headers = accounts.webhook_of(record)
    if url:
        view["webhooks"] = masked_url(url)
    if headers:
        view["webhooksCustomHeaders"] = [{"key": header["key"], "value": MASK} for header in headers]
    view |= {
        "state": state,
        "type": await type_of(record, apps),
        "baseScopes": "api",
        "sendOnly": bool(record.get("sendOnly")),
        "connections": int(state == "connected"),
        "smtpStatus": None,
        "counters": {"events": counters},
        "lastError": last_error,
    }
    if oauth2 := _oauth2_view(record):
        view["oauth2"] = oauth2
    if app := (record.get("reach") or {}).get("app") or (record.get("oauth2") or {}).get("provider"):
        view["app"] = app
    if problem := record.get("delegationError"):
        view["delegationError"] = problem
    if heard := record.get("notifications"):
        watch = record.get("watch") or {}
        view["notifications"] = heard | {name: watch.get(name, 0) for name in ("gaps", "late", "resyncs")}
    if subscription := record.get("subscription"):
        view["outlookSubscription"] = subscription
    return view


async def listed_view(record: Record, holder: Record | None, accounts: Accounts, apps: OauthApps) -> dict[str, Any]:
    """One entry of GET /v1/accounts (6.5)."""
    whole = await account_view(record, holder, accounts, apps, {})
    view = {name: whole[name] for name in _LISTED if name in whole}
    return view | ({"type": "invalid"} if record.get("delegationError") else {})
