"""The app's own services in the test's process, with a clock that the test moves.

Storage is a real Azurite and Microsoft 365 is the local tenant in this process. Only waiting is replaced: queue
messages are kept here until their time on the test's clock, so that an hour of retries takes no time.
"""

import asyncio
import base64
import json
import secrets
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from local.services import LOOPBACK
from local.tenant.app import build_app
from local.tenant.control_login import mint
from local.tenant.mailbox import Mailbox
from local.tenant.messages import Message
from local.tenant.routes_messages import apply_changes
from local.tenant.world import World
from shared import notifications
from shared.jobs import mailbox_job, notification_job, sweep
from shared.settings import Settings
from shared.storage.queues import parse
from shared.wiring import Services, build
from tests.support.desk import APPLICATION, DELEGATED

Json = dict[str, Any]
TOKEN = "7" * 64
KEYS = "k1:" + base64.b64encode(b"k" * 32).decode()
ANN, SUPPORT, RITA = "ann@contoso.example", "support@contoso.example", "rita@contoso.example"


class Clock:
    """Real time plus what the test has added."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.skew_s = 0.0  # how far the app's clock is ahead of Microsoft's

    def __call__(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self._world.clock.offset_s + self.skew_s)


class TimedQueues:
    """Queue messages in the order of their times; stands in for `Queues` behind the services."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.waiting: list[tuple[datetime, str, Any]] = []

    async def put(self, name: str, job: Any, delay_s: float = 0) -> None:
        """Keeps a message until its time. JSON there and back, as on the wire."""
        self.waiting.append((self._clock() + timedelta(seconds=delay_s), name, json.loads(json.dumps(job))))

    async def put_text(self, name: str, text: str, delay_s: float = 0) -> None:
        """The same for messages that are not JSON."""
        self.waiting.append((self._clock() + timedelta(seconds=delay_s), name, text))

    def take_due(self) -> list[tuple[str, Any]]:
        """Every message whose time has come, oldest first, taken off."""
        now = self._clock()
        due = sorted((one for one in self.waiting if one[0] <= now), key=lambda one: one[0])
        self.waiting = [one for one in self.waiting if one[0] > now]
        return [(name, job) for _, name, job in due]

    def next_due(self) -> datetime | None:
        """When the next message becomes visible."""
        return min((one[0] for one in self.waiting), default=None)


class Workshop:
    """Services, tenant, clock and a receiver of notifications, between `start` and `stop`."""

    def __init__(self, storage: str, **settings: str) -> None:
        self._storage, self._settings = storage, settings
        self._suffix, self._real_queues = secrets.token_hex(4), False
        self.world = World()
        self.world.seed()
        self.clock = Clock(self.world)
        self.queues = TimedQueues(self.clock)
        self.services: Services
        self._app_of: tuple[Services, Any] | None = None
        self.posted: list[tuple[str, bytes]] = []
        self.refuse_handshakes = 0
        self.lose = lambda: False  # asked for every notification: whether it never arrives

    async def start(self, *, real_queues: bool = False) -> "Workshop":
        """Brings everything up. With `real_queues` messages go to Azurite, for counting."""
        self._tenant = TestServer(build_app(self.world), host=LOOPBACK)
        await self._tenant.start_server()
        self.world.base_url = str(self._tenant.make_url("")).rstrip("/")
        front = web.Application()
        front.router.add_post("/oauth/msg/{kind}", self._notified)
        self._front = TestServer(front, host=LOOPBACK)
        await self._front.start_server()
        self._real_queues = real_queues
        self.services = self.build()
        return self

    def build(self, **settings: str) -> Services:
        """Another process of the same app, perhaps with other settings: its services start with empty memories."""
        url = str(self._front.make_url("")).rstrip("/")
        made = build(
            Settings.from_env(
                {
                    "AzureWebJobsStorage": self._storage,
                    "KEY_RING": KEYS,
                    "SERVICE_URL": url,
                    "LOGIN_ENDPOINT": self.world.base_url,
                    "GRAPH_ENDPOINT": self.world.base_url,
                    "BOOTSTRAP_TOKEN": TOKEN,
                    **self._settings,
                    **settings,
                }
            ),
            clock=self.clock,
        )
        for table in made.tables.values():
            table.name += self._suffix  # tables of this workshop alone
        made.large.sleep = self._sleep
        if not self._real_queues:
            made.queues.put = self.queues.put  # type: ignore[method-assign]
            made.queues.put_text = self.queues.put_text  # type: ignore[method-assign]
        return made

    async def _sleep(self, seconds: float) -> None:
        """Waiting takes no time here."""
        self.advance(seconds)

    def without_statistics(self) -> None:
        """From here on no statistics are written, which happens once a minute beside whatever is done then:
        for counting what the work itself costs."""

        async def nothing(*, at_once: bool = False) -> None:
            return None

        self.services.service_counters.save = nothing  # type: ignore[method-assign]

    async def stop(self) -> None:
        """Ends everything that was started."""
        await self.services.close()
        await self._tenant.close()
        await self._front.close()

    async def _notified(self, request: web.Request) -> web.Response:
        """The notification endpoint, with a thumb on the scales."""
        body = await request.read()
        if "validationToken" in request.query and self.refuse_handshakes > 0:
            self.refuse_handshakes -= 1
            return web.Response(status=500)
        lifecycle = request.match_info["kind"] == "lifecycle"
        keys = [key for _, key in self.services.settings.key_ring]
        reply = notifications.receive(dict(request.query), body, keys, lifecycle=lifecycle)
        if "validationToken" not in request.query:
            self.posted.append((request.path_qs, body))
        for text in reply.messages:
            if not self.lose():
                await self.queues.put_text("notifications", text)
        return web.Response(status=reply.status, text=reply.body, content_type="text/plain")

    # -- time and work ---------------------------------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Moves the clocks of the app and of the tenant."""
        self.world.clock.offset_s += seconds

    async def run_due(self) -> int:
        """Works off every message whose time has come; how many. Webhooks stay on their queue."""
        done = 0
        while jobs := self.queues.take_due():
            for name, job in jobs:
                done += 1
                await self.run(name, job)
        return done

    async def run(self, name: str, job: Any) -> None:
        """One queue message, as its trigger runs it."""
        services = self.services

        async def work(text: str) -> None:
            if name == "outbox":
                await services.outbox.send(parse(text))
            elif name == "mailboxes":
                await mailbox_job(services, parse(text))
            elif name == "notifications":
                await notification_job(services, text)

        await services.gate.run(name, job if isinstance(job, str) else json.dumps({"job": job}), work)

    async def run_for(self, seconds: float, tick_s: float = 60) -> None:
        """Lets that much time pass, working off what falls due on the way, the minute timer included. `tick_s`
        makes the timer rarer where days pass."""
        end = self.clock() + timedelta(seconds=seconds)
        await self.run_due()
        while (now := self.clock()) < end:
            following = self.queues.next_due()
            step = min(tick_s, (end - now).total_seconds())
            if following is not None:
                step = min(step, max(0.0, (following - now).total_seconds()))
            self.advance(step + 0.001)
            await self.services.schedule.tick(self.clock())
            await self.run_due()

    async def settle(self) -> None:
        """Waits for the tenant's notifications under way, and works off everything due."""
        quiet = 0
        while quiet < 3:
            await asyncio.sleep(self.world.switches.notification_delay_s + 0.005)
            quiet = 0 if await self.run_due() or self.world.notifier._pending else quiet + 1

    async def call(self, method: str, path: str, body: Any = None, services: Services | None = None) -> tuple[int, Any]:
        """One request to the API of these services, or of others, in this process: status and body."""
        import httpx

        from shared.api.app import create_app

        served = services or self.services
        if self._app_of is None or self._app_of[0] is not served:
            self._app_of = (served, create_app(served))
        transport = httpx.ASGITransport(self._app_of[1])
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://app", headers=headers) as client:
            answer = await client.request(method, path, json=body)
        is_json = "json" in answer.headers.get("Content-Type", "")
        return answer.status_code, answer.json() if is_json else answer.text

    async def timers(self) -> None:
        """The hourly timer."""
        await sweep(self.services)

    # -- accounts ----------------------------------------------------------------------------------------------

    async def add(self, name: str, oauth2: Json, **fields: Any) -> str:
        """A new account, connected when this returns unless the tenant refuses."""
        account = f"{name}-{secrets.token_hex(4)}"
        await self.services.onboarding.create({"account": account, "name": name, "oauth2": oauth2, **fields})
        await self.run_due()
        return account

    async def _app(self, fields: Json) -> str:
        for app in await self.services.apps.all():
            if app.provider == fields["provider"]:
                return app.id
        return await self.services.apps.create({"name": fields["provider"], **fields})

    async def own(self, user: str = ANN, **fields: Any) -> str:
        """A person's own mailbox."""
        tokens = mint(self.world, {"user": user})
        ends = (self.clock() + timedelta(seconds=tokens["expires_in"])).isoformat()
        oauth2 = {
            "provider": await self._app(DELEGATED),
            "auth": {"user": user},
            "accessToken": tokens["access_token"],
            "refreshToken": tokens["refresh_token"],
            "expires": ends,
        }
        return await self.add(user.partition("@")[0], oauth2, **{"email": user, **fields})

    async def delegated(self, mailbox: str, holder: str, **fields: Any) -> str:
        """A shared mailbox that borrows the credentials of another account."""
        oauth2 = {"auth": {"delegatedUser": mailbox, "delegatedAccount": holder}}
        return await self.add(mailbox.partition("@")[0], oauth2, **{"email": mailbox, **fields})

    async def application(self, mailbox: str, **fields: Any) -> str:
        """A mailbox reached with application permissions."""
        oauth2 = {"provider": await self._app(APPLICATION), "auth": {"user": mailbox}}
        return await self.add(mailbox.partition("@")[0], oauth2, **{"email": mailbox, **fields})

    async def record(self, account: str) -> Json:
        """The stored record."""
        return await self.services.accounts.get(account)

    # -- mail ----------------------------------------------------------------------------------------------------

    def mailbox(self, address: str) -> Mailbox:
        """A mailbox of the tenant itself."""
        owner = self.world.directory.mailbox_for_address(address)
        assert owner is not None
        return self.world.mail.mailbox(owner)

    def deliver(self, address: str, subject: str = "Hello", **more: Any) -> str:
        """A mail arrives; its immutable id."""
        sender = {"name": "Carl", "address": "carl@customer.example"}
        return str(self.world.mail.deliver(sender, [address], subject=subject, **more)[0]["id"])

    def message(self, address: str, message_id: str) -> Message:
        """A message of the tenant itself."""
        return self.mailbox(address).find(message_id)

    def mark(self, address: str, message_id: str, **changes: Any) -> None:
        """Somebody reads, flags or otherwise edits a message."""
        box = self.mailbox(address)
        apply_changes(box, box.find(message_id), changes)

    def move(self, address: str, message_id: str, folder: str) -> None:
        """Somebody moves a message to a folder, by well-known name or id."""
        box = self.mailbox(address)
        box.move(box.find(message_id), box.folder(folder))

    def remove(self, address: str, message_id: str) -> None:
        """Somebody deletes a message for good."""
        box = self.mailbox(address)
        box.remove(box.find(message_id), purge=True)

    def arrived(self, address: str, message_id: str) -> list[Json]:
        """The mails with this Message-ID in a mailbox's inbox."""
        return [one for one in self.world.mail.dump(address, "inbox") if one["internetMessageId"] == message_id]

    def requests(self, method: str, path: str) -> list[Any]:
        """What the tenant was asked at Graph."""
        return self.world.log.select("graph", None, method, path)

    # -- events ----------------------------------------------------------------------------------------------------

    async def events(self, account: str, *names: str) -> list[Json]:
        """The recorded events of an account, oldest first, all or those named."""
        rows = await self.services.tables["events"].partition(account)
        found = [row.value["envelope"] for row in rows]
        found = [one for one in found if not names or one["event"] in names]
        return sorted(found, key=lambda one: one["date"])

    async def happenings(self, account: str) -> Counter[tuple[str, str, str]]:
        """What was reported of messages: (event, message id, flags), and how often."""
        seen: Counter[tuple[str, str, str]] = Counter()
        for one in await self.events(account, "messageNew", "messageUpdated", "messageDeleted", "messageMissing"):
            flags = (one["data"].get("changes") or {}).get("flags", {}).get("value", [])
            seen[one["event"], one["data"]["id"], " ".join(flags)] += 1
        return seen
