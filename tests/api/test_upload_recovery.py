"""Uploads in several steps whose process dies: nothing half-done stays in the mailbox."""

import base64
from datetime import timedelta
from typing import Any

import pytest

from shared import attaching, mail_parts
from tests.support.fate import Died
from tests.support.workshop import ANN, Workshop

Json = dict[str, Any]
FIELDS: Json = {
    "path": ["Drafts"],
    "flags": ["\\Draft"],
    "subject": "Large",
    "text": "x",
    "attachments": [{"filename": f"{n}.bin", "content": base64.b64encode(bytes(1800)).decode()} for n in range(3)],
}


@pytest.fixture
async def account(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> str:
    """Ann's account, with a thousandth of Graph's sizes."""
    monkeypatch.setattr(mail_parts, "REQUEST_LIMIT", 3000)
    monkeypatch.setattr(mail_parts, "SIMPLE_BYTES", 2000)
    monkeypatch.setattr(attaching, "SIMPLE_BYTES", 2000)
    made = await workshop.own()
    await workshop.settle()
    return made


def drafts(shop: Workshop) -> list[Json]:
    """The drafts of the mailbox."""
    return [one for one in shop.world.mail.dump(ANN) if one["isDraft"]]


async def records(shop: Workshop) -> int:
    """How many uploads are noted as unfinished."""
    return len([row async for row in shop.services.tables["drafts"].scan()])


async def swept(shop: Workshop) -> None:
    """The sweep goes round."""
    await shop.services.outbox.sweep_large(older_than=timedelta(0))


async def test_a_large_upload_is_whole_and_leaves_no_record(workshop: Workshop, account: str) -> None:
    """And no sweep touches it."""
    answer = await workshop.services.uploaded_mail.store(account, FIELDS)
    workshop.advance(3600)
    await swept(workshop)
    (draft,) = drafts(workshop)
    assert (draft["id"], len(draft["attachments"])) == (answer["id"], 3)
    assert await records(workshop) == 0


@pytest.mark.parametrize("at", [1, 2, 3])
async def test_a_process_that_dies_on_the_way_leaves_no_half_message(
    workshop: Workshop, account: str, at: int
) -> None:
    """After any of its calls to Graph; while it may be at work nobody touches it."""
    graph = next(iter(workshop.services.graphs.values()))
    send, calls = graph._send, 0

    async def fatal(*given: Any) -> Any:
        nonlocal calls
        answer = await send(*given)
        calls += "POST" in str(given[0].http_method)
        if calls >= at:
            raise Died
        return answer

    graph._send = fatal  # type: ignore[method-assign]
    with pytest.raises(Died):
        await workshop.services.uploaded_mail.store(account, FIELDS)
    graph._send = send  # type: ignore[method-assign]
    assert len(drafts(workshop)) == 1
    await swept(workshop)
    assert len(drafts(workshop)) == 1
    workshop.advance(3600)
    await swept(workshop)
    assert drafts(workshop) == []
    assert await records(workshop) == 0


@pytest.mark.parametrize("erased", [True, False])
async def test_a_refused_upload_leaves_nothing(workshop: Workshop, account: str, erased: bool) -> None:
    """Graph refuses the second attachment: the draft is taken away at once, or by the sweep where that failed."""
    workshop.world.faults.add({"method": "POST", "path_regex": "/attachments$"}, {"status": 400, "code": "ErrorNo"})
    if not erased:
        workshop.world.faults.add({"path_regex": "/permanentDelete$"}, {"status": 500})
    with pytest.raises(Exception, match="Invalid message format"):
        await workshop.services.uploaded_mail.store(account, FIELDS)
    assert len(drafts(workshop)) == (0 if erased else 1)
    workshop.advance(3600)
    await swept(workshop)
    assert drafts(workshop) == []
    assert await records(workshop) == 0
