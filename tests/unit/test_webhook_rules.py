"""Which events go out, where to, and with which headers."""

from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.endpoints import Flights, Health
from shared.events import EVENT_TYPES, before, event_key, id_of
from shared.webhook_attempt import retry_after_s
from shared.webhook_target import signature, target_of
from shared.webhooks import ATTEMPTS, PAUSES_S, pause_s, wants

ON = {"webhooksEnabled": True, "webhookEvents": ["*"]}


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, False),
        ({"webhooksEnabled": True}, False),
        ({"webhookEvents": ["*"]}, False),
        ({"webhooksEnabled": False, "webhookEvents": ["*"]}, False),
        (ON, True),
        ({"webhooksEnabled": True, "webhookEvents": ["messageNew"]}, True),
        ({"webhooksEnabled": True, "webhookEvents": ["messageDeleted"]}, False),
        ({"webhooksEnabled": True, "webhookEvents": []}, False),
    ],
)
def test_an_event_goes_out_when_enabled_and_listed(settings: dict[str, Any], wanted: bool) -> None:
    """Neither alone is enough."""
    assert wants("messageNew", {}, None, settings) is wanted


@pytest.mark.parametrize(
    ("event", "data", "path", "wanted"),
    [
        ("messageNew", {"messageSpecialUse": "\\Inbox"}, "Posteingang", True),
        ("messageNew", {}, "INBOX", True),
        ("messageNew", {"messageSpecialUse": "\\Junk"}, "Junk Email", False),
        ("messageNew", {}, "Projects", False),
        ("messageDeleted", {}, "\\All", True),
        ("messageSent", {}, None, True),
    ],
)
def test_inbox_only_concerns_new_mail_alone(event: str, data: dict[str, Any], path: str | None, wanted: bool) -> None:
    """By special use, since names are localised."""
    assert wants(event, data, path, ON | {"inboxNewOnly": True}) is wanted


def test_user_info_moves_into_a_header() -> None:
    """Out of the URL, decoded; brackets of IPv6 stay."""
    target = target_of("https://h%C3%BCgo:a%3Ab@[::1]:8443/x?y=1#z", [])
    assert target.url == "https://[::1]:8443/x?y=1#z"
    assert target.headers == {"Authorization": "Basic aMO8Z286YTpi"}
    assert target_of("https://user@host/", []).headers == {"Authorization": "Basic dXNlcjo="}
    assert target_of("https://host/", []).headers == {}


def test_later_headers_of_one_name_win() -> None:
    """Whatever their letters."""
    target = target_of("https://u:p@host/", [{"key": "X-A", "value": "1"}, {"key": "AUTHORIZATION", "value": "2"},
                                             {"key": "x-a", "value": "3"}])  # fmt: skip
    assert target.headers == {"AUTHORIZATION": "2", "x-a": "3"}


def test_the_signature_is_that_of_the_contract() -> None:
    """base64url of HMAC-SHA256 without padding; a known value."""
    assert signature(b"", "") == "thNnmggU2ex3L5XXeMNfxf8Wl8STcVZTxscSFEKSxa0"
    assert "=" not in signature(b"x", "y")


def test_pauses_double_within_a_fifth() -> None:
    """5 s, 10 s, 20 s …"""
    assert [pause_s(number, lambda: 0.5) for number in (1, 2, 3)] == [5, 10, 20]
    assert pause_s(1, lambda: 0.0) == 4
    assert pause_s(1, lambda: 1.0) == pytest.approx(6)


def test_the_names_of_events_are_unique() -> None:
    """A list for people to choose from."""
    assert len(EVENT_TYPES) == len(set(EVENT_TYPES))


def test_the_retry_schedule_is_ten_attempts() -> None:
    """Data, as the contract has it; a message with a wild number of attempts does no harm."""
    assert tuple(5.0 * 2**number for number in range(9)) == PAUSES_S
    assert ATTEMPTS == 10
    assert pause_s(99, lambda: 0.5) == 1280


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7), ("1.5", 1.5), ("0", 0), ("-5", 0), ("", 0), ("soon", 0), ("nan", 0), ("inf", 3600), ("999999", 3600),
     ("Thu, 01 Jan 2026 00:01:30 GMT", 90), ("Wed, 31 Dec 2025 23:00:00 GMT", 0),
     ("Thu, 01 Jan 2099 00:00:00 GMT", 3600)],
)  # fmt: skip
def test_retry_after_is_read_as_number_or_date(text: str, seconds: float) -> None:
    """At most an hour; nonsense asks for nothing."""
    assert retry_after_s(text, datetime(2026, 1, 1, tzinfo=UTC)) == seconds


def test_events_about_one_thing_sort_by_their_order() -> None:
    """By number, not by text, and what comes first looks for nothing before it."""
    keys = [event_key(f"{n:04d}", "message", order) for n, order in enumerate((0, 1, 2, 10, 999, 10**9))]
    assert keys == sorted(keys)
    assert before(keys[0]) is None
    assert before("an-event-of-an-older-record") is None
    for place, key in enumerate(keys[1:], 1):
        low, high = before(key) or ("", "")
        assert [one for one in keys if low <= one < high] == keys[:place]
    assert event_key("e", "other", 1).partition("~")[0] != keys[0].partition("~")[0]
    assert id_of(keys[3]) == "0003"
    assert id_of("plain") == "plain"


def test_an_endpoint_is_the_url_without_credentials() -> None:
    """Two accounts that name one receiver with their own passwords share its health."""
    one, other = target_of("https://u:p@h.example/x?y#z", []), target_of("https://h.example/x?y", [])
    assert one.endpoint == other.endpoint
    assert one.endpoint != target_of("https://h.example/x", []).endpoint


def test_an_endpoint_in_trouble_gets_four_attempts_at_once() -> None:
    """Failing, slow now, or slow last time; one that answers at once gets what it can take."""
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    flights, well, ill = Flights(lambda: now[0]), Health("e", {}), Health("e", {"failures": 1})

    def has_room(health: Health) -> bool:
        with flights.seat(health) as seated:
            return seated

    with ExitStack() as flying:
        assert all(flying.enter_context(flights.seat(ill)) for _ in range(4))
        assert not has_room(ill)
        assert has_room(well)
        assert has_room(Health("other", {"failures": 1}))
        now[0] += timedelta(seconds=4)
        assert not has_room(well)
    with ExitStack() as flying:
        assert all(flying.enter_context(flights.seat(well)) for _ in range(4))
        assert not has_room(well)
    assert has_room(ill)
