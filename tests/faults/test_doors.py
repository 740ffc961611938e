"""Who gets in: nobody with a certificate of their own, and nobody through Scrapy's consoles."""

from __future__ import annotations

import ssl
import threading
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.standin.site import running_site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Database


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

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = b'{"count": 0, "results": []}'
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # the handshake that the crawl refuses

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Server(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def test_a_certificate_that_nobody_signed_is_refused(database: Database, tmp_path: Path) -> None:
    with https_site(self_signed(tmp_path)) as (url, asked):
        crawl = database.crawl(url, MAX_SWEEPS="1", SITE_RETRY_SECONDS="1")
        assert asked == []
        trusting = database.crawl(url, "-s", "DOWNLOAD_VERIFY_CERTIFICATES=0", MAX_SWEEPS="1")
        assert "/api/book/?limit=100&offset=0" in asked
    assert (crawl.exitcode, crawl.reason) == (1, "site_unavailable")
    assert "certificate" in crawl.lines("WARNING")[0]
    assert "Traceback" not in crawl.log
    assert trusting.exitcode == 0


def test_a_certificate_is_taken_from_a_trusted_signer_and_for_its_host_alone(
    database: Database, tmp_path: Path
) -> None:
    certificate = self_signed(tmp_path)
    trust = {"SSL_CERT_FILE": str(certificate), "MAX_SWEEPS": "1"}
    with https_site(certificate) as (url, asked):
        crawl = database.crawl(url, **trust)
        assert "/api/book/?limit=100&offset=0" in asked
        asked.clear()
        elsewhere = url.replace("127.0.0.1", "localhost")
        other = database.crawl(elsewhere, SITE_RETRY_SECONDS="1", **trust)
        assert asked == []
    assert crawl.exitcode == 0
    assert (other.exitcode, other.reason) == (1, "site_unavailable")
    assert "certificate" in other.lines("WARNING")[0]


def test_no_console_listens(database: Database) -> None:
    with running_site(1) as site:
        crawl = database.crawl(site.url)
    assert "listening" not in crawl.log
    assert "Telnet" not in crawl.log
