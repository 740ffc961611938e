"""Who gets in: nobody with a certificate of their own, and nobody through Scrapy's consoles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.helpers.tls import https_site, self_signed
from tests.standin.site import running_site

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.databases import Database


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
