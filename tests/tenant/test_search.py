"""Searching mail over HTTP with $search, and links as attachments."""

# Fixtures are imported by name and shadowed by the parameters.
# ruff: noqa: F401, F811

from __future__ import annotations

import pytest

from .mail_fixtures import IMMUTABLE, Office, fits_openapi, office


async def filled(office: Office) -> dict[str, str]:
    """Three mails; their immutable ids by name."""
    office.deliver("ann", "Red apples", text="from the garden")
    office.deliver("ann", "Green pears", text="apples not included", cc=["bob@contoso.example"])
    office.deliver("ann", "Long", text="word " * 20_000)
    return {one["subject"]: one["id"] for one in office.stored("ann")}


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ('"apples"', ["Green pears", "Red apples"]),
        ('"subject:apples"', ["Red apples"]),
        ('"subject:apples OR cc:bob"', ["Green pears", "Red apples"]),
        ('"apples AND NOT cc:bob"', ["Red apples"]),
        ('"apples NOT cc:bob"', ["Red apples"]),
        ('"body:\\"the garden\\""', ["Red apples"]),
        ('"body:\\"garden the\\""', []),
        ('"size>50000"', ["Long"]),
        ('"size<50000 AND (subject:green OR subject:long)"', ["Green pears"]),
        ('"received>=2020-01-01 AND sent>=01/31/2020 AND subject:long"', ["Long"]),
        ('"received<=01/31/2020"', []),
        ("garden", ["Red apples"]),
        ('"to:ann"', ["Green pears", "Long", "Red apples"]),
        ('"hasAttachments:true"', []),
    ],
)
async def test_words_properties_phrases_sizes_and_days(office: Office, words: str, found: list[str]) -> None:
    await filled(office)
    ann = await office.user("ann")
    answer = await ann.get("/me/messages", params={"$search": words, "$select": "subject"})
    assert sorted(one["subject"] for one in answer["value"]) == found
    assert "@odata.count" not in answer.json


async def test_search_stands_alone_and_is_read_through_links(office: Office) -> None:
    ids = await filled(office)
    ann = await office.user("ann")
    for more, code in (
        ({"$orderby": "receivedDateTime desc"}, "SearchWithOrderBy"),
        ({"$filter": "isRead eq false"}, "SearchWithFilter"),
        ({"$skip": "1"}, "BadRequest"),
    ):
        refused = await ann.get("/me/messages", params={"$search": '"apples"', **more}, expect=400)
        assert refused.error[1] == code
    path = '/me/mailFolders/inbox/messages?$search="carl OR apples OR word"&$top=1'
    assert {one["id"] for one in await ann.pages(path, headers=IMMUTABLE)} == set(ids.values())
    for broken in ('"size>big"', '"received>=soon"', '"colour:red"', '"(apples"'):
        assert (await ann.get("/me/messages", params={"$search": broken}, expect=400)).error[1] == "BadRequest"


async def test_a_filter_by_id_takes_the_kind_of_id_that_is_asked_for(office: Office) -> None:
    ids = await filled(office)
    ann = await office.user("ann")
    query = {"$filter": f"id eq '{ids['Long']}'"}
    assert [one["subject"] for one in (await ann.get("/me/messages", params=query, headers=IMMUTABLE))["value"]] == [
        "Long"
    ]
    assert (await ann.get("/me/messages", params=query))["value"] == []


async def test_a_link_is_listed_without_content(office: Office) -> None:
    placed = office.deliver("ann", "Link", attachments=[{"name": "plan", "link": "https://drive.example/plan"}])
    ann = await office.user("ann")
    path = f"/me/messages/{placed}/attachments"
    (shown,) = (await ann.get(path))["value"]
    assert shown["@odata.type"] == "#microsoft.graph.referenceAttachment"
    assert "contentBytes" not in shown
    assert (await ann.get(f"{path}/{shown['id']}/$value", expect=405)).status == 405
