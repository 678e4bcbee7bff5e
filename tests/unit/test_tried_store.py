"""A store that nobody named: used if it is there, done without if it is not; found out once."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from headgate.content import load_content
from headgate.core.errors import ConfigurationError, KeyFormatError
from headgate.core.quota import Ask, Batch, Counts, Grant, Limit
from headgate.stores.memory import MemoryStore
from headgate.stores.tried import TriedStore
from headgate.testing import VirtualClock

LIMITS = [[Limit("rpm", Counts.REQUESTS, 2)]]
ASK = Batch(asks=(Ask("a", {Counts.REQUESTS: 1}),))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
        return port


async def test_without_a_server_this_process_has_the_quota(clock: VirtualClock) -> None:
    shared, alone = MemoryStore(clock), MemoryStore(clock)
    store = TriedStore("127.0.0.1", free_port(), lambda: shared, alone)
    await store.aclose()  # nothing is open yet
    await store.declare("g", LIMITS)
    assert isinstance((await store.transact("g", ASK)).answers[0], Grant)
    assert (await store.fills("g"))[0][0].used == 1
    assert (await alone.fills("g"))[0][0].used == 1
    assert await shared.fills("g") == ()
    await store.aclose()


async def test_a_server_that_is_there_has_it(clock: VirtualClock) -> None:
    shared, alone = MemoryStore(clock), MemoryStore(clock)
    made = []

    def make() -> MemoryStore:
        made.append(shared)
        return shared

    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        store = TriedStore("127.0.0.1", server.sockets[0].getsockname()[1], make, alone)
        await asyncio.gather(*(store.declare("g", LIMITS) for _ in range(3)))
        await store.transact("g", ASK)
    assert (await store.fills("g"))[0][0].used == 1
    assert await alone.fills("g") == ()
    assert len(made) == 1


def test_who_names_a_store_is_taken_at_his_word() -> None:
    assert load_content(environ={}).store_named is False
    for environ in (
        {"REDIS_HOST": "redis"},
        {"HEADGATE_STORE": "redis://there"},
        {"REDIS_PASSWORD": "x"},
    ):
        assert load_content(environ=environ).store_named is True
    off = load_content(environ={"REDIS_ENABLED": "false"})
    assert (off.store.memory, off.cache.store.memory) == (True, True)


def test_settings_come_from_arguments_variables_and_the_file(tmp_path: Path) -> None:
    file = tmp_path / "headgate.toml"
    file.write_text("[content]\nquota_rpm = 7\nquota_tpm = 8\nredis_ttl = 60\n")
    environ = {"HEADGATE_CONFIG": str(file), "QUOTA_TPM": "9"}
    settings = load_content({"quota_rpd": 10}, environ)
    assert (settings.quota_rpm, settings.quota_tpm, settings.quota_rpd) == (7, 9, 10)
    assert settings.cache.redis_ttl == 60
    assert settings.model
    assert settings.image_model
    with pytest.raises(ConfigurationError, match="QUOTA_RPM is 'many'"):
        load_content(environ={"QUOTA_RPM": "many"})
    with pytest.raises(ConfigurationError, match="shorter than 16"):
        load_content(environ={"HEADGATE_ADMIN_KEY": "short"})
    with pytest.raises(KeyFormatError):
        load_content(environ={"HEADGATE_CALLER_KEYS": "short|ann"})
