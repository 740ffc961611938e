"""Spider arguments and settings: read and checked before anything is asked for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from scrapy.exceptions import UsageError
from scrapy.settings import Settings

from spa5.catalogue.arguments import check_number, check_settings, keys, positive
from spa5.catalogue.item import DIGITS
from tests.standin.site import running_site

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.databases import Database


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ids.txt"


@pytest.mark.parametrize("value", ["1", "007", 12, "999999999"])
def test_whole_numbers_from_1_on_are_taken(value: Any) -> None:
    assert positive("pages", value) == int(value)


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "", "x", "٣", "1" * 10, None, True])
def test_other_numbers_are_refused(value: Any) -> None:
    with pytest.raises(UsageError, match=r"pages=.*: use a whole number from 1 on"):
        positive("pages", value)


@pytest.mark.parametrize("value", ["0", "0.5", 7, "1e3"])
def test_numbers_from_0_on_are_taken(value: Any) -> None:
    check_number("REFRESH_AFTER_DAYS", value)


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "1e9", "", "x", None, []])
def test_what_is_no_number_from_0_on_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match=r"REFRESH_AFTER_DAYS=.*: use a number from 0 on"):
        check_number("REFRESH_AFTER_DAYS", value)


@pytest.mark.parametrize("value", ["3,1, 2 ,1", ["3", 1, "2"], ("3", "1", "2", "3")])
def test_ids_are_taken_once_and_in_order(value: Any) -> None:
    assert keys(value, DIGITS) == ["3", "1", "2"]


@pytest.mark.parametrize("value", ["", "1,", "$ne", "1;2", "1" * 21, "-1"])
def test_what_is_no_id_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="use digits, separated by commas"):
        keys(value, DIGITS)


@pytest.mark.parametrize(
    "content",
    ["3\n1\n2\n", "3,1,2", "\n 3 \r\n\r\n1 , 2,\n,\n\n1\n3", "\ufeff3\n1\n2", "3\t\n\t1\n2"],
)
def test_a_file_holds_ids_one_a_line_or_separated_by_commas(file: Path, content: str) -> None:
    file.write_bytes(content.encode())
    assert keys(f"@{file}", DIGITS) == ["3", "1", "2"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no id"),
        (b" \n,\n", "holds no id"),
        (b"1\n\nid\n", "line 3: use ids of digits"),
        (b"user:hunter2", "line 1: use ids of digits"),
        (b"1 2", "line 1: use ids of digits"),
        ("1\n2\n".encode("utf-16"), "is no text in UTF-8"),
        (b"1\0\n", "line 1"),
    ],
)
def test_an_odd_file_is_one_line_that_does_not_quote_it(
    file: Path, content: bytes, said: str
) -> None:
    file.write_bytes(content)
    assert said in refusal(f"@{file}")


def test_what_can_not_be_read_is_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "No such file" in refusal(f"@{tmp_path / 'missing'}")
    for odd in (tmp_path, tmp_path / "pipe", "/dev/zero"):
        assert "is no file" in refusal(f"@{odd}")
    for odd in ("@", "@\0", "@" + "x" * 5000, "@a\nb\x1b"):
        refusal(odd)


def refusal(ids: str) -> str:
    with pytest.raises(UsageError) as refused:
        keys(ids, DIGITS)
    text = str(refused.value)
    assert text.startswith("ids=")
    assert text.isprintable()
    assert len(text) < 400
    assert "hunter2" not in text
    return text


def project_settings(**changes: Any) -> Settings:
    settings = Settings()
    settings.setmodule("spa5.settings")
    settings.setdict(changes)
    return settings


def test_the_projects_settings_are_taken() -> None:
    check_settings(project_settings())


@pytest.mark.parametrize("settings", [Settings(), Settings({"SITE_URL": "http://127.0.0.1"})])
def test_without_the_projects_settings_one_line_says_where_they_are(settings: Settings) -> None:
    with pytest.raises(UsageError, match=r"get_project_settings\(\)"):
        check_settings(settings)


def test_ids_of_a_file_are_crawled(database: Database, file: Path) -> None:
    with running_site(30) as site:
        ids = site.catalogue.ids[3:25:2]
        file.write_text("\n".join(ids))
        crawl = database.crawl(site.url, "-a", f"ids=@{file}")
        assert (crawl.exitcode, crawl.reason) == (0, "finished")
        assert set(database.stored()) == set(ids)
        assert site.stats()["index"] == 0


def test_a_file_that_is_missing_is_one_line_and_nothing_is_asked(database: Database) -> None:
    with running_site(3) as site:
        crawl = database.crawl(site.url, "-a", "ids=@missing.txt")
        assert site.stats()["index"] == site.stats()["detail"] == 0
    said = "scrapy crawl: ids='@missing.txt' can't be read: No such file or directory"
    assert crawl.log.splitlines()[-1] == said
    assert "Traceback" not in crawl.log
    assert crawl.exitcode == 2


def test_a_jobdir_is_refused_with_what_to_do_instead(database: Database, tmp_path: Path) -> None:
    with running_site(3) as site:
        crawl = database.crawl(site.url, "-s", f"JOBDIR={tmp_path / 'jd'}")
        assert site.stats()["index"] == 0
    assert crawl.exitcode == 2
    assert "scrapy crawl: leave JOBDIR out" in crawl.log.splitlines()[-1]
    assert "run again, does what is left" in crawl.log.splitlines()[-1]
    assert not (tmp_path / "jd").exists()
