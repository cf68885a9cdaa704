"""Looks whether a deployment works, without changing anything in it.

    python scripts/smoke.py URL [TOKEN]     (or: make smoke URL=... TOKEN=...)

URL is the service's base URL; TOKEN an access token with every right, or the environment's GRAPHPOST_TOKEN. Without a
token only what the public sees is looked at. Ends with 0 when all is well. The first call may meet a cold start, or a
deployment that is still under way: it is tried for three minutes.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import ssl
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

PATIENCE_S = 180.0
HANDSHAKE_S = 10.0  # what Microsoft Graph waits for


class Wrong(Exception):
    """A look that did not find what it should; the text says what and what to do."""


@dataclass
class Answer:
    """An HTTP answer: `body` is parsed where it is JSON."""

    status: int
    body: Any
    headers: dict[str, str]
    took_s: float


@dataclass
class Service:
    """Where the service is, and with which right it is asked."""

    url: str
    token: str

    def call(self, method: str, path: str, *, with_token: bool = True) -> Answer:
        """One request; OSError when there is no answer."""
        parts = urllib.parse.urlsplit(self.url)
        host, port = parts.hostname or "", parts.port
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(host, port, timeout=30, context=ssl.create_default_context())
        else:
            connection = http.client.HTTPConnection(host, port, timeout=30)
        headers = {"Authorization": f"Bearer {self.token}"} if with_token and self.token else {}
        began = time.monotonic()
        try:
            connection.request(method, parts.path.rstrip("/") + path, headers=headers | {"Content-Length": "0"})
            got = connection.getresponse()
            raw = got.read()
        except http.client.HTTPException as problem:
            raise OSError(f"no HTTP answer: {problem!r}") from None
        finally:
            connection.close()
        names = {name.lower(): value for name, value in got.getheaders()}
        is_json = "json" in names.get("content-type", "") and raw
        return Answer(got.status, json.loads(raw) if is_json else raw, names, time.monotonic() - began)


def expect(fact: object, text: str) -> None:
    """Wrong with the text unless the fact holds."""
    if not fact:
        raise Wrong(text)


def is_up(service: Service) -> str:
    """The app answers"""
    deadline, last = time.monotonic() + PATIENCE_S, ""
    while time.monotonic() < deadline:
        try:
            answer = service.call("GET", "/health")
        except OSError as problem:
            last = str(problem)
        else:
            if answer.status == 200 and answer.body == {"success": True}:
                return f"{answer.took_s * 1000:.0f} ms"
            last = f"{answer.status} {answer.body!r}"[:500]
            if isinstance(answer.body, dict) and answer.body.get("code") == "NotConfigured":
                raise Wrong("settings are missing or wrong; the log names each: graphpost.settings.refused")
        time.sleep(2)
    raise Wrong(f"GET /health: {last}. A 404 or 503 of Azure's own: no package is deployed, or it does not start")


def is_closed(service: Service) -> str:
    """Nobody gets in without a token"""
    answer = service.call("GET", "/v1/accounts", with_token=False)
    expect(answer.status == 401, f"GET /v1/accounts without a token answered {answer.status}, not 401")
    expect(isinstance(answer.body, dict) and answer.body.get("statusCode") == 401, "the 401 is not the API's own")
    return "401"


def is_guarded(service: Service) -> str:
    """Security headers are set, and plain HTTP is not served"""
    answer = service.call("GET", "/health")
    expect(answer.headers.get("x-content-type-options") == "nosniff", "X-Content-Type-Options is missing")
    expect("max-age" in answer.headers.get("strict-transport-security", ""), "Strict-Transport-Security is missing")
    if not service.url.startswith("https://"):
        return "no TLS here: fine on this machine only"
    plain = Service("http://" + service.url.removeprefix("https://"), "")
    try:
        status = plain.call("GET", "/health").status
    except OSError:
        return "plain HTTP has no answer"
    expect(300 <= status < 400 or status == 403, f"plain HTTP is answered {status}: httpsOnly is off")
    return f"plain HTTP is answered {status}"


def hears_graph(service: Service) -> str:
    """Microsoft Graph's handshake is answered in time, on both addresses"""
    slowest = 0.0
    for path in ("/oauth/msg/notification", "/oauth/msg/lifecycle"):
        said = f"Validation: {secrets.token_hex(8)}"
        query = urllib.parse.urlencode({"validationToken": said})
        answer = service.call("POST", f"{path}?{query}", with_token=False)
        expect(answer.status == 200 and answer.body == said.encode(), f"POST {path} did not answer the token")
        expect(answer.headers.get("content-type", "").startswith("text/plain"), f"POST {path} is not text/plain")
        slowest = max(slowest, answer.took_s)
    expect(slowest < HANDSHAKE_S, f"it took {slowest:.1f} s; Graph waits 10: azd env set ALWAYS_READY_HTTP 1")
    return f"{slowest * 1000:.0f} ms"


def knows_the_token(service: Service) -> str:
    """The token opens the API, and records can be read"""
    answer = service.call("GET", "/v1/accounts?pageSize=1")
    expect(answer.status != 401, "the token is not known: see BOOTSTRAP_TOKEN_ID of the app's settings")
    expect(answer.status == 200, f"GET /v1/accounts answered {answer.status}: {answer.body!r:.500}")
    return f"{answer.body['total']} accounts"


def opens_the_settings(service: Service) -> str:
    """Sealed settings open with the key ring, and the service knows its address"""
    answer = service.call("GET", "/v1/settings?serviceUrl=true&serviceSecret=true")
    expect(answer.status == 200, f"GET /v1/settings answered {answer.status}: {answer.body!r:.500}")
    known = str(answer.body.get("serviceUrl") or "").rstrip("/")
    expect(known == service.url, f"the service takes {known or 'nothing'} for its address: SERVICE_URL, or serviceUrl")
    return known


def has_an_app(service: Service) -> str:
    """There is an OAuth2 app to sign people in with, or to act as"""
    answer = service.call("GET", "/v1/oauth2?pageSize=1000")
    expect(answer.status == 200, f"GET /v1/oauth2 answered {answer.status}: {answer.body!r:.500}")
    names = [app["name"] for app in answer.body["apps"]]
    expect(names, "there is none: set ENTRA_APP and provision, or POST /v1/oauth2")
    return ", ".join(names)


def has_queues(service: Service) -> str:
    """Every queue can be reached, and nothing is put aside"""
    aside = []
    for queue in ("submit", "notify", "notifications", "mailboxes"):
        answer = service.call("GET", f"/v1/settings/queue/{queue}/poison?pageSize=1")
        expect(answer.status == 200, f"queue {queue} answered {answer.status}: {answer.body!r:.300}")
        if answer.body["total"]:
            aside.append(f"{answer.body['total']} in {queue}")
    return "none" if not aside else "put aside, see docs/operations.md: " + ", ".join(aside)


PUBLIC: tuple[Callable[[Service], str], ...] = (is_up, is_closed, is_guarded, hears_graph)
INSIDE: tuple[Callable[[Service], str], ...] = (knows_the_token, opens_the_settings, has_an_app, has_queues)


def results(service: Service) -> Iterator[tuple[str, str, bool]]:
    """Each look: what it is about, what it found, and whether that is right."""
    for look in (*PUBLIC, *(INSIDE if service.token else ())):
        title = (look.__doc__ or look.__name__).strip()
        try:
            yield title, look(service), True
        except (Wrong, OSError, ValueError, KeyError) as problem:
            yield title, str(problem) or repr(problem), False
            if look is is_up:
                return


def main(arguments: list[str]) -> int:
    """Runs it; the exit status."""
    if not 1 <= len(arguments) <= 2 or not arguments[0].startswith(("https://", "http://")):
        print(__doc__, file=sys.stderr)
        return 2
    token = arguments[1] if len(arguments) == 2 else os.environ.get("GRAPHPOST_TOKEN", "")
    well = True
    for title, found, right in results(Service(arguments[0].rstrip("/"), token.strip())):
        print(f"{'ok   ' if right else 'WRONG'} {title}: {found}", flush=True)
        well = well and right
    if not token:
        print("without a token nothing behind the door was looked at")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
