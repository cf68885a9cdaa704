"""The functions of an app, found the way the worker finds them: by importing `function_app`."""

import importlib
import inspect
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import azure.functions as func

from local.host.settings import HostSettings, StartRefused

Binding = dict[str, Any]
BUILT_IN = {"httptrigger", "http", "timertrigger"}  # every other binding comes from the extension bundle
SERVED = {"httptrigger", "queuetrigger", "timertrigger"}
_NAME = re.compile(r"(?!host$)[a-z][a-z0-9_-]{0,127}", re.IGNORECASE)


@dataclass(frozen=True)
class Function:
    """One function: what starts it, what it writes to, and the Python callable."""

    name: str
    call: Callable[..., Any]
    trigger: Binding
    outputs: tuple[Binding, ...]

    @property
    def kind(self) -> str:
        """The trigger's type in lower case, for instance `queuetrigger`."""
        return str(self.trigger["type"]).lower()

    @property
    def wants_context(self) -> bool:
        """Whether the callable declares a `context` parameter."""
        return "context" in inspect.signature(self.call).parameters

    def queue_outputs(self) -> list[Binding]:
        """Its queue output bindings."""
        return [binding for binding in self.outputs if binding["type"].lower() == "queue"]


def load(app_dir: Path, settings: HostSettings) -> list[Function]:
    """All functions, in the host's order: by name, ignoring case. StartRefused if indexing would fail."""
    if not (app_dir / "function_app.py").exists():
        raise StartRefused(f"there is no function_app.py in {app_dir}: the host would find no functions")
    sys.path.insert(0, str(app_dir))
    os.chdir(app_dir)
    registers = _registers(importlib.import_module("function_app"))
    if len(registers) != 1:
        raise StartRefused(f"function_app.py must hold one FunctionApp, found {len(registers)}")
    functions = [_function(item, settings) for item in registers[0].get_functions()]
    names = [function.name.lower() for function in functions]
    for name in names:
        if names.count(name) > 1:
            raise StartRefused(f"two functions are called '{name}'; names ignore case")
    return sorted(functions, key=lambda function: function.name.upper())


def _registers(module: ModuleType) -> list[func.FunctionRegister]:
    found = {id(value): value for value in vars(module).values() if isinstance(value, func.FunctionRegister)}
    return list(found.values())


def _function(item: Any, settings: HostSettings) -> Function:
    bindings = [json.loads(text) for text in item.get_raw_bindings()]
    triggers = [binding for binding in bindings if binding["type"].lower().endswith("trigger")]
    outputs = tuple(binding for binding in bindings if binding["direction"].lower() == "out")
    name = item.get_function_name()
    if len(triggers) != 1 or triggers[0]["type"].lower() not in SERVED:
        raise StartRefused(f"{name}: needs exactly one trigger, of these: {', '.join(sorted(SERVED))}")
    function = Function(name, item.get_user_function(), triggers[0], outputs)
    _check(function, settings)
    return function


def _check(function: Function, settings: HostSettings) -> None:
    """The worker's and the host's own complaints about one function."""
    if not _NAME.fullmatch(function.name):
        raise StartRefused(f"'{function.name}' is not a valid function name")
    bound = {function.trigger["name"], *(binding["name"] for binding in function.outputs)} - {"$return"}
    declared = set(inspect.signature(function.call).parameters) - {"context"}
    if bound != declared:
        raise StartRefused(
            f"{function.name}: parameters {sorted(declared)} do not match the bindings {sorted(bound)}"
        )
    for binding in (function.trigger, *function.outputs):
        if binding["type"].lower() not in BUILT_IN and not settings.has_bundle:
            raise StartRefused(f"{function.name}: '{binding['type']}' needs extensionBundle in host.json")
