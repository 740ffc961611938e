"""What an answer of the site must look like before it is believed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from scrapy.http import HtmlResponse, JsonResponse, Response
from scrapy.spidermiddlewares.httperror import HttpError

from spa5.catalogue.answers import Answers, Flaw, reason
from spa5.catalogue.walk import Page
from spa5.spiders.books import BooksSpider


class Spider(BooksSpider):
    site = "http://x"


API = Answers(Spider())
DETAIL = "http://x/api/book/1/"
LISTED = {"id": "1", "name": "书", "authors": ["董桥"], "cover": None, "score": "8.8"}


def detail(body: bytes, content_type: str = "application/json", status: int = 200) -> Response:
    headers = {"Content-Type": content_type}
    return JsonResponse(DETAIL, status=status, headers=headers, body=body)


def said(book: dict[str, Any], listed: dict[str, Any] = LISTED) -> str:
    return str(API.flaw(detail(json.dumps(book).encode()), {"listed": listed}) or "")


@pytest.mark.parametrize("empty", [None, "", " \n\u3000", [], [" ", None], {}])
def test_a_detail_must_have_what_its_index_entry_has(empty: Any) -> None:
    assert said(LISTED) == ""
    assert said(LISTED | {"name": empty}) == "a detail without 'name', which the index page has"
    assert said(LISTED, LISTED | {"name": empty}) == ""
    assert said({"id": "1"}, {"id": "1", "name": empty}) == ""


@pytest.mark.parametrize("other", [0, False, "other", ["a"], {"a": None}])
def test_a_detail_may_have_other_values_than_its_index_entry(other: Any) -> None:
    assert said(LISTED | {"score": other}) == ""
    assert "'score'" in said({"id": "1", "name": "书", "authors": ["董桥"]}, {"score": other})


def test_a_detail_without_an_id_or_with_its_id_alone_is_a_flaw() -> None:
    assert said({"detail": "Internal error"}, {}) == "book without id"
    assert said({"id": "1"}) == "a detail without 'name', which the index page has"
    assert said({"id": "1"}, {}) == ""  # no index entry tells more


TEXT = '{"id": "1", "name": "书。"}'


@pytest.mark.parametrize("charset", ["", "; charset=utf-8", '; charset="UTF8"'])
def test_text_that_is_not_valid_utf_8_is_a_flaw(charset: str) -> None:
    for good in (TEXT.encode(), b"\xef\xbb\xbf" + TEXT.encode()):
        assert API.detail(detail(good, f"application/json{charset}"), {})["name"] == "书。"
    for wrong in (
        TEXT.encode()[:-3] + b'"}',
        TEXT.encode("gbk"),
        b'{"id": "1", "x": "\xed\xa0\x80"}',
    ):
        with pytest.raises(Flaw, match="not valid utf-8"):
            API.detail(detail(wrong, f"application/json{charset}"), {})


def test_another_charset_is_believed_as_declared() -> None:
    gbk = "application/json; charset=gbk"
    assert API.detail(detail(TEXT.encode("gbk"), gbk), {})["name"] == "书。"
    with pytest.raises(Flaw, match="not valid gb18030"):
        API.detail(detail(TEXT.encode("gbk")[:-3] + b'"}', gbk), {})
    latin = '{"id": "1", "name": "Ã¼"}'.encode("cp1252")  # these bytes are valid UTF-8, too
    assert API.detail(detail(latin, "application/json; charset=latin1"), {})["name"] == "Ã¼"


@pytest.mark.parametrize("charset", ["klingon", "utf8mb4", "hex", "rot13", "idna", "undefined"])
def test_a_charset_that_is_none_is_a_flaw(charset: str) -> None:
    assert API.flaw(detail(TEXT.encode(), f"application/json; charset={charset}"), {})


def test_only_the_api_s_own_404_says_that_a_book_is_gone() -> None:
    gone = detail(b'{"detail": "Not found."}', status=404)
    assert API.is_gone(gone)
    assert API.flaw(gone, {}) is None
    html = HtmlResponse(DETAIL, status=404, headers={"Content-Type": "text/html"}, body=b"<html>")
    no_text = Response(DETAIL, status=404, body=b"")
    for other in (html, no_text, detail(TEXT.encode(), status=404), detail(b"[]", status=404)):
        assert not API.is_gone(other)
        assert str(API.flaw(other, {})) == "status 404, but not the API's own"
    assert not API.is_gone(detail(b'{"detail": "Not found."}'))


def test_an_index_page_with_more_entries_than_asked_for_is_a_flaw() -> None:
    page = json.dumps({"count": 3, "results": [{"id": "1"}] * 3}).encode()
    response = JsonResponse("http://x/api/book/", body=page)
    assert API.flaw(response, {"page": Page(0, 3)}) is None
    assert API.flaw(response, {}) is None
    flaw = API.flaw(response, {"page": Page(0, 2)})
    assert str(flaw) == "an index page of 3 entries, where 2 were asked for"


def test_what_the_site_sends_can_not_shape_a_line_of_the_log() -> None:
    flaw = API.flaw(detail(b"<html>", "text/html\x1b[2J\x07\x9031m"), {})
    assert str(flaw) == r"not JSON (text/html\x1b[2J\x07Â\x9031m)"
    error = OSError("Cannot connect to host x:1 ssl:<ssl.SSLContext object at 0x7f> [\x1b[1m\n]")
    assert reason(error) == r"OSError: Cannot connect to host x:1 [\x1b[1m ]"
    moved = Response("http://x/", status=301, headers={"Location": "https://x/\x1b"})
    assert reason(HttpError(moved)) == r"status 301, to https://x/\x1b"
    assert len(reason(ValueError("long " * 100))) == 200


@pytest.mark.parametrize("count", [-1, "230", None, 1.5, True, [], {"$gt": 1}])
def test_a_count_that_is_none_is_not_known(count: Any) -> None:
    body = json.dumps({"count": count, "results": []}).encode()
    assert API.index(JsonResponse("http://x/api/book/", body=body), {}).count is None
