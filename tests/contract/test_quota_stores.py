"""Both stores pass the one contract suite."""

from __future__ import annotations

from random import Random  # noqa: TID251 - seeded

import pytest
from tests import valkey
from tests.valkey import TIMED_SCRIPT, set_time

from headgate.core.ports import QuotaStore
from headgate.policy.quota import accounts, choice, ledger, pacing, price, windows
from headgate.stores import valkey_wire
from headgate.stores.memory import MemoryStore
from headgate.stores.valkey import ValkeyStore
from headgate.testing import VirtualClock
from headgate.testing.store_contract import StoreContract
from headgate.wiring.clock import SystemClock

valkey_server = valkey.valkey_server

START = 1_795_262_400_000


class TestMemoryStore(StoreContract):
    async def make(self) -> QuotaStore:
        self.clock = VirtualClock()
        return MemoryStore(self.clock)

    async def pass_time(self, milliseconds: int) -> None:
        self.clock.advance(milliseconds / 1000)


class TestValkeyStore(StoreContract):
    @pytest.fixture(autouse=True)
    def server(self, valkey_server: valkey.Server) -> None:
        self.place = valkey_server

    async def make(self) -> QuotaStore:
        self.now = START
        set_time(self.place, self.now)
        return ValkeyStore(
            self.place.url,
            clock=SystemClock(),
            chance=Random(1).random,
            timeout=5.0,
            script=TIMED_SCRIPT,
        )

    async def pass_time(self, milliseconds: int) -> None:
        self.now += milliseconds
        set_time(self.place, self.now)


class TestValkeyStoreWithFlushedScripts(TestValkeyStore):
    """The same, and the server forgets the script whenever time passes."""

    async def pass_time(self, milliseconds: int) -> None:
        await super().pass_time(milliseconds)
        with self.place.client() as client:
            client.script_flush()


def test_the_script_has_the_constants_of_the_policy() -> None:
    constants = valkey_wire.constants()
    expected = {
        "TTL": ledger.TTL,
        "SKEW": windows.SKEW,
        "SAMPLES": price.SAMPLES,
        "STEPS": price.STEPS,
        "REDRAWS": choice.REDRAWS,
        "LONGEST_WALK": choice.LONGEST_WALK,
        "EXACT": choice.EXACT,
        "BUCKETS": windows.BUCKETS,
        "DAY": windows.DAY,
        "DAY_BUCKET": windows.DAY_BUCKET,
        "RESET_EARLY": windows.RESET_EARLY,
        "RESET_LATE": windows.RESET_LATE,
        "CLOSED": accounts.CLOSED,
        "QUIET": pacing.QUIET,
        "LOOK": pacing.LOOK,
        "PARTS": pacing.STEPS,
    }
    assert {name: constants[name] for name in expected} == expected
    table = valkey_wire.script_source().partition("local EXPONENTIAL = {")[2].partition("}")[0]
    assert tuple(int(number) for number in table.replace(",", " ").split()) == price.EXPONENTIAL


def test_the_script_takes_its_time_from_the_server_alone() -> None:
    assert TIMED_SCRIPT.count("redis.call('TIME')") == 0
    assert valkey_wire.script_source().count("call('TIME')") == 1
