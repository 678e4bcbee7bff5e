"""The topology of deploy/ at work, without containers: three instances behind nginx, one Valkey,
Prometheus, from the shipped files. One start for all; the emulator's books are the judge."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import redis
from tests.gateway import CALLER_KEY
from tests.stack import Asker, Load, samples, until
from tests.support import key
from tools.stack.topology import Stack

from headgate.emulator import Emulator, EmulatorConfig, Latency, Limits, Project
from headgate.wiring.clock import SystemClock

RPM = 60
USABLE = 48
"""With the accepted margin of 0.8."""

SLOW = 1.5
"""Seconds of the emulator for an answer: long enough to kill somebody in the middle of it."""

CONFIG = EmulatorConfig(
    projects=[Project("alpha", {"k0": key(0)}, limits={"*": Limits(rpm=RPM, rpd=1500)})],
    latency=Latency(first_byte=SLOW),
)
CLOCK = SystemClock()
ROOT = Path(__file__).parents[2]


class World:
    """A stack, who asks it, and the upstream's books."""

    def __init__(self, stack: Stack, asker: Asker, emulator: Emulator) -> None:
        self.stack, self.asker, self.emulator = stack, asker, emulator
        self.said: list[str] = []

    @property
    def made(self) -> int:
        """Calls that the upstream answered."""
        return self.emulator.report().totals.answered

    async def metrics(self, port: int) -> bytes:
        return (await self.asker.get("/metrics", port=port)).body

    async def all_ready(self) -> bool:
        """Whether each instance is, with the store that they share."""
        for port in self.stack.instance_ports:
            answer = await self.asker.get("/api/ready", port=port)
            if answer.status != 200 or b'"healthy"' not in answer.body.split(b'"gemini_api"')[0]:
                return False
        return True

    def store(self) -> redis.Redis:
        password = (self.stack.valkey.log.parent / "valkey-password").read_text(encoding="utf-8")
        return redis.Redis(port=self.stack.valkey_port, password=password)

    def kinds(self, *, repeatable: bool) -> list[tuple[str, Any]]:
        """A load of what is kept and what is not: two of each."""
        ask = self.asker
        kept = ("post", partial(ask.subtopics, "Tides", repeatable=repeatable))
        return [kept, ("stats", partial(ask.get, "/api/quota/stats")), kept,
                ("ready", partial(ask.get, "/api/health"))]  # fmt: skip


async def the_cache_is_shared_and_its_rate_moves(world: World) -> None:
    """S4-36.5 across instances: a second identical call, at another one, is a hit."""
    first, second, _ = world.stack.instance_ports
    before = samples(await world.metrics(second), "cache_hit_rate")
    got = await world.asker.subtopics("Tides", port=first)
    assert got.status == 200, got.body
    again = await world.asker.subtopics("Tides", port=second)
    assert b'"cache_hit":true' in again.body.replace(b" ", b"")
    assert world.made == 1
    hits = samples(await world.metrics(second), "cache_operations_total")
    assert [value for labels, value in hits.items() if '"hit"' in labels and '"get"' in labels] == [1.0]
    after = samples(await world.metrics(second), "cache_hit_rate")
    assert before == {"": 0.0}
    assert after == {"": 100.0}


async def requests_are_shared_out(world: World) -> None:
    """S4-32: over all instances, and no scrape goes through nginx."""
    for _ in range(12):
        assert (await world.asker.get("/api/quota/stats")).status == 200
    served = [
        sum(value for labels, value in samples(await world.metrics(port), "http_requests_total").items()
            if "quota_stats" in labels)
        for port in world.stack.instance_ports
    ]  # fmt: skip
    assert sum(served) == 12
    assert min(served) >= 2, served
    assert (await world.asker.get("/metrics")).status == 404


async def one_dies_under_load_without_a_failed_request(world: World) -> None:
    """S4-38. What its senders call repeatable goes elsewhere, even if it was sent; what they do not is
    sent once, whatever happens, and its sender is told at once."""
    load = Load(CLOCK)
    made = world.made
    async with load.of(*world.kinds(repeatable=True)):
        await CLOCK.sleep(0.3)
        safe = [asyncio.ensure_future(world.asker.subtopics(f"Safe {n}", repeatable=True))
                for n in range(6)]  # fmt: skip
        once = [asyncio.ensure_future(world.asker.subtopics(f"Once {n}")) for n in range(6)]
        await until(CLOCK, partial(_sent, world, made + 12))
        os.kill(world.stack.instances[0].pid, signal.SIGKILL)
        repeated = await asyncio.gather(*safe)
        single = await asyncio.gather(*once)
        await CLOCK.sleep(0.5)
    assert load.failed == {}
    assert sum(load.answers.values()) > 20
    assert [answer.status for answer in repeated] == [200] * 6
    lost = [answer for answer in single if answer.status != 200]
    assert {answer.status for answer in lost} == {502}, "some were at the one that died"
    assert all(b"Send it again" in answer.body for answer in lost)
    totals = world.emulator.report().totals
    assert totals.aborted == len(lost) + totals.requests - made - 12, "only the repeatable came again"
    assert await until(CLOCK, world.all_ready), "it is started again"


async def _sent(world: World, wanted: int) -> bool:
    return world.emulator.report().totals.requests >= wanted


async def progress_is_seen_as_it_is_made(world: World) -> None:
    """S4-33: nginx holds nothing back. Four explanations are made three at a time."""
    made = world.made
    order = {"topic": "Canals", "focus": ["Locks", "Boats", "Bridges", "Weirs"]}
    events = world.asker.events("/api/create_presentation", order)
    assert await anext(events) == "progress"
    assert world.made - made < 4, "the last one is still being made"
    assert [event async for event in events] == ["progress"] * 3 + ["done"]


async def the_store_is_killed_under_load_and_comes_back_with_what_it_held(world: World) -> None:
    await CLOCK.sleep(1.1)  # appendfsync everysec
    with world.store() as store:
        held = store.dbsize()
    assert held > 0
    load = Load(CLOCK)
    async with load.of(*world.kinds(repeatable=False)):
        await CLOCK.sleep(0.3)
        os.kill(world.stack.valkey.pid, signal.SIGKILL)
        await CLOCK.sleep(1.0)
        assert await until(CLOCK, world.all_ready), "it heals"
    assert load.failed == {}
    with world.store() as store:
        assert store.dbsize() >= held
    assert b'"cache_hit":true' in (await world.asker.subtopics("Tides")).body.replace(b" ", b"")


async def all_are_replaced_under_load_without_a_failed_request(world: World) -> None:
    """A rolling restart (trust L6): nothing is repeated, nothing fails."""
    before = [program.pid for program in world.stack.instances]
    load = Load(CLOCK)
    async with load.of(*world.kinds(repeatable=False)):
        await world.stack.roll()
    assert load.failed == {}
    assert sum(load.answers.values()) > 30
    assert not {program.pid for program in world.stack.instances} & set(before)
    assert await until(CLOCK, world.all_ready)


async def the_quota_is_kept_by_all_together(world: World) -> None:
    """Three instances want more than there is: what is given is within the limit, and the upstream
    never had to say no."""
    answers = await asyncio.gather(
        *(world.asker.subtopics(f"Wanted {number}") for number in range(RPM + 20))
    )
    statuses = Counter(answer.status for answer in answers)
    assert set(statuses) == {200, 429}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers if answer.status == 429)
    report = world.emulator.report()
    assert report.totals.refused == {}
    (quota,) = {
        model.quotas["rpm"].max_used
        for project in report.projects.values()
        for model in project.models.values()
        if "rpm" in model.quotas
    }
    assert quota <= USABLE
    assert statuses[200] >= USABLE / 4, "what was made in the last minute counts, too"


async def prometheus_has_each_instance_and_no_other(world: World) -> None:
    """S4-30 and S4-32: the shipped job, one series for each instance."""

    async def up() -> bool:
        path = "/api/v1/query?query=up%7Bjob%3D%22KNOWALLEDGE_backend%22%7D%3D%3D1"
        answer = await world.asker.get(path, port=world.stack.prometheus_port)
        return answer.body.count(b'"instance":"127.0.0.1:') == 3

    assert await until(CLOCK, up)


async def stacked(folder: Path) -> None:
    async with Emulator(CONFIG) as emulator:
        environ = {
            "GEMINI_API_KEYS": f"{key(0)}|k0|alpha",
            "HEADGATE_GEMINI_BASE_URL": emulator.base_url,
            "HEADGATE_CALLER_KEYS": f"{CALLER_KEY}|ann",
            "QUOTA_RPM": str(RPM),
            "HEADGATE_CONTENT_LINGER_SECONDS": "0.5",
        }
        said: list[str] = []
        stack = Stack(folder, environ, CLOCK, metrics_key=CALLER_KEY, say=said.append)
        async with stack, Asker(stack.address, CALLER_KEY) as asker:
            world = World(stack, asker, emulator)
            assert await world.all_ready()
            await the_cache_is_shared_and_its_rate_moves(world)
            await requests_are_shared_out(world)
            await one_dies_under_load_without_a_failed_request(world)
            await progress_is_seen_as_it_is_made(world)
            await the_quota_is_kept_by_all_together(world)
            await the_store_is_killed_under_load_and_comes_back_with_what_it_held(world)
            await all_are_replaced_under_load_without_a_failed_request(world)
            await prometheus_has_each_instance_and_no_other(world)
        assert said == ["backend-1 died. It is started again.", "valkey died. It is started again."]
        assert all(program.lost is False for program in stack.programs)


def test_s4_36_and_s4_38_the_stack_shares_heals_and_rolls(tmp_path: Path) -> None:
    asyncio.run(stacked(tmp_path))
    for log in tmp_path.glob("*.log"):
        assert "CANARY" not in log.read_text(encoding="utf-8"), log.name


def test_ctrl_c_ends_all_of_it(tmp_path: Path) -> None:
    """`python -m tools.stack` as its users meet it, with an emulator; and no process stays behind."""
    command = [sys.executable, "-m", "tools.stack", "--port", "0", "--prometheus", "0"]
    with subprocess.Popen(
        [*command, "--instances", "1"], cwd=ROOT, stderr=subprocess.PIPE, text=True,
        env={"PATH": os.defpath, "HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
    ) as process:  # fmt: skip
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if "Ctrl-C" in line:
                break
        ports = [int(port) for port in re.findall(r"(?:127\.0\.0\.1:|on ports )(\d+)", said)]
        assert len(ports) == 3, said
        assert [port for port in ports if is_open(port)] == ports
        process.send_signal(signal.SIGINT)
        said += process.stderr.read()
    assert process.returncode == 0, said
    assert [port for port in ports if is_open(port)] == []
    assert list(tmp_path.glob("headgate-stack-*")) == [], "nor a file"


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
