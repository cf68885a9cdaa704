"""The vault over arbitrary secrets, places and damage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.vault import SealBroken, Vault, decode, encode

VAULT = Vault([("k1", b"1" * 32)])
places = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)


@given(st.binary(max_size=2000), places)
def test_sealing_and_opening_give_the_secret_back(secret: bytes, place: str) -> None:
    """Any bytes come back from any place."""
    assert VAULT.open(VAULT.seal(secret, place), place) == secret


@given(st.binary(max_size=100), places, places)
def test_only_the_own_place_opens(secret: bytes, place: str, other: str) -> None:
    """No other place opens a sealed value."""
    sealed = VAULT.seal(secret, place)
    if place != other:
        with pytest.raises(SealBroken):
            VAULT.open(sealed, other)


@given(st.binary(max_size=100), st.data())
def test_no_damage_goes_unnoticed(secret: bytes, data: st.DataObject) -> None:
    """One changed bit anywhere in nonce or box, or a cut at any point, is refused."""
    version, name, text = VAULT.seal(secret, "place").split(".")
    raw = bytearray(decode(text))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= 1 << data.draw(st.integers(0, 7))
    for damaged in (bytes(raw), decode(text)[:at]):
        with pytest.raises(SealBroken):
            VAULT.open(f"{version}.{name}.{encode(damaged)}", "place")


@given(st.text(max_size=200))
def test_any_text_is_opened_or_refused(text: str) -> None:
    """Whatever stands in a record, opening it raises nothing but SealBroken."""
    for sealed in (text, f"v1.k1.{text}"):
        with pytest.raises(SealBroken):
            VAULT.open(sealed, "place")


@given(st.binary(max_size=300))
def test_encoding_is_one_to_one(raw: bytes) -> None:
    """base64url without padding gives the bytes back and holds only its alphabet."""
    text = encode(raw)
    assert decode(text) == raw
    assert "=" not in text
    assert text.replace("-", "").replace("_", "").isalnum() or not raw
