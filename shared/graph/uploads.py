"""One file sent through an upload session, range by range (graph.md 7.3).

Ranges go in order. After a failure the session is asked where it stands, so that a range that did arrive is not
sent again and one that did not is.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from shared.errors import GraphFailure
from shared.graph.client import Answer, Graph
from shared.graph.failures import is_transient
from shared.graph.paths import MailboxPath
from shared.oauth_apps import OauthApp

RANGE_BYTES = 3_932_160  # below 4 MB, and 12 x 320 KiB (graph.md 7.3)
PATIENCE_S = 60.0  # waited altogether within one run for a service that throttles or fails
FIRST_PAUSE_S = 1.0

Read = Callable[[int, int], Awaitable[bytes]]


class SessionLost(Exception):
    """The session has expired, and what it was to attach is certainly not attached."""


class OutOfTime(GraphFailure):
    """The run has used its time; the work goes on from here in the next one."""

    def __init__(self) -> None:
        super().__init__(429, "OutOfTime", "The work goes on in another run")


class Patience:
    """What one run may spend: an end, and so many seconds of waiting."""

    def __init__(
        self, clock: Callable[[], datetime], until: datetime, sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self._clock, self._until, self._sleep = clock, until, sleep
        self._left_s, self._tries = PATIENCE_S, 0

    def check(self) -> None:
        """Raises OutOfTime when the run should end."""
        if self._clock() >= self._until:
            raise OutOfTime

    def succeeded(self) -> None:
        self._tries = 0

    async def wait(self, failure: GraphFailure) -> None:
        """Waits as told, or longer each time; raises the failure when that would be too long."""
        wait_s = failure.retry_after_s if failure.retry_after_s is not None else FIRST_PAUSE_S * 2.0**self._tries
        self._tries += 1
        self._left_s -= max(wait_s, FIRST_PAUSE_S)
        if self._left_s < 0:
            raise failure
        await self._sleep(wait_s)


class Upload:
    """The upload of one file to one session."""

    def __init__(
        self, graph: Graph, mailbox: MailboxPath, app: OauthApp, url: str, size: int, patience: Patience
    ) -> None:
        self._graph, self._mailbox, self._app = graph, mailbox, app
        self._url, self._size, self._patience = url, size, patience

    async def run(self, read: Read, *, resumed: bool) -> None:
        """Sends what the session still lacks; `read(start, length)` gives the file's bytes.

        Raises SessionLost; GraphFailure, with `may_have_acted` only when the last range, and with it the whole
        file, may have arrived; without it the session stands and can be resumed.
        """
        start = await self._where() if resumed else 0
        while start < self._size:
            self._patience.check()
            content = await read(start, min(RANGE_BYTES, self._size - start))
            following = await self._put(start, content)
            if following <= start:
                raise GraphFailure(502, "UploadStuck", "The upload session does not move on")
            start = following

    async def _put(self, start: int, content: bytes) -> int:
        """Where the session stands after this range."""
        end, unclear = start + len(content), False
        is_last = end >= self._size
        headers = {
            "Content_Type": "application/octet-stream",
            "Content_Range": f"bytes {start}-{end - 1}/{self._size}",
        }
        while True:
            try:
                answer = await self._graph.upload(self._mailbox, self._app, "PUT", self._url, content, **headers)
            except GraphFailure as failure:
                unclear = unclear or failure.may_have_acted
                where = await self._after(failure, maybe_whole=is_last and unclear)
                if where != start:
                    return where
            else:
                self._patience.succeeded()
                return end if answer.status == 201 else _next_start(answer, end)

    async def _after(self, failure: GraphFailure, *, maybe_whole: bool) -> int:
        """Where the session stands after a range that failed."""
        try:
            if failure.status not in (404, 410, 416) and not is_transient(failure):
                raise failure
            if is_transient(failure):
                await self._patience.wait(failure)
            return await self._where()
        except SessionLost:
            if maybe_whole:
                raise GraphFailure(0, "NoAnswer", "The end of an upload is unclear", may_have_acted=True) from None
            raise
        except GraphFailure as last:
            raise _with_doubt(last, maybe_whole) from None

    async def _where(self) -> int:
        """The first byte the session lacks; SessionLost when it is gone."""
        while True:
            try:
                answer = await self._graph.upload(self._mailbox, self._app, "GET", self._url)
            except GraphFailure as failure:
                if failure.status in (404, 410):
                    raise SessionLost from None
                if not is_transient(failure):
                    raise
                await self._patience.wait(failure)
            else:
                return _next_start(answer, self._size)


def _with_doubt(failure: GraphFailure, may_have_acted: bool) -> GraphFailure:
    if isinstance(failure, OutOfTime):
        return failure
    return GraphFailure(
        failure.status, failure.code, failure.message, may_have_acted=may_have_acted,
        retry_after_s=failure.retry_after_s, request_id=failure.request_id,
    )  # fmt: skip


def _next_start(answer: Answer, otherwise: int) -> int:
    """The start of the first range in NextExpectedRanges, whose letters differ between answers (graph.md 7.3)."""
    try:
        value: Any = json.loads(answer.body)
        ranges = next((found for name, found in value.items() if name.lower() == "nextexpectedranges"), None)
        return int(str(ranges[0]).partition("-")[0]) if ranges else otherwise
    except (ValueError, AttributeError, TypeError, KeyError):
        return otherwise
