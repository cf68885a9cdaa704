"""Queue triggers: poll, hide, run, delete; and the ways a message comes back or ends as poison.

A received message is hidden for ten minutes and hidden again while its function runs. `visibilityTimeout`
of host.json is only the pause before a message whose function *failed* is seen again.
"""

import asyncio
import base64
import binascii
import contextlib
import json
import random
import sys
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from azure.core.exceptions import AzureError, ResourceNotFoundError
from azure.functions.meta import Datum
from azure.storage.queue import QueueMessage
from azure.storage.queue.aio import QueueClient

from local.host.functions import Function
from local.host.invocation import InvocationFailed, Invoker
from local.host.json_text import host_text, looks_like_json
from local.host.outputs import Queues, queue_name
from local.host.settings import HostSettings

FIRST_PAUSE_S = 0.1
POISON = "-poison"


def decoded(content: str, settings: HostSettings) -> bytes | None:
    """The body of a message, or None if it is not in the encoding host.json promises."""
    if not settings.base64:
        return content.encode()
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        return None


def trigger_metadata(message: QueueMessage, text: str) -> dict[str, Datum]:
    """The message's properties, except where the body speaks louder.

    Top-level JSON properties of the body replace properties of the same name, ignoring case: a body with
    an `id` changes `msg.id`. That is how the real host behaves, so nothing here may be trusted.
    """
    values = {
        "QueueTrigger": Datum(text, "string"),
        "Id": Datum(message.id, "string"),
        "PopReceipt": Datum(message.pop_receipt, "string"),
        "DequeueCount": Datum(json.dumps(message.dequeue_count), "json"),
    }
    times = {
        "InsertionTime": message.inserted_on,
        "ExpirationTime": message.expires_on,
        "NextVisibleTime": message.next_visible_on,
    }
    for name, moment in times.items():
        if moment:
            values[name] = Datum(json.dumps(moment.isoformat()), "json")
    spelling = {name.lower(): name for name in values}
    for name, value in _properties(text).items():
        if isinstance(value, dict):
            values[spelling.setdefault(name.lower(), name)] = Datum(json.dumps(value), "json")
        elif value is not None and not isinstance(value, list):
            values[spelling.setdefault(name.lower(), name)] = Datum(host_text(value), "string")
    return values


def _properties(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text) if looks_like_json(text) else None
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {}


def message_by_hand(text: str) -> QueueMessage:
    """A message that was never on a queue, for a run asked for at `/admin/functions/NAME`."""
    message = QueueMessage(content=text)
    now = datetime.now(UTC)
    message.id, message.pop_receipt, message.dequeue_count = str(uuid.uuid4()), "by-hand", 1
    message.inserted_on, message.next_visible_on = now, now
    message.expires_on = now + timedelta(days=7)
    return message


def _complain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class QueueTriggers:
    """Polls the trigger queues and runs their functions."""

    def __init__(
        self, invoker: Invoker, queues: Queues, settings: HostSettings, poll_s: float, hidden_s: int = 600
    ) -> None:
        self._invoker = invoker
        self._queues = queues
        self._settings = settings
        self._longest_pause_s = min(poll_s, settings.max_polling_s)
        self._hidden_s = hidden_s
        self.running: set[asyncio.Task[None]] = set()

    async def listen(self, function: Function) -> None:
        """Serve one trigger until cancelled; messages already taken go on in `running`."""
        client, pause_s = self._queues.client(function.trigger), FIRST_PAUSE_S
        bell = self._queues.bells[client.queue_name]
        mine: set[asyncio.Task[None]] = set()
        while True:
            bell.clear()
            batch = await self._receive(function, client)
            for message in batch:
                task = asyncio.create_task(self._settle(function, client, message))
                for tasks in (mine, self.running):
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
            if batch:
                pause_s = FIRST_PAUSE_S
                while len(mine) > self._settings.new_batch_threshold:
                    await asyncio.wait(mine, return_when=asyncio.FIRST_COMPLETED)
                continue
            try:
                await asyncio.wait_for(bell.wait(), pause_s)
            except TimeoutError:
                pause_s = min(pause_s * 2 * random.uniform(0.8, 1.2), self._longest_pause_s)

    async def _receive(self, function: Function, client: QueueClient) -> list[QueueMessage]:
        """Up to one batch of messages, now hidden; none while the queue is missing or cannot be reached."""
        pages = client.receive_messages(
            messages_per_page=self._settings.batch_size, visibility_timeout=self._hidden_s
        ).by_page()
        try:
            async for page in pages:
                return [message async for message in page]
        except ResourceNotFoundError:
            pass  # the trigger does not create its queue: it waits until somebody writes to it
        except Exception as error:  # whatever it is, the next poll may go better
            _complain(f"{function.name}: cannot read {client.queue_name}: {error}")
        return []

    async def _settle(self, function: Function, client: QueueClient, message: QueueMessage) -> None:
        """Run one message to its end: gone, back on the queue, or poison."""
        renewal = asyncio.create_task(self._keep_hidden(client, message))
        try:
            body = decoded(message.content, self._settings)
            if body is None or (message.dequeue_count or 0) > self._settings.max_dequeue_count:
                await self._poison(function, client, message)
                return
            try:
                await self.run(function, message, body)
            except InvocationFailed:
                await self._give_back(function, client, message)
            else:
                await client.delete_message(message)
        except Exception as error:  # the message comes back when its hiding time is over
            _complain(f"{function.name}: message {message.id} not settled: {error!r}")
        finally:
            renewal.cancel()

    async def run(self, function: Function, message: QueueMessage, body: bytes) -> None:
        """One invocation on a decoded message, its outputs written; InvocationFailed if either fails."""
        text = body.decode("utf-8", "replace")
        binary = str(function.trigger.get("dataType", "")).lower() == "binary"
        datum = Datum(body, "bytes") if binary else Datum(text, "string")
        result = await self._invoker.run(function, datum, trigger_metadata(message, text))
        await self._queues.write(function, result)

    async def run_by_hand(self, function: Function, text: str) -> None:
        """One invocation with a text nobody queued; failure is only logged."""
        with contextlib.suppress(InvocationFailed):
            await self.run(function, message_by_hand(text), text.encode())

    async def _give_back(self, function: Function, client: QueueClient, message: QueueMessage) -> None:
        if (message.dequeue_count or 0) >= self._settings.max_dequeue_count:
            await self._poison(function, client, message)
            return
        await client.update_message(message, visibility_timeout=int(self._settings.retry_pause_s))
        self._queues.bells[client.queue_name].set()

    async def _keep_hidden(self, client: QueueClient, message: QueueMessage) -> None:
        while True:
            await asyncio.sleep(self._hidden_s / 2)
            try:
                renewed = await client.update_message(message, visibility_timeout=self._hidden_s)
            except AzureError as error:
                _complain(f"message {message.id} not hidden again: {error}")
            else:
                message.pop_receipt = renewed.pop_receipt  # settling needs the newest one

    async def _poison(self, function: Function, client: QueueClient, message: QueueMessage) -> None:
        """Move a message to `<queue>-poison`, where nobody looks unless the app does."""
        if queue_name(function.trigger).endswith(POISON):
            return
        _complain(f"{function.name}: message {message.id} is poison")
        await self._queues.send_text(self._queues.client(function.trigger, POISON), message.content)
        await client.delete_message(message)
