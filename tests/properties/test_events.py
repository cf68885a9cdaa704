"""Notifications may repeat, mix, be late or lost, and cursors expire; the events are those of a calm day."""

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
    max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)
Told = Counter[tuple[str, int, str]]


class Play:
    """The same steps in a fresh tenant, under some weather."""

    def __init__(self, storage: str, way: str) -> None:
        self._storage, self._way = storage, way
        self.address = ANN if way == "push" else SUPPORT
        self.ids: list[str] = []
        self.gone: set[int] = set()
        self.final: dict[int, list[str]] = {}

    async def run(self, steps: list[tuple[str, int]], weather: str = "calm", seed: int = 0) -> Told:
        """What was told of which message, counted."""
        self.shop = await Workshop(self._storage).start()
        self.shop.world.switches.notification_delay_s = 0.001
        self.second = self.shop.build()  # another process of the same app
        try:
            holder = await self.shop.own()
            account = holder if self._way == "push" else await self.shop.delegated(SUPPORT, holder)
            chance = random.Random(seed)
            if weather == "stormy":
                self.shop.world.switches.notification_repeat = 3
                self.shop.world.switches.notification_shuffle = True
            if weather in ("lossy", "expired"):
                # What was there before the storm is known, as after any turn.
                await self.shop.services.sync.catch_up(account)
                self.shop.lose = lambda: chance.random() < 0.5
            for step in steps:
                self.do(*step)
                await self.heard(account, weather, chance)
            if weather in ("lossy", "expired"):
                self.shop.lose = lambda: False
                await self.shop.services.sync.catch_up(account)
                await self.shop.settle()
            place = {message_id: number for number, message_id in enumerate(self.ids)}
            told = await self.shop.happenings(account)
            self.final = await self.ends_with(account, place)
            return Counter({(event, place[i], flags): count for (event, i, flags), count in told.items() if i in place})
        finally:
            await self.second.close()
            await self.shop.stop()

    async def heard(self, account: str, weather: str, chance: random.Random) -> None:
        """Lets the app hear of the last step."""
        await self.shop.settle()
        if weather == "stormy" and chance.random() < 0.3:
            await self.shop.world.notifier.resend(None)
            await self.shop.settle()
        if weather == "expired" and chance.random() < 0.4:
            owner = self.shop.world.directory.find(self.address)
            assert owner is not None
            self.shop.world.mail.delta.expire(owner.id)
            if chance.random() < 0.5:
                await self.shop.services.sync.catch_up(account)
        if weather == "crowded":
            await asyncio.gather(*(one.sync.catch_up(account) for one in (self.shop.services, self.second)))
        elif self._way == "poll":
            for _ in range(1 + (weather == "stormy")):
                await self.shop.services.sync.catch_up(account)

    async def ends_with(self, account: str, place: dict[str, int]) -> dict[int, list[str]]:
        """The flags of each message that is still there, as a receiver of all events knows them."""
        flags: dict[int, list[str]] = {}
        for one in await self.shop.events(account, "messageNew", "messageUpdated"):
            data = one["data"]
            number = place.get(data["id"])
            if number is not None and number not in self.gone:
                flags[number] = data["flags"] if one["event"] == "messageNew" else data["changes"]["flags"]["value"]
        return flags

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


def without_overwritten(told: Told, also: Told, gone: set[int]) -> Told:
    """What must be told whatever was lost: of each message that is still there that it is new, and its last flags;
    of each that is gone, that it is, if it was ever heard of. What a later state overwrote may be missing."""
    kept: Told = Counter()
    for (event, number, flags), _ in told.items():
        if event == "messageNew" and number not in gone:
            kept[event, number, flags] = 1
        if event == "messageDeleted" and also["messageNew", number, ""]:
            kept[event, number, flags] = 1
    return kept


def check_made_up(storage: services.Azurite, steps: list[Any], seed: int, weather: str) -> None:
    """Compares a run in which hints were lost with a calm one."""
    calm_play, lossy_play = Play(storage.connection_string, "push"), Play(storage.connection_string, "push")
    calm = asyncio.run(calm_play.run(steps))
    lossy = asyncio.run(lossy_play.run(steps, weather=weather, seed=seed))
    must = without_overwritten(calm, lossy, calm_play.gone)
    assert {key: lossy[key] for key in must} == dict(must)
    assert max(lossy.values(), default=1) == 1
    assert {key[0] for key in lossy} <= {"messageNew", "messageUpdated", "messageDeleted", "messageMissing"}
    assert lossy_play.final == calm_play.final


@BOUNDED
@given(steps=STEPS, seed=st.integers(0, 1000))
def test_one_round_makes_up_for_half_the_notifications(
    quiet_azurite: services.Azurite, steps: list[Any], seed: int
) -> None:
    """Arrivals, flags and deletions whose hints were lost are told after one round, each once, and a receiver ends
    with the same state as on a calm day."""
    check_made_up(quiet_azurite, steps, seed, "lossy")


@BOUNDED
@given(steps=STEPS, seed=st.integers(0, 1000))
def test_expired_cursors_lose_and_repeat_nothing(quiet_azurite: services.Azurite, steps: list[Any], seed: int) -> None:
    """The same while Graph forgets in the middle where every folder stood."""
    check_made_up(quiet_azurite, steps, seed, "expired")


@BOUNDED
@given(steps=STEPS)
def test_two_workers_on_one_mailbox_tell_what_one_tells(quiet_azurite: services.Azurite, steps: list[Any]) -> None:
    """Two processes take every round at the same moment, beside the notifications: each event once."""
    calm, _ = play(quiet_azurite, "push", steps)
    crowded, _ = play(quiet_azurite, "push", steps, weather="crowded")
    assert crowded == calm


def test_the_weather_can_be_felt(quiet_azurite: services.Azurite) -> None:
    """The storm really repeats: the tenant posts everything three times, so the properties above mean something."""

    async def posts(repeat: int) -> set[int]:
        shop = await Workshop(quiet_azurite.connection_string).start()
        shop.world.switches.notification_repeat = repeat
        await shop.own()
        shop.deliver(ANN)
        await shop.settle()
        await shop.stop()
        return set(Counter(shop.posted).values())

    assert (asyncio.run(posts(3)), asyncio.run(posts(1))) == ({3}, {1})


