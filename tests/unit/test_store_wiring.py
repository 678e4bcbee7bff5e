"""What stands before a store that processes share."""

from __future__ import annotations

import pytest

from headgate.core.errors import ConfigurationError
from headgate.stores.memory import MemoryStore
from headgate.stores.sharing import SharedStore
from headgate.stores.urls import StoreUrl
from headgate.testing import VirtualClock
from headgate.wiring.stores import check_store, open_store


def opened(url: str) -> object:
    return open_store(StoreUrl.read(url), clock=VirtualClock(), chance=lambda: 0.5)


def test_a_shared_store_has_a_stand_in_and_memory_needs_none() -> None:
    assert isinstance(opened("memory"), MemoryStore)
    first, second = opened("redis://host:6379"), opened("redis://host:6379")
    assert isinstance(first, SharedStore)
    assert isinstance(second, SharedStore)
    assert first._member != second._member


@pytest.mark.parametrize(
    "url",
    ["redis://host?processes=4", "redis+cluster://a:1,b:2?processes=4", "unix:///s?db=1&processes=4"],
)
def test_the_url_may_say_how_many_processes_there_are(url: str) -> None:
    store = opened(url)
    assert isinstance(store, SharedStore)
    assert store._crowd.standing(None).processes == 4
    check_store(StoreUrl.read(url))


@pytest.mark.parametrize("said", ["0", "-1", "many", "1.5"])
def test_a_number_of_processes_is_a_number(said: str) -> None:
    url = StoreUrl.read(f"redis://user:CANARY@host?processes={said}")
    with pytest.raises(ConfigurationError, match="processes=1 or more"):
        check_store(url)
    with pytest.raises(ConfigurationError, match="processes=1 or more"):
        open_store(url, clock=VirtualClock(), chance=lambda: 0.5)
