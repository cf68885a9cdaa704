"""What reading sends to Microsoft Graph, checked against the official API description."""

from shared.attachments import attachment_id
from shared.listing import Position
from shared.mailboxes import WHOLE
from shared.message_texts import TextWish
from shared.search import search_query
from tests.contract.test_graph_requests import needs_description, problems_of
from tests.support.workshop import ANN, Workshop


@needs_description
async def test_every_request_of_reading_fits_the_official_description(workshop: Workshop) -> None:
    """Folders, lists, both kinds of search, and all there is of a message."""
    account = await workshop.own()
    picture = {"name": "p.png", "contentType": "image/png", "contentBytes": "eA==", "isInline": True, "contentId": "p"}
    message = workshop.deliver(ANN, html="<img src='cid:p'>", attachments=[picture])
    listing, reading, first = workshop.services.listing, workshop.services.reading, Position(1, 1)
    await workshop.services.mailbox_list.of(account, counters=True)
    for path in ("INBOX", "Sent Items", WHOLE):
        for terms in ({}, {"unseen": True, "labels": {"has": ["Red"]}, "subject": "a & b #1 + 'c'"}, {"to": "a b"}):
            await listing.page(account, path, first, search_query(terms))
    for wish in (TextWish("plain"), TextWish.of("", 10, True, False, False)):
        await reading.message(account, message, wish, mark_seen=True)
        await reading.text(account, message, wish)
    await reading.source(account, message)
    stored = workshop.message(ANN, message).attachments[0].id
    await reading.attachment(account, attachment_id(message, stored))
    asked = [one.as_json() for one in workshop.world.log.select("graph", None, None, None)]
    assert any("search" in one["query"] for one in asked)
    assert any(one["method"] == "PATCH" for one in asked)
    assert [problem for one in asked for problem in problems_of(one)] == []
