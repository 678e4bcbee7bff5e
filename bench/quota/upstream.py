"""The upstream: pools of projects, ways of counting, loads, and what a perfect client would get."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bench.quota.protocol import Key
from headgate.emulator import EmulatorConfig, Latency, Limits, Project
from headgate.emulator.quotas import build

__all__ = [
    "BOARD",
    "BURST",
    "LOADS",
    "MECHANISMS",
    "MODEL",
    "PATIENCE",
    "POOLS",
    "SCENES",
    "SERVICE",
    "Scene",
    "attainable",
    "born",
]

MODEL = "gemini-3.8-flash"
PATIENCE = 30.0
SERVICE = 0.2
_MINUTE = 60.0

POOLS: dict[str, tuple[int, ...]] = {
    "homo": (10,) * 20,
    "hetero": (30,) * 5 + (5,) * 15,  # the order matters to whoever goes round
    "small": (10, 5, 5),  # for a quick look; its loads are a tenth
}
"""Requests a minute of each key; each key has a project of its own."""

MECHANISMS: dict[str, str] = {
    "fixed": "windows of a minute that all begin at second 00",
    "phased": "windows of a minute, each key's beginning at its own second",
    "sliding": "the answered requests of the last 60 s",
    "bucket": "a token bucket that starts full and refills evenly",
    "counter": "two windows of a minute, the older fading as the newer passes",
}
SCENES = [f"{load}/{pool}" for pool in POOLS for load in ("over", "below")]
BOARD = (
    *(("over/homo", mechanism) for mechanism in ("fixed", "sliding", "bucket", "counter")),
    *(("over/hetero", mechanism) for mechanism in ("fixed", "sliding")),
    *(("below/homo", mechanism) for mechanism in ("fixed", "sliding")),
    *(("below/hetero", mechanism) for mechanism in ("fixed", "sliding")),
)
"""What the board shows unless told otherwise: load, pool and mechanism."""
LOADS = {"below": 180, "over": 300}
"""Calls a minute: 90 and 150 % of `homo`, 80 and 133 % of `hetero`."""

_KINDS: dict[str, Literal["fixed", "sliding_log", "token_bucket", "sliding_counter"]] = {
    "fixed": "fixed",
    "phased": "fixed",
    "sliding": "sliding_log",
    "bucket": "token_bucket",
    "counter": "sliding_counter",
}


@dataclass(frozen=True, slots=True)
class Scene:
    """One upstream and one list of calls.

    Attributes:
        pool: a name of `POOLS`, or `burst`: one key with a limit of tokens a minute.
        mechanism: a name of `MECHANISMS`.
        load: a name of `LOADS`.
        minutes: how long calls arrive.
        seed: of the arrivals.
        aligned: calls begin at a certain second of a minute, not at once.
    """

    pool: str
    mechanism: str
    load: str
    minutes: float
    seed: int = 1
    aligned: bool = True

    @property
    def limits(self) -> tuple[int, ...]:
        return POOLS[self.pool]

    @property
    def capacity(self) -> float:
        """What the limits add up to; a full bucket or a cut window may give more."""
        return sum(self.limits) * self.minutes

    @property
    def rate(self) -> float:
        """Calls a minute."""
        return LOADS[self.load] / (10 if self.pool == "small" else 1)

    def phase(self, key: int) -> float:
        return key * 7 % _MINUTE if self.mechanism == "phased" else 0.0

    def keys(self) -> tuple[Key, ...]:
        if self.pool == "burst":
            return (Key("bench-key-00", "k00", "p00", None, BURST.limit),)
        return tuple(
            Key(f"bench-key-{n:02}", f"k{n:02}", f"p{n:02}", rpm, None)
            for n, rpm in enumerate(self.limits)
        )

    def config(self) -> EmulatorConfig:
        kind = _KINDS.get(self.mechanism, "fixed")
        projects = [
            Project(
                key.project,
                keys={key.name: key.value},
                limits={} if self.pool == "burst" else {
                    "*": Limits(rpm=key.rpm, mechanism=kind, phase=self.phase(number))
                },
            )
            for number, key in enumerate(self.keys())
        ]  # fmt: skip
        service = BURST.service if self.pool == "burst" else SERVICE
        return EmulatorConfig(projects=projects, latency=Latency(first_byte=service))

    def delay(self) -> float:
        """Seconds after a full minute at which calls begin."""
        return 0.5 if self.mechanism in ("fixed", "phased") else 20.5

    def arrivals(self) -> list[float]:
        """When calls are born, in seconds from the start. The same for every contender."""
        chance = random.Random(f"{self.load} {self.seed}")
        times: list[float] = []
        at = chance.expovariate(self.rate / _MINUTE)
        while at < self.minutes * _MINUTE:
            times.append(at)
            at += chance.expovariate(self.rate / _MINUTE)
        return times

    def seeded(self, seed: int) -> Scene:
        return replace(self, seed=seed)


@dataclass(frozen=True, slots=True)
class _Burst:
    calls: int = 500
    limit: int = 100_000
    service: float = 0.5
    words: int = 999  # tokens here: one a word, and one for the message

    def prompt(self, number: int) -> str:
        return " ".join(("alpha", "bravo", "delta")[(number + n) % 3] for n in range(self.words))

    @property
    def scene(self) -> Scene:
        return Scene("burst", "-", "at once", 0.5)


BURST = _Burst()
"""All at once on one key: five times its tokens a minute. The upstream counts and refuses none."""


def born(scene: Scene, wall: float) -> float:
    """The Unix time at which the calls of a scene begin."""
    if not scene.aligned:
        return wall + 0.2
    delay = scene.delay()
    return (wall - delay) // _MINUTE * _MINUTE + _MINUTE + delay


def attainable(scene: Scene, start: float, arrivals: Sequence[float]) -> int:
    """Calls that a client with every counter before its eyes and no delay would get answered.

    First come, first served, each within its patience.
    """
    quotas = [
        build(_KINDS[scene.mechanism], limit, _MINUTE, scene.phase(number))
        for number, limit in enumerate(scene.limits)
    ]
    answered, now = 0, start
    for arrival in arrivals:
        now = max(now, start + arrival)
        wait, chosen = min((quota.wait(now, 1), n) for n, quota in enumerate(quotas))
        if now + wait > start + arrival + PATIENCE:
            continue
        now += wait + (1e-6 if wait else 0.0)
        quotas[chosen].charge(now, 1)
        answered += 1
    return answered
