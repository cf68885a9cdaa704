"""`make chaos`: one seed after another, a table of what was done and what became of it; 1 when anything is wrong.

SEEDS="1 2 3" SUBMITS=1000 DELIVERIES=1000 PACE=20 (how many seconds pass inside for each one outside).
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from local import services
from tests.chaos.seed import Outcome, Plan, play

SEEDS = "11 23 37 41 59 61 73 83 97 101"
BREACHES = (
    *"lost double foreign outcome refused missing doubled untrue stale order changed forged state grave".split(),
    "token race",
    "broken off",
)


def rows(outcome: Outcome) -> list[tuple[str, str]]:
    """The lines of one seed's table."""
    counts, done = outcome.verdict.counts, outcome.done
    faults = ", ".join(f"{name} {count}" for name, count in sorted(done.items()) if count)
    submits = " · ".join(f"{counts[name]} {name}" for name in ("accepted", "sent", "unknown", "failed", "maybe"))
    return [
        ("done to it", faults),
        ("submits", f"{submits} · {counts['lost']} lost · {counts['double']} double"),
        (
            "mail events",
            f"{counts['expected']} expected · {counts['expected'] - counts['missing']} received · "
            f"{counts['missing']} missing · {counts['foreign']} foreign · {counts['doubled']} double",
        ),
        ("webhooks", f"{counts['events']} events · {counts['repeats']} repeats"),
        ("breaches", ", ".join(f"{name} {counts[name]}" for name in BREACHES if counts[name]) or "none"),
        ("took", f"{outcome.seconds:.0f} s"),
    ]


def show(outcome: Outcome) -> None:
    """Prints the table of one seed, and where to look when it failed."""
    print(f"\nseed {outcome.plan.seed}: {'FAILED' if outcome.verdict.problems else 'ok'}")
    for name, text in rows(outcome):
        print(f"  {name:<12} {text}")
    for problem in outcome.verdict.problems[:10]:
        print(f"    ! {problem}")
    sys.stdout.flush()


def main() -> int:
    """Runs the seeds; the exit status."""
    logging.basicConfig(level=logging.ERROR)
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # a killed host breaks off what it was sending
    plans = [
        Plan(
            int(seed),
            submits=int(os.environ.get("SUBMITS", "1000")),
            deliveries=int(os.environ.get("DELIVERIES", "1000")),
            factor=float(os.environ.get("PACE", "20")),
        )
        for seed in (os.environ.get("SEEDS") or SEEDS).split()
    ]
    failed = []
    for plan in plans:
        logs = services.LOGS / "chaos" / f"seed-{plan.seed}"
        outcome = asyncio.run(play(plan, logs))
        show(outcome)
        if outcome.verdict.problems:
            failed.append(plan.seed)
            print(f"    logs and report.json: {logs}")
    print(f"\n{len(plans) - len(failed)} of {len(plans)} seeds ok" + (f", failed: {failed}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
