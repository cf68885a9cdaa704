"""One POST to a receiver, and what its answer means for the event."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from shared.clock import Clock
from shared.webhook_address import Addresses, TargetRefused

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 30.0  # for the whole attempt, looking up the name included (emailengine.md 18.2)
CONNECT_S = 10.0  # for one address; the next one gets what is left
LONGEST_RETRY_AFTER_S = 3600.0  # a receiver that asks for more is asked again by then

DELIVERED, RETRY, FINAL = "delivered", "retry", "final"


@dataclass(frozen=True)
class Outcome:
    """What became of an attempt. `reason` is for the operator and holds nothing of the receiver's answer but its
    status; `retry_after_s` is what the receiver asked for, 0 when it asked for nothing."""

    kind: str
    reason: str = ""
    status: int = 0
    retry_after_s: float = 0.0

    @property
    def error(self) -> dict[str, Any]:
        """`{reason, status?}`, as dead letters and endpoints show it."""
        return {"reason": self.reason} | ({"status": self.status} if self.status else {})


class Sender:
    """Makes attempts. `http` gives a client that neither follows redirects nor keeps connections."""

    def __init__(self, http: Callable[[], httpx.AsyncClient], addresses: Addresses, clock: Clock) -> None:
        self._http, self._addresses, self._clock = http, addresses, clock

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> Outcome:
        """One attempt, over within 30 seconds. Never raises for what a target or receiver does."""
        import httpx

        try:
            parsed = httpx.URL(url)
            async with asyncio.timeout(TIMEOUT_S):
                port = parsed.port or (443 if parsed.scheme == "https" else 80)
                found = await self._addresses.of(parsed.raw_host.decode("ascii"), port)
                return await self._first_that_connects(parsed, found, headers, body)
        except TargetRefused as refused:
            return Outcome(FINAL, f"Refused: {refused}")
        except (httpx.InvalidURL, UnicodeError, ValueError):
            return Outcome(FINAL, "The target is not a URL that can be called")
        except (TimeoutError, httpx.TimeoutException):
            return Outcome(RETRY, f"No answer within {TIMEOUT_S:.0f} seconds")
        except httpx.ConnectError as failure:
            return Outcome(RETRY, "The certificate was refused" if _is_tls(failure) else "No connection was made")
        except httpx.HTTPError as failure:
            return Outcome(RETRY, f"The connection broke ({type(failure).__name__})")
        except OSError:
            return Outcome(RETRY, "The name of the target could not be resolved")

    async def _first_that_connects(
        self, url: httpx.URL, addresses: list[str], headers: dict[str, str], body: bytes
    ) -> Outcome:
        """The answer of the first address that accepts a connection. Nothing was sent to those before it."""
        import httpx

        for last, address in ((place == len(addresses), one) for place, one in enumerate(addresses, 1)):
            try:
                return await self._once(url, address, headers, body)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if last:
                    raise
        raise OSError("no address")

    async def _once(self, url: httpx.URL, address: str, headers: dict[str, str], body: bytes) -> Outcome:
        """To this very address, under the name of the target: in the Host header, in the TLS greeting, and in what
        the certificate has to say."""
        import httpx

        placed = url.copy_with(host=address, fragment=None)
        named = {"Host": url.netloc.decode("ascii"), **headers}
        sni = {"sni_hostname": url.raw_host.decode("ascii")} if url.scheme == "https" else {}
        timeout = httpx.Timeout(TIMEOUT_S, connect=CONNECT_S)
        request = self._http().stream("POST", placed, content=body, headers=named, extensions=sni, timeout=timeout)
        async with request as answer:  # what it says is not read
            return self._meaning(answer.status_code, answer.headers.get("retry-after", ""))

    def _meaning(self, status: int, retry_after: str) -> Outcome:
        said = Outcome(RETRY, f"The receiver answered {status}", status)
        if 200 <= status < 300:
            return Outcome(DELIVERED, status=status)
        if 300 <= status < 400:
            # The signature was meant for this address alone, and the next one was not judged (18.2).
            return replace(said, kind=FINAL, reason=f"{said.reason}; redirects are not followed")
        if status == 410:
            return replace(said, kind=FINAL, reason=f"{said.reason}: the target is gone for good")
        if status in (429, 503):
            return replace(said, retry_after_s=retry_after_s(retry_after, self._clock()))
        return said


def retry_after_s(text: str, now: datetime) -> float:
    """The seconds a `Retry-After` header asks for, as a number or a date, at most an hour; 0 for anything else."""
    try:
        wait_s = float(text)
    except ValueError:
        try:
            wait_s = (parsedate_to_datetime(text) - now).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return min(max(wait_s, 0.0), LONGEST_RETRY_AFTER_S) if wait_s == wait_s else 0.0


def _is_tls(failure: BaseException) -> bool:
    import ssl

    seen: BaseException | None = failure
    while seen is not None:
        if isinstance(seen, ssl.SSLError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
