"""Queue output bindings: what a finished function set is written before anybody is told it finished."""

import asyncio
import base64
import contextlib
import json
import os
from collections import defaultdict
from typing import Any

from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
from azure.functions.meta import Datum
from azure.storage.queue.aio import QueueClient

from local.host.functions import Binding, Function
from local.host.invocation import CONVERTERS, Result, fail
from local.host.json_text import host_text, looks_like_json
from local.host.settings import HostSettings, connection_string, resolve

MAX_MESSAGE_CHARACTERS = 64 * 1024


def message_bodies(datum: Datum) -> list[bytes]:
    """The messages one output value becomes: bytes as they are, JSON text re-indented, an array split."""
    if datum.type == "bytes":
        return [datum.value]
    value: Any = json.loads(datum.value) if datum.type == "json" else datum.value
    if isinstance(value, str) and looks_like_json(value):
        value = json.loads(value)  # text that only looks like JSON fails the invocation, as in Azure
    return [host_text(item).encode() for item in (value if isinstance(value, list) else [value])]


class Queues:
    """Clients of the queues this app names, and the bell that tells a poller of new work."""

    def __init__(self, settings: HostSettings) -> None:
        self._settings = settings
        self._clients: dict[tuple[str, str], QueueClient] = {}
        self.bells: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def client(self, binding: Binding, suffix: str = "") -> QueueClient:
        """The client of a binding's queue (or of `<queue><suffix>`)."""
        key = connection_string(binding.get("connection"), os.environ), queue_name(binding) + suffix
        if key not in self._clients:
            # The SDK waits 15 s before its first retry; that would look like a dead poller.
            self._clients[key] = QueueClient.from_connection_string(
                *key, retry_total=4, initial_backoff=1, increment_base=1, random_jitter_range=1
            )
        return self._clients[key]

    async def close(self) -> None:
        """Close every client."""
        for client in self._clients.values():
            await client.close()

    async def write(self, function: Function, result: Result) -> None:
        """Send what the function set on its queue outputs; InvocationFailed if one cannot be sent."""
        for binding in function.queue_outputs():
            value = result.returned if binding["name"] == "$return" else result.outputs.get(binding["name"])
            if value is not None:
                try:
                    datum = CONVERTERS.get("queue").encode(value, expected_type=None)
                    for body in message_bodies(datum):
                        await self._send_body(self.client(binding), body)
                except Exception as error:  # storage is gone, the value has no such form, JSON is broken
                    raise fail(function, f"queue output '{binding['name']}': {error}") from error

    async def _send_body(self, client: QueueClient, body: bytes) -> None:
        text = base64.b64encode(body).decode() if self._settings.base64 else body.decode()
        if len(text) > MAX_MESSAGE_CHARACTERS:
            raise ValueError(f"the message has {len(text)} characters once encoded, the limit is 65,536")
        await self.send_text(client, text)

    async def send_text(self, client: QueueClient, text: str) -> None:
        """Put text on a queue as it is, creating the queue if it is missing, and wake its poller."""
        try:
            await client.send_message(text)
        except ResourceNotFoundError:
            with contextlib.suppress(ResourceExistsError):  # somebody else may be faster
                await client.create_queue()
            await client.send_message(text)
        self.bells[client.queue_name].set()


def queue_name(binding: Binding) -> str:
    """The queue a binding means, with settings in it resolved."""
    return resolve(binding["queueName"], os.environ).lower()
