"""JSON batching of the stand-in tenant, and what MAPI properties make of a new message (graph.md 5.4, 5.5)."""

# Fixtures are imported by name and shadowed by the parameters.
# ruff: noqa: F401, F811

from __future__ import annotations

import base64
from typing import Any

from .mail_fixtures import IMMUTABLE, GraphClient, Office, mail, office, who


def part(identity: str, method: str, url: str, body: Any = None, **more: Any) -> dict[str, Any]:
    """One request of a batch, asking for immutable ids."""
    headers = dict(IMMUTABLE) | ({"Content-Type": "application/json"} if body is not None else {})
    return {"id": identity, "method": method, "url": url, "headers": headers, **more} | (
        {"body": body} if body is not None else {}
    )


async def batch(client: GraphClient, *parts: dict[str, Any], expect: int = 200) -> dict[str, Any]:
    """The answers by id, or the error."""
    answer = await client.post("/$batch", {"requests": list(parts)}, expect)
    return {one["id"]: one for one in answer["responses"]} if expect == 200 else answer["error"]


async def test_every_part_is_answered_by_itself(office: Office) -> None:
    """Reading, changing, moving and failing in one call, with immutable ids where a part asks for them."""
    first, second = office.deliver("ann", "One"), office.deliver("ann", "Two")
    answers = await batch(
        await office.user("ann"),
        part("a", "GET", f"/me/messages/{first}?$select=subject"),
        part("b", "PATCH", f"/me/messages/{second}", {"isRead": True, "categories": ["Red"]}),
        part("c", "POST", f"/me/messages/{second}/move", {"destinationId": "deleteditems"}),
        part("d", "GET", "/me/messages/AAkALgAAAAAAHYQDEapmEc2byACqAC-EWg0AAAAAAAA"),
        part("e", "GET", f"/me/messages/{first}/$value"),
    )
    assert {name: one["status"] for name, one in answers.items()} == {"a": 200, "b": 200, "c": 201, "d": 404, "e": 200}
    assert (answers["a"]["body"]["id"], answers["a"]["body"]["subject"]) == (first, "One")
    assert answers["c"]["body"]["id"] == second
    assert answers["d"]["body"]["error"]["code"] == "ErrorItemNotFound"
    assert b"Text of One" in base64.b64decode(answers["e"]["body"])
    (moved,) = office.stored("ann", "deleteditems")
    assert (moved["isRead"], moved["categories"]) == (True, ["Red"])


async def test_a_chain_stops_at_its_first_failure(office: Office) -> None:
    """What depends on a failed part gets 424; parts may depend on the one before only."""
    ann, known = await office.user("ann"), office.deliver("ann")
    lost = "/me/messages/AAkALgAAAAAAHYQDEapmEc2byACqAC-EWg0AAAAAAAA"
    answers = await batch(
        ann,
        part("1", "GET", lost),
        part("2", "PATCH", f"/me/messages/{known}", {"isRead": True}, dependsOn=["1"]),
        part("3", "GET", f"/me/messages/{known}"),
    )
    assert [answers[name]["status"] for name in "123"] == [404, 424, 200]
    assert office.stored("ann", "inbox")[0]["isRead"] is False
    wrong = [part("1", "GET", "/me"), part("2", "GET", "/me"), part("3", "GET", "/me", dependsOn=["1"])]
    assert (await batch(ann, *wrong, expect=400))["code"] == "BadRequest"


async def test_malformed_envelopes_are_refused(office: Office) -> None:
    """Too many parts, equal ids in other letters, a batch in a batch, a body without its type."""
    ann = await office.user("ann")
    envelopes: list[list[dict[str, Any]]] = [
        [],
        [part(str(number), "GET", "/me") for number in range(21)],
        [part("a", "GET", "/me"), part("A", "GET", "/me")],
        [part("a", "POST", "/$batch", {"requests": []})],
        [part("a", "GET", "https://graph.microsoft.com/v1.0/me")],
    ]
    for envelope in envelopes:
        assert (await batch(ann, *envelope, expect=400))["code"] == "BadRequest"
    untyped = {"id": "a", "method": "PATCH", "url": "/me/messages/x", "body": {"isRead": True}}
    assert (await batch(ann, untyped))["a"]["status"] == 400


async def test_throttling_hits_single_parts(office: Office) -> None:
    """429 with a Retry-After of the part's own; the others are done."""
    ann = await office.user("ann")
    ids = [office.deliver("ann", f"Mail {number}") for number in range(3)]
    office.world.faults.add({"method": "PATCH", "path_regex": ids[1]}, {"status": 429, "retry_after": "1.5"})
    parts = [part(str(n), "PATCH", f"/me/messages/{one}", {"isRead": True}) for n, one in enumerate(ids)]
    answers = await batch(ann, *parts)
    assert [answers[str(n)]["status"] for n in range(3)] == [200, 429, 200]
    assert answers["1"]["headers"]["Retry-After"] == "1.5"
    assert sorted(one["isRead"] for one in office.stored("ann", "inbox")) == [False, True, True]


async def test_mapi_properties_make_a_message_of_the_past(office: Office) -> None:
    """Flags and delivery time at creation: read, not a draft, received then, with the headers it came with."""
    ann = await office.user("ann")
    properties = [
        {"id": "Integer 0x0E07", "value": "1"},
        {"id": "SystemTime 0x0E06", "value": "2020-02-03T04:05:06Z"},
        {"id": "String 0x007D", "value": "Received: from a\r\n by b\r\nX-Old: 1\r\n"},
    ]
    body = mail("ann@contoso.example", **{"from": who("ada@fabrikam.example")})
    made = await ann.post("/me/mailFolders/inbox/messages", body | {"singleValueExtendedProperties": properties})
    assert (made["isDraft"], made["isRead"], made["receivedDateTime"]) == (False, True, "2020-02-03T04:05:06Z")
    headers = (await ann.get(f"/me/messages/{made['id']}?$select=internetMessageHeaders"))["internetMessageHeaders"]
    assert headers == [{"name": "Received", "value": "from a by b"}, {"name": "X-Old", "value": "1"}]
    draft = {"singleValueExtendedProperties": [properties[0] | {"value": "8"}]}
    unsent = await ann.post("/me/messages", mail() | draft)
    assert (unsent["isDraft"], unsent["isRead"]) == (True, False)


async def test_folders_do_not_go_below_themselves(office: Office) -> None:
    """Nor do well-known ones move."""
    ann = await office.user("ann")
    outer = await ann.post("/me/mailFolders", {"displayName": "Outer"})
    inner = await ann.post(f"/me/mailFolders/{outer['id']}/childFolders", {"displayName": "Inner"})
    body = {"destinationId": inner["id"]}
    assert (await ann.post(f"/me/mailFolders/{outer['id']}/move", body, 400)).error[1] == "ErrorMoveCopyFailed"
    refused = await ann.post("/me/mailFolders/inbox/move", body, 403)
    assert refused.error[1] == "ErrorMoveDistinguishedFolder"
    top = await ann.post(f"/me/mailFolders/{inner['id']}/move", {"destinationId": "msgfolderroot"}, 200)
    assert top["displayName"] == "Inner"
