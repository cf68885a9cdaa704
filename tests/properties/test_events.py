"""Notifications may repeat, mix and be late; the events are those of a calm day."""

import asyncio
import random
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local import services
from tests.support.workshop import ANN, SUPPORT, Workshop

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["deliver", "deliver", "read", "unread", "flag", "move", "trash", "purge"]), st.integers(0, 9)
    ),
    min_size=1,
    max_size=9,
)
BOUNDED = settings(
    max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)
Told = Counter[tuple[str, int, str]]


class Play:
    """The same steps in a fresh tenant, under some weather."""

    def __init__(self, storage: str, way: str) -> None:
        self._storage, self._way = storage, way
        self.address = ANN if way == "push" else SUPPORT
        self.ids: list[str] = []
        self.gone: set[int] = set()

    async def run(self, steps: list[tuple[str, int]], weather: str = "calm", seed: int = 0) -> Told:
        """What was told of which message, counted."""
        self.shop = await Workshop(self._storage).start()
        self.shop.world.switches.notification_delay_s = 0.001
        try:
            holder = await self.shop.own()
            account = holder if self._way == "push" else await self.shop.delegated(SUPPORT, holder)
            chance = random.Random(seed)
            if weather == "stormy":
                self.shop.world.switches.notification_repeat = 3
                self.shop.world.switches.notification_shuffle = True
            if weather == "lossy":
                self.shop.lose = lambda: chance.random() < 0.5
            for step in steps:
                self.do(*step)
                await self.heard(account, weather, chance)
            if weather == "lossy":
                self.shop.lose = lambda: False
                record = await self.shop.record(account)
                await self.shop.world.notifier.lifecycle(record["subscription"]["id"], "missed")
                await self.shop.settle()
            place = {message_id: number for number, message_id in enumerate(self.ids)}
            told = await self.shop.happenings(account)
            return Counter({(event, place[i], flags): count for (event, i, flags), count in told.items() if i in place})
        finally:
            await self.shop.stop()

    async def heard(self, account: str, weather: str, chance: random.Random) -> None:
        """Lets the app hear of the last step."""
        await self.shop.settle()
        if weather == "stormy" and chance.random() < 0.3:
            await self.shop.world.notifier.resend(None)
            await self.shop.settle()
        if self._way == "poll":
            for _ in range(1 + (weather == "stormy")):
                await self.shop.services.polling.poll(await self.shop.record(account))

    def do(self, what: str, which: int) -> None:
        """One step; nothing when its message is gone."""
        shop, address = self.shop, self.address
        if what == "deliver":
            self.ids.append(shop.deliver(address, f"Mail {len(self.ids)}"))
            return
        alive = [number for number in range(len(self.ids)) if number not in self.gone]
        if not alive:
            return
        number = alive[which % len(alive)]
        mail = self.ids[number]
        if what in ("read", "unread"):
            shop.mark(address, mail, isRead=what == "read")
        elif what == "flag":
            shop.mark(address, mail, flag={"flagStatus": "flagged"})
        elif what in ("move", "trash"):
            shop.move(address, mail, "junkemail" if what == "move" else "deleteditems")
        else:
            self.gone.add(number)
            shop.remove(address, mail)


def play(storage: services.Azurite, way: str, steps: list[Any], **weather: Any) -> tuple[Told, set[int]]:
    """One run: what was told, and which messages are gone."""
    played = Play(storage.connection_string, way)
    return asyncio.run(played.run(steps, **weather)), played.gone


@BOUNDED
@given(steps=STEPS, seed=st.integers(0, 1000))
def test_repeated_shuffled_and_replayed_notifications_tell_the_same_once(
    quiet_azurite: services.Azurite, steps: list[Any], seed: int
) -> None:
    """Three times each, mixed, old ones again: the same events as on a calm day, each once."""
    calm, _ = play(quiet_azurite, "push", steps)
    stormy, _ = play(quiet_azurite, "push", steps, weather="stormy", seed=seed)
    assert stormy == calm
    assert not calm or max(calm.values()) == 1


@BOUNDED
@given(steps=STEPS)
def test_polling_tells_what_push_tells(quiet_azurite: services.Azurite, steps: list[Any]) -> None:
    """Delta and notifications lead to the same events."""
    push, _ = play(quiet_azurite, "push", steps)
    poll, _ = play(quiet_azurite, "poll", steps)
    assert poll == push


@BOUNDED
@given(steps=STEPS, seed=st.integers(0, 1000))
def test_no_new_mail_is_missed_when_half_the_notifications_are_lost(
    quiet_azurite: services.Azurite, steps: list[Any], seed: int
) -> None:
    """After `missed`, every mail that is still there was told as new, exactly once, and none that was not."""
    calm, gone = play(quiet_azurite, "push", steps)
    lossy, _ = play(quiet_azurite, "push", steps, weather="lossy", seed=seed)
    there = {key: count for key, count in calm.items() if key[0] == "messageNew" and key[1] not in gone}
    for key, count in there.items():
        assert lossy[key] == count == 1
    assert max([count for key, count in lossy.items() if key[0] == "messageNew"], default=1) == 1


def test_the_weather_can_be_felt(quiet_azurite: services.Azurite) -> None:
    """The storm really repeats: the tenant posts three times as often, so the properties above mean something."""

    async def posts(repeat: int) -> int:
        shop = await Workshop(quiet_azurite.connection_string).start()
        shop.world.switches.notification_repeat = repeat
        await shop.own()
        shop.deliver(ANN)
        await shop.settle()
        await shop.stop()
        return len(shop.posted)

    assert asyncio.run(posts(3)) == 3 * asyncio.run(posts(1)) > 0


