"""The queues: how much waits, pausing, and the messages that failed for good (emailengine.md 19.6)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from shared.api.fields import Boolean, Input, Name, Page
from shared.api.route import GuardedRoute, Provided, operation, segment
from shared.errors import InvalidInput
from shared.gate import pause_key
from shared.wiring import Services

router = APIRouter(route_class=GuardedRoute, tags=["Settings"])
ADMIN_READ, ADMIN_WRITE = operation("admin", "read"), operation("admin", "write")
ADMIN_DESTROY = operation("admin", "destructive")
# The contract's names, and our own for what it has no word for. Documents are not indexed here.
QUEUES = {"notify": "webhooks", "submit": "outbox", "documents": "", "notifications": "notifications"}
QUEUES |= {"mailboxes": "mailboxes"}


class QueueChange(Input):
    paused: Boolean


class Replay(Input):
    id: Name | None = None


def _known(name: Annotated[str, segment("queue")]) -> str:
    if name not in QUEUES:
        raise InvalidInput.field("queue", f'"queue" must be one of [{", ".join(QUEUES)}]')
    return name


QueueName = Annotated[str, Depends(_known)]
MessageId = Annotated[str, segment("id")]


@router.get("/v1/settings/queue/{queue}", openapi_extra=ADMIN_READ)
async def read_queue(queue: QueueName, services: Provided) -> dict[str, Any]:
    """What waits on a queue, as far as a storage queue tells: its one number, which is approximate, counts what
    waits, what is delayed and what is being worked on. It stands under `paused` while the queue is paused, under
    `waiting` otherwise."""
    name = QUEUES[queue]
    paused = bool(name) and await services.gate.is_paused(name)
    found = await services.queues.length(name) if name else 0
    jobs = {"active": 0, "delayed": 0, "paused": 0, "waiting": 0} | {"paused" if paused else "waiting": found}
    poison = await services.poison.count(name) if name else 0
    return {"queue": queue, "jobs": jobs, "paused": paused, "poison": poison}


@router.put("/v1/settings/queue/{queue}", openapi_extra=ADMIN_WRITE)
async def change_queue(queue: QueueName, body: QueueChange, services: Provided) -> dict[str, Any]:
    """Pauses a queue's work or lets it go on; other processes see it within ten seconds."""
    name = QUEUES[queue]
    if name:
        await services.service_settings.write({pause_key(name): body.paused or None})
    elif body.paused:
        raise InvalidInput.field("paused", '"paused" has no effect here: this service does not index documents')
    return {"queue": queue, "paused": body.paused}


@router.get("/v1/settings/queue/{queue}/poison", openapi_extra=ADMIN_READ)
async def list_poison(queue: QueueName, query: Annotated[Page, Query()], services: Provided) -> dict[str, Any]:
    """The messages that failed for good, oldest first."""
    paging, shown = query.of(await _poison_of(queue, services))
    return {"queue": queue} | paging | {"messages": shown}


@router.post("/v1/settings/queue/{queue}/poison/replay", openapi_extra=ADMIN_WRITE)
async def replay_poison(queue: QueueName, services: Provided, body: Replay | None = None) -> dict[str, Any]:
    """Puts one message, or up to a thousand, back on their queue."""
    replayed = 0
    if name := QUEUES[queue]:
        replayed = await services.poison.replay(name, body.id if body else None)
    left = await services.poison.count(name) if name else 0
    return {"queue": queue, "replayed": replayed, "left": left}


@router.delete("/v1/settings/queue/{queue}/poison/{id}", openapi_extra=ADMIN_DESTROY)
async def drop_poison(queue: QueueName, message_id: MessageId, services: Provided) -> dict[str, Any]:
    """Removes one message for good."""
    name = QUEUES[queue]
    return {"deleted": bool(name) and await services.poison.drop(name, message_id)}


async def _poison_of(queue: str, services: Services) -> list[dict[str, Any]]:
    return await services.poison.views(QUEUES[queue]) if QUEUES[queue] else []
