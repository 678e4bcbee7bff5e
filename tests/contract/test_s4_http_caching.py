"""What caches on the way may keep: results by content, and nothing else (S4-11)."""

from __future__ import annotations

import gzip
from hashlib import sha256

import pytest
from tests.dressed import Dressed

from headgate.content.cache_settings import CacheSettings
from headgate.content.http_caching import CachingHeaders, KeptResults
from headgate.stores.values import MemoryValues
from headgate.testing import VirtualClock

LARGE = b'{"text": "' + b"word " * 1000 + b'"}'
SMALL = b'{"n": 1}'


def application(
    clock: VirtualClock, *, private: bool = False, settings: CacheSettings | None = None
) -> Dressed:
    settings = settings or CacheSettings()
    results = KeptResults(MemoryValues(clock, most_entries=100, most_bytes=10**7), settings.redis_ttl)
    return Dressed(CachingHeaders(results, settings), results=results, private=private)


async def test_s4_11_a_reply_says_where_it_can_be_fetched_again(clock: VirtualClock) -> None:
    app = application(clock)
    posted = await app.ask("POST", "/api/echo", SMALL)
    where = posted.headers["content-location"]
    assert where == f"/api/results/{sha256(SMALL).hexdigest()}"
    assert posted.headers["cache-control"] == "no-store", "what answers a POST is kept by nobody"
    fetched = await app.ask("GET", where)
    assert (fetched.status, fetched.body) == (200, SMALL)
    assert fetched.headers["content-type"] == "application/json"
    assert fetched.headers["cache-control"] == "public, max-age=300, s-maxage=900"
    assert fetched.headers["vary"] == "Accept-Encoding"
    assert fetched.headers["etag"] == f'"{sha256(SMALL).hexdigest()}"'
    assert "set-cookie" not in fetched.headers
    assert "cdn-cache-control" not in fetched.headers
    await clock.sleep(7201)
    gone = await app.ask("GET", where)
    assert (gone.status, gone.headers["cache-control"]) == (404, "no-store")
    assert "error" in gone.json


async def test_s4_11_who_has_it_is_told_so(clock: VirtualClock) -> None:
    """304 with what a 200 would say of it; an encoding is another version; HEAD is GET without body."""
    app = application(clock)
    where = (await app.ask("POST", "/api/echo", LARGE)).headers["content-location"]
    plain = await app.ask("GET", where)
    packed = await app.ask("GET", where, headers={"accept-encoding": "br, gzip"})
    assert plain.body == LARGE
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == LARGE
    assert len(packed.body) < len(LARGE) / 10
    tags = [plain.headers["etag"], packed.headers["etag"]]
    assert tags[0] != tags[1]
    for accepts, own, other in (("identity", *tags), ("gzip", *reversed(tags))):
        for field, status in (
            (own, 304), (f"W/{own}", 304), (f'"x", {own}', 304), ("*", 304), (other, 200), ('"x"', 200),
        ):  # fmt: skip
            headers = {"accept-encoding": accepts, "if-none-match": field}
            got = await app.ask("GET", where, headers=headers)
            assert got.status == status, (accepts, field)
            assert got.headers["etag"] == own
            assert got.headers["cache-control"] == "public, max-age=300, s-maxage=900"
            assert got.headers["vary"] == "Accept-Encoding"
            if status == 304:
                assert got.body == b""
                assert "content-type" not in got.headers
        refused = await app.ask("GET", where, headers={"accept-encoding": accepts, "if-match": other})
        assert (refused.status, refused.headers["cache-control"]) == (412, "no-store")
    for accepts, like in (("identity", plain), ("gzip", packed)):
        head = await app.ask("HEAD", where, headers={"accept-encoding": accepts})
        assert (head.status, head.body) == (200, b"")
        assert head.headers == like.headers
    assert (await app.ask("POST", where, b"{}")).status == 405


async def test_s4_11_with_caller_keys_nothing_is_everybodys(clock: VirtualClock) -> None:
    settings = CacheSettings(cdn=True)
    app = application(clock, private=True, settings=settings)
    where = (await app.ask("POST", "/api/echo", SMALL)).headers["content-location"]
    got = await app.ask("GET", where)
    assert got.headers["cache-control"] == "private, max-age=300"
    assert "authorization" in got.headers["vary"].lower()
    assert got.headers["cdn-cache-control"] == "no-store"
    for path in ("/api/cache/stats", "/api/stats"):
        assert (await app.ask("GET", path)).headers["cache-control"] == "no-store"


async def test_it_may_be_mounted_anywhere(clock: VirtualClock) -> None:
    app = application(clock)
    where = (await app.ask("POST", "/api/echo", SMALL)).headers["content-location"]
    got = await app.ask("GET", f"/learn{where}", root_path="/learn")
    assert (got.status, got.body) == (200, SMALL)
    assert got.headers["cache-control"] == "public, max-age=300, s-maxage=900"


async def test_lifetimes_are_settings_and_a_cdn_may_have_its_own(clock: VirtualClock) -> None:
    app = application(clock, settings=CacheSettings(browser_ttl=1, cdn_ttl=2, cdn=True))
    where = (await app.ask("POST", "/api/echo", SMALL)).headers["content-location"]
    got = await app.ask("GET", where)
    assert got.headers["cache-control"] == "public, max-age=1, s-maxage=2"
    assert got.headers["cdn-cache-control"] == "max-age=2"


async def test_without_results_every_reply_still_says_that_it_is_not_to_be_kept() -> None:
    app = Dressed(CachingHeaders(None, CacheSettings()))
    assert (await app.ask("GET", "/api/stats")).headers["cache-control"] == "no-store"
    assert (await app.ask("GET", f"/api/results/{'0' * 64}")).status == 404


@pytest.mark.parametrize("name", ["", "x", "A" * 64, "0" * 63, "0" * 65, "0" * 64, "..%2f", "g" * 64])
async def test_what_is_no_result_is_not_found(clock: VirtualClock, name: str) -> None:
    got = await application(clock).ask("GET", f"/api/results/{name}")
    assert got.status == 404
    assert got.headers["cache-control"] == "no-store"


async def test_what_is_not_what_its_name_says_is_not_given(clock: VirtualClock) -> None:
    """Whoever can write to the store cannot put words under the digest of others."""
    values = MemoryValues(clock, most_entries=100, most_bytes=10**7)
    results = KeptResults(values, 60)
    digest = await results.keep(SMALL)
    assert digest is not None
    assert await results.find(digest) == SMALL
    await values.put("results", digest, b"{}", 60)
    assert await results.find(digest) is None
