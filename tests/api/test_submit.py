"""Submitting mail, from the request to the recipient's mailbox."""

import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from html import unescape
from itertools import pairwise
from typing import Any
from urllib.parse import unquote_plus

import pytest
import pytest_asyncio

from local import services
from shared import traces
from tests.support.application import Application
from tests.support.desk import Desk, Json, eventually, soon
from tests.support.receiver import Received, Receiver
from tests.support.tenant import Tenant
from tests.support.workshop import ANN, RITA, SUPPORT, Workshop

TO = [{"name": "Rita Recipient", "address": RITA}]
INFO = "info@contoso.example"


class Office(Desk):
    """The accounts of this file, made once."""

    ann: str
    support: str
    info: str
    direct_sales: str
    app_support: str
    nosend: str
    behalf: str
    locked: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(app: Application, tenant: Tenant) -> AsyncIterator[Office]:
    """A seeded tenant with one account for each way to reach a mailbox."""
    await tenant.reset()
    office = Office(app, tenant)
    await office.settings(webhooksEnabled=False)
    office.ann = await office.own()
    office.support = await office.delegated(SUPPORT, office.ann, label="Support Desk")
    office.info = await office.delegated("infombx@contoso.onmicrosoft.example", office.ann, email=INFO, label="Info")
    office.direct_sales = await office.direct("sales@contoso.example", label="Sales")
    office.app_support = await office.application(SUPPORT, label="Support by app")
    office.nosend = await office.delegated("nosend@contoso.example", office.ann)
    office.behalf = await office.delegated("behalf@contoso.example", office.ann)
    office.locked = await office.delegated("locked@contoso.example", office.ann, wait=False)
    yield office
    await office.close()


@pytest.fixture
async def office(opened: Office) -> AsyncIterator[Office]:
    """The accounts, with no faults and no switches left behind."""
    yield opened
    await opened.tenant.clear_faults()
    await opened.tenant.switches(mime_from="header", sent_items_delay_s=0)


def address_of(who: Json | None) -> str:
    """The address of a Graph recipient."""
    return (who or {}).get("emailAddress", {}).get("address", "")


def addresses(found: list[Json]) -> list[str]:
    """The addresses of Graph recipients."""
    return [address_of(one) for one in found]


def parsed(mail: Json) -> EmailMessage:
    """The MIME that really arrived."""
    found: Any = message_from_bytes(base64.b64decode(mail["_raw"]), policy=policy.default)
    return found


def body_of(mail: EmailMessage, kind: str) -> str:
    """The text or html alternative, with the line ends of Python."""
    part = mail.get_body((kind,))
    assert part is not None, f"no {kind} part"
    return str(part.get_content()).replace("\r\n", "\n").rstrip("\n")


def attachment(name: str, content: bytes, **more: Any) -> Json:
    """One entry of `attachments`."""
    return {"filename": name, "content": base64.b64encode(content).decode(), **more}


async def count_sends(tenant: Tenant, since: Json | None = None) -> int:
    """How often sendMail was called since the log was cleared."""
    return len(await tenant.log(surface="graph", method="POST", path="sendMail$"))


def about(queue_id: str, name: str) -> Any:
    """A predicate: the webhook of this event about this mail."""
    return lambda heard: heard.json["event"] == name and heard.json["data"].get("queueId") == queue_id


def events_of(receiver: Receiver, queue_id: str) -> list[str]:
    """The events the receiver has heard about a mail, in order."""
    heard: list[Received] = receiver.requests
    return [one.json["event"] for one in heard if one.json["data"].get("queueId") == queue_id]


# -- who sends -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("which", "address", "name", "others"),
    [
        ("ann", ANN, "Ann", [SUPPORT]),
        ("support", SUPPORT, "Support Desk", [ANN]),
        ("info", INFO, "Info", [ANN]),
        ("direct_sales", "sales@contoso.example", "Sales", [ANN, SUPPORT]),
        ("app_support", SUPPORT, "Support by app", [ANN]),
    ],
)
async def test_every_kind_of_account_sends_as_its_own_mailbox_and_files_the_copy_there_alone(
    office: Office, which: str, address: str, name: str, others: list[str]
) -> None:
    """The recipient sees the mailbox as From and nobody else as Sender; the one copy is in its Sent Items."""
    answer = await office.accepted(getattr(office, which), to=TO, subject=f"As {which}", text="Hello")
    mail = await office.mail(RITA, answer["messageId"])
    assert address_of(mail["from"]) == address
    assert address_of(mail["sender"]) == address
    sent = parsed(mail)
    assert sent["From"].addresses[0].display_name == name
    assert sent["Sender"] is None
    assert len(await office.copies(address, answer["messageId"], "sentitems")) == 1
    for other in others:
        assert await office.copies(other, answer["messageId"], None) == []


async def test_a_mailbox_with_send_on_behalf_only_shows_itself_as_from_and_the_person_as_sender(office: Office) -> None:
    """With Send on Behalf the mail arrives, and says who pressed the button."""
    answer = await office.accepted(office.behalf, to=TO, subject="On behalf", text="Hello")
    mail = await office.mail(RITA, answer["messageId"])
    assert address_of(mail["from"]) == "behalf@contoso.example"
    assert address_of(mail["sender"]) == ANN
    assert len(await office.copies("behalf@contoso.example", answer["messageId"], "sentitems")) == 1


async def test_the_answer_is_that_of_the_contract(office: Office) -> None:
    """`Queued for delivery` with Message-ID, queue id and time, and nothing else."""
    before = datetime.now(UTC)
    answer = await office.accepted(office.support, to=TO, subject="Answer", text="x")
    assert set(answer) == {"response", "messageId", "sendAt", "queueId"}
    assert answer["response"] == "Queued for delivery"
    assert answer["messageId"].startswith("<")
    assert answer["messageId"].endswith("@contoso.example>")
    assert len(answer["queueId"]) == 19
    assert int(answer["queueId"], 16) >= 0
    assert abs(datetime.fromisoformat(answer["sendAt"]) - before) < timedelta(seconds=10)
    await office.mail(RITA, answer["messageId"])  # so that the next test counts its own sends alone


async def test_another_sender_than_the_mailbox_goes_out_with_send_as(office: Office) -> None:
    """`from` another mailbox on which the person has Send As: From is that mailbox, the copy stays with ours."""
    other = {"name": "Our Sales", "address": "sales@contoso.example"}
    answer = await office.accepted(office.ann, from_=other, to=TO, subject="As sales", text="x")
    mail = await office.mail(RITA, answer["messageId"])
    assert address_of(mail["from"]) == "sales@contoso.example"
    assert len(await office.copies(ANN, answer["messageId"], "sentitems")) == 1


async def test_another_sender_without_any_right_is_refused_once_and_nothing_is_sent(
    office: Office, receiver: Receiver
) -> None:
    """`from` a mailbox without Send As ends as messageFailed after one attempt."""
    await office.hear(receiver.url)
    await office.tenant.clear_log()
    answer = await office.accepted(
        office.ann, from_={"address": "bob@contoso.example"}, to=TO, subject="As bob", text="x"
    )
    failed = await receiver.wait_for(about(answer["queueId"], "messageFailed"))
    assert "Send As" in failed.json["data"]["error"]
    assert await count_sends(office.tenant) == 1
    assert await office.copies(RITA, answer["messageId"], None) == []


async def test_the_mailbox_address_in_other_letters_is_still_the_mailbox(office: Office) -> None:
    """Addresses compare without case: such a mail travels as MIME with both its bodies."""
    answer = await office.accepted(
        office.support, from_={"address": "SUPPORT@Contoso.example"}, to=TO, subject="Case", text="t", html="<p>h</p>"
    )
    mail = await office.mail(RITA, answer["messageId"])
    assert address_of(mail["from"]).lower() == SUPPORT
    assert body_of(parsed(mail), "plain") == "t"


# -- recipients ----------------------------------------------------------------------------------------------------


async def test_to_cc_and_bcc_all_receive_it_and_nobody_sees_the_bcc(office: Office) -> None:
    """Three mailboxes hold the mail; none of them, not even the hidden one, has a trace of Bcc."""
    answer = await office.accepted(
        office.support,
        to=TO,
        cc=[{"name": "Bob", "address": "bob@contoso.example"}],
        bcc=[{"name": "John", "address": "john@contoso.example"}],
        subject="Three",
        text="x",
    )
    for box in (RITA, "bob@contoso.example", "john@contoso.example"):
        mail = await office.mail(box, answer["messageId"])
        assert addresses(mail["toRecipients"]) == [RITA]
        assert addresses(mail["ccRecipients"]) == ["bob@contoso.example"]
        assert b"john@contoso.example" not in base64.b64decode(mail["_raw"]).split(b"\r\n\r\n", 1)[0].replace(
            b"for <john@contoso.example>", b""
        )
    copy = (await office.copies(SUPPORT, answer["messageId"], "sentitems"))[0]
    assert addresses(copy["bccRecipients"]) == ["john@contoso.example"]


async def test_a_mail_with_bcc_only_is_delivered(office: Office) -> None:
    """One recipient of any kind is enough."""
    answer = await office.accepted(office.support, bcc=TO, subject="Hidden", text="x")
    mail = await office.mail(RITA, answer["messageId"])
    assert mail["toRecipients"] == []


async def test_a_recipient_outside_the_tenant_gets_the_mail(office: Office) -> None:
    """What leaves the tenant is the same mail, without Bcc."""
    answer = await office.accepted(
        office.support, to=[{"address": "carl@customer.example"}], bcc=TO, subject="Outside", text="x"
    )
    await office.mail(RITA, answer["messageId"])
    (left,) = [
        one
        for one in await office.tenant.messages("external:carl@customer.example")
        if one["internetMessageId"] == answer["messageId"]
    ]
    assert RITA.encode() not in base64.b64decode(left["_raw"])


async def test_a_single_recipient_need_not_be_in_a_list(office: Office) -> None:
    """*Single* fields take one object."""
    answer = await office.accepted(office.support, to=TO[0], subject="Single", text="x")
    assert addresses((await office.mail(RITA, answer["messageId"]))["toRecipients"]) == [RITA]


async def test_reply_to_arrives(office: Office) -> None:
    """Answers go where `replyTo` says."""
    wanted = [{"name": "Answers, please", "address": "answers@contoso.example"}]
    answer = await office.accepted(office.support, to=TO, replyTo=wanted, subject="Reply", text="x")
    mail = await office.mail(RITA, answer["messageId"])
    assert mail["replyTo"] == [{"emailAddress": {"name": "Answers, please", "address": "answers@contoso.example"}}]


async def test_names_with_commas_quotes_and_emoji_reach_the_recipient_unchanged(office: Office) -> None:
    """A display name is data: nothing in it makes another recipient or another name."""
    name = 'Smith, Rita "Ри́та" <boss@evil.example> 🎉'
    answer = await office.accepted(office.support, to=[{"name": name, "address": RITA}], subject="Name", text="x")
    sent = parsed(await office.mail(RITA, answer["messageId"]))
    (only,) = sent["To"].addresses
    assert (only.display_name, only.addr_spec) == (name, RITA)


async def test_many_recipients_all_arrive_in_one_mail(office: Office) -> None:
    """Two hundred recipients are one sendMail."""
    await office.tenant.clear_log()
    many = [{"address": f"customer{number}@customer.example"} for number in range(199)]
    answer = await office.accepted(office.support, to=[*many, TO[0]], subject="Many", text="x")
    mail = await office.mail(RITA, answer["messageId"])
    assert len(mail["toRecipients"]) == 200
    assert await count_sends(office.tenant) == 1


@pytest.mark.parametrize("fields", [{}, {"to": []}, {"to": [], "cc": [], "bcc": []}])
async def test_a_mail_without_recipients_is_refused_with_the_field(office: Office, fields: Json) -> None:
    """400, and the field is `to`."""
    answer = await office.submit(office.support, subject="Nobody", text="x", **fields)
    assert answer.status == 400
    assert answer.body["fields"][0]["key"] == "to"


@pytest.mark.parametrize(
    "address",
    ["", "rita", "rita@", "@contoso.example", "a b@contoso.example", "rita@contoso.example\r\nBcc: x@y.example",
     "a@b@c.example", "<rita@contoso.example>", "rita@contoso.example,bob@contoso.example"],
)  # fmt: skip
async def test_what_is_not_an_address_is_refused_with_its_field(office: Office, address: str) -> None:
    """400 that names the address, and nothing is queued."""
    answer = await office.submit(office.support, to=[{"address": address}], subject="x", text="x")
    assert answer.status == 400
    assert answer.body["fields"][0]["key"] == "address"


# -- content -------------------------------------------------------------------------------------------------------


async def test_text_and_html_are_both_seen_by_the_recipient(office: Office) -> None:
    """A reader without HTML sees the text, any other the HTML, each as given."""
    text, html = "Hello Rita,\n\nplain words", '<p>Hello <b>Rita</b>,</p><p style="color:red">rich words</p>'
    answer = await office.accepted(office.support, to=TO, subject="Both", text=text, html=html)
    sent = parsed(await office.mail(RITA, answer["messageId"]))
    assert body_of(sent, "plain") == text
    assert body_of(sent, "html") == html


async def test_text_alone_stays_text(office: Office) -> None:
    """No HTML is invented."""
    answer = await office.accepted(office.support, to=TO, subject="Text", text="only <b>text</b> & more")
    mail = await office.mail(RITA, answer["messageId"])
    assert mail["body"]["contentType"] == "text"
    assert body_of(parsed(mail), "plain") == "only <b>text</b> & more"


async def test_html_alone_gets_a_readable_text_part(office: Office) -> None:
    """The text is what one sees in the HTML, links included, and nothing of scripts or styles."""
    html = (
        "<html><head><title>T</title><style>p {color: red}</style></head><body><h1>News</h1>"
        '<p>Read <a href="https://contoso.example/a?b=1&amp;c=2">this</a> &amp; that.</p>'
        "<ul><li>one</li><li>two</li></ul><script>alert(1)</script></body></html>"
    )
    answer = await office.accepted(office.support, to=TO, subject="Html", html=html)
    sent = parsed(await office.mail(RITA, answer["messageId"]))
    assert body_of(sent, "html") == html
    text = body_of(sent, "plain")
    assert "News" in text
    assert "Read this <https://contoso.example/a?b=1&c=2> & that." in text
    assert "* one" in text
    assert "color" not in text
    assert "alert" not in text


async def test_a_mail_without_any_content_is_delivered_empty(office: Office) -> None:
    """Neither subject nor body is required."""
    answer = await office.accepted(office.support, to=TO)
    mail = await office.mail(RITA, answer["messageId"])
    assert mail["subject"] == ""
    assert mail["body"]["content"].strip() == ""


async def test_unicode_survives_everywhere(office: Office) -> None:
    """Subject, names, text and HTML in four scripts and emoji arrive as they were written."""
    words = "Grüße, 你好, Привет, שלום 👩‍👩‍👧‍👦 \u2028 ﷽ e\u0301"
    answer = await office.accepted(
        office.support,
        from_={"name": "Büro 办公室 🏢", "address": SUPPORT},
        to=[{"name": "Ρίτα", "address": RITA}],
        subject=words.replace("\u2028", " "),
        text=words,
        html=f"<p>{words}</p>",
    )
    mail = await office.mail(RITA, answer["messageId"])
    sent = parsed(mail)
    assert sent["Subject"] == words.replace("\u2028", " ")
    assert sent["From"].addresses[0].display_name == "Büro 办公室 🏢"
    assert sent["To"].addresses[0].display_name == "Ρίτα"
    assert body_of(sent, "plain") == words
    assert body_of(sent, "html") == f"<p>{words}</p>"


@pytest.mark.parametrize("unit", ["x", "ä", "word ", "👍"])
async def test_lines_of_any_length_arrive_whole_and_no_line_on_the_wire_is_too_long(office: Office, unit: str) -> None:
    """A line of 20,000 characters is one line again at the recipient; SMTP's 998 bytes are kept."""
    line = (unit * 20_000).strip()
    answer = await office.accepted(office.support, to=TO, subject="Long", text=line, html=f"<p>{line}</p>")
    mail = await office.mail(RITA, answer["messageId"])
    assert body_of(parsed(mail), "plain") == line
    assert body_of(parsed(mail), "html") == f"<p>{line}</p>"
    assert max(map(len, base64.b64decode(mail["_raw"]).split(b"\r\n"))) <= 998


async def test_a_subject_of_ten_thousand_characters_arrives_whole(office: Office) -> None:
    """Long and non-ASCII subjects are folded on the way and whole at the end."""
    subject = ("Über " * 2048).strip()[:10240]
    answer = await office.accepted(office.support, to=TO, subject=subject, text="x")
    mail = await office.mail(RITA, answer["messageId"])
    assert parsed(mail)["Subject"] == subject
    assert max(map(len, base64.b64decode(mail["_raw"]).split(b"\r\n"))) <= 998


@pytest.mark.parametrize("text", ["line\r\nline\r\n.\r\nline", "a\n\n\nb", ".\n..\nFrom here", "tab\there", "-- \nsig"])
async def test_line_ends_dots_and_signatures_are_only_text(office: Office, text: str) -> None:
    """Nothing in a body is taken for protocol."""
    answer = await office.accepted(office.support, to=TO, subject="Lines", text=text)
    sent = parsed(await office.mail(RITA, answer["messageId"]))
    assert body_of(sent, "plain") == text.replace("\r\n", "\n")


async def test_preview_text_is_hidden_at_the_top_of_the_html_and_escaped(office: Office) -> None:
    """Inbox lists show it first, readers do not see it, and it cannot carry markup."""
    answer = await office.accepted(
        office.support, to=TO, html="<html><body class=x><p>Body</p></body></html>", previewText="A <b>peek</b> & more"
    )
    html = body_of(parsed(await office.mail(RITA, answer["messageId"])), "html")
    opening, _, rest = html.partition("<body class=x>")
    assert opening == "<html>"
    assert rest.startswith('<div style="display:none')
    assert "A &lt;b&gt;peek&lt;/b&gt; &amp; more</div><p>Body</p>" in rest


# -- attachments ---------------------------------------------------------------------------------------------------

ODD_NAMES = [
    "plain.txt",
    "Größe 你好 🎉.pdf",
    "semi;colon, comma = equals.bin",
    "quote\"s and 'more'.txt",
    "back\\slash.txt",
    "../../etc/passwd",
    "no-extension",
    "x" * 240 + ".txt",
    "trailing dots...",
    "percent%20name.txt",
]


@pytest.mark.parametrize("name", ODD_NAMES, ids=range(len(ODD_NAMES)))
async def test_attachments_with_odd_names_arrive_byte_for_byte(office: Office, name: str) -> None:
    """Name and bytes are the sender's, whatever characters they hold."""
    content = bytes(range(256)) * 5 + b"\r\n.\r\n\x00"
    files = [attachment(name, content)]
    answer = await office.accepted(office.support, to=TO, subject="File", text="x", attachments=files)
    (found,) = parsed(await office.mail(RITA, answer["messageId"])).iter_attachments()
    assert found.get_filename() == name
    assert found.get_payload(decode=True) == content


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("a.txt", "text/plain"),
        ("a.html", "text/html"),
        ("a.eml", "message/rfc822"),
        ("a.ics", "text/calendar"),
        ("a.csv", "text/csv; charset=latin1"),
        ("a.zip", "application/zip"),
        ("a.p7m", "application/pkcs7-mime"),
        ("a.bin", "nonsense"),
        ("a.svg", "image/svg+xml"),
    ],
)
async def test_attachments_of_every_type_keep_their_bytes(office: Office, name: str, content_type: str) -> None:
    """No type makes the mail library rewrite the content, not even text with bare line feeds."""
    content = "From: x\n\nZeile ä\n.\r\nend".encode("latin-1")
    answer = await office.accepted(
        office.support, to=TO, text="x", attachments=[attachment(name, content, contentType=content_type)]
    )
    (found,) = parsed(await office.mail(RITA, answer["messageId"])).iter_attachments()
    assert found.get_payload(decode=True) == content
    assert found.get_filename() == name


async def test_an_empty_attachment_is_an_attachment(office: Office) -> None:
    """Zero bytes arrive as zero bytes under their name."""
    answer = await office.accepted(office.support, to=TO, text="x", attachments=[attachment("empty.txt", b"")])
    (found,) = parsed(await office.mail(RITA, answer["messageId"])).iter_attachments()
    assert found.get_filename() == "empty.txt"
    assert found.get_payload(decode=True) == b""


async def test_inline_images_are_related_to_the_html_and_files_are_not(office: Office) -> None:
    """The image of a cid sits beside the HTML that shows it; the file is an attachment of the mail."""
    picture, paper = b"\x89PNG\r\n" + bytes(range(200)), b"%PDF-1.4"
    answer = await office.accepted(
        office.support,
        to=TO,
        subject="Picture",
        text="see",
        html='<p><img src="cid:logo@contoso"></p>',
        attachments=[
            attachment("logo.png", picture, cid="logo@contoso"),
            attachment("paper.pdf", paper),
            attachment("kept.png", picture, cid="kept", contentDisposition="attachment"),
        ],
    )
    mail = await office.mail(RITA, answer["messageId"])
    sent = parsed(mail)
    (related,) = [part for part in sent.walk() if part.get_content_type() == "multipart/related"]
    inline = list(related.iter_parts())[1]  # type: ignore[attr-defined]
    assert inline["Content-ID"] == "<logo@contoso>"
    assert inline.get_content_disposition() == "inline"
    assert inline.get_payload(decode=True) == picture
    shown = {one["name"]: one for one in mail["attachments"]}
    assert shown["logo.png"]["isInline"] is True
    assert shown["paper.pdf"]["isInline"] is False
    assert shown["kept.png"]["isInline"] is False
    assert body_of(sent, "plain") == "see"


async def test_an_attachment_without_a_name_gets_one_from_its_type(office: Office) -> None:
    """`attachment.pdf` for a nameless PDF."""
    nameless = {"content": base64.b64encode(b"%PDF").decode(), "contentType": "application/pdf"}
    answer = await office.accepted(office.support, to=TO, text="x", attachments=[nameless])
    (found,) = parsed(await office.mail(RITA, answer["messageId"])).iter_attachments()
    assert found.get_filename() == "attachment.pdf"


async def test_many_attachments_keep_their_order(office: Office) -> None:
    """Thirty files arrive as thirty files in order, equal ones included."""
    files = [attachment(f"{number % 10}.txt", bytes([number // 2])) for number in range(30)]
    answer = await office.accepted(office.support, to=TO, text="x", attachments=files)
    found = list(parsed(await office.mail(RITA, answer["messageId"])).iter_attachments())
    assert [one.get_filename() for one in found] == [f"{number % 10}.txt" for number in range(30)]
    assert [one.get_payload(decode=True) for one in found] == [bytes([number // 2]) for number in range(30)]


@pytest.mark.parametrize("content", ["not base64!", "YQ", "äää", "YQ==YQ=="])
async def test_attachment_content_that_is_not_base64_is_refused(office: Office, content: str) -> None:
    """400 that names the content of the attachment."""
    answer = await office.submit(office.support, to=TO, attachments=[{"filename": "a", "content": content}])
    assert answer.status == 400
    assert answer.body["fields"][0]["key"] == "content"


async def test_a_mail_of_three_megabytes_is_sent_whole(office: Office) -> None:
    """What just fits into one request of Graph goes through, over the blob that keeps it meanwhile."""
    content = bytes(range(256)) * 8_600  # 2.2 MB, twice encoded just under 4 MiB
    answer = await office.accepted(office.support, to=TO, text="x", attachments=[attachment("big.bin", content)])
    (found,) = parsed(await office.mail(RITA, answer["messageId"])).iter_attachments()
    assert found.get_payload(decode=True) == content


@pytest.mark.parametrize("query", ["", "?useStructuredFormat=true"])
async def test_a_mail_that_can_never_be_sent_is_refused_at_once_and_not_queued(office: Office, query: str) -> None:
    """A file that needs an upload session, in another person's mailbox: 413 that names `attachments`, and the outbox
    holds nothing of it."""
    before = (await office.ok("GET", "/v1/outbox"))["total"]
    big = [attachment("big.bin", bytes(3_300_000))]
    answer = await office.submit(office.support, query, to=TO, text="x", attachments=big)
    assert answer.status == 413
    assert answer.body["fields"][0]["key"] == "attachments"
    assert (await office.ok("GET", "/v1/outbox"))["total"] == before


# -- headers -------------------------------------------------------------------------------------------------------


async def test_custom_headers_arrive_as_given(office: Office) -> None:
    """Any name that is not a field of its own may be set: lists, threading and the caller's own marks."""
    headers = {
        "X-Custom": "value; with=marks",
        "List-Unsubscribe": "<https://contoso.example/u?x=1>",
        "In-Reply-To": "<old@contoso.example>",
        "References": "<older@contoso.example> <old@contoso.example>",
        "Auto-Submitted": "auto-generated",
        "X-Umlaut": "Grüße 你好",
        "X-Empty": "",
    }
    answer = await office.accepted(office.support, to=TO, text="x", headers=headers)
    sent = parsed(await office.mail(RITA, answer["messageId"]))
    for name, value in headers.items():
        assert str(sent[name] or "").strip() == value


async def test_very_long_header_values_arrive_whole(office: Office) -> None:
    """Fifty References are folded on the way and whole at the end."""
    references = " ".join(f"<message-number-{number:04d}@contoso.example>" for number in range(50))
    headers = {"References": references, "X-L": "y" * 5000}
    answer = await office.accepted(office.support, to=TO, text="x", headers=headers)
    mail = await office.mail(RITA, answer["messageId"])
    assert " ".join(str(parsed(mail)["References"]).split()) == references
    assert "".join(str(parsed(mail)["X-L"]).split()) == "y" * 5000


async def test_a_message_id_given_is_the_message_id_everywhere(office: Office) -> None:
    """Answer, recipient and Sent Items agree on it."""
    given = f"<order-17.{datetime.now(UTC).timestamp()}@shop.example>"
    answer = await office.accepted(office.support, to=TO, text="x", messageId=given)
    assert answer["messageId"] == given
    assert (await office.mail(RITA, given))["internetMessageId"] == given
    assert len(await office.copies(SUPPORT, given, "sentitems")) == 1


@pytest.mark.parametrize(
    "message_id", ["<a b@c>", "<a@b>\r\nX-Evil: 1", "<<a@b>>", "<ä@b>", "<>", "<a@b> <c@d>", "\x00"]
)
async def test_what_is_not_a_message_id_is_refused(office: Office, message_id: str) -> None:
    """400 that names `messageId`."""
    answer = await office.submit(office.support, to=TO, text="x", messageId=message_id)
    assert answer.status == 400
    assert answer.body["fields"][0]["key"] == "messageId"


INJECTIONS = ["x\r\nBcc: spy@evil.example", "x\nBcc: spy@evil.example", "x\rBcc: spy@evil.example",
              "x\x0bBcc: spy@evil.example", "x\x0c\x85\u2028Bcc: spy@evil.example"]  # fmt: skip


@pytest.mark.parametrize("injection", INJECTIONS, ids=range(len(INJECTIONS)))
@pytest.mark.parametrize("place", ["subject", "to", "from", "replyTo", "header", "filename", "cid", "contentType"])
async def test_a_line_break_in_any_field_never_becomes_a_header(office: Office, place: str, injection: str) -> None:
    """Either the submit is refused with 400, or the mail that arrives has no header of the attacker's."""
    fields: Json = {"to": TO, "text": "x"}
    if place == "subject":
        fields["subject"] = injection
    elif place == "to":
        fields["to"] = [{"name": injection, "address": RITA}]
    elif place == "from":
        fields["from_"] = {"name": injection, "address": SUPPORT}
    elif place == "replyTo":
        fields["replyTo"] = [{"name": injection, "address": RITA}]
    elif place == "header":
        fields["headers"] = {"X-Custom": injection}
    else:
        fields["attachments"] = [{"filename": "a.txt", "content": "YQ==", place: injection}]
    answer = await office.submit(office.support, **fields)
    assert answer.status in (200, 400), answer.body
    if answer.status == 400:
        return
    sent = parsed(await office.mail(RITA, answer.body["messageId"]))
    for part in sent.walk():
        assert part["Bcc"] is None
    assert await office.tenant.messages("external:spy@evil.example") == []


@pytest.mark.parametrize(
    "name", ["From", "TO", "cc", "Bcc", "Reply-To", "Subject", "Message-ID", "Date", "Content-Type", "MIME-Version",
             "Content-Transfer-Encoding", "", "with space", "colon:", "ünicode", "X-Evil\r\nBcc"]
)  # fmt: skip
async def test_headers_that_are_not_the_callers_to_set_are_refused(office: Office, name: str) -> None:
    """400 that names `headers`, before anything is queued."""
    answer = await office.submit(office.support, to=TO, text="x", headers={name: "value"})
    assert answer.status == 400
    assert answer.body["fields"][0]["key"].startswith("headers")


async def test_fields_that_nobody_knows_are_refused_by_name(office: Office) -> None:
    """Nothing is silently ignored: 400, and the field is named."""
    answer = await office.submit(office.support, to=TO, text="x", unheardOf=1)
    assert answer.status == 400
    assert answer.body["fields"][0]["key"] == "unheardOf"


async def test_fields_that_the_contract_says_have_no_effect_are_accepted(office: Office) -> None:
    """Clients that always send them keep working."""
    answer = await office.accepted(
        office.support, to=TO, text="x", copy=True, sentMailPath="Sent", gateway="g", dsn={"id": "1"}, locale="en",
        tz="Europe/Tallinn", baseUrl="https://x.example", envelope={"from": "a@b.example", "to": [RITA]},
    )  # fmt: skip
    await office.mail(RITA, answer["messageId"])


async def test_answers_and_tracking_work_over_the_running_host(office: Office, receiver: Receiver) -> None:
    """A reply in the thread whose picture, loaded without a token, is told of as opened."""
    await office.hear(receiver.url)
    sender = "carl@customer.example"
    (asked,) = await office.tenant.deliver(sender, [SUPPORT], "Host", text="?", message_id="<host@customer.example>")
    answer = await office.accepted(
        office.support, to=TO, html="<p>x</p>", trackOpens=True, reference={"message": asked["id"], "inline": True}
    )
    sent = parsed(await office.mail(RITA, answer["messageId"]))
    assert (sent["Subject"], sent["In-Reply-To"]) == ("Re: Host", "<host@customer.example>")
    address = unescape(body_of(sent, "html").rpartition('<img src="')[2].partition('"')[0])
    assert address.startswith(f"{office.app.url}/open.gif?")
    picture = await office.app.call("GET", address.removeprefix(office.app.url), token=None)
    assert (picture.status, picture.body[:6]) == (200, b"GIF89a")
    told = ("trackOpen", answer["messageId"])
    await receiver.wait_for(lambda heard: (heard.json["event"], heard.json["data"].get("messageId")) == told)


# -- structured format ---------------------------------------------------------------------------------------------


async def test_structured_format_sends_a_graph_message_with_everything_it_can_carry(office: Office) -> None:
    """HTML, recipients, reply-to, attachments, X- headers and Message-ID arrive; Graph saw JSON."""
    await office.tenant.clear_log()
    content = bytes(range(256))
    answer = await office.accepted(
        office.support,
        "?useStructuredFormat=true",
        to=TO,
        cc=[{"address": "bob@contoso.example"}],
        bcc=[{"address": "john@contoso.example"}],
        replyTo=[{"address": "answers@contoso.example"}],
        subject="Strüctured",
        text="not carried",
        html="<p>Hello <img src='cid:logo'></p>",
        headers={"X-Order": "17"},
        attachments=[attachment("größe.bin", content), attachment("logo.png", content, cid="<logo>")],
        messageId="<structured-1@contoso.example>",
    )
    mail = await office.mail(RITA, "<structured-1@contoso.example>")
    await office.mail("john@contoso.example", answer["messageId"])
    assert address_of(mail["from"]) == SUPPORT
    assert mail["subject"] == "Strüctured"
    assert mail["body"] == {"contentType": "html", "content": "<p>Hello <img src='cid:logo'></p>"}
    assert addresses(mail["replyTo"]) == ["answers@contoso.example"]
    assert {"name": "X-Order", "value": "17"} in mail["internetMessageHeaders"]
    shown = {one["name"]: one for one in mail["attachments"]}
    assert base64.b64decode(shown["größe.bin"]["contentBytes"]) == content
    assert shown["logo.png"]["isInline"] is True
    (request,) = await office.tenant.log(surface="graph", method="POST", path="sendMail$")
    assert json.loads(base64.b64decode(request["body_base64"]))["saveToSentItems"] is True


@pytest.mark.parametrize(
    "headers", [{"List-Unsubscribe": "<https://x.example>"}, {f"X-{number}": "v" for number in range(5)}]
)
async def test_headers_that_graph_cannot_carry_are_refused_at_submit(office: Office, headers: Json) -> None:
    """400 naming `headers`, instead of a failure nobody is waiting for."""
    answer = await office.submit(office.support, "?useStructuredFormat=true", to=TO, text="x", headers=headers)
    assert answer.status == 400
    assert answer.body["fields"][0]["key"] == "headers"
    other = {"address": "sales@contoso.example"}
    again = await office.submit(office.ann, from_=other, to=TO, text="x", headers=headers)
    assert again.status == 400


async def test_four_x_headers_fit_into_a_structured_mail(office: Office) -> None:
    """The fifth that Graph takes is ours."""
    headers = {f"X-{number}": "v" for number in range(4)}
    answer = await office.accepted(office.support, "?useStructuredFormat=1", to=TO, text="x", headers=headers)
    mail = await office.mail(RITA, answer["messageId"])
    assert {one["name"] for one in mail["internetMessageHeaders"]} >= set(headers)


async def test_a_tenant_that_ignores_from_in_mime_still_shows_the_shared_address_with_structured_sending(
    azurite: services.Azurite, workshop: Workshop, quiet_azurite: services.Azurite
) -> None:
    """SEND_FORMAT=structured is the answer where Graph takes the signed-in user for the From of MIME."""
    workshop.world.switches.mime_from = "authenticated_user"
    shop = await Workshop(quiet_azurite.connection_string, SEND_FORMAT="structured").start()
    try:
        shop.world.switches.mime_from = "authenticated_user"
        for each, address in ((workshop, ANN), (shop, SUPPORT)):
            holder = await each.own()
            account = await each.delegated(SUPPORT, holder)
            answer = await each.services.submit.accept(account, {"to": TO, "html": "<p>x</p>"})
            await each.run_due()
            (mail,) = each.arrived(RITA, answer["messageId"])
            assert address_of(mail["from"]) == address
    finally:
        await shop.stop()


# -- when ----------------------------------------------------------------------------------------------------------


async def test_a_mail_for_later_is_sent_at_its_time_and_not_before(office: Office) -> None:
    """Until `sendAt` Graph hears nothing; then the mail arrives with that Date."""
    await office.tenant.clear_log()
    at = soon(10)  # accepting may take seconds on a busy machine
    answer = await office.accepted(office.support, to=TO, subject="Later", text="x", sendAt=at)
    assert answer["sendAt"] == at
    mail = await office.mail(RITA, answer["messageId"])
    (request,) = await office.tenant.log(surface="graph", method="POST", path="sendMail$")
    assert datetime.fromisoformat(request["time"]) >= datetime.fromisoformat(at)
    date = parsed(mail)["Date"].datetime
    assert abs(date - datetime.fromisoformat(at)) < timedelta(seconds=1)


@pytest.mark.parametrize("at", ["2001-01-01T00:00:00Z", 1, "1999-12-31T23:59:59.999+02:00"])
async def test_a_time_in_the_past_means_now(office: Office, at: Any) -> None:
    """The answer says now, and the mail is sent."""
    answer = await office.accepted(office.support, to=TO, text="x", sendAt=at)
    assert datetime.now(UTC) - datetime.fromisoformat(answer["sendAt"]) < timedelta(seconds=10)
    await office.mail(RITA, answer["messageId"])


async def test_a_mail_for_next_month_survives_until_its_minute(workshop: Workshop) -> None:
    """Beyond what a queue can delay, the schedule keeps it: not sent a minute before, sent within a minute after."""
    holder = await workshop.own()
    later = workshop.clock() + timedelta(days=31)
    answer = await workshop.services.submit.accept(holder, {"to": TO, "text": "x", "sendAt": later.isoformat()})
    workshop.advance(31 * 86400 - 130)
    await workshop.services.schedule.tick(workshop.clock())
    await workshop.run_due()
    assert workshop.arrived(RITA, answer["messageId"]) == []
    await workshop.run_for(200)
    assert len(workshop.arrived(RITA, answer["messageId"])) == 1


# -- outbox --------------------------------------------------------------------------------------------------------


async def test_a_waiting_mail_is_seen_in_the_outbox_and_gone_after_delivery(office: Office) -> None:
    """The entry has the fields of the contract; a delivered mail has none."""
    answer = await office.accepted(office.support, to=TO, subject="Wait", text="x", sendAt=soon(10))
    entry = await office.ok("GET", f"/v1/outbox/{answer['queueId']}")
    assert entry["queueId"] == answer["queueId"]
    assert entry["account"] == office.support
    assert entry["envelope"] == {"from": SUPPORT, "to": [RITA]}
    assert entry["progress"] == {"status": "queued"}
    assert (entry["attemptsMade"], entry["attempts"], entry["source"]) == (0, 10, "api")
    assert entry["scheduled"] == entry["nextAttempt"] == answer["sendAt"]
    await office.mail(RITA, answer["messageId"])

    async def gone() -> bool:
        return (await office.app.call("GET", f"/v1/outbox/{answer['queueId']}")).status == 404

    await eventually(gone, "the entry vanishes")


async def test_a_cancelled_mail_is_never_sent(office: Office) -> None:
    """`deleted: true` once, false after that, and the recipient gets the later mail only."""
    cancelled = await office.accepted(office.support, to=TO, subject="Cancel", text="x", sendAt=soon(14))
    kept = await office.accepted(office.support, to=TO, subject="Keep", text="x", sendAt=soon(15))
    path = f"/v1/outbox/{cancelled['queueId']}"
    assert await office.ok("DELETE", path) == {"deleted": True}
    assert await office.ok("DELETE", path) == {"deleted": False}
    assert (await office.app.call("GET", path)).status == 404
    await office.mail(RITA, kept["messageId"])
    assert await office.copies(RITA, cancelled["messageId"], None) == []


@pytest.mark.parametrize("queue_id", ["nothing", "0" * 19, "%2F", "é", "'or 1 eq 1", "a" * 300])
async def test_an_unknown_queue_id_is_an_ordinary_404(office: Office, queue_id: str) -> None:
    """404 on reading, `deleted: false` on cancelling, whatever the id looks like."""
    from urllib.parse import quote

    path = f"/v1/outbox/{quote(queue_id, safe='%')}"
    answer = await office.app.call("GET", path)
    assert answer.status in (400, 404), answer.body
    answer = await office.app.call("DELETE", path)
    assert answer.status in (200, 400, 404), answer.body
    assert answer.status != 200 or answer.body == {"deleted": False}


async def test_the_outbox_is_paged_by_time_of_sending(office: Office) -> None:
    """Every waiting mail is on exactly one page, the next to be sent first."""
    made = [
        (await office.accepted(office.support, to=TO, text="x", sendAt=soon(1000 - 100 * number)))["queueId"]
        for number in range(5)
    ]
    try:
        first = await office.ok("GET", "/v1/outbox?pageSize=2&page=0")
        assert first["pages"] == -(-first["total"] // 2)
        listed = []
        for page in range(first["pages"]):
            listed += (await office.ok("GET", f"/v1/outbox?pageSize=2&page={page}"))["messages"]
        ours = [one["queueId"] for one in listed if one["queueId"] in made]
        assert ours == list(reversed(made))
        assert len(listed) == first["total"]
    finally:
        for queue_id in made:
            await office.ok("DELETE", f"/v1/outbox/{queue_id}")


async def test_the_mail_of_a_deleted_account_is_not_sent(office: Office) -> None:
    """Deleting an account empties its outbox."""
    account = await office.delegated("sales@contoso.example", office.ann)
    answer = await office.accepted(account, to=TO, text="x", sendAt=soon(10))
    kept = await office.accepted(office.support, to=TO, text="x", sendAt=soon(11))
    await office.ok("DELETE", f"/v1/account/{account}")
    assert (await office.app.call("GET", f"/v1/outbox/{answer['queueId']}")).status == 404
    await office.mail(RITA, kept["messageId"])
    assert await office.copies(RITA, answer["messageId"], None) == []


async def test_submitting_for_an_account_that_is_unknown_or_without_credentials_says_so(office: Office) -> None:
    """404 with the contract's texts."""
    answer = await office.submit("nobody-here", to=TO, text="x")
    assert (answer.status, answer.body["message"]) == (404, "Account record was not found for requested ID")
    bare = f"bare-{office.ann}"
    office.accounts.append(bare)
    await office.ok("POST", "/v1/account", {"account": bare, "name": "Bare"})
    answer = await office.submit(bare, to=TO, text="x")
    assert (answer.status, answer.body["code"]) == (404, "SMTPUnavailable")


# -- refusals of Exchange ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("which", "right", "command", "code"),
    [
        ("locked", "Full Access", "Add-MailboxPermission -Identity locked@contoso.example -User ann@", None),
        ("nosend", "Send As", "Add-RecipientPermission -Identity nosend@contoso.example -Trustee ann@", "SendAsDenied"),
    ],
)
async def test_a_missing_right_fails_after_one_attempt_and_names_the_command_that_grants_it(
    office: Office, receiver: Receiver, which: str, right: str, command: str, code: str | None
) -> None:
    """One call of sendMail, messageDeliveryError, messageFailed; both name the right and the Exchange command."""
    await office.hear(receiver.url)
    await office.tenant.clear_log()
    answer = await office.accepted(getattr(office, which), to=TO, subject="Refused", text="x")
    failed = await receiver.wait_for(about(answer["queueId"], "messageFailed"))
    problem = await receiver.wait_for(about(answer["queueId"], "messageDeliveryError"))
    for heard in (failed, problem):
        assert right in heard.json["data"]["error"]
        assert command in heard.json["data"]["error"]
    if code:
        assert problem.json["data"]["errorCode"] == code
    job = problem.json["data"]["job"]
    assert (job["attemptsMade"], job["nextAttempt"]) == (1, False)
    assert problem.json["data"]["envelope"]["to"] == [RITA]
    assert await count_sends(office.tenant) == 1
    entry = await office.ok("GET", f"/v1/outbox/{answer['queueId']}")
    assert entry["progress"]["status"] == "error"
    assert entry["nextAttempt"] is False
    assert command in entry["progress"]["error"]["message"]
    assert await office.copies(RITA, answer["messageId"], None) == []


async def test_a_sent_mail_is_reported_once_with_its_envelope(office: Office, receiver: Receiver) -> None:
    """messageSent carries both ids, the queue id and the envelope; nothing else is said about the mail."""
    await office.hear(receiver.url)
    answer = await office.accepted(office.support, to=TO, bcc=[{"address": "bob@contoso.example"}], text="x")
    heard = await receiver.wait_for(about(answer["queueId"], "messageSent"))
    assert heard.json["account"] == office.support
    assert heard.json["data"] == {
        "messageId": answer["messageId"],
        "originalMessageId": answer["messageId"],
        "queueId": answer["queueId"],
        "envelope": {"from": SUPPORT, "to": [RITA, "bob@contoso.example"]},
    }
    assert events_of(receiver, answer["queueId"]) == ["messageSent"]


# -- trouble on the way to Graph -----------------------------------------------------------------------------------

SEND = {"path_regex": "/sendMail$"}


@pytest.mark.parametrize("retry_after", ["2", "1.128"])
async def test_a_throttled_mail_waits_as_long_as_it_was_told_and_is_sent_once(
    office: Office, receiver: Receiver, retry_after: str
) -> None:
    """429 with whole or fractional Retry-After: no attempt is used up, no error is reported."""
    await office.hear(receiver.url)
    await office.tenant.clear_log()
    await office.tenant.add_fault({"status": 429, "retry_after": retry_after}, match=SEND)
    answer = await office.accepted(office.support, to=TO, text="x")
    await receiver.wait_for(about(answer["queueId"], "messageSent"))
    first, second = await office.tenant.log(surface="graph", method="POST", path="sendMail$")
    waited = datetime.fromisoformat(second["time"]) - datetime.fromisoformat(first["time"])
    assert waited >= timedelta(seconds=float(retry_after) - 0.1)
    assert len(await office.copies(RITA, answer["messageId"], None)) == 1
    assert events_of(receiver, answer["queueId"]) == ["messageSent"]


class Sending:
    """One mail of a shared mailbox in a workshop, with a fault in its way."""

    def __init__(self, shop: Workshop) -> None:
        self.shop = shop
        self.account = ""
        self.answer: Json = {}

    async def begin(self, action: Json, times: int | None = 1, **fields: Any) -> None:
        """Submits a mail whose sending meets the fault."""
        shop = self.shop
        if not self.account:
            self.account = await shop.delegated(SUPPORT, await shop.own())
        shop.world.faults.add(SEND, action, times)
        self.answer = await shop.services.submit.accept(self.account, {"to": TO, "text": "x", **fields})
        await shop.run_due()

    @property
    def arrived(self) -> int:
        """How many copies the recipient has."""
        return len(self.shop.arrived(RITA, self.answer["messageId"]))

    @property
    def tries(self) -> int:
        """How often Graph was asked to send."""
        return len(self.shop.requests("POST", "sendMail$"))

    async def told(self) -> list[str]:
        """The events about the mail, in order."""
        found = await self.shop.events(self.account, "messageSent", "messageFailed", "messageDeliveryError")
        return [one["event"] for one in found]

    async def state(self) -> Json | None:
        """The outbox entry."""
        return await self.shop.services.outbox.entry(self.answer["queueId"])


@pytest.fixture
def sending(workshop: Workshop) -> Sending:
    """A mail that meets trouble."""
    return Sending(workshop)


@pytest.mark.parametrize(
    ("action", "reported"),
    [
        ({"status": 429}, False),
        ({"status": 429, "retry_after": "Fri, 31 Dec 2027 23:59:59 GMT"}, False),
        ({"status": 503, "retry_after": "1"}, False),
        ({"status": 503, "retry_after": "1.5"}, False),
        ({"status": 408}, True),
        ({"status": 401}, None),
    ],
)
async def test_trouble_before_the_work_is_overcome_and_the_mail_is_sent_exactly_once(
    sending: Sending, action: Json, reported: bool | None
) -> None:
    """Three refusals that certainly sent nothing, then success: one mail, one messageSent."""
    await sending.begin(action, 3)
    await sending.shop.run_for(300)
    assert sending.arrived == 1
    told = await sending.told()
    assert told.count("messageSent") == 1
    if reported is not None:
        assert told.count("messageDeliveryError") == (3 if reported else 0)


async def test_throttling_without_retry_after_is_not_answered_with_a_storm(sending: Sending) -> None:
    """While Graph throttles for ten minutes, it is asked a few dozen times at most."""
    await sending.begin({"status": 429}, None)
    await sending.shop.run_for(600)
    assert sending.arrived == 0
    assert 2 <= sending.tries <= 100
    sending.shop.world.faults.remove()
    await sending.shop.run_for(120)
    assert sending.arrived == 1


UNCLEAR: list[Json] = [{"status": 500}, {"status": 502}, {"status": 503}, {"status": 504}, {"drop": True}]


@pytest.mark.parametrize("action", [one for one in UNCLEAR if one.get("status") != 503])
async def test_an_unclear_failure_is_followed_by_looks_and_only_then_by_another_try(
    sending: Sending, action: Json
) -> None:
    """When no copy is found for minutes, the mail is tried again: two calls far apart, one mail, one messageSent."""
    await sending.begin(action)
    await sending.shop.run_for(120)
    assert sending.tries == 1
    await sending.shop.run_for(1200, tick_s=300)
    assert (sending.tries, sending.arrived) == (2, 1)
    assert await sending.told() == ["messageDeliveryError", "messageSent"]


async def test_a_busy_server_is_asked_again_after_two_looks(sending: Sending) -> None:
    """503 without Retry-After: no copy is found, so the mail goes out within minutes, once."""
    await sending.begin({"status": 503})
    await sending.shop.run_for(150)
    assert (sending.tries, sending.arrived) == (2, 1)
    asked = [unquote_plus(one.query) for one in sending.shop.requests("GET", "/messages$")]
    looks = [one for one in asked if "internetMessageId eq" in one]
    assert len(looks) == 2


async def test_a_server_that_did_the_work_and_says_busy_is_not_asked_again(sending: Sending) -> None:
    """503 with Retry-After, and the mail went all the same: the one look finds it."""
    await sending.begin({"after": {"status": 503, "retry_after": "1"}})
    await sending.shop.run_for(300)
    assert (sending.tries, sending.arrived) == (1, 1)
    assert await sending.told() == ["messageSent"]


async def test_a_copy_seen_in_drafts_makes_earlier_absences_worthless(
    sending: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Absent, absent, in Drafts, absent: that is one absence, so the mail is not tried again yet."""
    seen = iter([traces.ABSENT, traces.ABSENT, traces.DRAFT, traces.ABSENT, traces.FOUND])

    async def look(*_: Any) -> str:
        return next(seen)

    monkeypatch.setattr(traces, "look", look)
    await sending.begin({"after": {"status": 504}})
    await sending.shop.run_for(4000, tick_s=300)
    assert (sending.tries, sending.arrived) == (1, 1)
    assert await sending.told() == ["messageSent"]


@pytest.mark.parametrize("at", ["messageFailed", "end"])
async def test_a_refused_mail_whose_process_dies_at_the_end_is_not_sent_later(sending: Sending, at: str) -> None:
    """Refused for good, the process died, and meanwhile the mailbox would take it: it stays failed, told once."""
    outbox, real = sending.shop.services.outbox, {}
    for name in ("_tell", "_end"):
        real[name] = getattr(outbox, name)

    async def dies(row: Any, what: str, *rest: Any, **named: Any) -> None:
        if what in ("messageFailed", "failed"):
            raise KeyboardInterrupt
        await real["_tell"](row, what, *rest, **named)

    name = "_tell" if at == "messageFailed" else "_end"
    setattr(outbox, name, dies)
    with pytest.raises(KeyboardInterrupt):
        await sending.begin({"status": 403}, 1)
    setattr(outbox, name, real[name])
    await sending.shop.timers()
    await sending.shop.run_for(4000, tick_s=300)
    await sending.shop.timers()
    await sending.shop.run_for(600)
    assert sending.arrived == 0
    events = await sending.shop.events(sending.account)
    assert [one["event"] for one in events].count("messageFailed") == 1
    assert not any(one["event"] == "messageSent" for one in events)


async def test_a_mail_that_nobody_can_look_for_ends_as_unknown_and_is_not_sent_again(sending: Sending) -> None:
    """Sent or not, and the mailbox cannot be asked: one messageFailed that says so, and no second try."""
    sending.shop.world.faults.add({"method": "GET", "path_regex": "/messages$"}, {"status": 403}, None)
    await sending.begin({"after": {"status": 504}})
    await sending.shop.run_for(4000, tick_s=600)
    assert (sending.tries, sending.arrived) == (1, 1)
    assert await sending.told() == ["messageFailed"]
    entry = await sending.state()
    assert entry is not None
    assert entry["progress"]["error"]["code"] == "SendOutcomeUnknown"
    (event,) = await sending.shop.events(sending.account, "messageFailed")
    for text in (event["data"]["error"], entry["progress"]["error"]["message"]):
        assert "ErrorServerBusy" in text  # what became of the request
        assert "the mailbox could not be asked" in text  # what the mailbox showed


async def test_a_copy_that_appears_a_minute_late_is_still_found(sending: Sending) -> None:
    """Exchange files the copy when it likes: the mail is not sent a second time meanwhile."""
    filed: list[Any] = []
    sending.shop.world.switches.sent_items_delay_s = 60
    sending.shop.world.mail.later = lambda _, act: filed.append(act)  # type: ignore[method-assign]
    await sending.begin({"after": {"status": 504}})
    await sending.shop.run_for(61)
    assert await sending.told() == []
    for act in filed:
        act()
    await sending.shop.run_for(1200, tick_s=300)
    assert (sending.tries, sending.arrived) == (1, 1)
    assert await sending.told() == ["messageSent"]


@pytest.mark.parametrize("after", UNCLEAR)
async def test_a_mail_that_was_sent_before_the_failure_is_found_and_never_sent_again(
    sending: Sending, after: Json
) -> None:
    """Sent and yet an error: exactly one mail at the recipient, messageSent, and the entry is gone."""
    await sending.begin({"after": after})
    assert sending.arrived == 1
    assert (await sending.told()) == []
    entry = await sending.state()
    assert entry is not None
    assert entry["progress"]["status"] == "processing"
    await sending.shop.run_for(1200, tick_s=300)
    assert sending.arrived == 1
    assert sending.tries == 1
    assert (await sending.told()) == ["messageSent"]
    assert await sending.state() is None


async def test_a_worker_that_dies_while_sending_leaves_no_second_mail(sending: Sending) -> None:
    """The process ends after Graph's 202: its message comes back, the copy is found, messageSent is told once."""
    shop = sending.shop
    sent = shop.services.outbox._sent

    async def die(row: Any) -> None:
        raise KeyboardInterrupt

    shop.services.outbox._sent = die  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        await sending.begin({"delay_s": 0})
    shop.services.outbox._sent = sent  # type: ignore[method-assign]
    job = {"queueId": (await shop.services.outbox.entries())[-1]["queueId"]}
    entry = next(one for one in await shop.services.outbox.entries() if one["account"] == sending.account)
    job = {"queueId": entry["queueId"]}
    sending.answer = entry
    await shop.services.outbox.send(job)
    assert sending.tries == 1
    await shop.run_for(1500, tick_s=300)
    assert sending.tries == 1
    assert sending.arrived == 1
    assert await sending.told() == ["messageSent"]


async def test_the_same_queue_message_twice_sends_one_mail(sending: Sending) -> None:
    """Queues deliver at least once; the outbox sends at most once."""
    await sending.begin({"delay_s": 0})
    job = {"queueId": sending.answer["queueId"]}
    for _ in range(3):
        await sending.shop.services.outbox.send(job)
    assert (sending.tries, sending.arrived) == (1, 1)
    assert await sending.told() == ["messageSent"]


async def test_two_workers_with_the_same_message_at_once_send_one_mail(workshop: Workshop) -> None:
    """The record decides who sends, not the queue."""
    import asyncio

    account = await workshop.delegated(SUPPORT, await workshop.own())
    answer = await workshop.services.submit.accept(account, {"to": TO, "text": "x"})
    jobs = [job for name, job in workshop.queues.take_due() if name == "outbox"]
    await asyncio.gather(*(workshop.services.outbox.send(job) for job in jobs * 8))
    assert len(workshop.arrived(RITA, answer["messageId"])) == 1


@pytest.mark.parametrize("attempts", [1, 3])
async def test_delivery_attempts_are_honoured(sending: Sending, attempts: int) -> None:
    """So many tries, so many messageDeliveryError, then one messageFailed and no further try."""
    await sending.begin({"status": 408}, None, deliveryAttempts=attempts)
    await sending.shop.run_for(3600, tick_s=600)
    assert sending.tries == attempts
    assert await sending.told() == ["messageDeliveryError"] * attempts + ["messageFailed"]
    found = await sending.shop.events(sending.account, "messageDeliveryError")
    assert [one["data"]["job"]["attemptsMade"] for one in found] == list(range(1, attempts + 1))
    assert found[-1]["data"]["job"]["nextAttempt"] is False
    entry = await sending.state()
    assert entry is not None
    assert (entry["attemptsMade"], entry["nextAttempt"]) == (attempts, False)


async def test_retries_pause_longer_each_time(sending: Sending) -> None:
    """5 s doubling, give or take a fifth."""
    await sending.begin({"status": 408}, None, deliveryAttempts=5)
    await sending.shop.run_for(600)
    times = [entry.time for entry in sending.shop.requests("POST", "sendMail$")]
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(times)]
    for number, gap in enumerate(gaps):
        assert 5 * 2**number * 0.8 - 0.5 <= gap <= 5 * 2**number * 1.2 + 1.5


async def test_a_cancel_while_the_mail_waits_for_its_retry_is_final(sending: Sending) -> None:
    """Between two attempts the mail is waiting and can be taken back."""
    await sending.begin({"status": 429, "retry_after": "1"}, 1)
    assert await sending.shop.services.outbox.cancel(sending.answer["queueId"]) is True
    await sending.shop.run_for(600)
    assert (sending.tries, sending.arrived) == (1, 0)


async def test_a_mail_that_is_being_sent_cannot_be_cancelled(sending: Sending) -> None:
    """`deleted: false` while the outcome is open, and the mail stays in the books."""
    await sending.begin({"after": {"status": 504}})
    assert await sending.shop.services.outbox.cancel(sending.answer["queueId"]) is False
    await sending.shop.run_for(600)
    assert await sending.told() == ["messageSent"]


async def test_a_sign_in_that_ran_out_is_reported_and_the_mail_goes_out_after_the_next_sign_in(
    sending: Sending,
) -> None:
    """Credentials that fail are trouble that passes: the mail waits for a new sign-in."""
    shop = sending.shop
    holder = await shop.own()
    sending.account = await shop.delegated(SUPPORT, holder)
    shop.world.login.revoke(shop.world.directory.find(ANN), access_tokens=True)
    await sending.begin({"delay_s": 0})
    assert await sending.told() == ["messageDeliveryError"]
    found = await shop.events(sending.account, "messageDeliveryError")
    assert found[0]["data"]["errorCode"] == "AuthenticationFails"
    from local.tenant.control_login import mint

    tokens = mint(shop.world, {"user": ANN})
    fields = {"oauth2": {"partial": True, "refreshToken": tokens["refresh_token"]}}
    await shop.services.onboarding.update(holder, fields)
    await shop.run_for(120)
    assert sending.arrived == 1


async def test_the_stored_body_is_gone_when_the_mail_is(sending: Sending) -> None:
    """After the end neither record nor blob keeps what was written."""
    big = attachment("big.bin", bytes(900_000))
    for size in ({}, {"attachments": [big]}):
        await sending.begin({"delay_s": 0}, **size)
        queue_id = sending.answer["queueId"]
        row = await sending.shop.services.tables["outbox"].get(queue_id[-2:], queue_id)
        assert row is not None
        assert row.body == b""
        if size:
            assert await sending.shop.services.blobs.get(row.value["blob"]) is None
