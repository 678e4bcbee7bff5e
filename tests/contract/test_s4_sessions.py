"""Visitors' sessions, shared between instances (S4-14)."""

from __future__ import annotations

from http.cookies import SimpleCookie

import pytest
from tests import valkey
from tests.dressed import Dressed, Got
from tests.kept_values import OnValkey

from headgate.content.cache_settings import CacheSettings
from headgate.content.visitors import MOST_BYTES, Visitors
from headgate.stores.values import MemoryValues
from headgate.testing import VirtualClock

valkey_server = valkey.valkey_server

HOUR = 3600.0


def application(values: MemoryValues, **settings: object) -> Dressed:
    return Dressed(Visitors(values, CacheSettings(**settings)))  # type: ignore[arg-type]


def in_memory(clock: VirtualClock, **settings: object) -> Dressed:
    return application(MemoryValues(clock, most_entries=100, most_bytes=10**7), **settings)


def cookie_of(got: Got) -> dict[str, str]:
    (line,) = got.cookies
    ((name, morsel),) = SimpleCookie(line).items()
    return {"name": name, "value": morsel.value, **{key: str(morsel[key]) for key in morsel}}


async def test_s4_14_the_cookie_is_opaque_and_guarded(clock: VirtualClock) -> None:
    app = in_memory(clock)
    first = await app.ask("GET", "/api/session")
    assert first.json == {"session": {}, "expires_in": 86_400}
    assert not first.cookies, "nothing to remember, no cookie"
    put = await app.ask("PUT", "/api/session", {"language": "fa", "topic": "رنگین‌کمان"})
    cookie = cookie_of(put)
    assert cookie["name"] == "session_id"
    assert len(cookie["value"]) >= 43
    assert (cookie["httponly"], cookie["secure"]) == ("True", "")
    assert (cookie["samesite"].lower(), cookie["path"], cookie["max-age"]) == ("lax", "/", "86400")
    headers = {"cookie": f"session_id={cookie['value']}"}
    again = await app.ask("GET", "/api/session", headers=headers)
    assert again.json["session"] == {"language": "fa", "topic": "رنگین‌کمان"}
    other = cookie_of(await app.ask("PUT", "/api/session", {"a": 1}))
    assert other["value"] != cookie["value"]


@pytest.mark.parametrize(
    ("host", "secure"),
    [("localhost:5000", ""), ("127.0.0.1", ""), ("[::1]:5000", ""), ("learn.example", "True"),
     ("10.0.0.7:8080", "True"), ("localhost.example", "True")],
)  # fmt: skip
async def test_s4_14_secure_off_loopback(clock: VirtualClock, host: str, secure: str) -> None:
    got = await in_memory(clock).ask("PUT", "/api/session", {"a": 1}, host=host)
    assert cookie_of(got)["secure"] == secure


async def test_s4_14_it_lasts_from_its_last_use(clock: VirtualClock) -> None:
    app = in_memory(clock, session_ttl=int(HOUR), session_cookie="visit")
    value = cookie_of(await app.ask("PUT", "/api/session", {"a": 1}))["value"]
    headers = {"cookie": f"visit={value}"}
    for _ in range(4):
        await clock.sleep(0.6 * HOUR)
        got = await app.ask("GET", "/api/session", headers=headers)
        assert got.json["session"] == {"a": 1}
        assert cookie_of(got)["max-age"] == "3600", "the cookie lasts as long"
    await clock.sleep(60)
    assert not (await app.ask("GET", "/api/session", headers=headers)).cookies, "not with every look"
    await clock.sleep(HOUR + 1)
    assert (await app.ask("GET", "/api/session", headers=headers)).json["session"] == {}


async def test_an_id_that_somebody_chose_is_never_taken_up(clock: VirtualClock) -> None:
    """Neither a made-up one nor one whose session is over."""
    app = in_memory(clock)
    for chosen in ("attackers-choice", "x" * 5000, "", "a b"):
        got = await app.ask("PUT", "/api/session", {"a": 1}, headers={"cookie": f"session_id={chosen}"})
        assert cookie_of(got)["value"] != chosen
    mine = cookie_of(await app.ask("PUT", "/api/session", {"a": 2}))["value"]
    headers = {"cookie": f"session_id={mine}"}
    assert cookie_of(await app.ask("PUT", "/api/session", {"a": 3}, headers=headers))["value"] == mine
    ended = await app.ask("DELETE", "/api/session", headers=headers)
    assert (ended.status, cookie_of(ended)["max-age"]) == (204, "0")
    assert (await app.ask("GET", "/api/session", headers=headers)).json["session"] == {}
    assert cookie_of(await app.ask("PUT", "/api/session", {"a": 4}, headers=headers))["value"] != mine


async def test_what_is_no_session_is_refused(clock: VirtualClock) -> None:
    app = in_memory(clock)
    whole = {"a": "x" * (MOST_BYTES - 8)}
    assert (await app.ask("PUT", "/api/session", whole)).status in (200, 413)
    for body, status in ((b"[1]", 400), (b"{", 400), (b"\xff", 400), (b" " * 9000, 413)):
        got = await app.ask("PUT", "/api/session", body)
        assert (got.status, got.cookies) == (status, []), body
        assert "error" in got.json
    form = await app.ask("PUT", "/api/session", b"{}", headers={"content-type": "text/plain"})
    assert form.status == 415
    assert (await app.ask("POST", "/api/session", b"{}")).status == 405


def test_s4_14_instances_share_it_and_the_store_knows_no_id(valkey_server: valkey.Server) -> None:
    place = OnValkey(valkey_server)

    async def test() -> None:
        one, two = (Dressed(Visitors(store, CacheSettings())) for store in (place.store, place.other))
        value = cookie_of(await one.ask("PUT", "/api/session", {"language": "ja"}))["value"]
        headers = {"cookie": f"session_id={value}"}
        got = await two.ask("GET", "/api/session", headers=headers)
        assert got.json["session"] == {"language": "ja"}
        with valkey_server.client() as client:
            assert not any(
                value.encode() in name + b"".join(fields) + b"".join(fields.values())
                for name in client.keys("*}e")
                for fields in [client.hgetall(name)]
            )
        await two.ask("DELETE", "/api/session", headers=headers)
        assert (await one.ask("GET", "/api/session", headers=headers)).json["session"] == {}

    place.run(test())


def test_s4_14_a_session_outlives_an_outage_of_the_store() -> None:
    """What was remembered while the store was away is there when it is back."""
    server = valkey.Server()
    try:
        place = OnValkey(server.start())

        async def test() -> None:
            app = Dressed(Visitors(place.store, CacheSettings()))
            server.kill()
            value = cookie_of(await app.ask("PUT", "/api/session", {"a": 1}))["value"]
            headers = {"cookie": f"session_id={value}"}
            assert (await app.ask("GET", "/api/session", headers=headers)).json["session"] == {"a": 1}
            assert (await app.ask("DELETE", "/api/session", headers=headers)).status == 503
            assert (await app.ask("GET", "/api/session", headers=headers)).json["session"] == {}
            value = cookie_of(await app.ask("PUT", "/api/session", {"a": 2}))["value"]
            headers = {"cookie": f"session_id={value}"}
            server.start()
            place.pass_time(2)
            assert (await app.ask("GET", "/api/session", headers=headers)).json["session"] == {"a": 2}
            elsewhere = Dressed(Visitors(place.other, CacheSettings()))
            assert (await elsewhere.ask("GET", "/api/session", headers=headers)).json["session"] == {
                "a": 2
            }

        place.run(test())
    finally:
        server.close()
