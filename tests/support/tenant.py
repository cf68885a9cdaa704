"""The control side of the local tenant (`/_tenant`), for tests."""

from typing import Any
from urllib.parse import quote, urlencode

from local.services import Tenant as TenantService
from tests.support.application import call

Json = dict[str, Any]


class Tenant:
    """A running tenant and its switches. Every method raises AssertionError if the tenant refuses.

    Arguments given by name are passed on as they are: `local/tenant/README.md` lists them.
    """

    def __init__(self, service: TenantService) -> None:
        self.service = service

    @property
    def url(self) -> str:
        """Where login and Graph answer."""
        return self.service.url

    async def control(self, method: str, path: str, json: Any = None) -> Any:
        """One control request; the parsed answer."""
        answer = await call(method, f"{self.url}/_tenant{path}", json=json)
        assert answer.status < 300, f"{method} /_tenant{path}: {answer.status} {answer.body!r}"
        return answer.body

    async def reset(self, *, seed: bool = True, random_seed: int | None = None) -> Json:
        """Forget everything, faults and switches too; then the usual people unless `seed` is False."""
        path = "/seed" if seed else "/reset"
        return await self.control("POST", path, {"random_seed": random_seed} if random_seed else {})

    async def switches(self, **changes: Any) -> Json:
        """The behaviours that can be switched, after these changes."""
        return await self.control("PATCH" if changes else "GET", "/switches", changes or None)

    async def clock(self, offset_s: float) -> Json:
        """Set the tenant's clock that many seconds ahead of the machine's."""
        return await self.control("POST", "/clock", {"offset_s": offset_s})

    # People, rights, applications

    async def add_principal(self, upn: str, kind: str = "user", **properties: Any) -> Json:
        """A new user, shared mailbox or group."""
        return await self.control("POST", "/principals", {"upn": upn, "kind": kind, **properties})

    async def change_principal(self, reference: str, **changes: Any) -> Json:
        """Change a user or shared mailbox."""
        return await self.control("PATCH", f"/principals/{quote(reference)}", changes)

    async def grant(self, user: str, mailbox: str, right: str) -> Json:
        """Give a user `full_access`, `send_as` or `send_on_behalf` over a mailbox."""
        return await self.control("POST", "/rights", {"user": user, "mailbox": mailbox, "right": right})

    async def revoke(self, user: str, mailbox: str, right: str) -> Json:
        """Take a right away again."""
        return await self.control("DELETE", "/rights", {"user": user, "mailbox": mailbox, "right": right})

    async def add_application(self, **properties: Any) -> Json:
        """Register an application."""
        return await self.control("POST", "/applications", properties)

    # Mail

    async def deliver(self, sender: str, to: list[str], subject: str = "Hello", **rest: Any) -> list[Json]:
        """A mail arrives; what it became in each mailbox."""
        body = {"from": sender, "to": to, "subject": subject, **rest}
        return (await self.control("POST", "/deliver", body))["delivered"]

    async def messages(self, mailbox: str, folder: str | None = None) -> list[Json]:
        """What is in a mailbox or one of its folders, newest first, as the tenant itself knows it.

        `external:<address>` stands for what left the tenant for that address.
        """
        query = f"?{urlencode({'folder': folder})}" if folder else ""
        return (await self.control("GET", f"/mailboxes/{quote(mailbox)}/messages{query}"))["value"]

    async def subscriptions(self) -> list[Json]:
        """The subscriptions in force."""
        return (await self.control("GET", "/subscriptions"))["value"]

    async def lifecycle(self, subscription_id: str, event: str) -> Json:
        """Send a lifecycle notification."""
        body = {"subscription_id": subscription_id, "event": event}
        return await self.control("POST", "/lifecycle", body)

    # Sign-in

    async def token(self, **request: Any) -> Json:
        """Tokens without a sign-in; an application's own if no `user` is given."""
        return await self.control("POST", "/tokens", request)

    async def revoke_tokens(self, user: str, *, access_tokens: bool = False) -> Json:
        """Make a user's refresh tokens worthless, and the access tokens too if asked."""
        return await self.control("POST", "/revoke", {"user": user, "access_tokens": access_tokens})

    async def login_errors(self, **errors: Any) -> Json:
        """Make the login service refuse."""
        return await self.control("POST", "/login_errors", errors)

    # What goes wrong, and what arrived

    async def add_fault(self, action: Json, *, match: Json | None = None, times: int | None = 1) -> Json:
        """Make the next `times` calls that fit go wrong; None means until cleared."""
        return await self.control("POST", "/faults", {"match": match or {}, "action": action, "times": times})

    async def faults(self) -> list[Json]:
        """The faults in force."""
        return (await self.control("GET", "/faults"))["value"]

    async def clear_faults(self) -> None:
        """No faults any more."""
        await self.control("DELETE", "/faults")

    async def log(self, **query: str) -> list[Json]:
        """The requests that arrived; narrowed by `surface`, `method`, `path` (regex) and `since`."""
        return (await self.control("GET", f"/log?{urlencode(query)}"))["requests"]

    async def counts(self) -> Json:
        """How many requests of which kind since the log was cleared."""
        return await self.control("GET", "/counts")

    async def clear_log(self) -> None:
        """Forget the requests so far, and their counts."""
        await self.control("DELETE", "/log")
