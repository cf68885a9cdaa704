"""`python -m tests.chaos.quick_tenant`: the local tenant, its clock and its repeats at the pace of the run."""

from __future__ import annotations

from datetime import datetime, timedelta

from local.tenant import __main__ as tenant
from local.tenant import notify, world
from tests.chaos.pace import Pace


def quicken(pace: Pace) -> None:
    """The tenant's clock and the pauses between its notification attempts follow the pace."""

    def now(clock: world.Clock) -> datetime:
        return pace.now() + timedelta(seconds=clock.offset_s)

    world.Clock.now = now  # type: ignore[method-assign]
    notify.FIRST_RETRY_S = max(0.2, pace.real_s(notify.FIRST_RETRY_S))
    notify.LONGEST_RETRY_S = pace.real_s(notify.LONGEST_RETRY_S)
    notify.GIVE_UP_AFTER_S = pace.real_s(notify.GIVE_UP_AFTER_S)


if __name__ == "__main__":
    quicken(Pace.from_environment())
    tenant.main()
