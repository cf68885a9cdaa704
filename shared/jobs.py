"""What the queue and timer triggers do: each message is one job of one subject."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from shared import notifications
from shared.accounts import Record
from shared.changes import MARKERS_FOR
from shared.errors import CredentialError, GraphFailure
from shared.graph.failures import is_transient
from shared.subscriptions import is_being_made
from shared.sync import OUTAGE
from shared.wiring import Services

log = logging.getLogger("graphpost.jobs")

ENDED_MAILS_FOR = timedelta(days=2)
LOST_CONTENTS_AFTER = timedelta(days=1)
EVENTS_FOR = timedelta(days=30)
# Waits before a job that met an outage of Graph is tried again: about a day altogether.
PATIENCE_S = (5, 15, 30, 60, 120, 300, 600, 1800, 3600, *(7200,) * 10)
CATCH_UP_AFTER_S = 60
STUCK_AFTER = timedelta(minutes=20)


async def mailbox_job(services: Services, job: dict[str, Any]) -> None:
    """One job of one mailbox. Jobs are idempotent: a message seen twice does no harm."""
    account, do, attempt = job["account"], job["do"], job.get("attempt", 0)
    if do == "initialise":
        await services.access.initialise(account, attempt, bool(job.get("force")))
    elif do == "relink":
        await services.onboarding.relink(account, bool(job.get("reconnect")))
    elif do in ("sync", "poll", "renew"):  # the last two are what the job was called before there was one
        await services.sync.turn(job)
    elif do == "subscribe":
        await _subscribe(services, account, job)
    elif do == "catch_up":
        await _catch_up(services, account, attempt, job.get("after", ""))
    elif do == "flush":
        await services.flushing.work(account, job["flush"])
    elif do == "delete":
        await services.deletion.resume(account)
    elif do == "purge":
        await services.deletion.purge(account, attempt)
    elif do == "export":
        await services.export_steps.step(job)
    elif do == "reseal":
        await services.resealing.step(job)
    else:
        log.error("unknown mailbox job %s", do)


async def _subscribe(services: Services, account: str, job: dict[str, Any]) -> None:
    try:
        await services.sync.subscribe(account, job.get("gone", ""), job.get("failures"))
    except (CredentialError, GraphFailure):
        return  # noted where it belongs; the account's turns go on trying


async def _catch_up(services: Services, account: str, attempt: int, after: str) -> None:
    try:
        await services.sync.catch_up(account, after)
    except CredentialError:
        return  # noted on the holder; its recovery starts a catch-up of its own, from where this one stood
    except GraphFailure as failure:
        if is_transient(failure) and attempt < len(PATIENCE_S):
            wait_s = max(failure.retry_after_s or 0, PATIENCE_S[attempt])
            await services.accounts.queue_job(account, "catch_up", wait_s, attempt=attempt + 1, after=after)
            await _tell_outage(services, account, attempt)
        else:
            await services.accounts.queue_job(account, "initialise", force=True)


async def _tell_outage(services: Services, account: str, attempt: int) -> None:
    """After a few failures in a row the account's own state shows that Graph is out of reach."""
    if attempt == OUTAGE:
        await services.accounts.queue_job(account, "initialise", force=True)


async def notification_job(services: Services, text: str) -> None:
    """The entries of one queue message that the notification endpoint wrote."""
    content = notifications.parse(text)
    account, attempt = content["account"], content.get("attempt", 0)
    record = await services.accounts.find(account)
    subscriptions = {item[2] for item in content["items"] if item[2]}
    if record is None:
        await services.orphans.end(subscriptions)
        return
    if record["state"] == "connecting" and attempt < len(PATIENCE_S):
        # Which mailbox this is may just be changing; what it says is looked at when that is settled.
        await _again(services, content)
        return
    try:
        if content["kind"] == "lifecycle":
            for event, _, subscription_id in content["items"]:
                await services.subscriptions.lifecycle(account, subscription_id, event)
        elif items := await _of_this_mailbox(services, record, content):
            await services.proof.heard(record, subscriptions)
            await services.changes.hinted(account, items, attempt)
    except CredentialError:
        if not subscriptions:
            await _again(services, content)
        if (record.get("notifications") or {}).get("reader"):
            await services.accounts.queue_job(account, "catch_up", CATCH_UP_AFTER_S)
        return  # noted on the holder; its recovery starts a catch-up from where the last one stood
    except GraphFailure as failure:
        # An outage may outlast the host's five tries, so the wait is ours. What was reported stays reported.
        is_patient = is_transient(failure) and attempt < len(PATIENCE_S)
        if is_patient or not subscriptions:
            await _again(services, content, failure.retry_after_s or 0)
        if is_patient:
            await _tell_outage(services, account, attempt)
        else:
            await services.accounts.queue_job(account, "catch_up", CATCH_UP_AFTER_S)


async def _again(services: Services, content: dict[str, Any], at_least_s: float = 0) -> None:
    """Puts the entries back for later. A message that we put off by itself (its entry names no subscription) comes
    back for as long as its mailbox can not be asked: delta has passed it, and would not speak of it again."""
    wait_s = max(at_least_s, PATIENCE_S[min(content.get("attempt", 0), len(PATIENCE_S) - 1)])
    await services.queues.put_text("notifications", notifications.again(content), wait_s)


async def _of_this_mailbox(services: Services, record: Record, content: dict[str, Any]) -> list[list[str]]:
    """The entries of the subscription in force, and those we put off ourselves. The others are of one that was
    replaced, perhaps for another mailbox that the account led to: what still holds of them delta tells. Only while a
    subscription is being made they are looked at again, since its id may not be stored yet."""
    current, attempt = (record.get("subscription") or {}).get("id"), content.get("attempt", 0)
    ours = [item for item in content["items"] if item[2] in ("", current)]
    strange = [item for item in content["items"] if item[2] not in ("", current)]
    if strange and is_being_made(record, services.clock()) and attempt < len(PATIENCE_S):
        await _again(services, content | {"items": strange})
    return ours


async def sweep(services: Services) -> None:
    """The hourly look over everything: what lost its message goes on, what has ended is removed."""
    # What waits in a paused queue has lost no message.
    runs = {queue: await services.gate.may_run(queue) for queue in ("outbox", "webhooks", "mailboxes")}
    taken_up = [
        ("mails", lambda: services.outbox.take_up(STUCK_AFTER), "outbox"),
        ("events", lambda: services.webhooks.take_up(STUCK_AFTER), "webhooks"),
        ("accounts", services.access.take_up, "mailboxes"),
        ("turns", services.sync.take_up, "mailboxes"),
        ("resealing", services.resealing.take_up, ""),
        ("exports", services.exports.take_up, "mailboxes"),
    ]
    removed = [
        ("orphaned subscriptions", services.orphans.sweep),
        ("ended mails", lambda: services.outbox.sweep(ENDED_MAILS_FOR)),
        ("drafts and contents", lambda: services.outbox.sweep_large(LOST_CONTENTS_AFTER)),
        ("settled events", lambda: services.webhooks.sweep(EVENTS_FOR)),
        ("contents of events", lambda: services.events.contents.sweep(services.clock())),
        ("sign-ins", services.consent.sweep),
        ("markers", lambda: services.changes.sweep(MARKERS_FOR)),
        ("deletions", services.deletion.sweep),
        ("poison", services.poison.sweep),
        ("idempotency keys", services.idempotency.sweep),
        ("lanes", services.lanes.sweep),
        ("token logs", services.tokens.sweep),
        ("statistics", services.service_counters.sweep),
        ("log lines", lambda: services.account_logs.sweep(services.accounts.known)),
        ("told changes", services.change_feed.sweep),
        ("exports", services.exports.sweep),
        ("templates of nobody", lambda: services.templates.sweep(LOST_CONTENTS_AFTER)),
    ]
    for name, work, queue in taken_up:
        if runs.get(queue, True):
            await _step(f"taken up again: {name}", work)
    for name, work in removed:
        await _step(f"removed: {name}", work)


async def _step(name: str, work: Callable[[], Awaitable[int]]) -> None:
    """One part of the sweep. Its failure does not keep the others from their turn; an hour later it has another."""
    try:
        log.info("%s %s", name, await work())
    except Exception as problem:
        log.error("graphpost.sweep.failed %s: %s", name, type(problem).__name__)
