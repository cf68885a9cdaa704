"""Builds the services, once in a process. The only place where clients are made and parts are put together."""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import dataclass
from typing import Any

from shared.access import Access
from shared.accounts import Accounts, Reach, Record
from shared.changes import Changes
from shared.clock import Clock, iso, utc_now
from shared.consent import Consent
from shared.credentials import Credentials
from shared.graph.client import Graph
from shared.mailboxes import Mailboxes
from shared.oauth_apps import OauthApp, OauthApps
from shared.onboarding import Onboarding
from shared.outbox import Outbox
from shared.polling import Polling
from shared.schedule import Schedule
from shared.service_settings import ServiceSettings
from shared.settings import Settings
from shared.storage.account import StorageAccount
from shared.storage.blobs import Blobs
from shared.storage.queues import Queues
from shared.storage.tables import Table
from shared.submit import Submit
from shared.subscriptions import Subscriptions
from shared.tokens import AccessTokens
from shared.vault import Vault
from shared.webhooks import Events, Webhooks

TABLES = (
    "accounts links credentials oauth2apps tokens settings pending nonces schedule outbox events counters trees "
    "cursors markers"
).split()
QUEUES = ("outbox", "mailboxes", "webhooks", "notifications")


@dataclass
class Services:
    """Everything the triggers call, for one process."""

    settings: Settings
    storage: StorageAccount
    tables: dict[str, Table]
    queues: Queues
    blobs: Blobs
    schedule: Schedule
    service_settings: ServiceSettings
    apps: OauthApps
    credentials: Credentials
    accounts: Accounts
    events: Events
    access: Access
    mailboxes: Mailboxes
    subscriptions: Subscriptions
    changes: Changes
    polling: Polling
    outbox: Outbox
    submit: Submit
    onboarding: Onboarding
    consent: Consent
    tokens: AccessTokens
    webhooks: Webhooks
    clock: Clock
    graphs: dict[str, Graph]
    http: OutgoingHttp

    async def close(self) -> None:
        """Closes every client; for tests and scripts, since a function app's process is simply ended."""
        for table in self.tables.values():
            await table.close()
        await self.queues.close()
        await self.blobs.close()
        await self.http.close()
        for graph in self.graphs.values():
            await graph.close()
        await self.storage.close()


class OutgoingHttp:
    """The HTTP client for webhooks, made on first use. Redirects are not followed."""

    def __init__(self) -> None:
        self._made: Any = None

    def __call__(self) -> Any:
        if self._made is None:
            import httpx

            self._made = httpx.AsyncClient(follow_redirects=False)
        return self._made

    async def close(self) -> None:
        if self._made is not None:
            await self._made.aclose()


_services: Services | None = None


def services() -> Services:
    """The process's services. SettingsError with every problem when the app is not configured."""
    global _services
    if _services is None:
        _quieten_libraries()
        _services = build(Settings.from_env(os.environ))
    return _services


def _quieten_libraries() -> None:
    """At INFO these write whole URLs, and with them addresses, message ids and webhook paths, into the log."""
    for name in ("httpx", "httpcore", "azure", "msal", "urllib3"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # The contract's redirect is a GET (emailengine.md 7.2), which MSAL comments at every sign-in.
    warnings.filterwarnings("ignore", message="response_mode='form_post'", category=UserWarning)


def build(settings: Settings, clock: Clock = utc_now) -> Services:
    """Services for these settings."""
    storage = StorageAccount(settings.storage)
    tables = {name: Table(storage, name) for name in TABLES}
    queues, blobs, vault = Queues(storage), Blobs(storage), Vault(settings.key_ring)
    schedule = Schedule(tables["schedule"], queues, clock)
    service_settings = ServiceSettings(tables["settings"], vault, clock, settings.service_url)
    apps = OauthApps(tables["oauth2apps"], vault, clock, settings)
    credentials = Credentials(tables["credentials"], vault, clock, settings.login_endpoint)
    accounts = Accounts(tables["accounts"], tables["links"], queues, vault, apps)
    events = Events(tables["events"], queues, clock, service_settings)
    graphs: dict[str, Graph] = {}

    def graph_of(app: OauthApp) -> Graph:
        root = settings.graph_endpoint or app.hosts.graph
        if root not in graphs:
            graphs[root] = Graph(root, app.hosts.graph)
        return graphs[root]

    access = Access(accounts, credentials, events, graph_of, clock)
    mailboxes = Mailboxes(tables["trees"], access)
    subscriptions = Subscriptions(
        accounts, access, schedule, service_settings, clock, settings.key_ring, settings.poll_interval_s
    )
    changes = Changes(accounts, access, mailboxes, events, service_settings, tables["markers"], queues, clock)
    polling = Polling(
        accounts, access, mailboxes, changes, schedule, tables["cursors"], clock, settings.poll_interval_s
    )
    outbox = Outbox(tables["outbox"], blobs, schedule, accounts, access, events, clock)
    tokens = AccessTokens(tables["tokens"], clock, settings.bootstrap_token)

    async def after_connect(record: Record, reach: Reach) -> None:
        await subscriptions.start(record, reach)

    async def clean_up(record: Record) -> None:
        account = record["account"]
        await subscriptions.remove(record)
        await outbox.drop_account(account)
        await tokens.delete_of_account(account)
        await changes.forget(account)
        await polling.forget(account)
        await mailboxes.forget(account)
        await webhooks.forget(account)

    async def on_other_mailbox(record: Record) -> None:
        """The account leads to another mailbox than before: what is known of the old one is forgotten."""
        await subscriptions.remove(record)
        await polling.forget(record["account"])
        await mailboxes.forget(record["account"])
        now = iso(clock())
        dropped = ("subscription", "inbox")
        await accounts.change(
            record["account"],
            lambda r: {k: v for k, v in r.items() if k not in dropped} | {"notifyFrom": now, "heardUntil": now},
        )

    access.after_connect = after_connect
    access.on_other_mailbox = on_other_mailbox
    onboarding = Onboarding(accounts, apps, credentials, events, clock, clean_up)
    consent = Consent(
        tables["pending"], tables["nonces"], vault, service_settings, apps, credentials, accounts, onboarding,
        graph_of, clock,
    )  # fmt: skip
    http = OutgoingHttp()
    webhooks = Webhooks(tables["events"], tables["counters"], queues, clock, service_settings, accounts, http)
    submit = Submit(accounts, outbox, service_settings, clock, settings.send_format)
    return Services(
        settings=settings, storage=storage, tables=tables, queues=queues, blobs=blobs, schedule=schedule,
        service_settings=service_settings, apps=apps, credentials=credentials, accounts=accounts,
        events=events, access=access, mailboxes=mailboxes, subscriptions=subscriptions, changes=changes,
        polling=polling, outbox=outbox, submit=submit, onboarding=onboarding, consent=consent, tokens=tokens,
        webhooks=webhooks, clock=clock, graphs=graphs, http=http,
    )  # fmt: skip
