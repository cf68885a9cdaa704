"""Where webhooks go, over real connections: names that change, certificates, several addresses, both signatures."""

import base64
import hashlib
import hmac
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from local.services import LOOPBACK, free_port
from shared.wiring import OutgoingHttp
from tests.support.post import Post
from tests.support.receiver import Received, Receiver
from tests.support.workshop import Workshop

OLD, NEW = "the-secret-of-last-year", "schlüssel-🔑-of-today"


@pytest.fixture
async def post(workshop: Workshop, receiver: Receiver) -> Post:
    """An account whose events go to the test's receiver."""
    post = Post(workshop, receiver)
    await post.open()
    return post


async def reason(post: Post) -> str:
    """Why the one dead letter died."""
    (letter,) = await post.shop.services.undelivered.dead()
    return str(letter["error"]["reason"])


# -- names and addresses ---------------------------------------------------------------------------------------------


def names(post: Post, *answers: list[str]) -> list[tuple[str, int]]:
    """Resolves every name to these addresses, one answer after the other, the last one from then on; what was asked."""
    asked: list[tuple[str, int]] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return answers[min(len(asked), len(answers)) - 1]

    post.shop.services.addresses.resolve = resolve
    return asked


async def test_a_name_that_turns_inside_between_look_and_call_is_not_followed(post: Post) -> None:
    """It is resolved once for an attempt; at the next attempt it leads inside and is refused for good."""
    asked = names(post, [LOOPBACK], ["10.0.0.5"])
    await post.hear(f"http://hooks.example:{post.receiver.port}/in")
    post.receiver.answer_next(500)
    await post.tell("x", about="m")
    await post.run()
    assert asked == [("hooks.example", post.receiver.port)]
    (heard,) = post.receiver.requests
    assert heard.headers["Host"] == f"hooks.example:{post.receiver.port}"
    assert heard.headers.getall("Host") == [heard.headers["Host"]]
    await post.run(20_000)
    assert len(post.receiver.requests) == 1
    assert "the target's name leads inside: 10.0.0.5 is a private address" in await reason(post)


async def test_a_redirect_inside_is_not_followed(post: Post) -> None:
    """Whatever the receiver answers, no second address is called."""
    inside = await Receiver().start()
    try:
        post.receiver.answer_with(307, Location=inside.url)
        await post.tell("x", about="m")
        await post.run(20_000)
        assert inside.requests == []
        assert "redirects are not followed" in await reason(post)
    finally:
        await inside.stop()


async def test_the_next_address_is_called_when_one_refuses(post: Post) -> None:
    """A name with several addresses is up while one of them is."""
    names(post, ["127.0.0.2", LOOPBACK])
    await post.hear(f"http://hooks.example:{post.receiver.port}/in")
    await post.tell("x", about="m")
    await post.run()
    assert post.heard() == ["x"]


async def test_a_name_nobody_knows_is_tried_again(post: Post) -> None:
    """Names appear; the event arrives once this one does."""

    async def unknown(_host: str, _port: int) -> list[str]:
        raise OSError(-2, "Name or service not known")

    await post.hear(f"http://hooks.example:{post.receiver.port}/in")
    post.shop.services.addresses.resolve = unknown
    await post.tell("x", about="m")
    await post.run(6)
    (health,) = await post.shop.services.endpoints.all()
    assert health.value["lastError"]["reason"] == "The name of the target could not be resolved"
    names(post, [LOOPBACK])
    await post.run(60)
    assert post.heard() == ["x"]


@pytest.mark.parametrize(
    "url", ["http://:80/", "http://a b/", "http://xn--/", "http://" + "a" * 70 + ".example:99999/"]
)
async def test_a_target_that_is_no_url_ends_as_a_dead_letter(post: Post, url: str) -> None:
    """However it came into the settings; the queue message does not fail on it."""
    await post.hear(url)
    await post.tell("x", about="m")
    await post.run(20_000)
    assert await reason(post)


async def test_loopback_is_refused_unless_the_setting_allows_it(quiet_azurite: Any, receiver: Receiver) -> None:
    """`WEBHOOK_PRIVATE_TARGETS=none` refuses what development allows."""
    shop = await Workshop(quiet_azurite.connection_string, WEBHOOK_PRIVATE_TARGETS="none").start()
    try:
        post = Post(shop, receiver)
        await post.open()
        await post.tell("x", about="m")
        await post.run(600)
        assert receiver.requests == []
        assert "is a loopback address; WEBHOOK_PRIVATE_TARGETS can allow it" in await reason(post)
    finally:
        await shop.stop()


# -- certificates ----------------------------------------------------------------------------------------------------


def certificate(*dns: str, folder: Path, ip: str | None = None) -> ssl.SSLContext:
    """A server's context with a certificate for these names, of an authority whose certificate is `ca.pem` there."""
    ca_key, ca_path = ec.generate_private_key(ec.SECP256R1()), folder / "ca.pem"
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
    now = datetime.now(UTC)

    def sign(subject: x509.Name, key: Any, extension: x509.ExtensionType, name: str) -> x509.Certificate:
        builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        return builder.add_extension(extension, critical=name == "ca").sign(ca_key, hashes.SHA256())

    authority = sign(issuer, ca_key, x509.BasicConstraints(ca=True, path_length=None), "ca")
    ca_path.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    key = ec.generate_private_key(ec.SECP256R1())
    alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in dns]
    alternatives += [x509.IPAddress(ipaddress.ip_address(ip))] if ip else []
    leaf = sign(x509.Name([]), key, x509.SubjectAlternativeName(alternatives), "names")
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path = folder / "server.pem"
    path.write_bytes(key.private_bytes(*pem) + leaf.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


@pytest.fixture
async def secure(post: Post, tmp_path: Path) -> AsyncIterator[Receiver]:
    """A receiver over TLS as `hooks.example`, whose authority the app trusts; every name leads to it. The names that
    callers greeted it with are in its `greeted`."""
    listening = Receiver(tls=certificate("hooks.example", folder=tmp_path, ip=LOOPBACK))
    greeted: list[str | None] = []
    assert listening.tls is not None
    listening.tls.sni_callback = lambda _socket, name, _context: greeted.append(name)
    post.greeted = greeted  # type: ignore[attr-defined]
    await listening.start()
    trusting = ssl.create_default_context(cafile=tmp_path / "ca.pem")
    http = OutgoingHttp(trusting)
    post.shop.services.webhooks._sender._http = http
    names(post, [LOOPBACK])
    post.receiver = listening
    yield listening
    await http.close()
    await listening.stop()


async def test_the_certificate_is_checked_against_the_name_although_the_address_is_called(
    post: Post, secure: Receiver
) -> None:
    """Greeting and certificate are the name's."""
    await post.hear(f"https://hooks.example:{secure.port}/in?x=1")
    await post.tell("x", about="m")
    await post.run()
    (heard,) = secure.requests
    assert heard.headers["Host"] == f"hooks.example:{secure.port}"
    assert heard.path == "/in?x=1"
    assert post.greeted == ["hooks.example"]  # type: ignore[attr-defined]


async def test_another_name_at_the_same_address_does_not_borrow_its_connection(post: Post, secure: Receiver) -> None:
    """A certificate accepted a moment ago for one name says nothing about another one at that address."""
    await post.hear(f"https://hooks.example:{secure.port}/in")
    await post.tell("right", about="a")
    await post.run()
    await post.hear(f"https://other.example:{secure.port}/in")
    await post.tell("wrong", about="b")
    await post.run(600)
    assert post.heard() == ["right"]
    errors = [health.value.get("lastError") for health in await post.shop.services.endpoints.all()]
    assert [error["reason"] for error in errors if error] == ["The certificate was refused"]


async def test_an_address_in_the_url_is_checked_against_the_certificate(post: Post, secure: Receiver) -> None:
    """A target without a name needs a certificate for its address."""
    await post.hear(f"https://{LOOPBACK}:{secure.port}/in")
    await post.tell("x", about="m")
    await post.run()
    assert post.heard() == ["x"]


async def test_an_authority_nobody_trusts_is_refused(post: Post, secure: Receiver) -> None:
    """With the certificates the app trusts by itself nothing is sent."""
    http = OutgoingHttp()
    post.shop.services.webhooks._sender._http = http
    await post.hear(f"https://hooks.example:{secure.port}/in")
    await post.tell("x", about="m")
    await post.run(30)
    assert secure.requests == []
    await http.close()


async def test_proxies_of_the_environment_are_not_used(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would call an address nobody judged."""
    http = OutgoingHttp()
    with monkeypatch.context() as environment:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            environment.setenv(name, f"http://{LOOPBACK}:{free_port()}")
        http()  # the storage clients read the environment at every call, this one when it is made
    post.shop.services.webhooks._sender._http = http
    await post.tell("x", about="m")
    await post.run()
    assert post.heard() == ["x"]
    await http.close()


# -- signatures ------------------------------------------------------------------------------------------------------


def key_of(secret: str) -> str:
    """The key as a receiver is given it."""
    return "whsec_" + base64.b64encode(secret.encode()).decode()


def verified(heard: Received, key: str, now: datetime) -> Any:
    """What a receiver does after the text of the Standard Webhooks specification, and nothing of the app's code: the
    payload when the signature is right and the time is near; ValueError otherwise."""
    secret = base64.b64decode(key.removeprefix("whsec_"))
    message, stamp = heard.headers["webhook-id"], heard.headers["webhook-timestamp"]
    if abs(now.timestamp() - int(stamp)) > 300:
        raise ValueError("too old or too new")
    content = b".".join((message.encode(), stamp.encode(), heard.body))
    expected = base64.b64encode(hmac.new(secret, content, hashlib.sha256).digest()).decode()
    for versioned in heard.headers["webhook-signature"].split(" "):
        version, _, given = versioned.partition(",")
        if version == "v1" and hmac.compare_digest(given, expected):
            return json.loads(heard.body)
    raise ValueError("no matching signature")


def contract_signature(heard: Received, secret: str) -> bool:
    """Whether the contract's header is signed with this secret."""
    mac = hmac.new(secret.encode(), heard.body, hashlib.sha256).digest()
    return heard.headers["X-EE-Wh-Signature"] == base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


async def test_a_receiver_of_standard_webhooks_verifies_every_attempt(post: Post) -> None:
    """One id for all attempts, a fresh time and signature for each; another key or a changed byte does not pass."""
    await post.hear(serviceSecret=NEW)
    post.receiver.answer_next(500)
    await post.tell("größe 你好", about="m")
    await post.run(3)
    first_seen = post.shop.clock()
    await post.run(4000)
    first, second = post.receiver.requests
    assert verified(first, key_of(NEW), first_seen)["data"]["id"] == "größe 你好"
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == first.headers["X-EE-Wh-Event-Id"]
    assert int(second.headers["webhook-timestamp"]) >= int(first.headers["webhook-timestamp"]) + 4
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]
    for key, heard, now in (
        (key_of(OLD), first, first_seen),
        (key_of(NEW), Received("POST", "/", first.headers, first.body + b" "), first_seen),
        (key_of(NEW), first, first_seen + timedelta(minutes=6)),
    ):
        with pytest.raises(ValueError, match=r"too old|no matching"):
            verified(heard, key, now)


async def test_a_changed_secret_signs_beside_the_old_one_for_a_day(post: Post) -> None:
    """A receiver may change its key within a day without losing a webhook; the contract's header has the new one."""
    await post.hear(serviceSecret=OLD)
    await post.hear(serviceSecret=NEW)
    await post.tell("both", about="a")
    await post.run()
    (heard,) = post.receiver.requests
    assert verified(heard, key_of(OLD), post.shop.clock()) == verified(heard, key_of(NEW), post.shop.clock())
    assert len(heard.headers["webhook-signature"].split(" ")) == 2
    assert contract_signature(heard, NEW)
    await post.hear(serviceSecret=NEW)  # written again, it is no change
    post.shop.advance(24 * 3600)
    await post.tell("new alone", about="b")
    await post.run()
    heard = post.receiver.requests[-1]
    assert verified(heard, key_of(NEW), post.shop.clock())
    with pytest.raises(ValueError, match="no matching"):
        verified(heard, key_of(OLD), post.shop.clock())


@pytest.mark.parametrize("together", [True, False], ids=["in one call", "later"])
async def test_an_old_secret_that_leaked_is_dropped_at_once(post: Post, together: bool) -> None:
    """`serviceSecretOld: null` ends it, with the change itself or afterwards."""
    await post.hear(serviceSecret=OLD)
    await post.hear(serviceSecret=NEW, **({"serviceSecretOld": None} if together else {}))
    if not together:
        await post.hear(serviceSecretOld=None)
    await post.tell("x", about="m")
    await post.run()
    (heard,) = post.receiver.requests
    assert verified(heard, key_of(NEW), post.shop.clock())
    assert " " not in heard.headers["webhook-signature"]
