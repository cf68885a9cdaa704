"""How MSAL and we reach the login service: one HTTP session, with the development override of the login host.

With `LOGIN_ENDPOINT` set, requests to a Microsoft login host go there instead, and the addresses in its answers
are read as if they came from the real host, so MSAL keeps its https authority and nothing else changes.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 15
_DISCOVERY = ("/.well-known/openid-configuration", "/discovery/instance")


class _Answer:
    """The part of a response that MSAL reads (graph.md 13.3)."""

    def __init__(self, status_code: int, text: str, headers: Any) -> None:
        self.status_code, self.text, self.headers = status_code, text, headers

    def raise_for_status(self) -> None:
        if self.status_code >= 400:
            import requests

            raise requests.HTTPError(f"HTTP {self.status_code} from the login service")


class LoginHttp:
    """The `http_client` that MSAL is given. Discovery documents are kept for the life of the process."""

    def __init__(self, login_host: str, override: str = "") -> None:
        self._host, self._override = login_host, override
        self._session = timed_session()
        self._kept: dict[str, _Answer] = {}

    def to_reachable(self, url: str) -> str:
        """The address to call, or to send a browser to, for an address at the login host."""
        if self._override and url.startswith(self._host + "/"):
            return self._override + url[len(self._host) :]
        return url

    def to_official(self, text: str) -> str:
        """The login service's own words with the override's address replaced by the real host's."""
        return text.replace(self._override, self._host) if self._override else text

    def get(self, url: str, params: Any = None, headers: Any = None, **_: Any) -> _Answer:
        kept = self._kept.get(url) if not params else None
        if kept is None:
            answer = self._session.get(self.to_reachable(url), params=params, headers=headers)
            _refuse_outage(answer)
            kept = _Answer(answer.status_code, self.to_official(answer.text), answer.headers)
            if answer.ok and not params and urlsplit(url).path.endswith(_DISCOVERY):
                self._kept[url] = kept
        return kept

    def post(self, url: str, params: Any = None, data: Any = None, headers: Any = None, **_: Any) -> _Answer:
        answer = self._session.post(self.to_reachable(url), params=params, data=data, headers=headers)
        _refuse_outage(answer)
        return _Answer(answer.status_code, answer.text, answer.headers)

    def close(self) -> None:
        """MSAL may call this; the session lives as long as the process."""


def _refuse_outage(answer: Any) -> None:
    """Throttling, and an answer that is not JSON (a proxy's own page), are no word of the login service: MSAL
    would take them for refusals."""
    import requests

    if answer.status_code == 429:
        raise requests.HTTPError("HTTP 429 from the login service")
    try:
        json.loads(answer.text)
    except ValueError:
        raise requests.HTTPError(f"HTTP {answer.status_code} without JSON from the login service") from None


def timed_session() -> Any:
    """A requests session whose every call ends in time."""
    import requests

    class TimedSession(requests.Session):
        def request(self, *args: Any, **options: Any) -> requests.Response:
            options.setdefault("timeout", TIMEOUT_S)
            return super().request(*args, **options)

    return TimedSession()
