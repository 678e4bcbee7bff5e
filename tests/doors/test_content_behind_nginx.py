"""A real shared cache in front: nginx keeps what it is told to keep, and nothing else (S4-11)."""

from __future__ import annotations

import asyncio
import gzip
import time
from contextlib import AsyncExitStack

from tests.dressed import Dressed
from tests.nginx import Nginx

from headgate.content.cache_settings import CacheSettings
from headgate.content.http_caching import CachingHeaders, KeptResults
from headgate.content.visitors import Visitors
from headgate.stores.values import MemoryValues
from headgate.testing import VirtualClock
from headgate.transport.asgi import served

BODY = b'{"text": "' + b"word " * 1000 + b'"}'
JSON = {"Content_Type": "application/json"}


class Counted:
    """An application, and the answers it gave to GET and HEAD by status."""

    def __init__(self, *, private: bool = False, **settings: int) -> None:
        clock = VirtualClock()
        values = MemoryValues(clock, most_entries=100, most_bytes=10**7)
        chosen = CacheSettings(**settings)  # type: ignore[arg-type]
        results = KeptResults(values, 7200)
        additions = (CachingHeaders(results, chosen), Visitors(values, chosen))
        self._inner = Dressed(*additions, results=results, private=private)
        self.answers: list[int] = []

    async def __call__(self, scope, receive, send) -> None:
        async def counting(message) -> None:
            if message["type"] == "http.response.start" and scope["method"] in ("GET", "HEAD"):
                self.answers.append(message["status"])
            await send(message)

        await self._inner(scope, receive, counting)


def test_s4_11_nginx_keeps_results_and_nothing_else() -> None:
    """One start of nginx; each application is behind a path of its own."""
    apps = {
        "open": Counted(),
        "keyed": Counted(private=True),
        "shared_never": Counted(browser_ttl=300, cdn_ttl=0),
        "shared_only": Counted(browser_ttl=0, cdn_ttl=900),
        "brief": Counted(cdn_ttl=1),
    }

    async def test() -> None:
        async with AsyncExitStack() as stack:
            urls = {
                name: await stack.enter_async_context(served(app, "127.0.0.1", 0))
                for name, app in apps.items()
            }
            nginx = stack.enter_context(Nginx(urls))
            await asyncio.to_thread(look_through, nginx, apps)

    asyncio.run(test())


def look_through(nginx: Nginx, apps: dict[str, Counted]) -> None:
    def posted(app: str) -> str:
        reply = nginx.ask("POST", f"/{app}/api/echo", BODY, **JSON)
        assert (reply.status, reply.body) == (200, BODY)
        return f"/{app}" + reply.headers["content-location"]

    where = posted("open")
    assert posted("open") == where
    # What was fetched once is fetched no more; each encoding is kept for itself.
    first = nginx.ask("GET", where)
    assert (first.cache, first.body) == ("MISS", BODY)
    again = nginx.ask("GET", where)
    assert (again.cache, again.body, again.headers["etag"]) == ("HIT", BODY, first.headers["etag"])
    packed = [nginx.ask("GET", where, Accept_Encoding="gzip") for _ in range(2)]
    assert [reply.cache for reply in packed] == ["MISS", "HIT"]
    assert all(gzip.decompress(reply.body) == BODY for reply in packed)
    assert nginx.ask("GET", where).cache == "HIT", "Vary keeps them apart"
    head = nginx.ask("HEAD", where)
    assert (head.status, head.cache, head.body) == (200, "HIT", b"")
    assert apps["open"].answers == [200, 200]
    # The cache itself answers whoever has it.
    known = nginx.ask("GET", where, If_None_Match=f"W/{first.headers['etag']}")
    assert (known.status, known.cache, known.body) == (304, "HIT", b"")
    # Nothing else is kept: of the moment, an operator's, a visitor's, or not there at all.
    for path in ("/api/stats", "/api/cache/stats", "/api/session", f"/api/results/{'0' * 64}"):
        assert [nginx.ask("GET", f"/open{path}").cache for _ in range(2)] == ["MISS", "MISS"], path
    # With caller keys nothing is everybody's; and what shared caches are told counts for them.
    for app, cache in (("keyed", "MISS"), ("shared_never", "MISS"), ("shared_only", "HIT")):
        where = posted(app)
        assert [nginx.ask("GET", where).cache for _ in range(2)] == ["MISS", cache], app
    # Once its time is up the tag is asked about, and the body stays where it is.
    where = posted("brief")
    assert nginx.ask("GET", where).cache == "MISS"
    while (reply := nginx.ask("GET", where)).cache != "REVALIDATED":
        assert (reply.cache, reply.body) == ("HIT", BODY)
        time.sleep(0.05)  # noqa: TID251 - nginx counts in real seconds
    assert reply.body == BODY
    assert apps["brief"].answers == [200, 304]
