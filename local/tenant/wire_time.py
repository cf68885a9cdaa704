"""Times as Graph mail writes them: UTC, `Z`, whole seconds (graph.md 2.2 [D])."""

from __future__ import annotations

from datetime import UTC, datetime


def to_wire(moment: datetime) -> str:
    """`2026-11-20T07:41:02Z` for an aware datetime; fractions are cut, not rounded."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def from_wire(text: str) -> datetime:
    """The aware UTC datetime written in `text`; ValueError when it is no ISO 8601 time."""
    # Graph writes up to seven fraction digits; Python reads them from 3.11 on (the rest is cut).
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
