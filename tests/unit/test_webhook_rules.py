"""Which events go out, where to, and with which headers."""

from typing import Any

import pytest

from shared.webhooks import EVENT_TYPES, pause_s, signature, target_of, wants

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
