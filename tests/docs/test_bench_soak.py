"""What a soak takes for growth, and that what it is made of can be made."""

from __future__ import annotations

from random import Random  # noqa: TID251 - seeded

from bench.soak.__main__ import config
from bench.soak.load import Clients
from bench.soak.verdict import Rest, grown


def rests(**last: int) -> list[Rest]:
    flat = [
        Rest(at=float(at), asked=at, tasks=4, files=30, threads=3, memory=60_000) for at in range(8)
    ]
    return [*flat, *(rest._replace(**last) for rest in flat[-2:])]


def test_what_is_flat_has_not_grown() -> None:
    assert not grown(rests(), share=0.05)
    assert not grown(rests(tasks=6, files=38, threads=5, memory=66_000), share=0.05)


def test_each_thing_that_grows_is_told() -> None:
    assert grown(rests(tasks=7), share=0.05) == ["tasks grew from 4 to 7"]
    assert grown(rests(files=39), share=0.05) == ["files grew from 30 to 39"]
    assert grown(rests(threads=6), share=0.05) == ["threads grew from 3 to 6"]
    assert grown(rests(memory=68_000), share=0.05) == ["memory grew from 60000 to 68000 KiB"]


def test_what_is_made_for_the_first_time_is_no_growth() -> None:
    first = Rest(at=1.0, asked=1, tasks=1, files=5, threads=1, memory=30_000)
    assert not grown([first, *rests()], share=0.05)
    assert grown([first], share=0.05), "nothing can be said of a single rest"


def test_its_upstream_and_clients_can_be_made() -> None:
    assert config().faults
    assert Clients("127.0.0.1", 1, 2, Random(1)).asked == 0
