"""What the API takes in paths, flags, dates, addresses and waits, over arbitrary input: read or refused by name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Annotated, Any
from urllib.parse import quote

import pytest
from fastapi import Request
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from shared.api.app import _answer
from shared.api.deadline import patience_s, within
from shared.api.fields import Boolean, Email, Moment, Number, Single, Url
from shared.api.route import account_id, refuse_query
from shared.api.validation import answer_for
from shared.errors import ApiError, InvalidInput
from shared.storage.keys import possible, storable

TEXTS = st.one_of(st.text(st.characters(), max_size=300), st.text("/\\#?%+= \x00\x7f\ud800\udfffaé", max_size=300))
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)


class Fields(BaseModel):
    """One field of each kind the contract converts."""

    flag: Boolean | None = None
    number: Number | None = None
    moment: Moment | None = None
    address: Email | None = None
    url: Url | None = None
    many: Annotated[list[Email] | None, Single] = None


def request(path: str = "", query: bytes = b"", **headers: str) -> Request:
    """A request whose account is this segment of the path, as it was sent."""
    raw = [(name.replace("_", "-").encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
    return Request(
        {"type": "http", "method": "GET", "path": "/", "query_string": query, "headers": raw,
         "path_params": {"account": path}}
    )  # fmt: skip


def refused_key(work: Callable[[], Any]) -> str | None:
    """The field that a refusal names; None when nothing was refused."""
    try:
        work()
    except InvalidInput as refused:
        return str(refused.fields["fields"][0]["key"])
    return None


@given(TEXTS)
def test_an_id_of_a_path_is_what_was_encoded(text: str) -> None:
    """Encoded once, decoded once, whatever it holds; what is empty or too long is refused by name."""
    assume(not any(0xD800 <= ord(ch) <= 0xDFFF for ch in text))
    asked = request(quote(text, safe=""))
    if not text.strip() or len(text) > 256:
        assert refused_key(lambda: account_id(asked)) == "account"
    else:
        assert account_id(asked) == text.strip()


@given(st.binary(max_size=300))
def test_bytes_that_are_no_text_are_refused_in_a_path(raw: bytes) -> None:
    """Percent-encoded bytes are UTF-8 or a 400, never a failure and never another id."""
    try:
        found = account_id(request(quote(raw, safe="")))
    except InvalidInput:
        return
    assert found == raw.decode().strip()


@given(st.binary(max_size=60))
def test_unknown_queries_are_refused_and_the_refusal_can_be_sent(raw: bytes) -> None:
    """Names that are no text can be named in an answer all the same."""
    asked = request(query=raw)
    if list(asked.query_params.keys()):
        with pytest.raises(InvalidInput) as refused:
            refuse_query(asked)
        assert json.loads(_answer(refused.value).body)["statusCode"] == 400
    else:
        refuse_query(asked)


@given(st.sampled_from(sorted(Fields.model_fields)), ANYTHING)
def test_every_value_of_a_field_is_read_or_refused_by_its_name(name: str, value: Any) -> None:
    """No value is a failure; the refusal names the field and can be sent."""
    try:
        Fields.model_validate({name: value})
    except ValidationError as problem:
        envelope = json.loads(_answer(answer_for(problem.errors())).body)
        assert envelope["message"] == "Invalid input"
        assert all(field["message"] for field in envelope["fields"])


@given(st.sampled_from([True, False, "true", "FALSE", " yes", "No ", "on", "off", "Y", "n", "0", "1", 0, 1]))
def test_flags_mean_what_they_say(value: Any) -> None:
    """Every spelling of a flag, in any case, and nothing between true and false."""
    meant = str(value).strip().lower() in ("true", "yes", "on", "y", "1")
    assert Fields.model_validate({"flag": value}).flag is meant


@given(st.datetimes(min_value=datetime(1970, 1, 1)))  # noqa: DTZ001
def test_moments_are_the_same_in_both_spellings(moment: datetime) -> None:
    """ISO text and epoch milliseconds of one moment are read alike, to the millisecond."""
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000, tzinfo=UTC)
    epoch = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    text = Fields.model_validate({"moment": moment.isoformat()}).moment
    assert Fields.model_validate({"moment": epoch}).moment == text


@given(TEXTS)
def test_impossible_keys_are_known_before_storage_is_asked(text: str) -> None:
    """What callers choose is stored under a key that can be; a raw id may be none, and then names nothing."""
    assert possible(storable(text))
    if any(ch in text for ch in "/\\#?\x00"):
        assert not possible("partition", text)


@given(st.one_of(TEXTS, st.integers().map(str)))
def test_waits_are_milliseconds_or_refused(text: str) -> None:
    """`x-ee-timeout` is a whole number within its limits; anything else is a 400 that names it."""
    asked = request(x_ee_timeout=text)
    if text.isascii() and text.isdigit() and len(text) <= 7 and int(text) <= 7_200_000:
        assert (patience_s(asked) or 0) * 1000 == pytest.approx(int(text))
    else:
        assert refused_key(lambda: patience_s(asked)) == "x-ee-timeout"


async def test_a_late_read_is_broken_off_and_a_late_write_goes_on() -> None:
    """The answer is a 504 in both cases; what was being written is written."""
    ended: list[str] = []
    gate = asyncio.Event()

    async def work(name: str) -> Any:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            ended.append(f"{name} broken off")
            raise
        ended.append(f"{name} done")
        return SimpleNamespace()

    for name, is_read in (("read", True), ("write", False)):
        with pytest.raises(ApiError) as refused:
            await within(0.01, work(name), is_read=is_read)
        assert (refused.value.status, refused.value.code) == (504, "Timeout")
    gate.set()
    for _ in range(1000):
        if len(ended) == 2:
            break
        await asyncio.sleep(0)
    assert sorted(ended) == ["read broken off", "write done"]
