"""Subscriptions that no account stands behind: their accounts were deleted while Graph was out of reach, or a
process died before it stored them. They run out by themselves within three days; this ends them sooner."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from shared.access import Access
from shared.accounts import Accounts
from shared.clock import Clock
from shared.errors import CredentialError, GraphFailure, RecordDamaged
from shared.graph import requests
from shared.oauth_apps import OauthApp, OauthApps
from shared.service_settings import ServiceSettings
from shared.subscriptions import is_being_made

TRIED_AGAIN_AFTER = timedelta(hours=1)
REMEMBERED = 1000
MOST_PAGES = 200
log = logging.getLogger("graphpost.orphans")


class Orphans:
    """Ends subscriptions whose notifications nobody wants."""

    def __init__(
        self, accounts: Accounts, access: Access, apps: OauthApps, settings: ServiceSettings, clock: Clock
    ) -> None:
        self._accounts, self._access, self._apps = accounts, access, apps
        self._settings, self._clock = settings, clock
        self._tried: dict[str, datetime] = {}

    async def end(self, subscription_ids: set[str]) -> None:
        """These sent genuine notifications for an account that does not exist. Ended if an application made them;
        one that a person's sign-in made can not be ended without that person, and runs out. Each is tried at most
        once an hour by one process."""
        now = self._clock()
        for one in filter(None, subscription_ids):
            if now - self._tried.get(one, now - TRIED_AGAIN_AFTER) < TRIED_AGAIN_AFTER:
                continue
            if len(self._tried) >= REMEMBERED:
                self._tried.clear()
            self._tried[one] = now
            for app in await self._applications():
                if await self._delete(app, one):
                    break

    async def sweep(self) -> int:
        """Looks through the subscriptions of every application: those that lead here but whose account is gone or
        names another one are ended; the number ended."""
        base = await self._settings.notification_base()
        if not base:
            return 0
        ended = 0
        for app in await self._applications():
            try:
                ended += await self._sweep_app(app, f"{base}/oauth/msg/notification?")
            except (GraphFailure, CredentialError):
                continue  # the next hour's sweep
        return ended

    async def _sweep_app(self, app: OauthApp, ours: str) -> int:
        ended, pages, request = 0, 0, requests.subscriptions
        page = (await self._access.call_as(app, request)).json()
        while True:
            for one in page.get("value", ()):
                if await self._is_orphan(one, ours):
                    ended += await self._delete(app, one["id"])
            link, pages = page.get("@odata.nextLink"), pages + 1
            if not link or pages >= MOST_PAGES:
                return ended
            page = (await self._access.follow_as(app, link)).json()

    async def _is_orphan(self, subscription: dict[str, Any], ours: str) -> bool:
        url = subscription.get("notificationUrl") or ""
        if not url.startswith(ours):
            return False
        (account, *_) = parse_qs(urlsplit(url).query).get("account", [""])
        if not account:
            return False
        try:
            record = await self._accounts.find(account)
        except RecordDamaged:
            return False  # nobody can say
        if record is None:
            return True
        current = (record.get("subscription") or {}).get("id")
        return current != subscription["id"] and not is_being_made(record, self._clock())

    async def _delete(self, app: OauthApp, subscription_id: str) -> bool:
        try:
            await self._access.call_as(app, lambda c: requests.unsubscribe(c, subscription_id))
        except (GraphFailure, CredentialError):
            return False
        log.info("ended a subscription without an account")
        return True

    async def _applications(self) -> list[OauthApp]:
        return [app for app in await self._apps.all() if app.is_application and app.enabled]
