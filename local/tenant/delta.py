"""Change tracking: rounds of pages over a folder's messages or over the folder tree (graph.md 5.3).

A round is fixed when it starts: what changed since sequence N, up to the sequence of that moment. Its pages
are served from the list made then; the closing token carries that sequence, so nothing between two rounds is
lost.
"""

from __future__ import annotations

import base64
import random
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .errors import GraphError

LARGEST_PAGE = 50
DEFAULT_PAGE = 10
# Old links die after a while (graph.md 5.3 [D]); this is how many a tenant remembers.
REMEMBERED_TOKENS = 20_000
_TOKEN = re.compile(r"[A-Za-z0-9_\-]{64}")

Entry = Callable[[], dict[str, Any] | None]  # None when there is nothing to say about it any more


@dataclass(slots=True)
class Round:
    """One walk through the changes. `options` are what the first call asked for; the links carry them on."""

    scope: tuple[str, str]  # mailbox owner id, folder id ("" for the folder tree)
    options: dict[str, Any]
    since: int
    until: int
    keys: list[Any]


@dataclass(slots=True)
class Position:
    """What a token stands for: a place inside a round, or (round None) the end of one."""

    scope: tuple[str, str]
    options: dict[str, Any]
    since: int
    round: Round | None = None
    offset: int = 0


@dataclass(slots=True)
class Page:
    keys: list[Any]
    token: str
    is_last: bool


class DeltaRounds:
    """Hands out and redeems the opaque tokens in delta links."""

    def __init__(self, rng: random.Random) -> None:
        self._random = rng
        self._positions: OrderedDict[str, Position] = OrderedDict()

    def redeem(self, token: str, scope: tuple[str, str]) -> Position:
        """The position behind a token. 400 for garbage, 410 for a forgotten one (graph.md 5.3 [F])."""
        if not _TOKEN.fullmatch(token):
            raise GraphError(400, "BadRequest", "Badly formed token.")
        position = self._positions.get(token)
        if position is None or position.scope != scope:
            generation = self._random.getrandbits(31)
            message = f"The sync state generation is not found; generation={generation};"
            raise GraphError(410, "SyncStateNotFound", message)
        return position

    def page(self, position: Position, collect: Callable[[Position], Round]) -> Page:
        """The next page at a position; `collect` makes the round when one starts here."""
        current = position.round or collect(position)
        size = min(current.options.get("page_size") or DEFAULT_PAGE, LARGEST_PAGE)
        left = len(current.keys) - position.offset
        if self._inserts_empty_page(position, left):
            return Page([], self._remember(current, position.offset, empty_shown=True), False)
        keys = current.keys[position.offset : position.offset + size]
        # After a full last page comes an empty one with the deltaLink: pages may be empty (5.3 [D]).
        if left >= size:
            return Page(keys, self._remember(current, position.offset + len(keys)), False)
        return Page(keys, self._finish(current), True)

    def _inserts_empty_page(self, position: Position, left: int) -> bool:
        """Sometimes, in the middle of a round: callers must not take an empty page for the end."""
        if position.round is None or left <= 0 or position.options.get("empty_shown"):
            return False
        return self._random.random() < 0.2

    def expire(self, owner_id: str | None = None) -> int:
        """Forgets the tokens of one mailbox, or all: the next use is a 410. Returns how many."""
        gone = [t for t, p in self._positions.items() if owner_id is None or p.scope[0] == owner_id]
        for token in gone:
            del self._positions[token]
        return len(gone)

    def _remember(self, current: Round, offset: int, empty_shown: bool = False) -> str:
        options = {**current.options, "empty_shown": empty_shown}
        return self._issue(Position(current.scope, options, current.since, current, offset))

    def _finish(self, current: Round) -> str:
        options = {key: value for key, value in current.options.items() if key != "empty_shown"}
        return self._issue(Position(current.scope, options, current.until))

    def _issue(self, position: Position) -> str:
        token = base64.urlsafe_b64encode(self._random.randbytes(48)).decode()
        self._positions[token] = position
        while len(self._positions) > REMEMBERED_TOKENS:
            self._positions.popitem(last=False)
        return token
