"""Time that passes faster: one origin and one factor for every process of a run, told by the environment.

A mail whose send was lost is looked for over ten minutes, and a message whose process died is seen again after ten;
at twenty times the pace that is half a minute. Only clocks and waits are faster: what a call takes, it takes.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

ORIGIN, FACTOR, SKEW = "CHAOS_ORIGIN", "CHAOS_FACTOR", "CHAOS_SKEW_S"


@dataclass(frozen=True)
class Pace:
    """Wall time turned into the time inside the run. `skew_s` is what one process' clock is wrong by, inside."""

    origin: float
    factor: float
    skew_s: float = 0.0

    @classmethod
    def from_environment(cls) -> Pace:
        """The pace that the harness set for this process."""
        return cls(float(os.environ[ORIGIN]), float(os.environ[FACTOR]), float(os.environ.get(SKEW, "0")))

    def environment(self, skew_s: float = 0.0) -> dict[str, str]:
        """What a process has to be started with."""
        return {ORIGIN: repr(self.origin), FACTOR: repr(self.factor), SKEW: repr(skew_s)}

    def now(self) -> datetime:
        """The time inside the run."""
        inside = self.origin + (time.time() - self.origin) * self.factor + self.skew_s
        return datetime.fromtimestamp(inside, UTC)

    def real_s(self, inside_s: float) -> float:
        """How long so many seconds of the run take."""
        return inside_s / self.factor

    def ahead(self, seconds: float) -> str:
        """A moment so many seconds from now, inside the run, as the API takes it."""
        return (self.now() + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
