"""Processes that die at a chosen request: every effect of the app on the world passes here and is counted.

The cut is at the wire (storage, Graph, login service, webhooks) and at the queues of the workshop, so that it holds
whatever functions the app is made of. Points are the moments that differ by what the world holds: before the first
effect, and after each effect that is not a plain read (it was done, and nobody learnt the answer). To die in any
other wait is to die at the point before it, since a read leaves nothing behind; so the points stand for every wait.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
import requests
from azure.core.pipeline.transport import AioHttpTransport

READS = ("GET", "HEAD")


class Died(BaseException):
    """The process ended here. No `except Exception` of the app may go on from it, as after kill -9."""


class Fate:
    """Counts effects while it watches and ends the process at the points it was given, one for each life."""

    def __init__(self) -> None:
        self.dead = False
        self.deaths: list[str] = []
        self.passed: list[str] = []
        self._points: list[int] = []
        self._kinds: frozenset[str] = frozenset()
        self._watching = False
        self._count = 0
        self._changed = True  # the world is not as it was at the last point

    def arm(self, points: Sequence[int], *kinds: str) -> None:
        """From now on a life ends at each of these points in turn, while work of these kinds is done."""
        self._points, self._kinds, self._count, self._changed = list(points), frozenset(kinds), 0, True
        self.deaths, self.passed = [], []

    def disarm(self) -> None:
        """Nobody dies any more."""
        self._points = []

    def reborn(self) -> None:
        """Another process takes over: the next point counts from here."""
        self.dead, self._count, self._changed = False, 0, True

    @contextlib.contextmanager
    def watching(self, kind: str) -> Iterator[None]:
        """Effects inside count when this kind of work was asked for."""
        self._watching = kind in self._kinds
        try:
            yield
        finally:
            self._watching = False

    def before(self, label: str) -> None:
        """Called before an effect."""
        if self._watching:
            self._meet(f"before {label}")

    def after(self, label: str) -> None:
        """Called after an effect, failed or not."""
        if self._watching:
            self.passed.append(label)
            self._changed = self._changed or label.split()[1] not in READS
            self._meet(f"after {label}")

    async def effect(self, label: str, act: Callable[[], Awaitable[Any]]) -> Any:
        """What `act` gives, as one effect."""
        self.before(label)
        try:
            return await act()
        finally:
            self.after(label)

    def _meet(self, where: str) -> None:
        # The dead do nothing more: clean-up code that runs while the exception travels has no effect either.
        if self.dead:
            raise Died
        if not self._changed:
            return
        point, self._count, self._changed = self._count, self._count + 1, False
        if self._points and self._points[0] == point:
            self._points.pop(0)
            self.dead = True
            self.deaths.append(where)
            raise Died

    def queue(self, put: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        """A queue's `put` as an effect."""

        @functools.wraps(put)
        async def watched(name: str, *args: Any, **options: Any) -> None:
            await self.effect(f"queue {name}", lambda: put(name, *args, **options))

        return watched

    @contextlib.contextmanager
    def over_the_wire(self) -> Iterator[None]:
        """Every request of the storage, Graph, webhook and login clients of this process as an effect."""
        undo = [
            _swap(AioHttpTransport, "send", self._storage),
            _swap(httpx.AsyncHTTPTransport, "handle_async_request", self._http),
            _swap(requests.adapters.HTTPAdapter, "send", self._login),
            # Every life would read the certificates anew, which takes longer than what it is for.
            _swap(httpx._transports.default, "create_ssl_context", functools.cache),
            _swap(httpx, "create_ssl_context", functools.cache),
        ]
        try:
            yield
        finally:
            for one in undo:
                one()

    def _storage(self, real: Any) -> Any:
        async def send(transport: Any, request: Any, **options: Any) -> Any:
            label = f"storage {request.method} {_place(request.url)}"
            return await self.effect(label, lambda: real(transport, request, **options))

        return send

    def _http(self, real: Any) -> Any:
        async def handle(transport: Any, request: httpx.Request) -> httpx.Response:
            async def act() -> httpx.Response:
                answer: httpx.Response = await real(transport, request)
                if self._watching:
                    await answer.aread()
                return answer

            answered: httpx.Response = await self.effect(f"http {request.method} {_place(str(request.url))}", act)
            return answered

        return handle

    def _login(self, real: Any) -> Any:
        def send(adapter: Any, request: Any, **options: Any) -> Any:
            label = f"login {request.method} {_place(request.url)}"
            self.before(label)
            try:
                return real(adapter, request, **options)
            finally:
                self.after(label)

        return send


def _swap(owner: Any, name: str, around: Callable[[Any], Any]) -> Callable[[], None]:
    """Replaces a method; what undoes it."""
    real = getattr(owner, name)
    setattr(owner, name, around(real))
    return lambda: setattr(owner, name, real)


def _place(url: str) -> str:
    """What a request is about, short enough to be read in a report."""
    return urlsplit(url).path.replace("/devstoreaccount1", "").partition("(")[0][-60:]
