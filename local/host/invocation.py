"""One run of one function: context, arguments, thread or loop, what came out, and its line in the log."""

import asyncio
import contextvars
import inspect
import os
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import azure.functions as func
from azure.functions.meta import Datum

from local.host.functions import Function

CONVERTERS = func.get_binding_registry()  # the same conversions the worker uses in Azure


class InvocationFailed(Exception):
    """The function raised, ran out of time, or gave something its bindings cannot carry. Already logged."""


class Context(func.Context):
    """What a function that declares `context` is given."""

    def __init__(self, function: Function, storage: threading.local) -> None:
        self._function = function
        self._storage = storage
        self._id = str(uuid.uuid4())
        parent = f"00-{uuid.uuid4().hex}-{uuid.uuid4().hex[:16]}-00"
        self._trace = SimpleNamespace(trace_parent=parent, trace_state="", attributes={})
        self._retry = SimpleNamespace(retry_count=0, max_retry_count=0, exception=None)

    @property
    def invocation_id(self) -> str:
        return self._id

    @property
    def thread_local_storage(self) -> Any:
        return self._storage

    @property
    def function_name(self) -> str:
        return self._function.name

    @property
    def function_directory(self) -> str:
        return os.getcwd()

    @property
    def trace_context(self) -> Any:
        return self._trace

    @property
    def retry_context(self) -> Any:
        return self._retry


class Output(func.Out[Any]):
    """The parameter behind an output binding: remembers the last value set."""

    def __init__(self) -> None:
        self._value: Any = None

    def set(self, val: Any) -> None:
        self._value = val

    def get(self) -> Any:
        return self._value


@dataclass
class Result:
    """What a function returned and what it set on its output parameters, by binding name."""

    returned: Any
    outputs: dict[str, Any] = field(default_factory=dict)


class Invoker:
    """Runs functions: coroutines on this loop, plain functions in a pool of the size Azure would use."""

    def __init__(self, timeout_s: float | None, quiet: bool = False) -> None:
        workers = os.environ.get("PYTHON_THREADPOOL_THREAD_COUNT")
        self._pool = ThreadPoolExecutor(int(workers) if workers else min(32, (os.cpu_count() or 1) + 4))
        self._timeout_s = timeout_s
        self._quiet = quiet
        self._storage = threading.local()

    async def run(
        self, function: Function, datum: Datum, metadata: Mapping[str, Datum] | None = None
    ) -> Result:
        """Run the function on what its trigger received; InvocationFailed if it did not end well."""
        started = time.perf_counter()
        try:
            converter = CONVERTERS.get(function.trigger["type"])
            value = converter.decode(datum, trigger_metadata=metadata or {})
            names = {binding["name"] for binding in function.outputs} - {"$return"}
            outputs = {name: Output() for name in names}
            arguments = {function.trigger["name"]: value, **outputs}
            if function.wants_context:
                arguments["context"] = Context(function, self._storage)
            async with asyncio.timeout(self._timeout_s):
                returned = await self._call(function, arguments)
        except Exception as error:
            self._report(function, started, failed=True)
            traceback.print_exception(error, file=sys.stderr)
            raise InvocationFailed(f"{function.name}: {error}") from error
        self._report(function, started, failed=False)
        given = {name: output.get() for name, output in outputs.items() if output.get() is not None}
        return Result(returned, given)

    async def _call(self, function: Function, arguments: dict[str, Any]) -> Any:
        if inspect.iscoroutinefunction(function.call):
            return await function.call(**arguments)
        call = partial(contextvars.copy_context().run, partial(function.call, **arguments))
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def _report(self, function: Function, started: float, *, failed: bool) -> None:
        if failed or not self._quiet:
            took_ms = (time.perf_counter() - started) * 1000
            outcome = "failed" if failed else "ok"
            print(f"{function.name} {outcome} {took_ms:.0f} ms", file=sys.stderr, flush=True)


def fail(function: Function, reason: str) -> InvocationFailed:
    """The error for a run that ended well but whose result cannot be used; logs it as failed."""
    print(f"{function.name} failed: {reason}", file=sys.stderr, flush=True)
    return InvocationFailed(f"{function.name}: {reason}")
