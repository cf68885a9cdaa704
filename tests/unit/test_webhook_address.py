"""Which addresses webhooks may go to, and what a caller is told."""

import asyncio
from typing import Any

import pytest

from shared.errors import InvalidInput
from shared.settings import LOOPBACK
from shared.webhook_address import Addresses, TargetRefused


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("10.0.0.5", "private"), ("172.16.0.1", "private"), ("172.31.255.255", "private"), ("192.168.1.1", "private"),
        ("127.0.0.1", "loopback"), ("127.8.8.8", "loopback"), ("0.0.0.0", "unspecified"), ("0.1.2.3", "unspecified"),
        ("100.64.0.1", "carrier-grade NAT"), ("192.0.0.8", "reserved"), ("198.19.0.1", "benchmarking"),
        ("203.0.113.7", "documentation"), ("224.0.0.251", "multicast"), ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"), ("::", "unspecified"), ("::1", "loopback"), ("fd12::1", "unique-local"),
        ("fc00::1", "unique-local"), ("ff02::1", "multicast"), ("2001:db8::1", "documentation"),
        ("2001:0:1::1", "reserved"), ("fec0::1", "reserved"), ("64:ff9b:1::a", "reserved"),
        ("::ffff:10.0.0.5", "private"), ("::ffff:127.0.0.1", "loopback"), ("64:ff9b::10.0.0.5", "private"),
        ("64:ff9b::7f00:1", "loopback"), ("2002:0a00:0005::1", "private"), ("2002:7f00:1::", "loopback"),
        ("::10.0.0.5", "private"), ("::ffff:0:10.0.0.5", "reserved"),
    ],
)  # fmt: skip
def test_an_address_inside_is_refused_however_it_is_dressed(address: str, kind: str) -> None:
    """Its own form and the IPv6 forms that carry it; `all` allows it."""
    refusal = Addresses().refusal(address)
    assert refusal is not None
    assert f" {kind} address; WEBHOOK_PRIVATE_TARGETS can allow it" in refusal
    assert Addresses(("0.0.0.0/0", "::/0")).refusal(address) is None


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe",
     "2002:a9fe:a9fe::1", "::a9fe:a9fe", "168.63.129.16", "::ffff:168.63.129.16"],
)  # fmt: skip
def test_the_platforms_own_addresses_are_refused_whatever_is_allowed(address: str) -> None:
    """Metadata services hand out identities to whoever asks."""
    for allowed in ((), ("0.0.0.0/0", "::/0"), ("169.254.0.0/16", "fe80::/10")):
        assert "which is never called" in str(Addresses(allowed).refusal(address))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_a_public_address_is_called(address: str) -> None:
    """Also through the transition forms."""
    assert Addresses().refusal(address) is None


def test_only_the_networks_named_are_allowed() -> None:
    """Loopback allowed says nothing of the rest."""
    addresses = Addresses(LOOPBACK)
    assert addresses.refusal("127.0.0.1") is None
    assert addresses.refusal("::1") is None
    assert addresses.refusal("::ffff:127.0.0.1") is None
    assert addresses.refusal("10.0.0.1") is not None


async def test_one_address_inside_refuses_the_whole_name() -> None:
    """A name that leads outside and inside is refused, whichever comes first."""

    async def both(_host: str, _port: int) -> list[str]:
        return ["8.8.8.8", "10.0.0.5"]

    with pytest.raises(TargetRefused, match=r"leads inside: 10\.0\.0\.5 is a private address"):
        await Addresses((), both).of("hooks.example", 443)


@pytest.mark.parametrize(
    "url", ["https://10.0.0.5/x", "http://[::1]:8080/", "http://u:p@169.254.169.254/", "http://2130706433/"]
)
async def test_a_target_inside_is_refused_when_it_is_set(url: str) -> None:
    """400 that names the field."""
    with pytest.raises(InvalidInput) as refused:
        await Addresses().check("webhooks", url)
    (problem,) = refused.value.fields["fields"]
    assert problem["key"] == "webhooks"
    assert problem["message"].startswith('"webhooks" can not be called: ')


@pytest.mark.parametrize("failure", [OSError("no such name"), UnicodeError("label"), None])
async def test_a_name_nobody_knows_yet_is_accepted(failure: Exception | None, monkeypatch: Any) -> None:
    """It is judged again at every delivery; a resolver that hangs does not hang the caller."""
    monkeypatch.setattr("shared.webhook_address.LOOK_S", 0.05)

    async def lost(_host: str, _port: int) -> list[str]:
        if failure is None:
            await asyncio.sleep(60)
            return []
        raise failure

    await Addresses((), lost).check("webhooks", "https://later.example/")


async def test_a_name_that_leads_inside_is_refused_when_it_is_set() -> None:
    """The caller is told where it leads."""
    asked: list[tuple[str, int]] = []

    async def inside(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["10.0.0.5"]

    with pytest.raises(InvalidInput) as refused:
        await Addresses((), inside).check("webhooks", "http://user:pass@hooks.example:8080/x")
    assert asked == [("hooks.example", 8080)]
    (problem,) = refused.value.fields["fields"]
    assert "leads inside: 10.0.0.5 is a private address" in problem["message"]
