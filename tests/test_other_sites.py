"""The stand-in as the movies' site and as a shop; test_site.py has what all sites share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.standin.site import running_site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.standin.site import RunningSite

JUNK = {"value", "admin", "测试", "中文"}


@pytest.fixture(scope="module")
def movies() -> Iterator[RunningSite]:
    with running_site(104, kind="movies") as site:
        yield site


@pytest.fixture(scope="module")
def products() -> Iterator[RunningSite]:
    with running_site(50, kind="products") as site:
        yield site


def get(site: RunningSite, path: str) -> requests.Response:
    """Ask once; redirects are not followed."""
    return requests.get(site.url + path, allow_redirects=False, timeout=60)


def movies_at(site: RunningSite, query: str) -> list[Any]:
    answer = get(site, f"/api/movie/{query}").json()
    assert answer["count"] == 104
    return [movie["id"] for movie in answer["results"]]


def products_at(site: RunningSite, query: str) -> list[Any]:
    data = get(site, f"/products{query}").json()["data"]
    assert data["total"] == 50
    return [product["sku"] for product in data["items"]]


def test_both_processes_make_the_same_items(movies: RunningSite, products: RunningSite) -> None:
    for site in (movies, products):
        for key in site.catalogue.ids:
            assert get(site, site.catalogue.detail_path(key)).json() == site.catalogue.detail(key)


def test_an_entry_is_part_of_its_detail(movies: RunningSite, products: RunningSite) -> None:
    for site in (movies, products):
        for key in site.catalogue.ids:
            assert is_part(site.catalogue.summary(key), site.catalogue.detail(key))


def test_movies_have_numbers_and_are_not_in_their_order(movies: RunningSite) -> None:
    ids = movies_at(movies, "?limit=104")
    assert sorted(ids) == list(range(1, 105))
    assert ids[ids.index(36) - 1 : ids.index(36) + 2] == [24, 36, 25]


def test_a_page_holds_ten_movies_where_no_limit_is_given(movies: RunningSite) -> None:
    assert movies_at(movies, "") == movies.catalogue.ids[:10]
    assert movies_at(movies, "?page=2") == movies.catalogue.ids[:10]
    assert movies_at(movies, "?limit=5&offset=100") == movies.catalogue.ids[100:]
    assert movies_at(movies, "?offset=104") == []


def test_four_movies_of_104_are_junk(movies: RunningSite) -> None:
    junk = [one for one in map(movies.catalogue.detail, movies.catalogue.ids) if not one["drama"]]
    assert {one["name"] for one in junk} == JUNK
    assert all(one["minute"] is None for one in junk)


def test_a_movie_s_score_is_a_number_or_null_and_its_date_has_no_time(movies: RunningSite) -> None:
    listed = list(map(movies.catalogue.summary, movies.catalogue.ids))
    assert {type(one["score"]) for one in listed} == {float, type(None)}
    assert {len(one["published_at"] or "") for one in listed} == {0, len("1993-07-26")}


def test_what_is_no_movie_s_id_is_not_found(movies: RunningSite) -> None:
    assert [get(movies, f"/api/movie/{one}/").status_code for one in ("105", "x")] == [404, 404]


def test_products_are_paged_by_number(products: RunningSite) -> None:
    skus = products.catalogue.ids
    assert products_at(products, "?page=2&per_page=15") == skus[15:30]
    assert products_at(products, "?page=4&per_page=15") == skus[45:]
    assert products_at(products, "?page=5&per_page=15") == []
    assert products_at(products, "") == skus[:20]


def test_a_cap_makes_each_page_of_products_smaller(products: RunningSite) -> None:
    products.control(cap=8)
    assert products_at(products, "?page=2&per_page=15") == products.catalogue.ids[8:16]
    products.control(cap=None)


@pytest.mark.parametrize(
    ("kind", "path", "location"),
    [
        ("movies", "/api/movie/1?a=b", "/api/movie/1/?a=b"),
        ("products", "/products/", "/products"),
        ("products", "/products/100200/", "/products/100200"),
    ],
)
def test_a_slash_is_put_right_by_a_redirect(
    request: pytest.FixtureRequest, kind: str, path: str, location: str
) -> None:
    answer = get(request.getfixturevalue(kind), path)
    assert (answer.status_code, answer.headers["Location"]) == (301, location)


def test_an_edit_shows_on_both_pages_and_a_hidden_one_on_the_detail_alone(
    movies: RunningSite, products: RunningSite
) -> None:
    for site in (movies, products):
        edited, hidden = site.catalogue.ids[:2]
        before = {key: site.catalogue.detail(key) for key in (edited, hidden)}
        site.control(edit=[edited], edit_hidden=[hidden])
        site.catalogue.edit([edited])
        site.catalogue.edit_hidden([hidden])
        for key in (edited, hidden):
            detail = get(site, site.catalogue.detail_path(key)).json()
            assert detail == site.catalogue.detail(key) != before[key]
        assert is_part(site.catalogue.summary(hidden), before[hidden])
        assert not is_part(site.catalogue.summary(edited), before[edited])


def is_part(entry: dict[str, Any], detail: dict[str, Any]) -> bool:
    return all(detail[name] == value for name, value in entry.items())
