"""Builds the services, once in a process. The only place where clients are made and parts are put together."""

from __future__ import annotations

import asyncio
import logging
import os
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from shared import web_html
from shared.access import Access
from shared.account_logs import AccountLogs
from shared.accounts import Accounts, Record
from shared.app_verification import AppVerification
from shared.attaching import Attaching
from shared.attachments import References
from shared.batches import Batches
from shared.blocklists import Blocklists
from shared.bulk import Bulk
from shared.canary import Canary
from shared.change_feed import ChangeFeed
from shared.changes import Changes
from shared.clock import Clock, iso, utc_now
from shared.composing import Composer
from shared.consent import Consent
from shared.credentials import Credentials
from shared.deletion import Deletion
from shared.draft_submit import DraftSubmit
from shared.endpoints import Endpoints
from shared.event_contents import EventContents
from shared.event_counters import EventCounters
from shared.events import Events
from shared.export_steps import ExportSteps
from shared.exports import Exports
from shared.flushing import Flushing
from shared.folder_changes import FolderChanges
from shared.gate import Gate
from shared.graph.client import Graph
from shared.idempotency import Idempotency
from shared.lanes import Lanes
from shared.large_mail import LargeMail
from shared.listing import Listing
from shared.mail_merge import MailMerge
from shared.mailbox_events import MailboxEvents
from shared.mailbox_list import MailboxList
from shared.mailboxes import Mailboxes
from shared.markers import Markers
from shared.message_changes import MessageChanges
from shared.message_events import MessageEvents
from shared.message_parts import MessageParts
from shared.message_reports import MessageReports
from shared.oauth_apps import OauthApp, OauthApps
from shared.onboarding import Onboarding
from shared.orphans import Orphans
from shared.outbox import Outbox
from shared.poison import Poison
from shared.polling import Polling
from shared.proof import Proof
from shared.reading import Reading
from shared.references import Originals
from shared.rendering import Rendering
from shared.resealing import Resealing
from shared.schedule import Schedule
from shared.sealed import Resealer
from shared.sent_mail import SentMail
from shared.service_counters import ServiceCounters
from shared.service_settings import ServiceSettings
from shared.settings import Settings
from shared.signed_links import SignedLinks
from shared.storage.account import StorageAccount
from shared.storage.blobs import Blobs
from shared.storage.queues import Queues
from shared.storage.tables import Table
from shared.submit import Submit
from shared.subscriptions import OF_MAILBOX, Subscriptions
from shared.sync import Sync
from shared.templates import Templates
from shared.token_records import TokenRecords
from shared.token_use import TokenUse
from shared.tokens import AccessTokens
from shared.tracking import Tracking
from shared.undelivered import Undelivered
from shared.unfinished import Unfinished
from shared.unsubscribing import Unsubscribing
from shared.upload import UploadedMail
from shared.vault import Vault
from shared.webhook_address import Addresses
from shared.webhook_attempt import DELIVERED as ARRIVED
from shared.webhook_attempt import Outcome, Sender
from shared.webhook_routing import WebhookRoutes
from shared.webhooks import Webhooks

TABLES = (
    "accounts links credentials oauth2apps tokens settings pending nonces schedule outbox events counters trees "
    "cursors markers poison endpoints undelivered idempotency lanes drafts blocklists tokenuse "
    "stats accountlogs changefeed templates exports"
).split()
# Tables whose records are made anew when one is missing or can not be read.
REBUILT = frozenset(
    "counters trees cursors markers pending schedule endpoints undelivered lanes tokenuse stats accountlogs "
    "changefeed".split()
)
# Tables with a partition for each account.
OF_ACCOUNTS = (
    "markers cursors trees counters accountlogs templates exports".split()
)  # with a partition for each account
QUEUES = ("outbox", "mailboxes", "webhooks", "notifications")
GraphOf = Callable[[OauthApp], Graph]
OnRecord = Callable[[Record], Awaitable[None]]


class OutgoingHttp:
    """The HTTP client for webhooks, made on first use. It follows no redirect, uses no proxy of the environment, and
    keeps no connection: two names behind one address are told apart by the TLS greeting alone, which a connection that
    is kept has had already. `verify` replaces the certificates that are trusted."""

    def __init__(self, verify: Any = None) -> None:
        self._made: Any = None
        self._verify = verify

    def __call__(self) -> Any:
        if self._made is None:
            import httpx

            verify = self._verify or httpx.create_ssl_context()
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
            self._made = httpx.AsyncClient(follow_redirects=False, trust_env=False, verify=verify, limits=limits)
        return self._made

    async def close(self) -> None:
        if self._made is not None:
            await self._made.aclose()


@dataclass
class Ground:
    """What everything else stands on: storage, settings, accounts, and calls to Graph."""

    settings: Settings
    clock: Clock
    storage: StorageAccount
    tables: dict[str, Table]
    queues: Queues
    blobs: Blobs
    vault: Vault
    resealer: Resealer
    schedule: Schedule
    service_settings: ServiceSettings
    webhook_routes: WebhookRoutes
    apps: OauthApps
    credentials: Credentials
    accounts: Accounts
    events: Events
    tokens: AccessTokens
    lanes: Lanes
    graphs: dict[str, Graph]
    graph_of: GraphOf
    access: Access
    service_counters: ServiceCounters
    account_logs: AccountLogs
    change_feed: ChangeFeed


@dataclass
class Ears:
    """How changes of mailboxes are heard of."""

    mailboxes: Mailboxes
    mailbox_list: MailboxList
    listing: Listing
    reading: Reading
    subscriptions: Subscriptions
    changes: Changes
    polling: Polling
    proof: Proof
    sync: Sync
    orphans: Orphans
    exports: Exports
    export_steps: ExportSteps


@dataclass
class Post:
    """Mail on its way out."""

    large: LargeMail
    outbox: Outbox
    idempotency: Idempotency
    submit: Submit
    originals: Originals
    links: SignedLinks
    tracking: Tracking
    blocklists: Blocklists
    unsubscribing: Unsubscribing
    templates: Templates
    mail_merge: MailMerge


@dataclass
class Delivery:
    """Events on their way to the customer."""

    http: OutgoingHttp
    addresses: Addresses
    endpoints: Endpoints
    undelivered: Undelivered
    event_counters: EventCounters
    webhooks: Webhooks


@dataclass
class Office:
    """What is done to accounts, queues and keys."""

    poison: Poison
    gate: Gate
    resealing: Resealing
    deletion: Deletion
    onboarding: Onboarding
    consent: Consent
    flushing: Flushing
    verification: AppVerification


@dataclass
class Hands:
    """Changes in mailboxes that callers ask for."""

    message_changes: MessageChanges
    folder_changes: FolderChanges
    bulk: Bulk
    draft_submit: DraftSubmit
    uploaded_mail: UploadedMail


@dataclass
class Services(Hands, Office, Delivery, Post, Ears, Ground):
    """Everything the triggers call, for one process."""

    async def save_notes(self) -> None:
        """Writes what was counted and logged on the way. Called at the end of each call and each queue message."""
        await self.service_counters.save()
        await self.account_logs.save()

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
    ground = _ground(settings, clock)
    ears, post, delivery = _ears(ground), _post(ground), _delivery(ground)
    office = _office(ground, ears, post, delivery)
    ground.access.after_connect = ears.sync.start
    ground.access.on_other_mailbox = _on_other_mailbox(ground, ears)
    hands = _hands(ground, ears, post)
    made = Services(
        **vars(ground), **vars(ears), **vars(post), **vars(delivery), **vars(office), **vars(hands)
    )  # fmt: skip
    _listen(made)
    return made


def _listen(made: Services) -> None:
    """Lets statistics, log lines and the feed hear of what happens."""
    logs, counters = made.account_logs, made.service_counters

    async def on_state(record: Record) -> None:
        error = (record.get("lastError") or {}).get("response")
        logs.add(record["account"], "state", state=record["state"], error=error)
        await made.change_feed.note(record)

    def on_event(account: str, event: str) -> None:
        counters.count(f"events:{event}")
        logs.add(account, "event", event=event)

    def on_attempt(account: str, event: str, outcome: Outcome) -> None:
        counters.count("webhooks:success" if outcome.kind == ARRIVED else "webhooks:fail")
        logs.add(account, "webhook", event=event, outcome=outcome.kind, **outcome.error)

    made.accounts.on_read, made.accounts.on_state = logs.meet, on_state
    made.events.on_event, made.webhooks.on_attempt = on_event, on_attempt
    made.gate.afterwards = made.save_notes


def _ground(settings: Settings, clock: Clock) -> Ground:
    storage = StorageAccount(settings.storage)
    tables = {name: Table(storage, name, rebuilt=name in REBUILT) for name in TABLES}
    queues, vault = Queues(storage), Vault(settings.key_ring)
    resealer, lanes = Resealer(vault), Lanes(tables["lanes"], clock)
    service_settings = ServiceSettings(tables["settings"], vault, clock, settings.service_url, resealer)
    apps = OauthApps(tables["oauth2apps"], vault, clock, settings, resealer)
    records = TokenRecords(tables["credentials"], vault, clock, resealer)
    credentials = Credentials(records, clock, settings.login_endpoint)
    accounts = Accounts(tables["accounts"], tables["links"], queues, vault, apps)
    blobs, webhook_routes = Blobs(storage), WebhookRoutes(service_settings, clock)
    events = Events(tables["events"], queues, clock, service_settings, EventContents(blobs), webhook_routes)
    account_logs = AccountLogs(tables["accountlogs"], service_settings, clock)
    graphs: dict[str, Graph] = {}

    def graph_of(app: OauthApp) -> Graph:
        root = settings.graph_endpoint or app.hosts.graph
        if root not in graphs:
            graphs[root] = Graph(root, app.hosts.graph, lanes.note_call)
            graphs[root].on_answer = account_logs.add_call
        return graphs[root]

    return Ground(
        settings=settings, clock=clock, storage=storage, tables=tables, queues=queues, blobs=blobs,
        vault=vault, resealer=resealer, webhook_routes=webhook_routes,
        schedule=Schedule(tables["schedule"], queues, clock),
        service_settings=service_settings, apps=apps, credentials=credentials, accounts=accounts, events=events,
        tokens=AccessTokens(
            tables["tokens"], clock, settings.bootstrap_token, TokenUse(tables["tokenuse"], clock),
            settings.bootstrap_token_id,
        ),
        lanes=lanes, graphs=graphs,
        graph_of=graph_of, access=Access(accounts, credentials, events, graph_of, clock),
        service_counters=ServiceCounters(tables["stats"], clock), account_logs=account_logs,
        change_feed=ChangeFeed(tables["changefeed"], clock, settings.changes_hold_seconds),
    )  # fmt: skip


def _ears(on: Ground) -> Ears:
    poll_s = (on.settings.poll_interval_s, on.settings.poll_longest_s)
    mailboxes = Mailboxes(on.tables["trees"], on.access)
    markers = Markers(on.tables["markers"], on.clock)
    canary = Canary(on.access, markers, on.settings.key_ring)
    parts = MessageParts(on.access)
    reports = MessageReports(parts, SentMail(on.tables["outbox"], on.events, on.access))
    texts = MessageEvents(parts, reports, mailboxes, markers, on.service_settings, web_html.safe)
    subscriptions = Subscriptions(
        on.accounts, on.access, on.apps, on.service_settings, on.clock, on.settings.key_ring, poll_s
    )
    changes = Changes(on.accounts, on.access, on.events, texts, markers, on.queues, on.clock, canary.is_one)
    folders = MailboxEvents(on.tables["trees"], on.events, on.clock)
    polling = Polling(on.accounts, on.access, mailboxes, folders, changes, on.tables["cursors"], on.clock)
    proof = Proof(on.accounts, subscriptions, canary, on.clock)
    exports = Exports(on.tables["exports"], on.blobs, on.accounts, on.service_settings, on.clock)
    return Ears(
        exports=exports,
        export_steps=ExportSteps(exports, on.blobs, on.accounts, on.access, mailboxes, on.events, on.clock),
        mailboxes=mailboxes,
        mailbox_list=MailboxList(on.accounts, mailboxes),
        listing=Listing(on.accounts, on.access, mailboxes),
        reading=Reading(on.accounts, on.access, mailboxes),
        subscriptions=subscriptions,
        changes=changes,
        polling=polling,
        proof=proof,
        sync=Sync(on.accounts, on.schedule, subscriptions, proof, polling, changes, on.clock, poll_s),
        orphans=Orphans(on.accounts, on.access, on.apps, on.service_settings, on.clock),
    )


def _post(on: Ground) -> Post:
    large = LargeMail(on.tables["drafts"], on.blobs, on.accounts, on.access, on.vault, on.clock)
    outbox = Outbox(
        on.tables["outbox"], on.blobs, on.schedule, on.accounts, on.access, on.events, on.lanes, on.clock, large
    )
    idempotency = Idempotency(on.tables["idempotency"], outbox.stored, on.clock)
    links, originals = SignedLinks(on.service_settings), Originals(on.accounts, on.access, on.service_settings)
    tracking = Tracking(links, on.service_settings, on.accounts, on.events)
    blocklists = Blocklists(on.tables["blocklists"], on.clock)
    unsubscribing = Unsubscribing(links, blocklists, on.accounts, on.events)
    templates = Templates(on.tables["templates"], on.blobs, on.accounts, on.clock)
    rendering, references = Rendering(templates, on.service_settings), References(on.accounts, on.access)
    submit = Submit(
        on.accounts, outbox, idempotency, on.lanes, on.service_settings, on.clock, on.settings.send_format,
        Composer(references, originals, tracking), rendering,
    )  # fmt: skip
    merge = MailMerge(on.accounts, submit, rendering, references, on.tables["idempotency"], on.clock, unsubscribing)
    return Post(
        large=large, outbox=outbox, idempotency=idempotency, submit=submit, originals=originals, links=links,
        tracking=tracking, blocklists=blocklists, unsubscribing=unsubscribing, templates=templates, mail_merge=merge,
    )  # fmt: skip


def _delivery(on: Ground) -> Delivery:
    http, addresses = OutgoingHttp(), Addresses(on.settings.webhook_private_targets)
    endpoints = Endpoints(on.tables["endpoints"], on.vault, on.clock)
    undelivered = Undelivered(
        on.tables["undelivered"], on.tables["events"], endpoints, on.queues, on.clock, on.events.contents
    )
    event_counters = EventCounters(on.tables["counters"])
    webhooks = Webhooks(
        on.tables["events"], event_counters, on.queues, on.clock, on.service_settings, on.accounts,
        Sender(http, addresses, on.clock), endpoints, undelivered, on.events.contents, on.webhook_routes,
        on.events.spread,
    )  # fmt: skip
    return Delivery(
        http=http, addresses=addresses, endpoints=endpoints, undelivered=undelivered, event_counters=event_counters,
        webhooks=webhooks,
    )  # fmt: skip


def _hands(on: Ground, ears: Ears, post: Post) -> Hands:
    batches = Batches(on.access, on.clock, asyncio.sleep, on.lanes.note_call)
    return Hands(
        message_changes=MessageChanges(on.accounts, on.access, ears.mailboxes, asyncio.sleep),
        folder_changes=FolderChanges(on.accounts, on.access, ears.mailboxes, asyncio.sleep),
        bulk=Bulk(on.accounts, on.access, ears.mailboxes, batches),
        draft_submit=DraftSubmit(
            on.accounts, on.access, post.outbox, post.idempotency, on.lanes, on.service_settings, on.clock
        ),
        uploaded_mail=UploadedMail(
            on.accounts,
            on.access,
            ears.mailboxes,
            References(on.accounts, on.access),
            post.originals,
            Attaching(on.access, on.clock, asyncio.sleep),
            Unfinished(on.tables["drafts"], on.clock),
            asyncio.sleep,
        ),
    )


def _office(on: Ground, ears: Ears, post: Post, delivery: Delivery) -> Office:
    poison = Poison(on.tables["poison"], on.queues, on.clock, QUEUES)
    deletion = Deletion(
        on.accounts, on.credentials, on.events, on.clock, _clean_up(on, ears, post, delivery), on.tables["events"],
        on.tables["credentials"], [on.tables[name] for name in OF_ACCOUNTS], on.tokens, poison,
    )  # fmt: skip
    onboarding = Onboarding(on.accounts, on.apps, on.credentials, on.events, on.clock, deletion)
    consent = Consent(
        on.tables["pending"], on.tables["nonces"], on.vault, on.service_settings, on.apps, on.credentials,
        on.accounts, onboarding, on.graph_of, on.clock,
    )  # fmt: skip
    return Office(
        poison=poison,
        gate=Gate(on.service_settings, on.queues, on.schedule, poison, on.clock),
        resealing=Resealing(on.tables, on.vault, on.resealer, on.queues, on.clock),
        deletion=deletion,
        onboarding=onboarding,
        consent=consent,
        flushing=Flushing(on.accounts, on.clock, (ears.mailboxes.forget, ears.polling.forget, ears.changes.forget)),
        verification=AppVerification(on.accounts, on.access, on.credentials),
    )


def _clean_up(on: Ground, ears: Ears, post: Post, delivery: Delivery) -> OnRecord:
    async def clean_up(record: Record) -> None:
        """The account is being deleted: what hangs on it elsewhere ends."""
        account, birth = record["account"], record.get("birth", "")
        await ears.proof.leave(record)
        await ears.subscriptions.remove(record)
        await post.outbox.drop_account(account, birth)
        await post.idempotency.forget(account, birth)
        await post.templates.drop_account(account, birth)
        await ears.exports.drop_account(account, birth)
        await on.tokens.delete_of_account(account)
        await ears.changes.forget(account)
        await ears.polling.forget(account)
        await ears.mailboxes.forget(account)
        await delivery.webhooks.forget(account)
        await on.events.contents.forget(account, on.clock())
        await on.account_logs.forget(account)
        await on.change_feed.forget(account)

    return clean_up


def _on_other_mailbox(on: Ground, ears: Ears) -> OnRecord:
    async def on_other_mailbox(record: Record) -> None:
        """The account leads to another mailbox than before: what is known of the old one is forgotten."""
        account, now = record["account"], iso(on.clock())
        await ears.proof.leave(record)
        await ears.subscriptions.remove(record)
        await ears.polling.forget(account)
        await ears.mailboxes.forget(account)
        await on.accounts.change(
            account,
            lambda r: {k: v for k, v in r.items() if k not in OF_MAILBOX} | {"notifyFrom": now, "heardUntil": now},
        )

    return on_other_mailbox
