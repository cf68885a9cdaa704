"""What Azure gives a function app with a user-assigned identity, for a storage emulator: the endpoint that hands out
tokens (graph.md 13.2), and a certificate, since storage takes tokens over https alone.

Azurite with `--oauth basic` reads issuer, audience and times of a token and not its signature.
"""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import jwt
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from local.services import LOOPBACK, Azurite

STORAGE = "https://storage.azure.com"
TENANT_ID = "84bd8158-6d4d-4958-8b9f-9d6445542f95"


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for the loopback address, which is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "storage of a test")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=2))
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(LOOPBACK))])
    builder = builder.add_extension(names, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    made = builder.sign(key, hashes.SHA256())
    public, private = folder / "storage.crt", folder / "storage.key"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    return public, private


class LockedAzurite(Azurite):
    """Storage that takes https and, beside keys, tokens."""

    name = "locked-azurite"

    def __init__(self, crt: Path, key: Path, logs: Path) -> None:
        super().__init__(logs=logs)
        self._options = ["--oauth", "basic", "--cert", str(crt), "--key", str(key)]

    def command(self) -> list[str]:
        """As ever, and with these."""
        return super().command() + self._options

    def is_ready(self) -> bool:
        """Whether its ports are open: only TLS is spoken there."""
        import socket

        for port in (self.port, self.queue_port, self.table_port):
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex((LOOPBACK, port)):
                    return False
        return True

    def endpoints(self) -> dict[str, str]:
        """The URL of each service."""
        ports = {"blob": self.port, "queue": self.queue_port, "table": self.table_port}
        return {name: f"https://{LOOPBACK}:{port}/devstoreaccount1" for name, port in ports.items()}


class Identity:
    """The token endpoint of one user-assigned identity; `asked` counts tokens by resource."""

    header = "of-this-test"

    def __init__(self, client_id: str) -> None:
        self._client_id = client_id
        self.asked: Counter[str] = Counter()
        app = web.Application()
        app.router.add_get("/msi/token", self._token)
        self._server = TestServer(app, host=LOOPBACK)

    async def start(self) -> Identity:
        """Listens."""
        await self._server.start_server()
        return self

    async def stop(self) -> None:
        """Ends it."""
        await self._server.close()

    def environment(self) -> dict[str, str]:
        """What App Service puts beside the settings."""
        return {"IDENTITY_ENDPOINT": str(self._server.make_url("/msi/token")), "IDENTITY_HEADER": self.header}

    async def _token(self, request: web.Request) -> web.Response:
        known = request.headers.get("X-IDENTITY-HEADER") == self.header
        if not known or request.query.get("client_id") != self._client_id:
            return web.json_response({"statusCode": 400, "message": "no such identity"}, status=400)
        resource = request.query["resource"].rstrip("/")
        self.asked[resource] += 1
        now = int(time.time())
        claims = {"aud": resource, "iss": f"https://sts.windows.net/{TENANT_ID}/", "iat": now, "nbf": now - 60}
        token = jwt.encode({**claims, "exp": now + 3600, "oid": "x"}, "not checked, thirty-two bytes long", "HS256")
        answer = {"access_token": token, "expires_on": str(now + 3600), "resource": resource, "token_type": "Bearer"}
        return web.json_response(answer)
