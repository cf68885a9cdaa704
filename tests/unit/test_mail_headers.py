"""Header fields: what readers get from them, and that they are written in one pass."""

import re
from email import message_from_bytes, policy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import mail_headers, mime
from shared.address_lists import addresses_in
from shared.errors import InvalidInput
from shared.unsubscribing import list_headers

TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=300)


def read(field: bytes) -> Any:
    """A field as a reader sees it."""
    return message_from_bytes(field + b"\r\n", policy=policy.default)


def is_sound(field: bytes) -> bool:
    """ASCII, lines that every server takes, none of them empty or a field of its own."""
    lines = field.removesuffix(b"\r\n").split(b"\r\n")
    folded = all(line[:1] == b" " and line.strip() for line in lines[1:])
    return field.isascii() and folded and all(len(line) <= 998 and b"\n" not in line for line in lines)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(TEXTS)
def test_any_text_is_a_sound_field_and_comes_back(text: str) -> None:
    """Words are kept; only the space around them is the reader's."""
    field = mail_headers.text_field("Subject", text)
    assert is_sound(field)
    assert str(read(field)["Subject"]).split() == mail_headers.one_line(text).split()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(TEXTS)
def test_any_name_is_a_name_and_its_address_stays(name: str) -> None:
    """Quotes, commas, brackets and at-signs are part of the name."""
    field = mail_headers.address_field("To", [{"name": name, "address": "a@b.example"}, {"address": "c@d.example"}])
    assert is_sound(field)
    assert [one.addr_spec for one in read(field)["To"].addresses] == ["a@b.example", "c@d.example"]
    assert addresses_in(field.partition(b":")[2]) == ["a@b.example", "c@d.example"]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=256))
def test_any_file_name_comes_back(name: str) -> None:
    """In one piece or in sections."""
    field = mail_headers.parameter_field("Content-Disposition", "attachment", [("filename", name)])
    assert is_sound(field)
    assert read(field).get_filename() == name


@pytest.mark.parametrize("value", ["a" * 5000, "a " * 5000, " a" * 3, "", "x" * 989, "ä" * 3000, "=?utf-8?b?w6Q=?="])
def test_long_values_and_encoded_ones_stay_sound(value: str) -> None:
    """With and without places to fold."""
    for write in (mail_headers.text_field, mail_headers.given_field):
        field = write("X-Value", value)
        assert is_sound(field)
    assert str(read(mail_headers.text_field("X-Value", value))["X-Value"]).split() == value.split()


def test_a_callers_encoded_word_stays_one_and_a_subject_is_text() -> None:
    """What the caller wrote as a header is a header; a subject is what people read."""
    assert read(mail_headers.given_field("X-A", "=?utf-8?b?w6Q=?="))["X-A"] == "ä"
    assert read(mail_headers.text_field("Subject", "=?utf-8?b?w6Q=?="))["Subject"] == "=?utf-8?b?w6Q=?="


def test_more_recipients_or_headers_than_exchange_takes_are_refused_by_name() -> None:
    """1,000 and 256 KB."""
    one = {"address": "a@b.example"}
    mail_headers.check_recipients({"to": [one] * 500, "cc": [one] * 500})
    for fields, key in (({"to": [one] * 400, "bcc": [one] * 601}, "bcc"), ({}, "to")):
        with pytest.raises(InvalidInput) as refused:
            mail_headers.check_recipients(fields)
        assert refused.value.fields["fields"][0]["key"] == key
    with pytest.raises(InvalidInput):
        mail_headers.check_size(256 * 1024 + 1, "headers")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"a@b.c", ["a@b.c"]), (b"A <a@b.c>, B<d@e.f>", ["a@b.c", "d@e.f"]), (b'"x, y <z@z.z>" <a@b.c>', ["a@b.c"]),
        (b"Team: a@b.c, D <d@e.f>;, g@h.i", ["a@b.c", "d@e.f", "g@h.i"]), (b"a@b.c (it, is (me))", ["a@b.c"]),
        (b"<@r.x,@s.x:a@b.c>", ["a@b.c"]), (b"nobody, <>, @, a@, undisclosed:;", []), (b'"a b"@c.d', ['"a b"@c.d']),
        (b"a\r\n @b.c", ["a@b.c"]), (b'"never closed <a@b.c>', []), (b"(" * 50_000, []), (b"<" * 50_000, []),
    ],
)  # fmt: skip
def test_addresses_are_found_in_any_list(value: bytes, expected: list[str]) -> None:
    """Names, groups, comments and routes around them are passed over."""
    assert addresses_in(value) == expected


@pytest.mark.parametrize(
    ("given_type", "expected"),
    [
        ("text/calendar; method=REQUEST; charset=utf-8", ("text/calendar", {"method": "REQUEST", "charset": "utf-8"})),
        ('Text/X; a="b; \\"c"', ("text/x", {"a": 'b; "c'})), ("text/x; a=b\r\nX: y", ("text/x", {"a": "b"})),
        ("text/x; =", ("text/x", {})), ("text/x;" + "a=b;" * 50_000, ("text/x", {"a": "b"})),
    ],
)  # fmt: skip
def test_parameters_of_a_content_type_are_kept(given_type: str, expected: tuple[str, dict[str, str]]) -> None:
    """Those that are sound; what follows a broken one is dropped."""
    from shared.mime_parts import typed

    kind, parameters = typed({"contentType": given_type})
    assert (kind, dict(parameters)) == expected


def test_a_thousand_names_are_written_in_one_pass() -> None:
    """Twice as many fields make twice as many bytes, and no line grows."""
    people = [{"name": f"Ärger, Öl & Co {n}", "address": f"c{n}@customer.example"} for n in range(1000)]
    field = mail_headers.address_field("To", people)
    assert is_sound(field)
    assert len(re.findall(rb"<c\d+@customer.example>", field)) == 1000
    assert len(addresses_in(field.partition(b":")[2])) == 1000
    assert mime.one_line("a\r\nb") == "a b"


def test_the_headers_of_a_list_are_those_mail_programs_know() -> None:
    """List-ID of list and host, and the one click."""
    assert list_headers("news", "https://mail.contoso.example:8443/x", "https://l") == {
        "List-ID": "<news.mail.contoso.example>",
        "List-Unsubscribe": "<https://l>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }
