"""Single messages, their texts, attachments and sources over the API, byte for byte where it matters."""

import base64
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio

from shared.attachments import attachment_id
from tests.support.application import Application
from tests.support.desk import Json
from tests.support.library import LISA, SENDER, Library, ids
from tests.support.tenant import Tenant

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
# A part that says UTF-8 and is not, bare line feeds, an 8-bit header, and a boundary that never ends.
BROKEN = (
    b"From: carl@customer.example\r\nTo: lisa@contoso.example\r\nSubject: caf\xe9 \xff\r\nMIME-Version: 1.0\r\n"
    b"__proto__: polluted\r\nConstructor: x\r\nX-Twice: one\r\nX-Twice: two\r\n"
    b"Message-ID: <broken@customer.example>\r\n"
    b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n'
    b"Content-Transfer-Encoding: 8bit\r\n\r\nna\xefve \x80\x81\xfe\n\rbare\nfeeds \x00 here\r\n--b\r\n"
    b"Content-Type: application/x\r\nContent-Transfer-Encoding: base64\r\n\r\nAAEC\r\n"
)
INNER = b"From: ann@a.example\r\nTo: bob@b.example\r\nSubject: Inner\r\n\r\nna\xefve\r\n"
OUTER = (
    b"From: carl@customer.example\r\nTo: lisa@contoso.example\r\nSubject: Fwd\r\nMIME-Version: 1.0\r\n"
    b'Content-Type: multipart/mixed; boundary="o"\r\n\r\n--o\r\nContent-Type: text/plain\r\n\r\nsee\r\n--o\r\n'
    b"Content-Type: message/rfc822\r\n\r\n" + INNER + b"\r\n--o--\r\n"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(app: Application, tenant: Tenant) -> AsyncIterator[Library]:
    """A mailbox of this file's own."""
    await tenant.reset()
    await tenant.add_principal(LISA)
    library = Library(app, tenant)
    await library.settings(webhooksEnabled=False)
    library.lisa = await library.own(LISA)
    yield library
    await library.close()
    await tenant.reset()


@pytest.fixture
def library(opened: Library) -> Library:
    """The mailbox."""
    return opened


def file(name: str, content: bytes = b"x", kind: str = "application/octet-stream", **more: Any) -> Json:
    """An attachment to deliver."""
    return {"name": name, "content_type": kind, "content_base64": base64.b64encode(content).decode(), **more}


async def raw(library: Library, source: bytes) -> Json:
    """A mail that arrives as these bytes."""
    return await library.arrive(raw_base64=base64.b64encode(source).decode())


async def test_a_message_has_the_contracts_fields(library: Library) -> None:
    """Folder, special use, sizes, and no text unless asked for."""
    mail = await library.arrive(subject="Order 17", text="Hello", headers={"X-Order": "17", "In-Reply-To": "<a@b>"})
    shown = await library.read(f"message/{mail['id']}")
    assert (shown["id"], shown["emailId"], shown["path"], shown["messageSpecialUse"]) == (
        mail["id"], mail["id"], "Inbox", "\\Inbox",
    )  # fmt: skip
    assert (shown["from"], shown["sender"], shown["unseen"], shown["flags"]) == (SENDER, SENDER, True, [])
    assert (shown["inReplyTo"], shown["headers"]["x-order"]) == ("<a@b>", ["17"])
    assert set(shown["text"]) == {"id", "encodedSize"}
    assert shown["text"]["id"] == mail["id"]
    assert not {"attachments", "cc", "bcc", "labels", "draft", "uid", "size"} & set(shown)


async def test_the_text_is_plain_or_html_as_asked_whatever_the_mail_is(library: Library) -> None:
    """`plain` of a mail that has only HTML is text; `html` of a plain one is HTML; `*` has both."""
    rich = await library.arrive(html="<html><body><p>First &amp; last</p><p>Gr\u00fc\u00dfe</p></body></html>")
    plain = await library.arrive(text="1 < 2\nnext")
    text = (await library.read(f"message/{rich['id']}", textType="plain"))["text"]
    assert re.split(r"\s*\n\s*", text["plain"].strip()) == ["First & last", "Gr\u00fc\u00dfe"]
    assert (text["hasMore"], "html" in text, text["encodedSize"]) == (
        False, False, {"plain": len(text["plain"].encode())},
    )  # fmt: skip
    text = (await library.read(f"message/{plain['id']}", textType="HTML"))["text"]
    assert "1 &lt; 2" in text["html"]
    assert "plain" not in text
    both = await library.read(f"text/{rich['id']}")
    assert both["html"].startswith("<html>")
    assert both["plain"].splitlines() == ["First & last", "", "Gr\u00fc\u00dfe"]
    assert both["hasMore"] is False
    empty = await library.arrive(text="")
    for kind in ("plain", "html"):
        assert kind in (await library.read(f"text/{empty['id']}", textType=kind))


async def test_max_bytes_cuts_each_part_between_characters(library: Library) -> None:
    """Never within one; `hasMore` says whether anything is missing."""
    mail = await library.arrive(text="\u00e4\U0001f600z")
    for size, wanted in enumerate(["", "", *["\u00e4"] * 4, "\u00e4\U0001f600", "\u00e4\U0001f600z"]):
        text = await library.read(f"text/{mail['id']}", textType="plain", maxBytes=size)
        assert text == {"plain": wanted, "hasMore": size < 7}
    assert (await library.read(f"message/{mail['id']}", textType="plain", maxBytes=2))["text"]["hasMore"] is True
    assert "hasMore" not in (await library.read(f"message/{mail['id']}", maxBytes=2))["text"]


async def test_web_safe_html_holds_nothing_that_runs_and_shows_its_pictures(library: Library) -> None:
    """Scripts, handlers and dangerous links are gone; the picture that was attached is inside."""
    html = (
        '<html><body onload="evil()"><script>evil()</script><a href="java\nscript:evil()">l</a><p style="color:red;'
        'position:fixed" onclick="evil()">Hi</p><img src="cid:logo@x"><iframe src="https://e.example"></iframe></body>'
        "</html>"
    )
    picture = file("logo.png", PNG, "image/png", is_inline=True, content_id="logo@x")
    mail = await library.arrive(html=html, attachments=[picture, file("b.txt")])
    shown = await library.read(f"message/{mail['id']}", webSafeHtml="true")
    safe = shown["text"]["html"]
    assert "evil" not in safe
    assert "position" not in safe
    assert not re.search(r"<(script|iframe|body|html)|on\w+=|javascript:", safe, re.IGNORECASE)
    assert "color" in safe
    assert f'src="data:image/png;base64,{base64.b64encode(PNG).decode()}"' in safe
    assert (shown["text"]["webSafe"], "Hi" in shown["text"]["plain"]) == (True, True)
    assert [one.get("embedded") for one in shown["attachments"]] == [True, None]
    assert (await library.read(f"text/{mail['id']}", webSafeHtml="1"))["html"] == safe
    embedded = await library.read(f"message/{mail['id']}", textType="html", embedAttachedImages="yes")
    assert "data:image/png" in embedded["text"]["html"]
    assert "webSafe" not in embedded["text"]
    kept = await library.read(f"message/{mail['id']}", textType="html")
    assert "cid:logo@x" in kept["text"]["html"]


async def test_plain_text_is_made_html_for_a_page(library: Library) -> None:
    """With its markup shown, not obeyed."""
    mail = await library.arrive(text="<b>not bold</b>\nline")
    text = (await library.read(f"message/{mail['id']}", webSafeHtml="true"))["text"]
    assert "&lt;b&gt;not bold&lt;/b&gt;" in text["html"]
    assert "<br>" in text["html"]


async def test_mark_as_seen_marks_and_says_so(library: Library) -> None:
    """In the mailbox and in the answer; a mailbox that refuses the mark still gives the message."""
    mail = await library.arrive(text="x")
    await library.tenant.add_fault({"status": 403}, match={"method": "PATCH", "path_regex": f"/{mail['id']}$"})
    shown = await library.read(f"message/{mail['id']}", markAsSeen="true")
    await library.tenant.clear_faults()
    assert (shown["flags"], shown["unseen"]) == ([], True)
    shown = await library.read(f"message/{mail['id']}", markAsSeen="true")
    assert shown["flags"] == ["\\Seen"]
    assert "unseen" not in shown
    assert (await library.graph("GET", f"/messages/{mail['id']}"))["isRead"] is True


async def test_a_broken_8_bit_source_comes_byte_for_byte(library: Library) -> None:
    """What no charset explains, bare line feeds and null bytes included."""
    mail = await raw(library, BROKEN)
    answer = await library.get(f"message/{mail['id']}/source")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "message/rfc822"
    assert answer.headers["Content-Disposition"] == "attachment; filename=message.eml"
    (held,) = [one for one in await library.tenant.messages(LISA) if one["id"] == mail["id"]]
    assert answer.body == base64.b64decode(held["_raw"])
    assert answer.body.endswith(BROKEN)  # transport put its trace before it


async def test_header_names_of_every_kind_are_plain_keys(library: Library) -> None:
    """`__proto__` and `constructor` too; repeated ones in order."""
    mail = await raw(library, BROKEN)
    shown = await library.read(f"message/{mail['id']}")
    assert shown["headers"]["__proto__"] == ["polluted"]
    assert shown["headers"]["constructor"] == ["x"]
    assert shown["headers"]["x-twice"] == ["one", "two"]


async def test_attachments_come_byte_for_byte_with_their_names(library: Library) -> None:
    """Quotes, line ends, other scripts and emptiness in names; every byte value in contents."""
    content = bytes(range(256)) * 3
    names = ["order 17.pdf", "Gr\u00f6\u00dfe.pdf", 'a"b\\c.txt', "per%20cent.txt", "a\r\nX-Evil: 1.txt", "\U0001f600"]
    mail = await library.arrive(attachments=[file(name, content, "application/pdf") for name in names])
    shown = (await library.read(f"message/{mail['id']}"))["attachments"]
    assert len(shown) == len(names)
    for name, one in zip(names, shown, strict=True):
        answer = await library.get(f"attachment/{one['id']}")
        assert (answer.status, answer.body) == (200, content)
        assert answer.headers["Content-Type"] == "application/pdf"
        assert "X-Evil" not in answer.headers
        disposition = answer.headers["Content-Disposition"]
        if name == names[0]:
            assert disposition == 'attachment; filename="order 17.pdf"'
        else:
            bare = name.replace("\r\n", "")
            assert disposition.endswith(f"filename*=utf-8''{quote(bare, safe='')}") or bare == "aX-Evil: 1.txt"
            assert re.fullmatch(r'attachment; filename="[^"\\]*"(; filename\*=[!-~]+)?', disposition)


async def test_text_attachments_keep_their_charset(library: Library) -> None:
    """No charset is added to a type that names none."""
    mail = await library.arrive(attachments=[file("a.txt", b"na\xefve", "text/plain"), file("b", b"x", "no type")])
    first, second = (await library.read(f"message/{mail['id']}"))["attachments"]
    answer = await library.get(f"attachment/{first['id']}")
    assert (answer.body, answer.headers["Content-Type"]) == (b"na\xefve", "text/plain")
    assert (await library.get(f"attachment/{second['id']}")).headers["Content-Type"] == "application/octet-stream"


async def test_an_attached_message_is_listed_and_comes_as_mime(library: Library) -> None:
    """With the 8-bit bytes it has, under a name that ends in .eml."""
    mail = await raw(library, OUTER)
    (shown,) = (await library.read(f"message/{mail['id']}"))["attachments"]
    assert (shown["contentType"], shown["filename"]) == ("message/rfc822", "Inner")
    answer = await library.get(f"attachment/{shown['id']}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "message/rfc822")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="Inner.eml"'
    assert answer.body.strip() == INNER.strip()


async def test_a_link_to_a_file_elsewhere_is_listed_and_refused_clearly(library: Library) -> None:
    """It has no content that could be given."""
    mail = await library.arrive(attachments=[file("plan.docx", link="https://drive.example/plan")])
    (shown,) = (await library.read(f"message/{mail['id']}"))["attachments"]
    answer = await library.get(f"attachment/{shown['id']}")
    assert (answer.status, answer.body["code"]) == (400, "ReferenceAttachment")


async def test_a_message_in_a_folder_made_seconds_ago_has_its_path(library: Library) -> None:
    """The tree is read anew once; a message in a folder that no tree shows comes without a path."""
    await library.read("mailboxes")
    mail = await library.arrive(folder=await library.folder("Brand new"))
    assert (await library.read(f"message/{mail['id']}"))["path"] == "Brand new"
    hidden = await library.arrive(folder="recoverableitemsdeletions")
    shown = await library.read(f"message/{hidden['id']}")
    assert shown["id"] == hidden["id"]
    assert "path" not in shown


async def test_unknown_and_malformed_ids_are_told_apart(library: Library) -> None:
    """404 for what is gone, 400 for what is no id; a word of Graph's own language is no id either."""
    mail = await library.arrive(text="x", attachments=[file("a.txt")])
    stored = (await library.graph("GET", f"/messages/{mail['id']}/attachments"))["value"][0]["id"]
    await library.graph("POST", f"/messages/{mail['id']}/permanentDelete")
    for path in ("message/{}", "text/{}", "message/{}/source"):
        gone = await library.get(path.format(mail["id"]))
        assert (gone.status, gone.body["message"], gone.body["code"]) == (404, "Unknown message", "NotFound")
        assert gone.body["info"] == {"response": "Message does not exist"}
        for wrong in ("x", "delta", "%24count", "%2E%2E", "a%2Fb", "a%252Fb", "%00", "a%20b", "%C3%A9"):
            answer = await library.get(path.format(wrong))
            assert (answer.status, answer.body["error"]) == (400, "Bad Request"), wrong
        assert (await library.get(path.format("x"))).body["code"] == "InvalidMessageId"
        assert (await library.get(path.format("A" * 300))).status == 400
    for wrong in ("x", "%00", attachment_id(mail["id"], stored), attachment_id("..", "a"), attachment_id("delta", "x")):
        answer = await library.get(f"attachment/{wrong}")
        assert (answer.status, answer.body["message"], answer.body["code"]) == (404, "Unknown attachment", "NotFound")


async def test_a_callers_patience_is_honoured(library: Library) -> None:
    """504 with the contract's code when the mailbox takes longer; nonsense is a 400; without a limit it waits."""
    mail = await library.arrive(text="x")
    path = library.at(f"message/{mail['id']}/source")
    await library.tenant.add_fault({"delay_s": 3}, match={"path_regex": f"{mail['id']}/\\$value$"})
    late = await library.app.call("GET", path, headers={"x-ee-timeout": "50"})
    assert (late.status, late.body["code"], late.body["message"]) == (
        504, "Timeout", "Timeout waiting for command response",
    )  # fmt: skip
    await library.tenant.clear_faults()
    for good in ("0", "7200000"):
        assert (await library.app.call("GET", path, headers={"x-ee-timeout": good})).status == 200
    for bad in ("-1", "7200001", "x", "1e3"):
        assert (await library.app.call("GET", path, headers={"x-ee-timeout": bad})).status == 400


async def test_an_account_that_is_unknown_or_out_of_order_reads_nothing(library: Library) -> None:
    """404 and 503 on every reading operation."""
    none = (await library.ok("POST", "/v1/account", {"account": None, "name": "x"}))["account"]
    library.accounts.append(none)
    for account, status in (("no%2Fbody", 404), (none, 503)):
        for path in (
            "mailboxes", "messages?path=INBOX", "message/AAk", "message/AAk/source", "text/AAk", "attachment/AAk",
        ):  # fmt: skip
            answer = await library.app.call("GET", f"/v1/account/{account}/{path}")
            assert answer.status == status, (path, answer.body)
        answer = await library.app.call("POST", f"/v1/account/{account}/search", {"search": {}})
        assert answer.status == status
        if status == 503:
            assert answer.body["state"] == "unset"


@pytest.mark.parametrize(
    "path",
    [
        "messages", "messages?path=INBOX&page=-1", "messages?path=INBOX&pageSize=1001", "messages?path=INBOX&foo=1",
        "messages?path=INBOX&documentStore=maybe", "message/AAk?textType=xml", "message/AAk?maxBytes=-1",
        "message/AAk?webSafeHtml=2", "text/AAk?markAsSeen=true", "mailboxes?counters=x", "message/AAk/source?x=1",
        "attachment/AAk?x=1", "message/AAk?maxBytes=1073741825",
    ],
)  # fmt: skip
async def test_wrong_and_unknown_parameters_are_named(library: Library, path: str) -> None:
    """400 with fields."""
    answer = await library.app.call("GET", f"/v1/account/{library.lisa}/{path}")
    assert (answer.status, answer.body["message"]) == (400, "Invalid input")
    assert answer.body["fields"]


@pytest.mark.parametrize(
    ("action", "status", "code"),
    [
        ({"status": 503}, 503, "ConnectionError"),
        ({"drop": True}, 503, "ConnectionError"),
        ({"status": 429, "retry_after": "7"}, 429, "Throttled"),
        ({"status": 403}, 403, "AccessDenied"),
    ],
)
async def test_trouble_at_graph_is_told_as_what_it_is(library: Library, action: Json, status: int, code: str) -> None:
    """And never as an unknown message. Each fault fits a request that nobody but this test makes."""
    mail = await library.arrive(text="x")
    for path, match in (
        (f"text/{mail['id']}", {"path_regex": mail["id"], "query_regex": "select=id,body"}),
        (f"message/{mail['id']}/source", {"path_regex": f"{mail['id']}/\\$value$"}),
        ("messages?path=INBOX", {"path_regex": "/mailFolders/inbox/messages$"}),
    ):
        await library.tenant.add_fault(action, match=match)
        answer = await library.app.call("GET", f"/v1/account/{library.lisa}/{path}")
        await library.tenant.clear_faults()
        assert (answer.status, answer.body["code"]) == (status, code)
    assert mail["id"] in ids(await library.read("messages", path="INBOX"))
