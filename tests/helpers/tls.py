"""A site behind TLS, with a certificate that nobody else signed."""

from __future__ import annotations

import ssl
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.helpers.http import Handler, listening

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def self_signed(folder: Path) -> Path:
    """A PEM file with a key and a certificate for 127.0.0.1 that nobody else signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain
    ) + certificate.public_bytes(serialization.Encoding.PEM)
    file = folder / "site.pem"
    file.write_bytes(pem)
    return file


@contextmanager
def https_site(certificate: Path) -> Iterator[tuple[str, list[str]]]:
    """A site behind TLS that lists no book; yields its URL and the paths it was asked for."""
    asked: list[str] = []

    class Site(Handler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_json('{"count": 0, "results": []}')

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with listening(Site, context) as port:
        yield f"https://127.0.0.1:{port}", asked
