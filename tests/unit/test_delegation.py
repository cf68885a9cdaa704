"""The walk along a delegation chain, without storage."""

from __future__ import annotations

from typing import Any

import pytest

from shared.delegation import LONGEST_CHAIN, Chain, has_credentials, parent_of, resolve
from shared.errors import DelegationError

Json = dict[str, Any]


def borrower(parent: str, **more: Any) -> Json:
    return {"oauth2": {"auth": {"delegatedUser": "box@x.example", "delegatedAccount": parent}}, **more}


HOLDER: Json = {"credentials": "sign-in", "oauth2": {"auth": {"user": "ann@x.example"}}}


class Book:
    """Records by id, and how often they were looked up."""

    def __init__(self, **records: Json) -> None:
        self.records, self.looked_up = records, []  # type: ignore[var-annotated]

    async def find(self, account: str) -> Json | None:
        self.looked_up.append(account)
        return self.records.get(account)

    async def resolve(self, start: str) -> Chain:
        return await resolve(start, self.records[start], self.find)


def line(hops: int) -> Book:
    """a0 borrows from a1 … and a<hops> holds the credentials."""
    records = {f"a{number}": borrower(f"a{number + 1}") for number in range(hops)}
    return Book(**records, **{f"a{hops}": HOLDER})


@pytest.mark.parametrize(
    ("auth", "parent"),
    [
        ({}, None),
        ({"user": "u"}, None),
        ({"delegatedUser": "d"}, None),
        ({"delegatedAccount": "p"}, None),
        ({"delegatedUser": "", "delegatedAccount": "p"}, None),
        ({"delegatedUser": "d", "delegatedAccount": "p"}, "p"),
        ({"user": "u", "delegatedUser": "d", "delegatedAccount": "p"}, "p"),
    ],
)
def test_only_both_fields_together_name_a_parent(auth: Json, parent: str | None) -> None:
    """An account borrows when it has `delegatedUser` and `delegatedAccount`, not with one of them."""
    assert parent_of({"oauth2": {"auth": auth}}) == parent


@pytest.mark.parametrize("record", [{}, {"oauth2": None}, {"oauth2": {}}, {"oauth2": {"auth": None}}])
def test_a_record_without_oauth2_stands_for_itself(record: Json) -> None:
    """Records of every incomplete form have no parent and no credentials."""
    assert parent_of(record) is None
    assert not has_credentials(record)


async def test_an_account_alone_is_its_own_holder_even_without_credentials() -> None:
    """A chain of no hops needs no look-up, and its missing credentials are not the chain's business."""
    book = Book(alone={})
    assert (await book.resolve("alone")).accounts == ("alone",)
    assert book.looked_up == []


async def test_own_tokens_do_not_end_the_walk() -> None:
    """While both fields are set the chain is used, though the account stores tokens of its own."""
    book = Book(a=borrower("b", credentials="sign-in"), b=HOLDER)
    assert (await book.resolve("a")).holder == "b"


@pytest.mark.parametrize("hops", [1, 2, 19, LONGEST_CHAIN])
async def test_up_to_twenty_hops_are_followed(hops: int) -> None:
    """The holder is found, by exactly one look-up for each hop."""
    book = line(hops)
    chain = await book.resolve("a0")
    assert chain.accounts == tuple(f"a{number}" for number in range(hops + 1))
    assert (chain.holder, chain.holder_record) == (f"a{hops}", HOLDER)
    assert book.looked_up == list(chain.accounts[1:])


@pytest.mark.parametrize("hops", [21, 22, 500])
async def test_twenty_one_hops_are_too_many(hops: int) -> None:
    """The walk stops after the twentieth look-up."""
    book = line(hops)
    with pytest.raises(DelegationError, match=r"^Too many delegation hops$"):
        await book.resolve("a0")
    assert len(book.looked_up) == 20


@pytest.mark.parametrize(
    "links", [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "b", "b": "b"}, {"a": "b", "b": "c", "c": "b"}]
)
async def test_a_loop_is_named_as_such(links: dict[str, str]) -> None:
    """An id met twice is a loop, with the start in it or not."""
    book = Book(**{child: borrower(parent) for child, parent in links.items()})
    with pytest.raises(DelegationError, match=r"^Delegation looping detected$"):
        await book.resolve("a")


async def test_a_loop_of_twenty_one_accounts_is_a_loop() -> None:
    """The longest loop that twenty hops can notice is reported as one."""
    links = {f"a{number}": borrower(f"a{(number + 1) % 21}") for number in range(21)}
    with pytest.raises(DelegationError, match=r"^Delegation looping detected$"):
        await Book(**links).resolve("a0")


async def test_a_missing_account_is_named() -> None:
    """The text has the id that is missing, not the one that was asked for."""
    book = Book(a=borrower("b"), b=borrower('we"ird/🦊'))
    with pytest.raises(DelegationError) as refused:
        await book.resolve("a")
    assert str(refused.value) == 'Missing account data for delegated account "we"ird/🦊"'


async def test_an_end_without_credentials_is_named() -> None:
    """A chain that ends at an account without credentials says which."""
    book = Book(a=borrower("b"), b={"oauth2": {"auth": {"user": "u"}}, "credentials": None})
    with pytest.raises(DelegationError) as refused:
        await book.resolve("a")
    assert str(refused.value) == 'Invalid account data for delegated account "b"'
