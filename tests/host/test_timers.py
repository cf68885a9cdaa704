"""Timer triggers."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise

from local.host.timers import next_run
from tests.support.application import Application
from tests.support.queues import StorageQueue

Queue = Callable[[str], StorageQueue]


async def test_a_timer_never_overlaps_itself(sample: Application, queue: Queue) -> None:
    """Every second, with runs of more than a second."""
    runs = [json.loads(text) for text in await queue("sample-ticks").take(3)]
    spans = sorted((run["from"], run["to"]) for run in runs)
    assert all(earlier[1] <= later[0] for earlier, later in pairwise(spans))
    assert not any(run["past_due"] for run in runs)


async def test_run_on_startup_fires_long_before_its_time(sample: Application, queue: Queue) -> None:
    """At every start of the host."""
    assert '{"yearly": true}' in await queue("sample-started").take()


async def test_a_timer_can_be_run_by_hand(sample: Application, queue: Queue) -> None:
    """`POST /admin/functions/NAME`."""
    queue("sample-started").drain()
    assert (await sample.call("POST", "/admin/functions/yearly", body=b"{}")).status == 202
    assert await queue("sample-started").take() == ['{"yearly": true}']


def test_six_fields_begin_with_the_second() -> None:
    """NCRONTAB."""
    start = datetime(2026, 11, 20, 9, 0, 0, tzinfo=UTC)
    assert next_run("30 */5 * * * *", start) == datetime(2026, 11, 20, 9, 0, 30, tzinfo=UTC)


def test_day_and_weekday_must_both_fit() -> None:
    """The next Friday that is a 13th; Unix cron would take any Friday."""
    start = datetime(2026, 11, 20, tzinfo=UTC)
    assert next_run("0 0 0 13 * 5", start) == datetime(2027, 8, 13, tzinfo=UTC)
