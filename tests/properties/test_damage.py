"""Any byte of any stored record may be another one day: the answer is clear, nothing crashes, others go on."""

import asyncio
import itertools
import json
from typing import Any

from azure.data.tables import TableServiceClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local import services
from shared.storage.queues import parse
from tests.support.desk import DELEGATED
from tests.support.workshop import RITA, SUPPORT, TOKEN, Workshop

Json = dict[str, Any]
SALES = "sales@contoso.example"
DOCUMENTED = {"SealBroken", "RecordDamaged"}
MAIL = {"to": [{"address": RITA}], "subject": "s", "text": "x"}
TABLES = (
    "accounts links credentials oauth2apps tokens settings pending outbox events counters trees cursors markers "
    "schedule poison"
).split()


class Scene:
    """An app with something in every table, and a way to damage and to mend it."""

    async def furnish(self, storage: str) -> "Scene":
        """Ann's account, Support that borrows from it, and Sales, which has nothing to do with either."""
        self.shop = shop = await Workshop(storage).start()
        hook = {"webhooksEnabled": True, "webhooks": "http://127.0.0.1:9/hook", "webhookEvents": ["*"]}
        await shop.services.service_settings.write(hook | {"serviceSecret": "s"})
        self.ann = await shop.own(webhooks="http://127.0.0.1:9/own")
        self.support = await shop.delegated(SUPPORT, self.ann)
        self.sales = await shop.application(SALES)
        await shop.settle()
        shop.deliver(SUPPORT, "Hello")
        await shop.run_for(180)
        later = shop.clock().replace(year=shop.clock().year + 1).isoformat()
        self.queue_id = (await shop.services.submit.accept(self.ann, MAIL | {"sendAt": later}))["queueId"]
        self.token = await shop.services.tokens.mint({"account": self.ann, "scopes": ["api"], "description": "d"})
        await shop.services.consent.begin_api({"name": "n", "oauth2": {"provider": await shop._app(DELEGATED)}})
        text = json.dumps({"job": {"account": self.ann, "do": "catch_up"}})
        await shop.services.poison.keep("mailboxes", text, "r", "k")
        self.app = (await shop.record(self.ann))["oauth2"]["provider"]
        for row in await shop.services.tables["events"].partition(self.ann):
            await self._deliver("webhooks", {"account": self.ann, "event": row.key, "queued": "2026-01-01T00:00:00Z"})
        self.raw = TableServiceClient.from_connection_string(storage)
        self.stored = {table: self._entities(table) for table in TABLES}
        assert all(self.stored.values()), [table for table, found in self.stored.items() if not found]
        return self

    def _entities(self, table: str) -> list[Json]:
        client = self.raw.get_table_client(self.shop.services.tables[table].name)
        return [dict(entity) for entity in client.list_entities()]

    async def _deliver(self, name: str, job: Json) -> None:
        work = self.shop.services.webhooks.deliver
        await self.shop.services.gate.run(name, json.dumps({"job": job}), lambda text: work(parse(text)))

    def damage(self, table: str, number: int, place: int, bit: int) -> Json:
        """One bit of one record is another; the record as it was."""
        whole = self.stored[table][number % len(self.stored[table])]
        chunk = bytearray(whole["v00"])
        chunk[place % len(chunk)] ^= 1 << bit
        client = self.raw.get_table_client(self.shop.services.tables[table].name)
        client.upsert_entity(whole | {"v00": bytes(chunk)}, mode="replace")
        return whole

    async def mend(self) -> None:
        """Everything as it was, in a process that remembers nothing."""
        for table, entities in self.stored.items():
            client = self.raw.get_table_client(self.shop.services.tables[table].name)
            for entity in entities:
                client.upsert_entity(entity, mode="replace")
        await self.fresh_process()

    async def fresh_process(self) -> None:
        await self.shop.services.close()
        self.shop.services = self.shop.build()

    async def use_api(self) -> None:
        """Reads and writes: no answer is worse than the documented 503."""
        reads = [
            "/v1/accounts", f"/v1/account/{self.ann}", f"/v1/account/{self.support}", f"/v1/account/{self.sales}",
            "/v1/oauth2", f"/v1/oauth2/{self.app}", "/v1/tokens", f"/v1/tokens/{self.token['id']}", "/v1/outbox",
            f"/v1/outbox/{self.queue_id}", "/v1/settings?webhooks=true&serviceSecret=true",
            "/v1/settings/queue/submit", "/v1/settings/queue/mailboxes/poison", "/v1/settings/reseal",
        ]  # fmt: skip
        calls = [("GET", path, None) for path in reads]
        calls += [("PUT", f"/v1/account/{self.ann}", {"name": "Ann"})]
        calls += [("PUT", f"/v1/oauth2/{self.app}", {"title": "t"})]
        calls += [("POST", f"/v1/account/{name}/submit", MAIL) for name in (self.ann, self.support)]
        calls += [("POST", "/v1/settings", {"pageBrandName": "x"}), ("GET", "/oauth?state=x&code=y", None)]
        for method, path, body in calls:
            status, answer = await self.shop.call(method, path, body)
            assert status < 500 or (status == 503 and answer["code"] in DOCUMENTED | {"AuthenticationFails"}), (
                method, path, status, answer,
            )  # fmt: skip

    async def run_functions(self) -> None:
        """Every queue function and every timer: what raises here would be a crash."""
        shop = self.shop
        for account in (self.ann, self.support):
            for job in ("initialise", "catch_up", "relink", "subscribe"):
                await shop.run("mailboxes", {"account": account, "do": job, "force": True})
        await shop.run("outbox", {"queueId": self.queue_id})
        for event in [row["RowKey"] for row in self.stored["events"] if row["PartitionKey"] == self.ann]:
            await self._deliver("webhooks", {"account": self.ann, "event": event, "queued": "2026-01-01T00:00:00Z"})
        await shop.services.resealing.start()
        await shop.services.schedule.tick(shop.clock())
        await shop.run_due()
        await shop.timers()
        await shop.services.poison.watch()

    async def others_go_on(self) -> None:
        """Sales is connected and sends."""
        status, shown = await self.shop.call("GET", f"/v1/account/{self.sales}")
        assert (status, shown["state"]) == (200, "connected"), shown
        status, accepted = await self.shop.call("POST", f"/v1/account/{self.sales}/submit", MAIL)
        assert status == 200, accepted
        await self.shop.run_due()
        assert len(self.shop.arrived(RITA, accepted["messageId"])) == 1

    def concerns_others(self, table: str, whole: Json) -> bool:
        """Whether the damaged record is of Sales, or of the whole service."""
        text = json.dumps([whole["PartitionKey"], whole["RowKey"]]) + str(whole["v00"])
        return table == "settings" or any(name in text for name in (self.sales, "outlookService", '["app='))


PLACE = st.tuples(st.integers(0, 50), st.integers(0, 5000), st.integers(0, 7))


def test_no_damage_is_worse_than_a_clear_answer(quiet_azurite: services.Azurite) -> None:
    """One bit anywhere: no 5xx but the documented 503, no function that raises, no other account that stops."""
    loop = asyncio.new_event_loop()
    scene = loop.run_until_complete(Scene().furnish(quiet_azurite.connection_string))

    turns = itertools.cycle(TABLES)

    async def suffer(number: int, place: int, bit: int) -> None:
        table = next(turns)
        await scene.fresh_process()
        whole = scene.damage(table, number, place, bit)
        try:
            await scene.run_functions()
            await scene.use_api()
            if not scene.concerns_others(table, whole):
                await scene.others_go_on()
        finally:
            await scene.mend()

    @settings(
        max_examples=len(TABLES),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(PLACE)
    def run(place: tuple[int, int, int]) -> None:
        loop.run_until_complete(suffer(*place))

    try:
        run()
    finally:
        loop.run_until_complete(scene.shop.stop())
        loop.close()


async def test_a_damaged_token_of_the_api_opens_nothing_and_can_be_deleted(quiet_azurite: services.Azurite) -> None:
    """401 for who presents it, 404 for who looks at it, and the bootstrap token goes on."""
    scene = await Scene().furnish(quiet_azurite.connection_string)
    try:
        scene.damage("tokens", 0, 40, 3)
        import httpx

        from shared.api.app import create_app

        transport = httpx.ASGITransport(create_app(scene.shop.services))
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            bearer = {"Authorization": f"Bearer {scene.token['token']}"}
            assert (await client.get(f"/v1/account/{scene.ann}", headers=bearer)).status_code == 401
            admin = {"Authorization": f"Bearer {TOKEN}"}
            path = f"/v1/tokens/{scene.token['id']}"
            assert (await client.get(path, headers=admin)).status_code == 404
            assert (await client.delete(path, headers=admin)).json() == {"deleted": True}
    finally:
        await scene.shop.stop()


async def test_a_damaged_account_can_be_deleted_and_made_again(quiet_azurite: services.Azurite) -> None:
    """503 RecordDamaged while it is there; afterwards nothing hinders a new account of that id."""
    scene = await Scene().furnish(quiet_azurite.connection_string)
    try:
        at = next(n for n, one in enumerate(scene.stored["accounts"]) if one["PartitionKey"] == scene.ann)
        scene.damage("accounts", at, 60, 1)
        status, answer = await scene.shop.call("GET", f"/v1/account/{scene.ann}")
        assert (status, answer["code"]) == (503, "RecordDamaged")
        listed = (await scene.shop.call("GET", "/v1/accounts"))[1]["accounts"]
        assert {one["account"] for one in listed} == {scene.support, scene.sales}
        assert (await scene.shop.call("DELETE", f"/v1/account/{scene.ann}"))[0] == 200
        assert (await scene.shop.call("GET", f"/v1/account/{scene.ann}"))[0] == 404
        assert (await scene.shop.services.onboarding.create({"account": scene.ann, "name": "n"}))["state"] == "new"
    finally:
        await scene.shop.stop()
