"""The stand-in as the site of the books: its API, its counters, its controls and its faults."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from base64 import b64encode
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection, HTTPMessage, IncompleteRead, RemoteDisconnected
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.helpers.crawls import ROOT
from tests.standin.books import AUTHORS, Books
from tests.standin.faults import FAULTS
from tests.standin.site import RunningSite, running_site

if TYPE_CHECKING:
    from collections.abc import Iterator

BOOKS = 120
MOST_LOOKS = 10_000  # at the counters, for what will show there soon
SUMMARY = {"id", "name", "authors", "cover", "score"}
OVERRIDDEN = ("/robots.txt", "/api/book/", "/api/book/?offset=18")
PLAIN: dict[str, Any] = {"latency": 0, "cap": None, "count_true": True, "faults": None}
PLAIN["hold"] = None
PLAIN["override"] = dict.fromkeys(OVERRIDDEN)


class Answer(NamedTuple):
    status: int
    headers: HTTPMessage
    body: bytes

    @property
    def type(self) -> str:
        return self.headers.get_content_type()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def get(site: RunningSite, path: str, user_agent: str = "test", timeout: float = 60) -> Answer:
    """Ask once; redirects are not followed."""
    with closing(HTTPConnection(urlsplit(site.url).netloc, timeout=timeout)) as connection:
        connection.request("GET", path, headers={"User-Agent": user_agent})
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())


def page(site: RunningSite, limit: int = 1000, offset: int = 0) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = get(site, f"/api/book/?{limit=}&{offset=}").json["results"]
    return results


def listed(site: RunningSite) -> list[str]:
    return [book["id"] for book in page(site)]


def detail(site: RunningSite, book_id: str) -> Any:
    return get(site, f"/api/book/{book_id}/").json


@pytest.fixture(scope="module")
def shared_site() -> Iterator[RunningSite]:
    with running_site(BOOKS) as site:
        yield site


@pytest.fixture
def site(shared_site: RunningSite) -> RunningSite:
    """A site with its first settings and counters at zero; its books must stay as they are."""
    shared_site.control(**PLAIN)
    shared_site.reset()
    return shared_site


@pytest.fixture
def own_site() -> Iterator[RunningSite]:
    """A site whose books may be changed."""
    with running_site(30) as site:
        yield site


# The API


def test_an_index_page_holds_count_and_summaries(site: RunningSite) -> None:
    answer = get(site, "/api/book/?limit=5&offset=7")
    ids = site.catalogue.ids[7:12]
    assert answer.json == {"count": BOOKS, "results": [site.catalogue.summary(i) for i in ids]}
    assert all(set(book) == SUMMARY for book in answer.json["results"])
    assert answer.headers["Content-Type"] == "application/json"


def test_books_are_ordered_by_id_as_text_descending(site: RunningSite) -> None:
    ids = listed(site)
    assert ids == sorted(ids, reverse=True)
    assert ids != sorted(ids, key=int, reverse=True)


def test_paging_covers_each_book_exactly_once(site: RunningSite) -> None:
    pages = [page(site, 25, offset) for offset in range(0, BOOKS, 25)]
    assert [book["id"] for books in pages for book in books] == site.catalogue.ids


def test_a_page_past_the_end_is_empty(site: RunningSite) -> None:
    assert page(site, offset=BOOKS) == []


@pytest.mark.parametrize("query", ["", "?limit=0", "?limit=-1", "?limit=many", "?offset=3"])
def test_a_page_holds_eighteen_books_without_a_usable_limit(site: RunningSite, query: str) -> None:
    assert len(get(site, f"/api/book/{query}").json["results"]) == 18


@pytest.mark.parametrize("offset", ["-5", "x", ""])
def test_a_bad_offset_counts_as_none(site: RunningSite, offset: str) -> None:
    first = get(site, f"/api/book/?limit=1&offset={offset}").json["results"][0]
    assert first["id"] == site.catalogue.ids[0]


def test_a_page_holds_at_most_the_cap(site: RunningSite) -> None:
    assert len(page(site, 100)) == 100
    site.control(cap=20)
    assert len(page(site, 100)) == 20
    assert len(page(site, 10)) == 10


def test_a_detail_holds_the_summary_as_it_is(site: RunningSite) -> None:
    for summary in page(site, 20):
        book = detail(site, summary["id"])
        assert {name: book[name] for name in SUMMARY} == summary


def test_json_is_served_as_it_is_written(site: RunningSite) -> None:
    assert rb"\u" not in get(site, "/api/book/?limit=100").body


@pytest.mark.parametrize("book_id", ["1", "book", "99000001"])
def test_an_unknown_book_is_not_found_in_json(site: RunningSite, book_id: str) -> None:
    answer = get(site, f"/api/book/{book_id}/")
    assert (answer.status, answer.type) == (404, "application/json")
    assert answer.json == {"detail": "Not found."}
    assert site.stats()["not_found"] == 1


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/api/book", "/api/book/"),
        ("/api/book?limit=5&offset=1", "/api/book/?limit=5&offset=1"),
        ("/api/book/7952978", "/api/book/7952978/"),
        ("/api/book/7952978?a=b", "/api/book/7952978/?a=b"),
    ],
)
def test_a_missing_slash_is_redirected(site: RunningSite, path: str, location: str) -> None:
    answer = get(site, path)
    assert (answer.status, answer.headers["Location"]) == (301, location)
    assert site.stats()["redirects"] == 1


@pytest.mark.parametrize("path", ["/", "/robots.txt", "/detail/1", "/api/books/", "/api/book/1/2/"])
def test_any_other_path_gives_the_html_shell(site: RunningSite, path: str) -> None:
    answer = get(site, path)
    assert (answer.status, answer.type) == (200, "text/html")
    assert answer.body.startswith(b"<!DOCTYPE html>")
    assert site.stats()["other"] == 1


# The books


def test_both_processes_make_the_same_books(site: RunningSite) -> None:
    assert listed(site) == site.catalogue.ids
    for book_id in site.catalogue.ids[:40]:
        assert detail(site, book_id) == site.catalogue.detail(book_id)


def test_another_seed_makes_other_books() -> None:
    assert Books(50, seed=1).ids == Books(50, seed=1).ids
    assert not set(Books(50, seed=1).ids) & set(Books(50, seed=2).ids)


def test_ids_are_distinct_digits_of_several_lengths() -> None:
    ids = Books(9040).ids
    assert len(set(ids)) == 9040
    assert all(re.fullmatch(r"\d{6,8}", i) for i in ids)
    assert {len(i) for i in ids} == {6, 7, 8}


@pytest.fixture(scope="module")
def many() -> list[dict[str, Any]]:
    catalogue = Books(3000)
    return [catalogue.detail(book_id) for book_id in catalogue.ids]


def test_a_detail_has_two_to_four_kilobytes_on_average(many: list[dict[str, Any]]) -> None:
    assert 2_000 < len(json.dumps(many, ensure_ascii=False).encode()) / len(many) < 4_000


def test_some_scores_are_missing_and_the_rest_is_text(many: list[dict[str, Any]]) -> None:
    scores = Counter(book["score"] for book in many)
    assert scores[None]
    assert scores[""]
    assert 0.03 < (scores[None] + scores[""]) / len(many) < 0.05
    assert all(re.fullmatch(r"\d\.\d", score) for score in scores if score)


def test_authors_are_dirty(many: list[dict[str, Any]]) -> None:
    assert {type(book["authors"]) for book in many} == {list, type(None)}
    names = {name for book in many for name in book["authors"] or []}
    assert any(book["authors"] == [] for book in many)
    assert "\n            董桥" in names
    assert {name.strip() for name in names} == {name.strip() for name in AUTHORS}


def test_prices_come_in_every_form(many: list[dict[str, Any]]) -> None:
    forms = {book["price"] and re.sub(r"\d+", "N", book["price"]) for book in many}
    assert forms >= {"N.N元", "HK$N", "NTN", "$N", "CNY N.N", None}


def test_dates_are_text_and_may_be_missing(many: list[dict[str, Any]]) -> None:
    assert {"published_at" in book for book in many} == {True, False}
    dates = {book.get("published_at") for book in many}
    assert None in dates
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT16:00:00Z", date) for date in dates if date)
    assert all(re.fullmatch(r"\S+T\d\d:\d\d:\d\d\.\d{6}Z", book["updated_at"]) for book in many)


@pytest.mark.parametrize("name", ["page_number", "isbn", "publisher", "introduction", "catalog"])
def test_a_field_may_be_null(many: list[dict[str, Any]], name: str) -> None:
    assert 0 < sum(book[name] is None for book in many) < len(many) / 3


def test_books_have_up_to_ten_comments(many: list[dict[str, Any]]) -> None:
    assert {len(book["comments"]) for book in many} == set(range(11))
    assert all(set(comment) == {"id", "content"} for comment in many[0]["comments"])


@pytest.mark.parametrize("dirt", ["\r\n", "\t", "😭", "“", "‘", "「", '"', "'", "«", "https://"])
def test_long_texts_are_dirty(many: list[dict[str, Any]], dirt: str) -> None:
    assert any(dirt in (book["introduction"] or "") for book in many)
    assert any(dirt in comment["content"] for book in many for comment in book["comments"])


def test_names_have_blanks_at_either_end(many: list[dict[str, Any]]) -> None:
    assert any(book["name"] != book["name"].lstrip() for book in many)
    assert any(book["name"] != book["name"].rstrip() for book in many)


def test_a_few_books_have_fields_that_no_one_announced(many: list[dict[str, Any]]) -> None:
    assert 0 < sum("ratings" in book for book in many) < len(many) / 20
    assert 0 < sum("sub.title" in book for book in many) < len(many) / 20


# The counters


def test_requests_are_counted_by_their_kind(site: RunningSite) -> None:
    first, second = site.catalogue.ids[:2]
    paths = ["?offset=20", "?offset=0", f"{first}/", f"{first}/", f"{second}/", "1/", first]
    for path in paths:
        get(site, f"/api/book/{path}", user_agent=f"agent {len(path)}")
    get(site, "/robots.txt")
    stats = site.stats(details=True)
    expected = {"requests": 7, "index": 2, "detail": 4, "repeats": 1, "redirects": 1}
    expected |= {"not_found": 1, "other": 1, "in_flight": 0, "peak": 1}
    assert {name: stats[name] for name in expected} == expected
    assert stats["index_offsets"] == [20, 0]
    assert stats["details"] == {first: 2, second: 1, "1": 1}
    assert set(stats["user_agents"]) == {f"agent {len(path)}" for path in paths}


def test_counts_of_single_books_come_on_demand(site: RunningSite) -> None:
    assert "details" not in site.stats()


def test_a_reset_sets_the_counters_to_zero(site: RunningSite) -> None:
    untouched = site.stats(details=True)
    get(site, "/api/book/?offset=3")
    get(site, "/api/book/1/")
    assert site.stats()["requests"] == 2
    site.reset()
    assert site.stats(details=True) == untouched


def test_the_peak_is_the_most_requests_in_flight_at_once(site: RunningSite) -> None:
    site.control(hold={"peak": 4})
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: get(site, f"/api/book/?offset={n}"), range(4)))
    assert [answer.status for answer in answers] == [200] * 4
    assert site.stats()["peak"] == 4
    assert site.stats()["in_flight"] == 0


# The controls


def test_answers_wait_until_so_many_requests_are_in_flight(site: RunningSite) -> None:
    site.control(hold={"peak": 4})
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: get(site, f"/api/book/?offset={n}"), range(4)))
    assert site.stats()["peak"] == 4


def test_answers_behind_the_first_ones_wait_until_they_are_let_go(site: RunningSite) -> None:
    site.control(hold={"paths": r"offset=\d", "first": 1})
    with ThreadPoolExecutor(1) as pool:
        assert get(site, "/api/book/?offset=1").status == 200
        held = pool.submit(get, site, "/api/book/?offset=2")
        while site.stats()["in_flight"] < 1:
            pass
        assert get(site, "/api/book/").status == 200
        assert not held.done()
        site.control(hold=None)
        assert held.result().status == 200


def test_a_wrong_option_is_refused_by_name(site: RunningSite) -> None:
    with pytest.raises(ValueError, match=r"no such options: \['latencyy'\]"):
        site.control(latencyy=1)


@pytest.mark.parametrize(
    "options",
    [
        {"faults": {"kind": ["500"]}},
        {"faults": {"kinds": ["nonsense"]}},
        {"faults": {"paths": "("}},
        {"hold": {"paths": "("}},
        {"override": {"/": {"code": 200}}},
        {"edit": ["1"]},
    ],
)
def test_a_wrong_value_is_refused(site: RunningSite, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w+"):
        site.control(**options)


@pytest.mark.parametrize("count", [0, 9040, "many", None])
def test_the_count_can_be_a_lie(site: RunningSite, count: Any) -> None:
    site.control(count=count)
    assert get(site, "/api/book/").json["count"] == count
    site.control(count_true=True)
    assert get(site, "/api/book/").json["count"] == BOOKS


def test_inserted_books_come_first(own_site: RunningSite) -> None:
    assert listed(own_site) == own_site.catalogue.ids
    own_site.control(insert=3)
    new = ["99000003", "99000002", "99000001"]
    assert listed(own_site) == new + own_site.catalogue.ids
    assert detail(own_site, new[0]) == own_site.catalogue.detail(new[0])
    assert get(own_site, "/api/book/").json["count"] == 33


def test_books_can_come_while_the_index_is_read(own_site: RunningSite) -> None:
    own_site.control(insert_every=2, insert_most=2)
    counts = [get(own_site, "/api/book/").json["count"] for _ in range(8)]
    assert counts == [30, 30, 31, 31, 32, 32, 32, 32]


def test_a_removed_book_is_neither_listed_nor_found(own_site: RunningSite) -> None:
    gone, *left = own_site.catalogue.ids
    detail(own_site, gone)
    own_site.control(remove=[gone])
    assert listed(own_site) == left
    assert get(own_site, f"/api/book/{gone}/").status == 404


def test_a_vanished_book_is_listed_yet_not_found(own_site: RunningSite) -> None:
    gone = own_site.catalogue.ids[3]
    detail(own_site, gone)
    own_site.control(vanish=[gone])
    assert listed(own_site) == own_site.catalogue.ids
    assert get(own_site, f"/api/book/{gone}/").status == 404


def test_an_edit_shows_on_both_pages(own_site: RunningSite) -> None:
    book_id, other = own_site.catalogue.ids[:2]
    before, before_listed = detail(own_site, book_id), page(own_site, 2)
    own_site.control(edit=[book_id])
    after = detail(own_site, book_id)
    assert {name for name in after if after[name] != before[name]} == {"score", "price"}
    assert page(own_site, 2) == [before_listed[0] | {"score": after["score"]}, before_listed[1]]
    assert detail(own_site, other) == own_site.catalogue.detail(other)


def test_each_edit_differs_from_the_one_before(own_site: RunningSite) -> None:
    book_id = own_site.catalogue.ids[0]
    seen = {detail(own_site, book_id)["price"]}
    for _ in range(3):
        own_site.control(edit=[book_id])
        seen.add(detail(own_site, book_id)["price"])
    assert len(seen) == 4


def test_a_hidden_edit_shows_on_the_books_own_page_alone(own_site: RunningSite) -> None:
    book_id = own_site.catalogue.ids[0]
    before, before_listed = detail(own_site, book_id), page(own_site)
    own_site.control(edit_hidden=[book_id])
    after = detail(own_site, book_id)
    assert {name for name in after if after[name] != before[name]} == {"price"}
    assert page(own_site) == before_listed


def test_a_hidden_edit_can_be_taken_back(own_site: RunningSite) -> None:
    book_id = own_site.catalogue.ids[0]
    before = detail(own_site, book_id)
    own_site.control(edit_hidden=[book_id])
    assert detail(own_site, book_id) != before
    own_site.control(edit_back=[book_id])
    assert detail(own_site, book_id) == before


def test_a_local_catalogue_can_follow_the_edits(own_site: RunningSite) -> None:
    book_id = own_site.catalogue.ids[0]
    own_site.control(edit=[book_id], edit_hidden=[book_id])
    own_site.catalogue.edit([book_id])
    own_site.catalogue.edit_hidden([book_id])
    assert detail(own_site, book_id) == own_site.catalogue.detail(book_id)


def test_an_override_answers_in_place_of_the_rule(site: RunningSite) -> None:
    answer = {"status": 418, "body": "书", "headers": {"X-Tea": "yes", "Content-Type": "text/x"}}
    site.control(override={"/robots.txt": answer})
    served = get(site, "/robots.txt")
    assert (served.status, served.type, served.headers["X-Tea"]) == (418, "text/x", "yes")
    assert served.body.decode() == "书"
    site.control(override={"/robots.txt": None})
    assert get(site, "/robots.txt").status == 200


def test_an_override_can_hold_any_bytes(site: RunningSite) -> None:
    raw = bytes(range(256)) * 8192
    site.control(override={"/api/book/": {"body_base64": b64encode(raw).decode()}})
    assert get(site, "/api/book/").body == raw


def test_an_override_ends_after_its_times(site: RunningSite) -> None:
    site.control(override={"/api/book/": {"status": 500, "times": 2}})
    assert [get(site, "/api/book/").status for _ in range(3)] == [500, 500, 200]


def test_an_override_with_a_query_matches_that_query_only(site: RunningSite) -> None:
    by_query, by_path = {"status": 501}, {"status": 502}
    site.control(override={"/api/book/?offset=18": by_query, "/api/book/": by_path})
    assert get(site, "/api/book/?offset=18").status == 501
    assert get(site, "/api/book/?offset=36").status == 502
    site.control(override={"/api/book/": None})
    assert get(site, "/api/book/?offset=36").status == 200


def test_an_override_comes_before_a_fault(site: RunningSite) -> None:
    site.control(faults={"share": 1, "kinds": ["500"]}, override={"/api/book/": {"body": "1"}})
    assert get(site, "/api/book/").json == 1
    assert site.stats()["faults"] == {}


# The faults


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_a_status_can_be_the_fault(site: RunningSite, status: int) -> None:
    site.control(faults={"share": 1, "kinds": [str(status)], "retry_after": "7"})
    answer = get(site, "/api/book/")
    assert (answer.status, answer.type) == (status, "text/html")
    assert answer.headers["Retry-After"] == ("7" if status in (503, 429) else None)
    assert site.stats()["faults"] == {str(status): 1}


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("close", RemoteDisconnected),
        ("reset", ConnectionResetError),
        ("truncate", IncompleteRead),
        ("slow", TimeoutError),
    ],
)
def test_a_connection_can_break(site: RunningSite, kind: str, error: type[Exception]) -> None:
    site.control(faults={"share": 1, "kinds": [kind]})
    with pytest.raises(error) as caught:
        get(site, "/api/book/", timeout=0.5 if kind == "slow" else 60)
    assert caught.type is error
    assert site.stats()["faults"] == {kind: 1}


def test_a_slow_answer_ends_with_its_connection(site: RunningSite) -> None:
    site.control(faults={"share": 1, "kinds": ["slow"]})
    with pytest.raises(TimeoutError):
        get(site, "/api/book/", timeout=0.1)
    assert any(site.stats()["in_flight"] == 0 for _ in range(MOST_LOOKS))


def test_an_answer_can_be_html_with_status_200(site: RunningSite) -> None:
    site.control(faults={"share": 1, "kinds": ["html"]})
    answer = get(site, "/api/book/")
    assert (answer.status, answer.type) == (200, "text/html")


def test_an_answer_can_be_broken_json_with_status_200(site: RunningSite) -> None:
    site.control(faults={"share": 1, "kinds": ["broken"]})
    answer = get(site, "/api/book/")
    assert (answer.status, answer.type) == (200, "application/json")
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer.body)


def test_an_answer_can_be_json_of_the_wrong_shape(site: RunningSite) -> None:
    site.control(faults={"share": 1, "kinds": ["shape"]})
    shapes = [get(site, "/api/book/").json for _ in range(30)]
    assert [] in shapes
    assert {"results": 5} in shapes


def test_a_share_of_the_answers_fails_the_same_way_each_time(site: RunningSite) -> None:
    faults = {"share": 0.3, "kinds": ["500", "html"], "seed": 4}
    runs = []
    for _ in range(2):
        site.control(faults=faults)
        runs.append([get(site, f"/api/book/?offset={n}").status for n in range(60)])
    assert runs[0] == runs[1]
    assert 20 < sum(site.stats()["faults"].values()) < 52
    assert set(site.stats()["faults"]) == {"500", "html"}


def test_the_first_answers_of_each_address_can_fail(site: RunningSite) -> None:
    site.control(faults={"kinds": ["503"], "first": 2})
    for path in ("/api/book/", "/api/book/?offset=18"):
        assert [get(site, path).status for _ in range(4)] == [503, 503, 200, 200]


def test_faults_can_be_kept_to_some_addresses(site: RunningSite) -> None:
    site.control(faults={"share": 1, "kinds": ["500"], "paths": r"offset=1\d$"})
    assert get(site, "/api/book/?offset=18").status == 500
    assert get(site, "/api/book/?offset=36").status == 200


def test_faults_spare_what_is_not_the_api(site: RunningSite) -> None:
    site.control(faults={"share": 1, "kinds": FAULTS.split()})
    assert get(site, "/robots.txt").status == 200


# The process


def start(*options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.standin", "--port=0", "--books=20", *options]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_with_requests_under_way(number: signal.Signals) -> None:
    with start() as process:
        assert process.stdout
        site = RunningSite(process.stdout.readline().strip(), Books(20))
        site.control(faults={"share": 1, "kinds": ["slow"]})
        with closing(HTTPConnection(urlsplit(site.url).netloc, timeout=10)) as connection:
            connection.request("GET", "/api/book/")
            assert any(site.stats()["in_flight"] == 1 for _ in range(MOST_LOOKS))
            process.send_signal(number)
            assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0


def test_it_ends_when_its_stdin_closes_if_asked_to() -> None:
    with start("--until-stdin-closes", "--host=127.0.0.1") as process:
        out, err = process.communicate(timeout=60)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+\n", out)
    assert (process.returncode, err) == (0, "")


def test_the_options_of_the_command_are_obeyed() -> None:
    with running_site(25, seed=5, latency=0.05, cap=7, prerender=True) as site:
        assert listed(site) == Books(25, seed=5).ids[:7]
        book_id = site.catalogue.ids[0]
        assert detail(site, book_id) == site.catalogue.detail(book_id)


def test_a_proxy_of_the_environment_is_not_asked(
    site: RunningSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert RunningSite(site.url, site.catalogue).stats()["requests"] == 0


def test_the_process_ends_when_the_block_fails() -> None:
    def fail_inside() -> None:
        with running_site(5) as site:
            left.append(site)
            raise KeyError

    left: list[RunningSite] = []
    with pytest.raises(KeyError):
        fail_inside()
    with pytest.raises(ConnectionRefusedError):
        get(left[0], "/")
