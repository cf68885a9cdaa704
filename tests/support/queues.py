"""Looks into Azurite's queues from the outside."""

import asyncio
import base64
import contextlib
import time

from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
from azure.storage.queue import QueueClient


class StorageQueue:
    """One queue, read and written without the host."""

    def __init__(self, connection_string: str, name: str) -> None:
        self._client = QueueClient.from_connection_string(connection_string, name)

    def put(self, text: str | bytes, *, raw: bool = False) -> None:
        """Add a message, base64 unless `raw`; the queue is created if missing."""
        body = text.encode() if isinstance(text, str) else text
        with contextlib.suppress(ResourceExistsError):
            self._client.create_queue()
        self._client.send_message(body.decode() if raw else base64.b64encode(body).decode())

    def drain(self, *, raw: bool = False) -> list[str]:
        """Every visible message, taken off the queue; none if the queue does not exist."""
        found = []
        try:
            for message in self._client.receive_messages(messages_per_page=32):
                found.append(message.content if raw else base64.b64decode(message.content).decode())
                self._client.delete_message(message)
        except ResourceNotFoundError:
            return []
        return found

    async def take(self, count: int = 1, *, timeout_s: float = 15, raw: bool = False) -> list[str]:
        """At least `count` messages, taken off the queue; AssertionError if they do not come in time."""
        found: list[str] = []
        deadline = time.monotonic() + timeout_s
        while len(found) < count:
            assert time.monotonic() < deadline, f"{self._client.queue_name}: {len(found)} of {count}: {found}"
            found += await asyncio.to_thread(self.drain, raw=raw)
            await asyncio.sleep(0.05)
        return found

    def has_visible(self) -> bool:
        """Whether a message waits that nobody has taken."""
        return bool(self._client.peek_messages(1))

    def exists(self) -> bool:
        """Whether the queue was created."""
        try:
            self._client.get_queue_properties()
        except ResourceNotFoundError:
            return False
        return True
