"""Time as an argument, and the two spellings of it that cross our borders."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The system clock: the default wherever a Clock is asked for."""
    return datetime.now(UTC)


def iso(moment: datetime) -> str:
    """`YYYY-MM-DDTHH:MM:SS.sssZ`, as the contract writes times (emailengine.md 1.4)."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str) -> datetime:
    """An aware time from ISO 8601 text; without an offset it is UTC. ValueError for anything else."""
    # Graph writes seven digits of fraction, Python 3.11 reads at most six.
    moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
