"""What the queue and timer triggers do: each message is one job of one subject."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from shared import notifications
from shared.changes import MARKERS_FOR
from shared.errors import CredentialError, GraphFailure
from shared.graph.failures import is_transient
from shared.polling import OUTAGE
from shared.wiring import Services

log = logging.getLogger("graphpost.jobs")

ENDED_MAILS_FOR = timedelta(days=2)
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
    elif do == "poll":
        await services.polling.turn(job)
    elif do == "renew":
        await services.subscriptions.turn(job)
    elif do == "subscribe":
        await services.subscriptions.start_again(account, attempt)
    elif do == "catch_up":
        await _catch_up(services, account, attempt)
    else:
        log.error("unknown mailbox job %s", do)


async def _catch_up(services: Services, account: str, attempt: int) -> None:
    try:
        await services.changes.catch_up(account)
    except CredentialError:
        return  # noted on the holder; its recovery starts a catch-up of its own, from where this one stood
    except GraphFailure as failure:
        if is_transient(failure) and attempt < len(PATIENCE_S):
            wait_s = max(failure.retry_after_s or 0, PATIENCE_S[attempt])
            await services.accounts.queue_job(account, "catch_up", wait_s, attempt=attempt + 1)
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
    if record is not None and record["state"] == "connecting" and attempt < len(PATIENCE_S):
        # Which mailbox this is may just be changing; what it says is looked at when that is settled.
        await services.queues.put_text("notifications", notifications.again(content), PATIENCE_S[attempt])
        return
    try:
        if content["kind"] == "lifecycle":
            for event, _, subscription_id in content["items"]:
                await services.subscriptions.lifecycle(account, subscription_id, event)
        else:
            await services.changes.hinted(account, content["items"])
    except CredentialError:
        return  # noted on the holder; its recovery starts a catch-up from where the last one stood
    except GraphFailure as failure:
        # An outage may outlast the host's five tries, so the wait is ours. What was reported stays reported.
        if is_transient(failure) and attempt < len(PATIENCE_S):
            wait_s = max(failure.retry_after_s or 0, PATIENCE_S[attempt])
            await services.queues.put_text("notifications", notifications.again(content), wait_s)
            await _tell_outage(services, account, attempt)
        else:
            await services.accounts.queue_job(account, "catch_up", CATCH_UP_AFTER_S)


async def sweep(services: Services) -> None:
    """The hourly look over everything: what lost its message goes on, what has ended is removed."""
    taken_up = {
        "mails": await services.outbox.take_up(STUCK_AFTER),
        "events": await services.webhooks.take_up(STUCK_AFTER),
        "accounts": await services.access.take_up(),
    }
    log.info("taken up again: %s", taken_up)
    removed = {
        "outbox": await services.outbox.sweep(ENDED_MAILS_FOR),
        "events": await services.webhooks.sweep(EVENTS_FOR),
        "sign-ins": await services.consent.sweep(),
        "markers": await services.changes.sweep(MARKERS_FOR),
    }
    log.info("sweep removed %s", removed)
