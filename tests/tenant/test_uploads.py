"""Upload sessions of the stand-in tenant, and mails attached to mails (graph.md 7)."""

# Fixtures are imported by name and shadowed by the parameters.
# ruff: noqa: F401, F811

from __future__ import annotations

from email.message import EmailMessage
from typing import Any

import pytest

from .mail_fixtures import Answer, GraphClient, Office, mail, office

HALF, WHOLE = 3_000_000, 4_500_000


async def begin(client: GraphClient, owner: str = "/me", size: int = WHOLE, expect: int = 201) -> tuple[str, Answer]:
    """A draft's path, and the answer to createUploadSession on it."""
    draft = (await client.post(f"{owner}/messages", mail())).json
    path = f"{owner}/messages/{draft['id']}"
    item = {"attachmentType": "file", "name": "plan.pdf", "size": size, "contentType": "application/pdf"}
    return path, await client.post(f"{path}/attachments/createUploadSession", {"AttachmentItem": item}, expect)


async def put(office: Office, url: str, first: int, content: bytes, total: int = WHOLE, **headers: str) -> Any:
    """One range; status, headers and JSON of the answer."""
    sent = {"Content-Range": f"bytes {first}-{first + len(content) - 1}/{total}", **headers}
    async with office.session.put(url, data=content, headers=sent) as answer:
        return answer.status, answer.headers, await answer.json() if "json" in answer.content_type else None


async def test_a_file_goes_up_in_ranges_and_is_attached_at_the_end(office: Office) -> None:
    """201 with a URL apart from Graph; capital letters in between; an empty 201 that names the attachment."""
    ann = await office.user("ann")
    path, session = await begin(ann)
    url = session["uploadUrl"]
    assert "/v1.0/" not in url
    assert session["nextExpectedRanges"] == ["0-"]
    status, _, shown = await put(office, url, 0, b"a" * HALF)
    assert (status, shown["NextExpectedRanges"]) == (200, [str(HALF)])
    assert set(shown) == {"ExpirationDateTime", "NextExpectedRanges"}
    async with office.session.get(url) as answer:
        assert (await answer.json())["NextExpectedRanges"] == [str(HALF)]
    status, headers, shown = await put(office, url, HALF, b"b" * (WHOLE - HALF))
    assert (status, shown) == (201, None)
    (attached,) = (await ann.get(f"{path}/attachments?$select=id,name,size")).json["value"]
    assert f"Attachments('{attached['id']}')" in headers["Location"]
    content = (await ann.get(f"{path}/attachments/{attached['id']}/$value")).body
    assert content == b"a" * HALF + b"b" * (WHOLE - HALF)
    async with office.session.get(url) as answer:
        assert answer.status == 404


async def test_graphs_token_is_refused_at_the_upload_url(office: Office) -> None:
    """The URL is the credential."""
    ann = await office.user("ann")
    _, session = await begin(ann)
    status, _, shown = await put(office, session["uploadUrl"], 0, b"a", Authorization=f"Bearer {ann.token}")
    assert (status, shown["error"]["code"]) == (401, "InvalidAuthenticationToken")


@pytest.mark.parametrize(
    ("first", "size", "total", "status"),
    [(1, 100, WHOLE, 416), (0, 100, WHOLE + 1, 400), (0, 4 * 1024 * 1024, WHOLE, 413), (WHOLE - 10, 20, WHOLE, 400)],
)
async def test_ranges_out_of_order_too_large_or_of_another_file_are_refused(
    office: Office, first: int, size: int, total: int, status: int
) -> None:
    """And the session stands where it stood."""
    _, session = await begin(await office.user("ann"))
    answered, _, _ = await put(office, session["uploadUrl"], first, b"a" * size, total)
    assert answered == status
    async with office.session.get(session["uploadUrl"]) as answer:
        assert (await answer.json())["NextExpectedRanges"] == ["0"]


async def test_a_cancelled_or_expired_session_is_gone(office: Office) -> None:
    """DELETE ends it, and so does time."""
    ann = await office.user("ann")
    _, session = await begin(ann)
    async with office.session.delete(session["uploadUrl"]) as answer:
        assert answer.status == 204
    assert (await put(office, session["uploadUrl"], 0, b"a"))[0] == 404
    _, session = await begin(ann)
    office.world.clock.offset_s += 3601
    assert (await put(office, session["uploadUrl"], 0, b"a"))[0] == 404


async def test_a_persons_token_opens_no_session_in_another_mailbox(office: Office) -> None:
    """403 ErrorAccessDenied there; an application is let in."""
    _, refused = await begin(await office.user("ann"), "/users/support@contoso.example", expect=403)
    assert refused.error[1] == "ErrorAccessDenied"
    await begin(await office.app(), "/users/support@contoso.example")


@pytest.mark.parametrize("size", [0, -1, 150 * 1024 * 1024 + 1])
async def test_sizes_out_of_range_are_refused(office: Office, size: int) -> None:
    """1 byte to 150 MB."""
    _, refused = await begin(await office.user("ann"), size=size, expect=400)
    assert refused.error[1] == "ErrorAttachmentSizeLimitExceeded"


async def test_uploads_above_the_limit_of_five_minutes_are_throttled_when_switched_on(office: Office) -> None:
    """429 with the time to wait; after that it goes on."""
    office.world.switches.upload_limit_mb = 5
    _, session = await begin(await office.user("ann"))
    assert (await put(office, session["uploadUrl"], 0, b"a" * HALF))[0] == 200
    _, second = await begin(await office.user("ann"))
    status, headers, _ = await put(office, second["uploadUrl"], 0, b"a" * HALF)
    assert status == 429
    office.world.clock.offset_s += float(headers["Retry-After"]) + 1
    assert (await put(office, second["uploadUrl"], 0, b"a" * HALF))[0] == 200


async def test_a_mail_inside_a_mail_is_an_item_whose_value_is_its_bytes(office: Office) -> None:
    """Listed without content; `$value` gives it byte for byte, line ends and all."""
    inner = b"From: x@y.example\r\nSubject: Inner\r\n\r\nFrom here\r\n.\r\n"
    outer = (
        b"From: a@b.example\r\nTo: ann@contoso.example\r\nSubject: Outer\r\nMIME-Version: 1.0\r\n"
        b'Content-Type: multipart/mixed; boundary="XX"\r\n\r\n--XX\r\nContent-Type: text/plain\r\n\r\nhi\r\n'
        b"--XX\r\nContent-Type: message/rfc822\r\n\r\n" + inner + b"\r\n--XX--\r\n"
    )
    immutable = office.deliver("ann", raw=outer)
    ann = await office.user("ann")
    path = f"/me/messages/{immutable}/attachments"
    (listed,) = (await ann.get(path)).json["value"]
    assert listed["@odata.type"] == "#microsoft.graph.itemAttachment"
    assert (listed["name"], listed["contentType"], listed["size"]) == ("Inner", None, len(inner))
    assert "contentBytes" not in listed
    assert (await ann.get(f"{path}/{listed['id']}/$value")).body == inner


async def test_an_attached_mail_is_still_one_when_its_mail_is_rendered_anew(office: Office) -> None:
    """A draft with a nested mail, given another file, keeps the nested one as it was."""
    inner = EmailMessage()
    inner["Subject"] = "Inner"
    inner.set_content("hi")
    outer = EmailMessage()
    outer["To"] = "rita@contoso.example"
    outer.set_content("see")
    outer.add_attachment(inner)
    ann = await office.user("ann")
    draft = (await ann.send_mime("/me/messages", outer.as_bytes(), 201)).json
    path = f"/me/messages/{draft['id']}"
    more = {"@odata.type": "#microsoft.graph.fileAttachment", "name": "a.txt", "contentBytes": "YQ=="}
    await ann.post(f"{path}/attachments", more)
    rendered = (await ann.get(f"{path}/$value")).body
    assert rendered == (await ann.get(f"{path}/$value")).body
    assert b"message/rfc822" in rendered
    assert b"Subject: Inner" in rendered
