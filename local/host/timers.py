"""Timer triggers: NCRONTAB with seconds first, in UTC, one run at a time."""

import asyncio
import json
import os
from datetime import UTC, datetime

from azure.functions.meta import Datum
from croniter import CroniterError, croniter

from local.host.functions import Function
from local.host.invocation import InvocationFailed, Invoker
from local.host.outputs import Queues
from local.host.settings import StartRefused, resolve

LONGEST_SLEEP_S = 60.0  # a laptop that slept should notice the new time soon


def schedule(function: Function) -> str:
    """The function's cron expression with settings resolved; StartRefused if it is not one."""
    text = resolve(str(function.trigger["schedule"]), os.environ)
    fields = text.split()
    if len(fields) == 5:
        fields.insert(0, "0")  # the host takes five fields too and means second 0
    expression = " ".join(fields)
    try:
        if len(fields) != 6 or any(character in text for character in "?LW#"):
            raise ValueError("an NCRONTAB expression has six plain fields")
        next_run(expression, datetime.now(UTC))
    except (ValueError, KeyError, CroniterError) as error:
        raise StartRefused(f"{function.name}: schedule '{text}' is not valid: {error}") from None
    return expression


def next_run(expression: str, after: datetime) -> datetime:
    """The first moment after `after` that fits; unlike in Unix cron, day and weekday must both fit."""
    moments = croniter(expression, after, second_at_beginning=True, day_or=False)
    moment: datetime = moments.get_next(datetime)
    return moment


async def _reach(moment: datetime) -> None:
    wait_s = (moment - datetime.now(UTC)).total_seconds()
    while wait_s > 0:
        await asyncio.sleep(min(wait_s, LONGEST_SLEEP_S))
        wait_s = (moment - datetime.now(UTC)).total_seconds()


class Timers:
    """Runs timer functions when they are due."""

    def __init__(self, invoker: Invoker, queues: Queues) -> None:
        self._invoker = invoker
        self._queues = queues

    async def listen(self, function: Function) -> None:
        """Serve one timer until cancelled. A run that takes too long swallows the moments it covers."""
        expression = schedule(function)
        if function.trigger.get("runOnStartup"):
            await self.run(function)
        while True:
            await _reach(next_run(expression, datetime.now(UTC)))
            await self.run(function)

    async def run(self, function: Function) -> None:
        """One invocation. A failed one is logged and not repeated before its next time."""
        timing = {"Schedule": {"AdjustForDST": True}, "ScheduleStatus": None, "IsPastDue": False}
        try:
            result = await self._invoker.run(function, Datum(json.dumps(timing), "json"))
            await self._queues.write(function, result)
        except InvocationFailed:
            pass
