"""What the shared store connects to: addresses, TLS, servers too old or restricted."""

from __future__ import annotations

import asyncio
import logging
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from tests import valkey, valkey_callers
from tests.valkey import Server
from tests.valkey_callers import ONE, SLOTS, ask, settled, store_on

from headgate.core.errors import ConfigurationError, StoreError
from headgate.core.quota import (
    Ask,
    Batch,
    Counts,
    Grant,
    Limit,
    Penalty,
)
from headgate.stores.valkey_link import Address

valkey_server = valkey.valkey_server
no_socket_left = valkey_callers.no_socket_left

# ── what it is allowed ───────────────────────────────────────────────────────────────────────────


def test_a_user_who_may_touch_only_the_groups_keys_is_enough(valkey_server: Server) -> None:
    async def main(url: str) -> None:
        store = store_on(url)
        with pytest.raises(StoreError, match="NOPERM"):
            await store.declare("other", [SLOTS])
        await store.declare("g", [[*SLOTS, Limit("rpm", Counts.REQUESTS, 9)]] * 5)
        both = {**ONE, Counts.REQUESTS: 1}
        asks = tuple(Ask(f"a{turn}", both) for turn in range(60))
        reply = await store.transact("g", Batch(asks=asks))
        assert sum(isinstance(answer, Grant) for answer in reply.answers) == 45
        await store.transact("g", settled("a1", "a2"))
        await store.aclose()

    with valkey_server.client() as client:
        words = "evalsha eval hmget hget hset hdel time zadd zrem zcount zrange zrangebyscore"
        commands = [f"+{word}" for word in (words + " zremrangebyrank del pexpire").split()]
        client.acl_setuser(
            "app", enabled=True, passwords=["+CANARY-store"], keys=["{g}*"], commands=commands
        )
        try:
            asyncio.run(main(f"unix://app:CANARY-store@{valkey_server.path}"))
        finally:
            client.acl_deluser("app")


# ── what it connects to ─────────────────────────────────────────────────────────────────────────


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
    finally:
        writer.transport.abort()


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl on PATH")
def test_over_tls_it_answers_and_what_is_broken_off_is_cut(
    valkey_server: Server, tmp_path: Path
) -> None:
    """TLS ends at a proxy beside the server, as it does before many a managed one."""
    subject = ["-subj", "/CN=store", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    where = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run([*make, *subject, *where], check=True, capture_output=True)
    secured = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    secured.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")

    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            inner = await asyncio.open_unix_connection(valkey_server.path)
            ways = (carry(reader, inner[1]), carry(inner[0], writer))
            await asyncio.gather(*ways, return_exceptions=True)

        proxy = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=secured)
        place = f"rediss://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        store = store_on(f"{place}?ssl_ca_certs={tmp_path / 'cert.pem'}")
        await store.declare("g", [SLOTS])
        assert isinstance(await ask(store, "a1"), Grant)
        link = (await store._here()).link
        for _ in range(8):
            call = asyncio.ensure_future(link.run("ECHO", b"x" * 1_000_000))
            await asyncio.sleep(0.001)  # noqa: TID251
            call.cancel()
            await asyncio.wait([call])
            assert await link.run("ECHO", b"after") == b"after"
        with pytest.raises(StoreError):
            await store_on(place).declare("g", [SLOTS])  # nobody it knows vouches for it
        await store.aclose()
        proxy.close()
        await proxy.wait_closed()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("url", "shown", "cluster"),
    [
        ("redis://:CANARY@host:7000/2", "host:7000", False),
        ("valkey://user:CANARY@host", "host", False),
        ("rediss://host?ssl_cert_reqs=none&protocol=3", "host", False),
        ("valkeys://host", "host", False),
        ("unix://user:CANARY@/run/s?db=1", "/run/s", False),
        ("valkey+unix:///run/s", "/run/s", False),
        ("redis+cluster://user:CANARY@a:1,b:2", "a:1,b:2", True),
        ("rediss+cluster://a", "a", True),
    ],
)
def test_addresses_are_read_and_show_no_credential(url: str, shown: str, cluster: bool) -> None:
    address = Address(url)
    assert address.cluster == cluster
    assert shown in str(address)
    assert "CANARY" not in str(address) + repr(store_on(url))

    async def main() -> None:
        link = address.link(0.1)
        await link.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("url", ["", "host", "http://host", "redis+x://h", "unix+cluster:///s",
                                 "redis://CANARY@host:no", "redis://host?db=CANARY"])  # fmt: skip
def test_other_addresses_are_refused_without_showing_them(url: str) -> None:
    with pytest.raises(ConfigurationError) as failure:
        store_on(url)
    assert "CANARY" not in str(failure.value)


class Told:
    """A link to a server that says what a test tells it to say."""

    def __init__(self, **facts: str) -> None:
        self._facts = facts

    async def facts(self) -> dict[str, str]:
        return self._facts

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize(
    ("facts", "fits"),
    [
        ({"redis_version": "6.2.0"}, True),
        ({"redis_version": "6.0.16"}, False),
        ({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "9.1.2"}, True),
        ({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "7.1.9"}, False),
        ({"redis_version": "255.255.255"}, True),
    ],
)
def test_a_server_that_is_too_old_is_refused(facts: dict[str, str], fits: bool) -> None:
    store = store_on("redis://host")
    if fits:
        asyncio.run(store._examine(Told(**facts)))
    else:
        with pytest.raises(ConfigurationError, match=r"must be Redis 6\.2"):
            asyncio.run(store._examine(Told(**facts)))


def test_a_server_that_may_forget_is_warned_of_once(
    valkey_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        store = store_on(valkey_server)
        for group in "abc":
            await store.declare(group, [SLOTS])
        await store.aclose()

    with valkey_server.client() as client, caplog.at_level(logging.WARNING):
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            asyncio.run(main())
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    warnings = [record for record in caplog.records if "maxmemory_policy=allkeys-lru" in record.message]
    assert len(warnings) == 1


def test_penalties_of_unknown_domains_are_ignored(valkey_server: Server) -> None:
    async def main() -> None:
        store = store_on(valkey_server)
        await store.declare("g", [SLOTS])
        await store.transact("g", Batch(penalties=(Penalty(7, shut=True),)))
        assert isinstance(await ask(store, "a1", prefer=7), Grant)
        await store.aclose()

    asyncio.run(main())
