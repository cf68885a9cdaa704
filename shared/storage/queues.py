"""Work in storage queues.

The Functions host wants messages in base64, and top-level properties of a JSON body replace the message's
metadata (functions-host.md 14, 15); so every message is `{"job": {...}}`.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from shared.storage.account import RETRIES, StorageAccount

# A delayed message must become visible before its seven days of life are over; ours are asked for at once
# or within the scheduler's horizon, which is far below.
LONGEST_DELAY_S = 6 * 24 * 3600


def parse(body: bytes | str) -> dict[str, Any]:
    """The job in a queue message's body."""
    job: dict[str, Any] = json.loads(body)["job"]
    return job


class Queues:
    """The app's queues. A missing queue is created on the first message to it."""

    def __init__(self, account: StorageAccount) -> None:
        self._account = account
        self._made: dict[str, Any] = {}

    def _client(self, name: str) -> Any:
        if name not in self._made:
            from azure.storage.queue import TextBase64EncodePolicy
            from azure.storage.queue.aio import QueueClient

            options: dict[str, Any] = {
                "message_encode_policy": TextBase64EncodePolicy(),
                "raw_request_hook": self._account.count,
                **RETRIES,
            }
            if self._account.connection_string:
                self._made[name] = QueueClient.from_connection_string(self._account.connection_string, name, **options)
            else:
                self._made[name] = QueueClient(
                    self._account.endpoint("queue"), name, credential=self._account.credential(), **options
                )
        return self._made[name]

    async def put(self, name: str, job: dict[str, Any], delay_s: float = 0) -> None:
        """Puts a job on a queue, seen after `delay_s` seconds. One transaction."""
        await self.put_text(name, json.dumps({"job": job}, separators=(",", ":")), delay_s)

    async def put_text(self, name: str, text: str, delay_s: float = 0) -> None:
        """Puts a message of another form than a job on a queue."""
        from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError

        delay = max(0, min(int(delay_s + 0.999), LONGEST_DELAY_S))
        client = self._client(name)
        try:
            await client.send_message(text, visibility_timeout=delay or None, time_to_live=-1)
        except ResourceNotFoundError:
            with suppress(ResourceExistsError):  # another worker made it first
                await client.create_queue()
            await client.send_message(text, visibility_timeout=delay or None, time_to_live=-1)

    async def take(self, name: str, most: int, hidden_s: int) -> list[Any]:
        """Up to `most` messages (32 at once is the service's limit), hidden from others for so long; none when the
        queue does not exist. Their `content` is as it stands on the queue, whatever its encoding. What is not
        removed comes back."""
        from azure.core.exceptions import ResourceNotFoundError

        pages = self._client(name).receive_messages(messages_per_page=min(most, 32), visibility_timeout=hidden_s)
        try:
            async for page in pages.by_page():
                return [message async for message in page]
        except ResourceNotFoundError:
            pass
        return []

    async def remove(self, name: str, message: Any) -> None:
        """Deletes a message that was taken; one that is gone, or was taken by another since, is left alone."""
        from azure.core.exceptions import ResourceNotFoundError

        with suppress(ResourceNotFoundError):
            await self._client(name).delete_message(message)

    async def length(self, name: str) -> int:
        """About how many messages there are, hidden ones included; the service itself says about."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            properties = await self._client(name).get_queue_properties()
        except ResourceNotFoundError:
            return 0
        return int(properties.approximate_message_count or 0)

    async def close(self) -> None:
        for client in self._made.values():
            await client.close()
