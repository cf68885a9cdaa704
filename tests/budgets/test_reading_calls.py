"""What reading costs at Graph and in storage, counted. Many folders or attachments cost no more than they are."""

from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest

from local import services
from shared.listing import Position
from shared.mailboxes import WHOLE
from shared.message_texts import TextWish
from shared.search import search_query
from tests.support.workshop import ANN, Workshop

FIRST = Position(0, 20)
HTML = TextWish("html")


@pytest.fixture
async def shop(quiet_azurite: services.Azurite) -> AsyncIterator[Workshop]:
    """Services over a tenant of this test."""
    shop = await Workshop(quiet_azurite.connection_string).start()
    yield shop
    await shop.stop()


async def warm(shop: Workshop) -> str:
    """An account whose folder tree and token are known; its id."""
    account = await shop.own()
    await shop.services.listing.page(account, "Sent Items", FIRST, search_query({}))
    return account


async def cost(shop: Workshop, work: Awaitable[Any]) -> tuple[int, int, int]:
    """Calls of Graph, calls of the login service, storage transactions."""
    shop.without_statistics()
    counts, before = dict(shop.world.log.counts), shop.services.storage.transactions
    await work
    now, after = shop.world.log.counts, shop.services.storage.transactions
    return now["graph"] - counts["graph"], now["login"] - counts["login"], after - before


@pytest.mark.parametrize("path", ["INBOX", "\\Trash", "Sent Items", WHOLE])
async def test_a_listing_costs_one_call(shop: Workshop, path: str) -> None:
    """With attachments, totals and paths; the record and at most the tree are read from storage."""
    account = await warm(shop)
    for _ in range(3):
        shop.deliver(ANN, attachments=[{"name": "a.txt", "contentBytes": "YQ=="}])
    spent = await cost(shop, shop.services.listing.page(account, path, FIRST, search_query({})))
    assert spent[:2] == (1, 0)
    assert spent[2] <= 2


@pytest.mark.parametrize("terms", [{}, {"unseen": True, "from": "carl"}, {"to": ANN, "larger": 1}])
async def test_a_search_costs_one_call(shop: Workshop, terms: dict[str, Any]) -> None:
    """Of either kind."""
    account = await warm(shop)
    shop.deliver(ANN)
    spent = await cost(shop, shop.services.listing.page(account, "INBOX", FIRST, search_query(terms)))
    assert spent[:2] == (1, 0)


async def test_a_message_with_text_costs_one_call_and_one_more_with_attachments(shop: Workshop) -> None:
    """Each picture that is put in costs one, and so does marking."""
    account = await warm(shop)
    bare = shop.deliver(ANN, html="<p>x</p>")
    picture = {"name": "p.png", "contentType": "image/png", "contentBytes": "eA==", "isInline": True, "contentId": "p"}
    full = shop.deliver(ANN, html="<img src='cid:p'>", attachments=[picture, {"name": "a", "contentBytes": "YQ=="}])
    read = shop.services.reading
    assert (await cost(shop, read.message(account, bare, HTML)))[:2] == (1, 0)
    assert (await cost(shop, read.message(account, bare, HTML)))[2] <= 2
    assert (await cost(shop, read.message(account, full, HTML)))[0] == 2
    assert (await cost(shop, read.message(account, full, TextWish.of("", None, True, False, False))))[0] == 3
    assert (await cost(shop, read.message(account, bare, HTML, mark_seen=True)))[0] == 2
    assert (await cost(shop, read.message(account, bare, HTML, mark_seen=True)))[0] == 1
    assert (await cost(shop, read.text(account, bare, HTML)))[0] == 1
    assert (await cost(shop, read.source(account, bare)))[0] == 1


async def test_the_list_of_folders_costs_one_call(shop: Workshop) -> None:
    """And nothing is written when nothing changed."""
    account = await warm(shop)
    await shop.services.mailbox_list.of(account)
    assert await cost(shop, shop.services.mailbox_list.of(account)) == (1, 0, 2)


async def test_five_thousand_folders_cost_pages_not_more(shop: Workshop) -> None:
    """The tree in pages of what the server gives, one listing still in one call, and all of it in one record."""
    account = await warm(shop)
    box = shop.mailbox(ANN)
    parent = box.root
    for number in range(5_000):
        parent = box.make_folder(f"Folder {number}", parent if number % 50 else box.root)
    pages = 5_000 // 50 + 3  # the tenant gives 50 a page, and tells now and then of none
    calls, _, stored = await cost(shop, shop.services.mailbox_list.of(account))
    assert pages - 3 <= calls <= pages * 1.5
    assert stored == 3
    path = box.folder(parent.id)
    names = [path.name]
    while path.parent is not None and path.parent is not box.root:
        path = path.parent
        names.insert(0, path.name)
    assert len(names) == 50
    assert (await cost(shop, shop.services.listing.page(account, names, FIRST, search_query({}))))[0] == 1
    views = await shop.services.mailbox_list.of(account)
    assert len(views) > 5_000
    assert "/".join(names) in {one["path"] for one in views}


async def test_five_hundred_attachments_cost_two_calls(shop: Workshop) -> None:
    """One for the message, one for all that is attached; in a list they come along."""
    account = await warm(shop)
    files = [{"name": f"{number}.txt", "contentBytes": "YQ=="} for number in range(500)]
    message = shop.deliver(ANN, html="<img src='cid:x'>", attachments=files)
    calls = await cost(shop, shop.services.reading.message(account, message, HTML))
    assert calls[0] == 2
    shown = await shop.services.reading.message(account, message, HTML)
    assert [one["filename"] for one in shown["attachments"]] == [one["name"] for one in files]
    listed = await shop.services.listing.page(account, "INBOX", FIRST, search_query({}))
    assert len(listed["messages"][0]["attachments"]) == 500
