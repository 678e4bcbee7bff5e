"""Random crowds of callers over random upstreams: each is told an answer to its own question."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.recalling import Recalling, Remote
from tests.support import broken_inside, failure, said, stream

from headgate.core.call import Keeping, Priority
from headgate.core.errors import HeadgateError
from headgate.core.fallback import UseCachedResponse
from headgate.testing import Answer, Sent, VirtualClock


class Asker(NamedTuple):
    """One caller: when it comes, what it asks and how, and when it walks away."""

    at: float
    prompt: int
    partition: int
    streams: bool
    deadline: float | None
    leaves: float | None
    priority: Priority
    reads: bool
    rescued: bool


def seconds(most: float) -> st.SearchStrategy[float]:
    return st.floats(0, most).map(lambda value: round(value, 1))


askers = st.builds(
    Asker,
    seconds(60),
    st.integers(0, 1),
    st.integers(0, 1),
    st.booleans(),
    st.none() | seconds(20).map(lambda value: value + 0.1),
    st.none() | seconds(10),
    st.sampled_from(list(Priority)),
    st.booleans() | st.just(True),
    st.booleans(),
)

fates = st.lists(
    st.tuples(st.sampled_from(["fine", "fine", "fine", "cut", "fault", "bad", "broken"]), seconds(8)),
    min_size=1,
    max_size=8,
)


def upstream(fates: list[tuple[str, float]]) -> Any:
    """Each answer repeats the question, and has a number of its own."""
    numbers = iter(range(10_000))

    def answer(sent: Sent) -> Answer:
        asked = json.loads(sent.request.body)["contents"][0]["parts"][0]["text"]
        number = next(numbers)
        fate, delay = fates[number % len(fates)]
        text = f"{asked} #{number}"
        if fate == "fault":
            return broken_inside(delay=delay)
        if fate == "bad":
            return failure(400, "no", delay=delay)
        finish = {"fine": "STOP", "cut": "MAX_TOKENS", "broken": None}[fate]
        if sent.request.streaming:
            pieces = stream(text[:5], text[5:], finish=finish, piece_delay=delay / 2).pieces
            return Answer(pieces=pieces, piece_delay=delay / 2)
        return said(text, finish=finish or "STOP", delay=delay)

    return answer


@settings(max_examples=150)
@given(st.lists(askers, min_size=1, max_size=14), fates, st.booleans(), st.booleans())
def test_a_random_crowd(
    crowd: list[Asker], fates: list[tuple[str, float]], remote: bool, two: bool
) -> None:
    """Whatever fails and whoever leaves: an answer or a typed error for each, nothing left behind."""
    clock = VirtualClock()
    heard: dict[str, set[int]] = defaultdict(set)

    async def one(asker: Asker, engine: Recalling) -> None:
        await clock.sleep(asker.at)
        prompt = f"question {asker.prompt}"
        deadline = None if asker.deadline is None else clock.monotonic() + asker.deadline
        fields: dict[str, Any] = {
            "deadline": deadline,
            "priority": asker.priority,
            "keeping": Keeping(
                partition=str(asker.partition), ttl=10, revalidate=10, rescue=30, reads=asker.reads
            ),
            "fallbacks": (UseCachedResponse(),) if asker.rescued else (),
        }
        begun = clock.monotonic()
        try:
            async with asyncio.timeout(asker.leaves):
                if asker.streams:
                    text = "".join(chunk.text for chunk in await engine.read(prompt, **fields))
                else:
                    text = await engine.ask(prompt, **fields)
        except (HeadgateError, TimeoutError):
            text = None
        if asker.deadline is not None:
            assert clock.monotonic() - begun <= asker.deadline + 0.2, "it outstayed its deadline"
        if text is not None:
            assert text.startswith(f"{prompt} #"), "the answer to another question"
            heard[text].add(asker.partition)

    async def all_of_them() -> None:
        cache = Remote(clock) if remote or two else None
        engines = [Recalling(clock, upstream(fates), cache)]
        if two:
            engines.append(Recalling(clock, upstream(fates), cache))
        async with asyncio.TaskGroup() as group:
            for number, asker in enumerate(crowd):
                group.create_task(one(asker, engines[number % len(engines)]))
        for engine in engines:
            await engine.at_rest()
        sends = sum(engine.sends for engine in engines)
        refreshes = sum(
            record.request_id.endswith(".refresh") for one in engines for record in one.ear.attempts
        )
        assert sends <= len(crowd) + refreshes
        assert sum(len(engine.ear.calls) for engine in engines) == len(crowd)

    clock.run(all_of_them())
    if not two:  # two upstreams count alike
        assert all(len(partitions) == 1 for partitions in heard.values()), "it crossed a partition"
