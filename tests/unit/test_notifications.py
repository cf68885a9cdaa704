"""Notifications: proof, packing and size."""

import json
from typing import Any

import pytest

from shared.notifications import LARGEST, client_state, is_ours, parse, receive

OLD, NEW = b"o" * 32, b"n" * 32


def body(account: str, *entries: dict[str, Any], key: bytes = NEW) -> bytes:
    """A post with proven entries."""
    return json.dumps({"value": [{"clientState": client_state(account, key), **one} for one in entries]}).encode()


def created(message_id: str) -> dict[str, Any]:
    """One entry."""
    return {"changeType": "created", "resourceData": {"id": message_id}, "subscriptionId": "s"}


def test_the_proof_depends_on_account_and_key() -> None:
    """Nobody derives one account's from another's; it fits into Graph's 128 characters."""
    states = {client_state(account, key) for account in ("a", "b", "ä", "") for key in (OLD, NEW)}
    assert len(states) == 8
    assert all(len(state) <= 128 and state.isascii() for state in states)


@pytest.mark.parametrize("presented", [None, 5, "", "x", ["x"], {"a": 1}, "é", "\ud800"])
def test_anything_but_the_proof_is_refused(presented: Any) -> None:
    """Without an error, whatever type it has."""
    assert is_ours("a", presented, [NEW, OLD]) is False


def test_a_proof_under_an_older_key_still_counts() -> None:
    """Rotation breaks no subscription."""
    assert is_ours("a", client_state("a", OLD), [NEW, OLD])
    assert not is_ours("a", client_state("a", OLD), [NEW])


def test_repeats_in_one_post_are_queued_once() -> None:
    """In the order of their first appearance."""
    reply = receive({"account": "a"}, body("a", created("1"), created("2"), created("1")), [NEW], lifecycle=False)
    (message,) = reply.messages
    assert parse(message) == {
        "account": "a",
        "kind": "changes",
        "items": [["created", "1", "s"], ["created", "2", "s"]],
    }


@pytest.mark.parametrize("letter", ["x", "é", "🎉"])
def test_queue_messages_stay_below_the_queues_limit_and_lose_nothing(letter: str) -> None:
    """A thousand long ids need several messages, each small enough for a storage queue after base64."""
    ids = [f"{number:04d}" + letter * 150 for number in range(1000)]
    reply = receive({"account": "a"}, body("a", *map(created, ids)), [NEW], lifecycle=False)
    assert [item[1] for message in reply.messages for item in parse(message)["items"]] == ids
    assert max(len(message.encode()) for message in reply.messages) <= 48 * 1024
    assert LARGEST <= 48 * 1024


@pytest.mark.parametrize(
    "entry",
    [{}, {"changeType": "created"}, {"changeType": [], "resourceData": {"id": "1"}},
     {"changeType": "moved", "resourceData": {"id": "1"}}, {"changeType": "created", "resourceData": {"id": ""}},
     {"changeType": "created", "resourceData": {"id": 5}}, {"changeType": "created", "resourceData": []},
     {"changeType": "created", "resourceData": {"id": "x" * 1025}}],
)  # fmt: skip
def test_entries_that_cannot_be_acted_on_are_dropped(entry: dict[str, Any]) -> None:
    """Proven or not."""
    assert receive({"account": "a"}, body("a", entry), [NEW], lifecycle=False).messages == []


def test_lifecycle_entries_are_kept_apart_from_changes() -> None:
    """Each endpoint reads its own kind only."""
    life = {"lifecycleEvent": "missed", "subscriptionId": "s"}
    (message,) = receive({"account": "a"}, body("a", life, created("1")), [NEW], lifecycle=True).messages
    assert parse(message) == {"account": "a", "kind": "lifecycle", "items": [["missed", "", "s"]]}
    (message,) = receive({"account": "a"}, body("a", life, created("1")), [NEW], lifecycle=False).messages
    assert parse(message)["items"] == [["created", "1", "s"]]
