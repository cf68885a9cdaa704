"""Many small requests to one mailbox, twenty in a call; the throttled ones are sent again (graph.md 5.4).

Only requests that may be repeated go through here: after an unclear answer they are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from shared.access import Access
from shared.accounts import Reach
from shared.clock import Clock
from shared.errors import GraphFailure
from shared.graph import edits
from shared.graph.edits import MOST_PARTS, Part
from shared.graph.failures import retry_after_s
from shared.waiting import Sleep, Waiting, call

RUN_FOR = timedelta(seconds=180)  # an HTTP answer leaves the function app within 230 s
log = logging.getLogger("graphpost.batches")
_AGAIN = frozenset({429, 503})


@dataclass(frozen=True)
class PartAnswer:
    """What became of one part. `status` 0: it was not sent in time."""

    message_id: str
    status: int = 0
    body: dict[str, Any] = field(default_factory=dict)
    retry_after_s: float | None = None

    @property
    def is_done(self) -> bool:
        return 200 <= self.status < 300

    @property
    def code(self) -> str:
        """Graph's error code, "" when there is none."""
        error = self.body.get("error")
        return str(error.get("code") or "") if isinstance(error, dict) else ""

    def failure(self) -> GraphFailure:
        """The refusal of this part as that of a single call."""
        error = self.body.get("error")
        text = str(error.get("message") or "") if isinstance(error, dict) else ""
        status = self.status or 429
        return GraphFailure(status, self.code or f"HTTP{status}", text, retry_after_s=self.retry_after_s)


class Run:
    """The batches of one request of a caller: they share its time."""

    def __init__(
        self, access: Access, reach: Reach, clock: Clock, sleep: Sleep, note_call: Callable[[str], None]
    ) -> None:
        self._access, self._reach, self._clock, self._note_call = access, reach, clock, note_call
        self._ends: datetime = clock() + RUN_FOR
        self.waiting = Waiting(sleep)

    @property
    def is_over(self) -> bool:
        """Whether the answer has to be given now."""
        return self._clock() >= self._ends

    async def send(self, parts: Sequence[Part]) -> list[PartAnswer]:
        """One answer for each part, in their order.

        Raises GraphFailure and CredentialError when nothing could be done; after that what was done counts, and the
        parts that could not be sent any more say so.
        """
        answers: dict[int, PartAnswer] = {}
        left = list(range(len(parts)))
        while left and not self.is_over:
            now, left = left[:MOST_PARTS], left[MOST_PARTS:]
            try:
                answered = await self._together([parts[place] for place in now])
                answers |= dict(zip(now, answered, strict=True))
                again = [place for place in now if answers[place].status in _AGAIN]
                if again:
                    await self.waiting.after(max((answers[place].failure() for place in again), key=_longest))
                    left = again + left
            except GraphFailure as failure:
                if not any(one.is_done for one in answers.values()):
                    raise
                log.warning("a run of batches ends early: %s", failure.code)
                break
        return [answers.get(place, PartAnswer(part.message_id)) for place, part in enumerate(parts)]

    async def _together(self, parts: Sequence[Part]) -> list[PartAnswer]:
        """The answers to one batch, in the order of its parts."""
        reach = self._reach
        for _ in parts[1:]:
            self._note_call(reach.lane)  # each part counts against the mailbox (graph.md 11); the call notes one
        answer = await call(self._access, reach, lambda c: edits.batch(c, reach.mailbox, parts), self.waiting)
        found = {str(one.get("id")): one for one in _responses(answer.json())}
        return [_read(part, found.get(str(place)) or {}) for place, part in enumerate(parts)]


def _longest(failure: GraphFailure) -> float:
    return failure.retry_after_s or 0.0


def _responses(envelope: Any) -> list[dict[str, Any]]:
    found = envelope.get("responses") if isinstance(envelope, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _read(part: Part, answer: dict[str, Any]) -> PartAnswer:
    headers = {str(name).lower(): str(value) for name, value in (answer.get("headers") or {}).items()}
    body, status = answer.get("body"), answer.get("status")
    return PartAnswer(
        part.message_id,
        status if isinstance(status, int) else 0,
        body if isinstance(body, dict) else {},
        retry_after_s(headers),
    )


class Batches:
    """Starts the batches of callers' requests."""

    def __init__(self, access: Access, clock: Clock, sleep: Sleep, note_call: Callable[[str], None]) -> None:
        self._access, self._clock, self._sleep, self._note_call = access, clock, sleep, note_call

    def run(self, reach: Reach) -> Run:
        return Run(self._access, reach, self._clock, self._sleep, self._note_call)
