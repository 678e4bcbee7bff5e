"""The decorator and the ASGI middleware: X-18, headers and bodies of refusals."""

from __future__ import annotations

import json
from collections.abc import Callable, MutableMapping
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from headgate.limits import Limit, PeerAddress, RateLimiter, RateLimitExceeded, RateLimitMiddleware
from headgate.testing import VirtualClock


class Failing:
    """A client of a store that is down."""

    def register_script(self, _: str) -> Any:
        raise OSError("down")


def limiter(clock: VirtualClock, client: Any = None, **options: Any) -> RateLimiter:
    return RateLimiter(client, registry=CollectorRegistry(), clock=clock, **options)


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"1")]})
    await send({"type": "http.response.body", "body": b"hello", "more_body": True})
    await send({"type": "http.response.body", "body": b""})


class Answer:
    def __init__(self, sent: list[MutableMapping[str, Any]]) -> None:
        self.sent = sent
        self.status = sent[0].get("status")
        self.headers = {name.decode(): value.decode() for name, value in sent[0].get("headers", [])}
        self.body = b"".join(message.get("body", b"") for message in sent[1:])


async def ask(
    middleware: RateLimitMiddleware,
    *,
    peer: str | None = "192.0.2.1",
    kind: str = "http",
    headers: list[tuple[bytes, bytes]] | None = None,
    **scope: Any,
) -> Answer:
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "websocket.connect" if kind == "websocket" else "http.request"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    client = None if peer is None else (peer, 1234)
    whole = {"type": kind, "client": client, "headers": headers or [], "path": "/", **scope}
    await middleware(whole, receive, send)
    return Answer(sent)


# ── decorator ───────────────────────────────────────────────────────────────────────────────────


async def test_the_decorator_limits_a_function(clock: VirtualClock) -> None:
    calls = []

    @limiter(clock).limit(2, 60)
    async def work(number: int, *, extra: str = "") -> int:
        """Doubles."""
        calls.append(number)
        return 2 * number

    assert [await work(1), await work(2, extra="x")] == [2, 4]
    with pytest.raises(RateLimitExceeded) as refused:
        await work(3)
    assert refused.value.retry_after == 30
    assert calls == [1, 2]
    assert (work.__name__, work.__doc__) == ("work", "Doubles.")


async def test_the_decorator_takes_a_key_out_of_the_arguments(clock: VirtualClock) -> None:
    shared = limiter(clock)

    @shared.limit(1, 60, key=lambda user, **_: f"user:{user}")
    async def first(user: str, **_: int) -> str:
        return user

    @shared.limit(1, 60, key="global")
    async def second() -> None: ...

    await first("anna")
    await first("ben", a=1)
    with pytest.raises(RateLimitExceeded):
        await first("anna")
    await second()
    with pytest.raises(RateLimitExceeded):
        await second()


def test_the_decorator_finds_mistakes_where_they_are_made(clock: VirtualClock) -> None:
    def plain() -> None: ...

    with pytest.raises(TypeError, match="async function"):
        limiter(clock).limit(1, 60)(plain)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_requests"):
        limiter(clock).limit(0, 60)
    with pytest.raises(ValueError, match="cost"):
        limiter(clock).limit(1, 60, cost=2)
    with pytest.raises(ValueError, match="identifier"):
        limiter(clock).limit(1, 60, key="")


# ── middleware ──────────────────────────────────────────────────────────────────────────────────


async def test_answers_carry_what_is_left(clock: VirtualClock) -> None:
    limits = [Limit(2, 10, "burst"), (100, 3600)]
    middleware = RateLimitMiddleware(app, limiter(clock), limits=limits)
    answer = await ask(middleware)
    assert (answer.status, answer.body, answer.headers["x-app"]) == (200, b"hello", "1")
    assert answer.headers["ratelimit-policy"] == '"burst";q=2;w=10, "100-per-3600s";q=100;w=3600'
    assert answer.headers["ratelimit"] == '"burst";r=1;t=5, "100-per-3600s";r=99;t=36'


async def test_a_refusal_is_a_problem_with_a_time_to_come_back(clock: VirtualClock) -> None:
    limits = [Limit(2, 10, "burst"), (100, 3600)]
    middleware = RateLimitMiddleware(app, limiter(clock), limits=limits)
    for _ in range(2):
        await ask(middleware)
    answer = await ask(middleware)
    assert answer.status == 429
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.headers["retry-after"] == "5"
    assert answer.headers["ratelimit"].startswith('"burst";r=0;t=10, ')
    problem = json.loads(answer.body)
    assert problem["type"].endswith("#quota-exceeded")
    assert (problem["status"], problem["retry_after"]) == (429, 5)
    assert problem["violated-policies"] == ["burst"]
    assert "192.0.2.1" not in answer.body.decode()
    await clock.sleep(5)
    assert (await ask(middleware)).status == 200


async def test_a_store_that_fails_closed_answers_503(clock: VirtualClock) -> None:
    closed = limiter(clock, Failing(), fail_open=False)
    answer = await ask(RateLimitMiddleware(app, closed, limits=[(1, 60)]))
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert json.loads(answer.body)["type"].endswith("#temporary-reduced-capacity")
    opened = RateLimitMiddleware(app, limiter(clock, Failing()), limits=[(1, 60)])
    assert [(await ask(opened)).status for _ in range(2)] == [200, 429]


async def test_other_protocols_and_exempt_requests_pass(clock: VirtualClock) -> None:
    async def identify(scope: Any) -> str | None:
        return None if scope["path"] == "/health" else "user:1"

    middleware = RateLimitMiddleware(app, limiter(clock), limits=[(1, 60)], identify=identify)
    for _ in range(3):
        healthy = await ask(middleware, path="/health")
        assert healthy.status == 200
        assert "ratelimit" not in healthy.headers
        await ask(middleware, kind="lifespan")
    assert [(await ask(middleware)).status for _ in range(2)] == [200, 429]


async def test_web_socket_handshakes_are_limited_too(clock: VirtualClock) -> None:
    middleware = RateLimitMiddleware(app, limiter(clock), limits=[(1, 60)])
    assert (await ask(middleware, kind="websocket")).sent == [{"type": "websocket.accept"}]
    assert (await ask(middleware, kind="websocket")).sent == [{"type": "websocket.close", "code": 1013}]
    extensions = {"websocket.http.response": {}}
    answer = await ask(middleware, kind="websocket", extensions=extensions)
    assert (answer.sent[0]["type"], answer.status) == ("websocket.http.response.start", 429)


def test_middleware_finds_mistakes_at_once(clock: VirtualClock) -> None:
    for options, what in (
        ({"limits": []}, "at least one"),
        ({"limits": [(0, 60)]}, "max_requests"),
        ({"limits": [Limit(1, 1, "a"), Limit(2, 2, "a")]}, "different names"),
        ({"limits": [(1, 1)], "trusted_proxies": ["10.0.0.0/33"]}, "networks"),
        ({"limits": [(1, 1)], "trusted_proxies": ["10.0.0.0/8"], "identify": str}, "one of the two"),
    ):
        with pytest.raises(ValueError, match=what):
            RateLimitMiddleware(app, limiter(clock), **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="name"):
        Limit(1, 1, 'a"b')


# ── X-18: identity ──────────────────────────────────────────────────────────────────────────────

FORGED = (b"x-forwarded-for", b"forwarded", b"x-real-ip", b"cf-connecting-ip", b"true-client-ip")


async def test_x18_ten_thousand_forged_headers_share_one_bucket(clock: VirtualClock) -> None:
    middleware = RateLimitMiddleware(app, limiter(clock), limits=[(100, 3600)])
    passed = 0
    for number in range(10_000):
        value = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}".encode()
        answer = await ask(middleware, headers=[(FORGED[number % len(FORGED)], value)])
        passed += answer.status == 200
    assert passed == 100


def who(
    peer: str | None, *forwarded: str, trusted: tuple[str, ...] = ("10.0.0.0/8", "fd00::/8")
) -> str:
    headers = [(b"X-Forwarded-For", hops.encode()) for hops in forwarded]
    return PeerAddress(trusted)({"client": peer and (peer, 1), "headers": headers})


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (lambda: who("192.0.2.1", "198.51.100.7"), "ip:192.0.2.1"),  # nobody asked this peer
        (lambda: who("10.0.0.1", "198.51.100.7"), "ip:198.51.100.7"),
        (lambda: who("10.0.0.1", "1.1.1.1, 198.51.100.7"), "ip:198.51.100.7"),  # left: the caller's
        (lambda: who("10.0.0.1", "1.1.1.1", "198.51.100.7, 10.9.9.9"), "ip:198.51.100.7"),
        (lambda: who("10.0.0.1", "198.51.100.7:4711"), "ip:198.51.100.7"),
        (lambda: who("10.0.0.1", "[2001:db8:1:2:3::4]:80"), "ip:2001:db8:1:2::/64"),
        (lambda: who("10.0.0.1", "198.51.100.7, nonsense"), "ip:10.0.0.1"),
        (lambda: who("10.0.0.1", "198.51.100.7, nonsense, 10.2.2.2"), "ip:10.2.2.2"),
        (lambda: who("10.0.0.1", "10.0.0.2"), "ip:10.0.0.2"),
        (lambda: who("10.0.0.1"), "ip:10.0.0.1"),
        (lambda: who("::ffff:10.0.0.1", "198.51.100.7"), "ip:198.51.100.7"),
        (lambda: who("2001:db8::1"), "ip:2001:db8::/64"),
        (lambda: who("2001:db8::ffff"), "ip:2001:db8::/64"),
        (lambda: who("fe80::1%eth0"), "ip:fe80::/64"),
        (lambda: who(None, "198.51.100.7"), "ip:unknown"),
        (lambda: who(None, "198.51.100.7", trusted=("unix",)), "ip:198.51.100.7"),
        (lambda: who("testclient"), "ip:testclient"),
        (lambda: who("192.0.2.1", "198.51.100.7", trusted=()), "ip:192.0.2.1"),
    ],
)
def test_x18_only_a_trusted_peer_is_believed_and_only_its_last_hop(
    found: Callable[[], str], expected: str
) -> None:
    assert found() == expected
