"""Blocklists over the API, and the pages with which people leave a list and come back."""

from collections.abc import AsyncIterator
from contextlib import suppress
from urllib.parse import urlencode, urlsplit

import pytest
import pytest_asyncio

from local.services import Azurite
from tests.api.test_tracking import visit
from tests.support.post import Died, dying
from tests.support.sending import Json, Mailroom, keys_of, open_mailroom

BASE = "https://mail.contoso.example"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def room(quiet_azurite: Azurite) -> AsyncIterator[Mailroom]:
    """One office for the file."""
    async for opened in open_mailroom(quiet_azurite):
        yield opened


async def put(room: Mailroom, list_id: str, recipient: str, **more: str) -> Json:
    """POST of one address."""
    status, answer = await room.call(
        "POST", f"/v1/blocklist/{list_id}", {"account": room.support, "recipient": recipient, **more}
    )
    assert status == 200, answer
    return answer


async def link(room: Mailroom, list_id: str, recipient: str) -> str:
    """The link in a list's mail."""
    return await room.services.unsubscribing.url(BASE, room.support, list_id, recipient, "<m@x.example>")


async def told(room: Mailroom, recipient: str) -> list[tuple[str, Json]]:
    """What was told about an address, in order."""
    found = await room.events(room.support, "listUnsubscribe", "listSubscribe")
    return [(one["event"], one["data"]) for one in found if one["data"]["recipient"] == recipient]


async def test_an_address_is_added_shown_and_removed_once(room: Mailroom) -> None:
    """In any letters it is the same address on the same list."""
    assert await put(room, "news", "Ann@Customer.example", reason="bounced") == {"success": True, "added": True}
    assert await put(room, "NEWS", "ann@customer.example") == {"success": True, "added": False}
    status, shown = await room.call("GET", "/v1/blocklist/news")
    (entry,) = shown.pop("addresses")
    assert (status, shown) == (200, {"listId": "news", "total": 1, "page": 0, "pages": 1})
    assert entry.pop("created")
    assert {name: entry[name] for name in ("recipient", "account", "source", "reason")} == {
        "recipient": "ann@customer.example", "account": room.support, "source": "api", "reason": "bounced",
    }  # fmt: skip
    gone = "/v1/blocklist/news?recipient=ANN%40customer.example"
    assert await room.call("DELETE", gone) == (200, {"deleted": True})
    assert await room.call("DELETE", gone) == (200, {"deleted": False})
    status, answer = await room.call("GET", "/v1/blocklist/news")
    assert (status, answer["message"]) == (404, "Requested blocklist was not found")


async def test_lists_and_addresses_come_in_pages(room: Mailroom) -> None:
    """Every list with its count; a page beyond the end is empty."""
    for number in range(5):
        await put(room, "big.example", f"c{number}@customer.example")
    await put(room, "small", "c@customer.example")
    status, shown = await room.call("GET", "/v1/blocklists?pageSize=1&page=1")
    assert (status, shown) == (
        200, {"total": 2, "page": 1, "pages": 2, "blocklists": [{"listId": "small", "count": 1}]},
    )  # fmt: skip
    status, shown = await room.call("GET", "/v1/blocklist/big.example?pageSize=2&page=1")
    assert [one["recipient"] for one in shown["addresses"]] == ["c2@customer.example", "c3@customer.example"]
    assert (shown["total"], shown["pages"]) == (5, 3)
    assert (await room.call("GET", "/v1/blocklist/big.example?page=9"))[1]["addresses"] == []
    assert await room.services.blocklists.contains("Big.example", "C4@customer.example")
    assert not await room.services.blocklists.contains("small", "c4@customer.example")


@pytest.mark.parametrize(
    ("list_id", "body", "key"),
    [
        ("news", {"recipient": "x@y.example"}, "account"), ("news", {"account": "a"}, "recipient"),
        ("news", {"account": "a", "recipient": "nobody"}, "recipient"),
        ("a%20b", {"account": "a", "recipient": "x@y.example"}, "listId"),
        ("a_b", {"account": "a", "recipient": "x@y.example"}, "listId"),
        ("-x", {"account": "a", "recipient": "x@y.example"}, "listId"),
        ("news", {"account": "a", "recipient": "x@y.example", "more": 1}, "more"),
        ("news", {"account": "a", "recipient": "x@y.example", "reason": "y" * 1025}, "reason"),
    ],
)  # fmt: skip
async def test_what_is_no_list_or_address_is_refused_by_name(
    room: Mailroom, list_id: str, body: Json, key: str
) -> None:
    """400 that names the field."""
    status, answer = await room.call("POST", f"/v1/blocklist/{list_id}", body)
    assert status == 400
    assert key in keys_of(answer)


async def test_an_unknown_account_adds_nothing(room: Mailroom) -> None:
    """404, and no list appears."""
    status, _ = await room.call("POST", "/v1/blocklist/fresh", {"account": "nobody", "recipient": "x@y.example"})
    assert status == 404
    assert (await room.call("GET", "/v1/blocklist/fresh"))[0] == 404


async def test_one_click_in_a_mail_program_leaves_the_list(room: Mailroom) -> None:
    """POST to the address of the header (RFC 8058): on the blocklist, told once, however often it is repeated."""
    url = await link(room, "Weekly", "one@customer.example")
    for _ in range(2):
        answer = await visit(room, "POST", url, "List-Unsubscribe=One-Click", **FORM, **{"User-Agent": "Reader/1"})
        assert answer.status_code == 200
    (((event, data)),) = await told(room, "one@customer.example")
    assert event == "listUnsubscribe"
    assert data == {
        "recipient": "one@customer.example", "messageId": "<m@x.example>", "listId": "weekly",
        "remoteAddress": data["remoteAddress"], "userAgent": "Reader/1",
    }  # fmt: skip
    assert await room.services.blocklists.contains("weekly", "one@customer.example")


async def test_the_page_changes_nothing_until_its_button_is_pressed(room: Mailroom) -> None:
    """Programs that follow links unsubscribe nobody; the button does, and the next one brings the address back."""
    url = await link(room, "weekly", "two@customer.example")
    query = urlsplit(url).query
    page = await visit(room, "GET", url)
    assert (page.status_code, "two@customer.example" in page.text) == (200, True)
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert not await room.services.blocklists.contains("weekly", "two@customer.example")
    done = await visit(room, "POST", "/unsubscribe", f"{query}&action=unsubscribe", **FORM)
    assert "You are unsubscribed" in done.text
    assert "You are unsubscribed" in (await visit(room, "GET", url)).text
    back = await visit(room, "POST", "/unsubscribe", f"{query}&action=subscribe", **FORM)
    assert "You are unsubscribed" not in back.text
    assert not await room.services.blocklists.contains("weekly", "two@customer.example")
    assert [event for event, _ in await told(room, "two@customer.example")] == ["listUnsubscribe", "listSubscribe"]


@pytest.mark.parametrize("change", [{"sig": "AAAA"}, {"data": "e30"}, {"data": ""}, {"data": "ä", "sig": "ä"}])
async def test_a_link_that_was_not_signed_here_unsubscribes_nobody(room: Mailroom, change: Json) -> None:
    """A page with 403, and the list is as it was."""
    url = await link(room, "weekly", "three@customer.example")
    pairs = dict(pair.partition("=")[::2] for pair in urlsplit(url).query.split("&")) | change
    for method in ("GET", "POST"):
        answer = await visit(room, method, f"/unsubscribe?{urlencode(pairs)}", "List-Unsubscribe=One-Click", **FORM)
        assert answer.status_code == 403
        assert "This link does not work" in answer.text
    assert not await room.services.blocklists.contains("weekly", "three@customer.example")


async def test_what_the_link_says_is_text_on_the_page(room: Mailroom) -> None:
    """Nothing in it becomes markup."""
    page = await visit(room, "GET", await link(room, "weekly", "<script>alert(1)</script>@x.example"))
    assert "<script>" not in page.text


async def test_leaving_survives_the_end_of_the_process_between_any_two_steps(room: Mailroom) -> None:
    """Repeated after a death, the address is on the list and it was told exactly once."""
    for at in range(1, 9):
        recipient = f"mortal{at}@customer.example"
        asked = {"list": "weekly", "rcpt": recipient, "acc": room.support, "msg": "<m>"}
        with suppress(Died), dying(room.services, at, after=at % 2 == 0):
            await room.services.unsubscribing.leave(asked, {"remoteAddress": "", "userAgent": ""})
        await room.services.unsubscribing.leave(asked, {"remoteAddress": "", "userAgent": ""})
        assert await room.services.blocklists.contains("weekly", recipient)
        assert len(await told(room, recipient)) == 1
