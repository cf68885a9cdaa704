"""What the queue and timer triggers do: each message is one job of one subject."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from shared import notifications
from shared.changes import MARKERS_FOR
from shared.errors import CredentialError
from shared.wiring import Services

log = logging.getLogger("graphpost.jobs")

ENDED_MAILS_FOR = timedelta(days=2)
EVENTS_FOR = timedelta(days=30)


async def mailbox_job(services: Services, job: dict[str, Any]) -> None:
    """One job of one mailbox. Jobs are idempotent: a message seen twice does no harm."""
    account, do = job["account"], job["do"]
    if do == "initialise":
        await services.access.initialise(account, job.get("attempt", 0), bool(job.get("force")))
    elif do == "relink":
        await services.onboarding.relink(account, bool(job.get("reconnect")))
    elif do == "poll":
        await services.changes.turn(job)
    elif do == "renew":
        await services.subscriptions.turn(job)
    elif do == "subscribe":
        await services.subscriptions.start_again(account, job.get("attempt", 0))
    elif do == "catch_up":
        await services.changes.catch_up(account)
    else:
        log.error("unknown mailbox job %s", do)


async def notification_job(services: Services, text: str) -> None:
    """The entries of one queue message that the notification endpoint wrote."""
    content = notifications.parse(text)
    account = content["account"]
    try:
        if content["kind"] == "lifecycle":
            for event, _, subscription_id in content["items"]:
                await services.subscriptions.lifecycle(account, subscription_id, event)
        else:
            await services.changes.hinted(account, content["items"])
    except CredentialError:
        # Noted on the account. The changes are found by the catch-up that follows its recovery.
        return


async def sweep(services: Services) -> None:
    """The daily clean-up."""
    removed = {
        "outbox": await services.outbox.sweep(ENDED_MAILS_FOR),
        "events": await services.webhooks.sweep(EVENTS_FOR),
        "sign-ins": await services.consent.sweep(),
        "markers": await services.changes.sweep(MARKERS_FOR),
    }
    log.info("sweep removed %s", removed)
