"""Opens and clicks: the marks in the mail that arrives, what they lead to, and what is told of them."""

import base64
import json
from collections.abc import AsyncIterator
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import pytest_asyncio

from local.services import Azurite
from shared.consent import sign
from shared.vault import encode
from tests.support.sending import SUPPORT, TO, Json, Mailroom, body_of, keys_of, open_mailroom, parsed

BASE = "https://mail.contoso.example"
PAGE = "https://shop.example/a?b=1&c=ä"
HTML = (
    '<html><body><p><a class="x" href="https://shop.example/a?b=1&amp;c=ä">Shop</a> '
    "<a href='http://plain.example'>Plain</a> <a href=\"mailto:a@b.example\">Write</a> <a href=\"#top\">Up</a>"
    '<!-- <a href="https://hidden.example">no</a> --></p></body></html>'
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def room(quiet_azurite: Azurite) -> AsyncIterator[Mailroom]:
    """One office for the file."""
    async for opened in open_mailroom(quiet_azurite):
        yield opened


async def visit(room: Mailroom, method: str, url: str, body: str = "", **headers: str) -> Any:
    """A request without a token, as a mail program or a browser makes it; the whole answer."""
    import httpx

    from shared.api.app import create_app

    transport = httpx.ASGITransport(create_app(room.services))
    parts = urlsplit(url)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        return await client.request(method, path, content=body.encode(), headers=headers)


def links_of(html: str, path: str) -> list[str]:
    """The addresses in the HTML that lead to this path of ours."""
    pieces = unescape(html).split('"')
    return [piece for piece in pieces if piece.startswith(f"{BASE}{path}?")]


def blob_of(url: str) -> Json:
    """What a link says."""
    data = parse_qs(urlsplit(url).query)["data"][0]
    return dict(json.loads(base64.urlsafe_b64decode(data + "=" * (-len(data) % 4))))


async def tracked(room: Mailroom, **fields: Any) -> tuple[str, str]:
    """(Message-ID, HTML) of a mail as it arrived."""
    mail = await room.received(room.support, to=TO, html=HTML, baseUrl=BASE, **fields)
    return mail["internetMessageId"], body_of(parsed(mail), "html")


async def heard(room: Mailroom, event: str, message_id: str) -> list[Json]:
    """The data of the events of one kind about one mail."""
    found = await room.events(room.support, event)
    return [one["data"] for one in found if one["data"]["messageId"] == message_id]


async def test_an_opened_mail_is_told_of_each_time(room: Mailroom) -> None:
    """A picture of one point at the end; loading it says who, with what, and of which mail."""
    message_id, html = await tracked(room, trackOpens=True)
    (picture,) = links_of(html, "/open.gif")
    assert html.index(picture.replace("&", "&amp;")) > html.index("</p>")
    assert links_of(html, "/redirect") == []
    assert 'href="https://shop.example/a?b=1&amp;c=ä"' in html
    looked = await visit(room, "HEAD", picture)
    assert looked.status_code == 200
    assert await heard(room, "trackOpen", message_id) == []
    agent = {"User-Agent": "Reader/1", "X-Forwarded-For": "1.2.3.4, 10.0.0.9:4711"}
    for _ in range(2):
        answer = await visit(room, "GET", picture, **agent)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/gif")
        assert answer.content.startswith(b"GIF89a")
        assert answer.headers["Cache-Control"] == "no-store"
    expected = {"messageId": message_id, "remoteAddress": "10.0.0.9", "userAgent": "Reader/1"}
    assert await heard(room, "trackOpen", message_id) == [expected, expected]


async def test_links_lead_through_this_service_to_where_they_led(room: Mailroom) -> None:
    """Only links to web pages; the way on is exactly the address that was written."""
    message_id, html = await tracked(room, trackClicks=True)
    found = links_of(html, "/redirect")
    assert [blob_of(one)["url"] for one in found] == [PAGE, "http://plain.example"]
    assert 'class="x"' in html
    assert all(kept in html for kept in ('href="mailto:a@b.example"', 'href="#top"', "https://hidden.example"))
    assert links_of(html, "/open.gif") == []
    answer = await visit(room, "GET", found[0], **{"User-Agent": "B"})
    assert answer.status_code == 302
    assert answer.headers["Location"] in (PAGE, PAGE.replace("ä", "%C3%A4"))
    (clicked,) = await heard(room, "trackClick", message_id)
    assert (clicked["url"], clicked["userAgent"]) == (PAGE, "B")
    text = body_of(parsed(room.arrived(TO[0]["address"], message_id)[0]), "plain")
    assert f"Shop <{PAGE}>" in text
    assert BASE not in text


async def test_a_redirect_leads_only_to_what_was_signed_for_it(room: Mailroom) -> None:
    """Changed data, a link signed for something else, or none at all: 403, no event, and nowhere to go."""
    _, html = await tracked(room, trackClicks=True, trackOpens=True)
    (click, _), (picture,) = links_of(html, "/redirect"), links_of(html, "/open.gif")
    query = parse_qs(urlsplit(click).query)
    evil = encode(json.dumps(blob_of(click) | {"url": "https://evil.example"}).encode())
    forged = [
        {"data": evil, "sig": query["sig"][0]}, {"data": query["data"][0], "sig": "AAAA"}, {"data": query["data"][0]},
        {"data": "", "sig": ""}, {"data": "%%%", "sig": "ä"}, {"url": "https://evil.example"}, {},
    ]  # fmt: skip
    before = len(await room.events(room.support, "trackClick", "trackOpen"))
    for given in forged:
        answer = await visit(room, "GET", f"/redirect?{urlencode(given)}")
        assert answer.status_code == 403, given
        assert "Location" not in answer.headers
        assert (await visit(room, "GET", f"/open.gif?{urlencode(given)}")).status_code == 403
    assert (await visit(room, "GET", f"/redirect?{urlsplit(picture).query}")).status_code == 403
    assert (await visit(room, "GET", f"/open.gif?{urlsplit(click).query}")).status_code == 403
    assert len(await room.events(room.support, "trackClick", "trackOpen")) == before


async def test_a_signed_link_leads_to_web_pages_alone(room: Mailroom) -> None:
    """Even a signature does not make a script of a browser's next address."""
    secret = await room.services.service_settings.service_secret()
    data = json.dumps({"act": "click", "url": "javascript:alert(1)", "acc": room.support, "msg": "<x>"}).encode()
    answer = await visit(room, "GET", f"/redirect?{urlencode({'data': encode(data), 'sig': sign(data, secret)})}")
    assert answer.status_code == 400


async def test_a_link_out_of_a_mail_opens_no_set_up(room: Mailroom) -> None:
    """It is signed with the key of the set-up links, which the recipient must not be able to make."""
    _, html = await tracked(room, trackOpens=True)
    (picture,) = links_of(html, "/open.gif")
    answer = await visit(room, "GET", f"/accounts/new?{urlsplit(picture).query}")
    assert answer.status_code == 403
    assert "Signature validation failed" in answer.text


async def test_links_in_old_mails_work_for_a_day_after_the_secret_was_changed(room: Mailroom) -> None:
    """The secret before is good while it signs webhooks, too."""
    _, html = await tracked(room, trackClicks=True)
    await room.services.service_settings.write({"serviceSecret": "another-secret"})
    assert (await visit(room, "GET", links_of(html, "/redirect")[0])).status_code == 302
    room.advance(25 * 3600)
    assert (await visit(room, "GET", links_of(html, "/redirect")[0])).status_code == 403


async def test_settings_are_the_default_and_the_request_wins(room: Mailroom) -> None:
    """`trackOpens` and `trackClicks` of the settings, the old alias for both, and false for none."""
    status, _ = await room.call("POST", "/v1/settings", {"trackOpens": True, "trackClicks": True})
    assert status == 200
    try:
        _, html = await tracked(room)
        assert links_of(html, "/open.gif")
        assert links_of(html, "/redirect")
        _, html = await tracked(room, trackingEnabled=False)
        assert html == HTML
        _, html = await tracked(room, trackClicks=False)
        assert links_of(html, "/redirect") == []
        assert links_of(html, "/open.gif")
    finally:
        await room.call("POST", "/v1/settings", {"trackOpens": None, "trackClicks": None})
    _, html = await tracked(room, trackingEnabled=True)
    assert links_of(html, "/open.gif")
    assert links_of(html, "/redirect")


async def test_without_an_address_of_the_service_tracking_is_refused_by_name(quiet_azurite: Azurite) -> None:
    """Asked for: 400 that names `baseUrl`. Only a setting: the mail goes out without."""
    lonely = Mailroom(quiet_azurite.connection_string, SERVICE_URL="")
    await lonely.start()
    lonely.services.service_settings._configured_url = ""
    try:
        account = await lonely.application(SUPPORT)
        status, answer = await lonely.submit(account, to=TO, html=HTML, trackOpens=True)
        assert (status, keys_of(answer)) == (400, ["baseUrl"])
        await lonely.services.service_settings.write({"trackOpens": True})
        mail = await lonely.received(account, to=TO, html=HTML)
        assert body_of(parsed(mail), "html") == HTML
    finally:
        await lonely.stop()


async def test_a_mail_of_a_deleted_account_still_leads_on_and_nobody_is_told(room: Mailroom) -> None:
    """Readers find what they look for; there is nobody left to tell."""
    secret = await room.services.service_settings.service_secret()
    data = json.dumps({"act": "click", "url": PAGE, "acc": "gone", "msg": "<x>"}).encode()
    answer = await visit(room, "GET", f"/redirect?{urlencode({'data': encode(data), 'sig': sign(data, secret)})}")
    assert answer.status_code == 302
    assert await room.events("gone", "trackClick") == []
