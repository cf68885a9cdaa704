"""Seals everything under the newest key of KEY_RING, and shows how far it has come.

    python scripts/reseal.py URL [TOKEN]

URL is the service's base URL; TOKEN an access token with every right, or the environment's GRAPHPOST_TOKEN.
Ends with 0 when all is sealed anew, with 1 when something was damaged, still hangs on another key, or the service
did not answer.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from typing import Any

LOOK_EVERY_S = 1.0
PATIENCE = 30  # failed looks in a row before giving up: a service that is being restarted answers again


def call(method: str, url: str, token: str) -> dict[str, Any]:
    """The body of an answer; URLError for anything but a 200."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, b"" if method == "POST" else None, headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        body: dict[str, Any] = json.load(answer)
    return body


def reason(problem: OSError) -> str:
    """What the service, or the way to it, says."""
    if isinstance(problem, urllib.error.HTTPError):
        return f"{problem.code} {problem.read(2000).decode('utf-8', 'replace')}"
    return str(problem)


def follow(url: str, token: str, started: str | None) -> dict[str, Any]:
    """The progress when the run has ended."""
    failed = 0
    while True:
        time.sleep(LOOK_EVERY_S)
        try:
            shown = call("GET", url, token)
        except OSError as problem:
            failed += 1
            if failed >= PATIENCE:
                raise
            print(f"  waiting for the service: {reason(problem)}", file=sys.stderr)
            continue
        failed = 0
        print(f"  {shown['seen']} values seen, {shown['resealed']} sealed anew", flush=True)
        if shown["state"] == "finished" and shown["started"] >= (started or ""):
            return shown


def main(arguments: list[str]) -> int:
    """Runs it; the exit status."""
    token = arguments[1] if len(arguments) == 2 else os.environ.get("GRAPHPOST_TOKEN", "")
    if len(arguments) not in (1, 2) or not token:
        print(__doc__, file=sys.stderr)
        return 2
    url = arguments[0].rstrip("/") + "/v1/settings/reseal"
    try:
        begun = call("POST", url, token)
        print(f"sealing anew since {begun['started']}", flush=True)
        shown = follow(url, token, begun["started"])
    except OSError as problem:
        print(f"{url}: {reason(problem)}", file=sys.stderr)
        return 1
    return report(shown)


def report(shown: dict[str, Any]) -> int:
    """Says what came of it; the exit status."""
    for name, count in sorted(shown["keys"].items()):
        print(f"  key {name}: {count}")
    for one in shown["damaged"]:
        print(f"  damaged: {one['table']} {one['record']}")
    if shown["damagedTotal"]:
        print(f"{shown['damagedTotal']} values can not be opened; keep the old key and see docs/operations.md")
        return 1
    if len(shown["keys"]) > 1:
        print("some values were still under another key when they were met: run this again before a key is removed")
        return 1
    print("everything is under the newest key; the older ones may leave KEY_RING")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
