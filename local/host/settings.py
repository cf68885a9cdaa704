"""What the host reads before it starts: app settings, host.json and storage connections."""

import json
import os
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OVERRIDE_PREFIX = "azurefunctionsjobhost__"
# The account name and key every storage emulator ships with; documented, not a secret.
DEVELOPMENT_STORAGE = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;"
    "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;"
    "BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;"
    "QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1;"
    "TableEndpoint=http://127.0.0.1:10002/devstoreaccount1;"
)
_TIME_SPAN = re.compile(r"(?:(\d+)\.)?(\d{1,2}):(\d{2})(?::(\d{2}(?:\.\d+)?))?")


class StartRefused(Exception):
    """The app cannot be started; the text says what the real host would complain about."""


@dataclass(frozen=True)
class HostSettings:
    """The part of host.json that is honoured here, with the real host's defaults filled in."""

    route_prefix: str
    custom_headers: Mapping[str, str]
    function_timeout_s: float | None
    batch_size: int
    new_batch_threshold: int
    max_dequeue_count: int
    retry_pause_s: float
    max_polling_s: float
    base64: bool
    has_bundle: bool


def add_local_settings(app_dir: Path, environ: MutableMapping[str, str]) -> None:
    """`Values` of local.settings.json become settings; what the environment already says wins."""
    path = app_dir / "local.settings.json"
    if path.exists():
        for name, value in json.loads(path.read_text("utf-8-sig")).get("Values", {}).items():
            environ.setdefault(name, str(value))


def read_host_json(app_dir: Path, environ: Mapping[str, str]) -> HostSettings:
    """host.json with `AzureFunctionsJobHost__a__b` settings laid over it; StartRefused if it is unusable."""
    try:
        raw = json.loads((app_dir / "host.json").read_text("utf-8-sig"))
    except FileNotFoundError:
        raise StartRefused(f"there is no host.json in {app_dir}") from None
    except ValueError as error:
        raise StartRefused(f"host.json is not JSON: {error}") from None
    if raw.get("version") != "2.0":
        raise StartRefused('host.json must say "version": "2.0"')
    for name, value in environ.items():
        if name.lower().startswith(OVERRIDE_PREFIX):
            _override(raw, name[len(OVERRIDE_PREFIX) :].split("__"), value)
    return _host_settings(raw)


def _override(raw: dict[str, Any], keys: list[str], value: str) -> None:
    """Set one value deep inside host.json; like .NET configuration, keys ignore case."""
    node = raw
    for depth, wanted in enumerate(keys):
        key = next((known for known in node if known.lower() == wanted.lower()), wanted)
        if depth == len(keys) - 1:
            node[key] = value
        else:
            node = node.setdefault(key, {})


def _host_settings(raw: Mapping[str, Any]) -> HostSettings:
    http = raw.get("extensions", {}).get("http", {})
    queues = raw.get("extensions", {}).get("queues", {})
    batch_size = int(queues.get("batchSize", 16))
    threshold = int(queues.get("newBatchThreshold", batch_size // 2 * (os.cpu_count() or 1)))
    settings = HostSettings(
        route_prefix=str(http.get("routePrefix", "api")).strip("/"),
        custom_headers=dict(http.get("customHeaders", {})),
        function_timeout_s=_function_timeout(raw),
        batch_size=batch_size,
        new_batch_threshold=threshold,
        max_dequeue_count=int(queues.get("maxDequeueCount", 5)),
        retry_pause_s=time_span_s(queues.get("visibilityTimeout", "00:00:00")),
        max_polling_s=time_span_s(queues.get("maxPollingInterval", "00:01:00")),
        base64=str(queues.get("messageEncoding", "base64")).lower() == "base64",
        has_bundle="extensionBundle" in raw,
    )
    if not 1 <= batch_size <= 32 or threshold < 0 or settings.max_dequeue_count < 1:
        raise StartRefused("host.json queues: batchSize 1 to 32, newBatchThreshold >= 0, maxDequeueCount > 0")
    if settings.max_polling_s < 0.1:
        raise StartRefused("host.json queues.maxPollingInterval must be at least 00:00:00.100")
    return settings


def _function_timeout(raw: Mapping[str, Any]) -> float | None:
    text = str(raw.get("functionTimeout", "-1"))
    return None if text == "-1" else time_span_s(text)


def time_span_s(text: str) -> float:
    """Seconds in a .NET time span such as `00:00:30` or `1.02:00:00`."""
    found = _TIME_SPAN.fullmatch(str(text))
    if not found:
        raise StartRefused(f"'{text}' is not a time span (hh:mm:ss)")
    days, hours, minutes, seconds = found.groups()
    return int(days or 0) * 86400 + int(hours) * 3600 + int(minutes) * 60 + float(seconds or 0)


def resolve(text: str, environ: Mapping[str, str]) -> str:
    """The text with every `%NAME%` replaced by that setting; the real host refuses to start without it."""

    def setting(found: re.Match[str]) -> str:
        value = environ.get(found[1])
        if value is None:
            raise StartRefused(f"'%{found[1]}%' does not resolve to a value: there is no such setting")
        return value

    return re.sub(r"%([^%]+)%", setting, text)


def connection_string(name: str | None, environ: Mapping[str, str]) -> str:
    """The storage connection string behind a binding's `connection`."""
    name = name or "AzureWebJobsStorage"
    value = environ.get("AzureWebJobs" + name) or environ.get(name)
    if value:
        return DEVELOPMENT_STORAGE if "UseDevelopmentStorage=true" in value else value
    if any(key.lower().startswith(name.lower() + "__") for key in environ):
        raise StartRefused(f"connection '{name}' is identity-based; a local run needs a connection string")
    raise StartRefused(f"connection '{name}' is not set")


def is_disabled(function_name: str, environ: Mapping[str, str]) -> bool:
    """Whether `AzureWebJobs.<name>.Disabled` turns this function off."""
    dotted, plain = f"AzureWebJobs.{function_name}.Disabled", f"AzureWebJobs_{function_name}_Disabled"
    return environ.get(dotted, environ.get(plain, "")).lower() in ("true", "1")
