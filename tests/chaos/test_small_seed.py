"""One small seed of the chaos runs, so that every change is tried with a killed host and restarted storage."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.seed import Plan, play


async def test_a_small_seed_loses_and_doubles_nothing(service_logs: Path) -> None:
    """A few dozen mails each way through faults, kills and a restart of storage; `make chaos` has the large ones."""
    plan = Plan(seed=7, submits=30, deliveries=30, factor=20, per_s=3, storage_restarts=1)
    outcome = await play(plan, service_logs / "small-seed")
    assert outcome.verdict.problems == []
    assert outcome.verdict.counts["accepted"] == plan.submits
    assert outcome.done["kill -9"] > 0
