"""Secrets at rest: what is sealed opens at its place with its key ring, and nowhere else."""

from __future__ import annotations

import pytest

from shared.vault import SealBroken, Vault, decode, derive, encode

OLD, NEW, OTHER = ("k1", b"1" * 32), ("k2", b"2" * 32), ("k1", b"3" * 32)
PLACE, SECRET = "credentials/ann/cache", b"refresh token"


def test_a_sealed_secret_opens_at_its_place() -> None:
    """What was sealed comes back, and the sealed text does not show it."""
    vault = Vault([OLD])
    sealed = vault.seal(SECRET, PLACE)
    assert sealed.startswith("v1.k1.")
    assert SECRET not in decode(sealed.split(".")[2])
    assert vault.open(sealed, PLACE) == SECRET


def test_two_seals_of_one_secret_differ() -> None:
    """Every seal has a nonce of its own."""
    vault = Vault([OLD])
    assert vault.seal(SECRET, PLACE) != vault.seal(SECRET, PLACE)


@pytest.mark.parametrize("place", ["credentials/bob/cache", "credentials/ann/cache ", "", "CREDENTIALS/ann/cache"])
def test_a_seal_does_not_open_elsewhere(place: str) -> None:
    """A sealed value copied into another record or field is refused."""
    vault = Vault([OLD])
    with pytest.raises(SealBroken, match="damaged or belongs to another record"):
        vault.open(vault.seal(SECRET, PLACE), place)


def test_a_new_key_seals_and_the_old_one_still_opens() -> None:
    """After a key was put in front, old values open and are known as stale; new ones are under the new key."""
    sealed = Vault([OLD]).seal(SECRET, PLACE)
    vault = Vault([NEW, OLD])
    assert vault.open(sealed, PLACE) == SECRET
    assert vault.is_stale(sealed)
    renewed = vault.seal(SECRET, PLACE)
    assert renewed.startswith("v1.k2.")
    assert not vault.is_stale(renewed)


def test_a_key_taken_out_of_the_ring_is_named() -> None:
    """A value whose key is gone says which key it needs."""
    sealed = Vault([OLD]).seal(SECRET, PLACE)
    with pytest.raises(SealBroken, match="no key named 'k1' in the key ring"):
        Vault([NEW]).open(sealed, PLACE)


def test_another_key_of_the_same_name_does_not_open() -> None:
    """The name alone opens nothing."""
    sealed = Vault([OLD]).seal(SECRET, PLACE)
    with pytest.raises(SealBroken, match="damaged"):
        Vault([OTHER]).open(sealed, PLACE)


@pytest.mark.parametrize("sealed", ["", "v1", "v1.k1", "v1.k1.", "v1.k1.AAAA", "v1.k1.!!", "v1.k1.é", "v2.k1.AAAA"])
def test_what_is_no_sealed_value_is_refused(sealed: str) -> None:
    """Empty, cut and foreign texts raise SealBroken, never anything else."""
    with pytest.raises(SealBroken):
        Vault([OLD]).open(sealed, PLACE)


def test_keys_of_different_purposes_differ() -> None:
    """A derived key tells nothing about another purpose's, and is not the key itself."""
    assert len({derive(OLD[1], label) for label in ("seal", "sign", "")} | {OLD[1]}) == 4


def test_decode_takes_padded_and_unpadded_text() -> None:
    """base64url with and without padding is the same; other characters are a ValueError."""
    assert decode(encode(b"\xfb\xff")) == decode("-_8=") == b"\xfb\xff"
    for wrong in ("a", "a b", "a\n==", "é"):
        with pytest.raises(ValueError, match=r".+"):
            decode(wrong)
