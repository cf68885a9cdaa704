"""The HTTP side: routes to functions, the host's own pages, and the headers host.json adds."""

import asyncio
import json
import os
from collections.abc import Coroutine, Sequence
from typing import Any

from aiohttp import web

from local.host.functions import Function
from local.host.invocation import InvocationFailed, Invoker, Result
from local.host.messages import answer, request_datum
from local.host.outputs import Queues
from local.host.queue_triggers import QueueTriggers
from local.host.routes import RESERVED, Routes
from local.host.settings import HostSettings
from local.host.timers import Timers

MAX_BODY_BYTES = 100 * 1024 * 1024
HOME_PAGE = "The function app is running."


class Front:
    """Answers every request that reaches the port."""

    def __init__(
        self,
        settings: HostSettings,
        functions: Sequence[Function],
        invoker: Invoker,
        queues: Queues,
        queue_triggers: QueueTriggers,
        timers: Timers,
    ) -> None:
        self._settings = settings
        self._functions = {function.name.lower(): function for function in functions}
        http = [function for function in functions if function.kind == "httptrigger"]
        self.routes = Routes(settings.route_prefix, http)
        self._invoker = invoker
        self._queues = queues
        self._queue_triggers = queue_triggers
        self._timers = timers
        self._by_hand: set[asyncio.Task[None]] = set()  # a task nobody holds may be collected

    def application(self) -> web.Application:
        """The aiohttp application that serves it all."""
        application = web.Application(
            client_max_size=MAX_BODY_BYTES, handler_args={"auto_decompress": False, "access_log": None}
        )
        application.router.add_route("*", r"/{tail:[\s\S]*}", self._handle)  # %0A, too
        return application

    async def _handle(self, request: web.Request) -> web.Response:
        path = request.raw_path.partition("?")[0]
        first = path.lower().split("/")[1]
        response = await (self._own(request, path) if first in RESERVED else self._function(request, path))
        for name, value in self._settings.custom_headers.items():
            response.headers.setdefault(name, value)
        return response

    async def _function(self, request: web.Request, path: str) -> web.Response:
        found = self.routes.find(request.method, path)
        if found is None:
            return self._home() if path == "/" else web.Response(status=404)
        function, route_params = found
        try:
            result = await self._invoker.run(function, await request_datum(request, route_params))
            await self._queues.write(function, result)  # before the caller hears of success
            return answer(function, _http_value(function, result), request.method)
        except InvocationFailed:
            return web.Response(status=500)

    def _home(self) -> web.Response:
        if os.environ.get("AzureWebJobsDisableHomepage") == "true":  # noqa: SIM112 - Azure's spelling
            return web.Response(status=204)
        return web.Response(text=HOME_PAGE, content_type="text/html")

    async def _own(self, request: web.Request, path: str) -> web.Response:
        """The host's own routes: its status, and running a timer or queue function by hand."""
        match [request.method, *path.strip("/").split("/")]:
            case ["GET", "admin", "host", "status"]:
                return web.json_response({"state": "Running"})
            case ["POST", "admin", "functions", name] if name.lower() in self._functions:
                return await self._start_by_hand(request, self._functions[name.lower()])
        return web.Response(status=404)

    async def _start_by_hand(self, request: web.Request, function: Function) -> web.Response:
        try:
            text = str((json.loads(await request.text() or "{}") or {}).get("input") or "")
        except (ValueError, AttributeError):
            return web.Response(status=400)
        run: Coroutine[Any, Any, None]
        if function.kind == "timertrigger":
            run = self._timers.run(function)
        elif function.kind == "queuetrigger":
            run = self._queue_triggers.run_by_hand(function, text)
        else:
            return web.Response(status=400)
        task = asyncio.create_task(run)
        self._by_hand.add(task)
        task.add_done_callback(self._by_hand.discard)
        return web.Response(status=202)


def _http_value(function: Function, result: Result) -> Any:
    """What the function answers with: its return value, or what it set on a named HTTP output."""
    named = [item["name"] for item in function.outputs if item["type"].lower() == "http"]
    return result.outputs.get(named[0]) if named and named[0] != "$return" else result.returned
