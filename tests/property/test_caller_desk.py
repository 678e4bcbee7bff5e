"""Calls of one caller through two processes, as they come, fail, stream and are given up: at no instant
is more spent and held than there is, and in the end the budget has what the usage ledger has."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.callers import PRICED, dollars, guarded_gateway, issued, limits
from tests.gateway import Client
from tests.support import Ear, overloaded, quota, reply, stream

from headgate.core.callers import BudgetWindow
from headgate.testing import Answer, Broken, Sent, VirtualClock
from headgate.wiring.callers import DatedPrices

BUDGET = 4_000_000  # nano-dollars: some four calls at their worst
PLACES = 4

calls = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.0, 0.3, 2.0]),  # seconds until it comes
        st.integers(0, 1),  # to which process
        st.integers(1, 200),  # tokens it allows
        st.sampled_from(["whole", "stream", "overloaded", "quota", "reset", "cut"]),
        st.sampled_from([None, None, 0.0, 0.4, 1.5]),  # seconds until its reader walks away
    ),
    min_size=1,
    max_size=14,
)


def answer_to(kind: str, tokens: int) -> Answer | Broken:
    if kind == "overloaded":
        return overloaded()
    if kind == "quota":
        return quota()
    if kind == "reset":
        return Broken()
    if kind in ("stream", "cut"):
        finish = "STOP" if kind == "stream" else None
        return stream("some ", "words ", "more", finish=finish, piece_delay=0.5)
    whole = reply(tokens=tokens)
    return Answer(body=json.dumps(whole).encode(), delay=1.0)


@settings(max_examples=25)
@given(calls)
def test_a_budget_holds_whatever_becomes_of_its_calls(
    plan: list[tuple[float, int, int, str, float | None]],
) -> None:
    clock = VirtualClock()
    with tempfile.TemporaryDirectory() as folder:
        clock.run(played(clock, Path(folder) / "callers.db", plan))


async def played(
    clock: VirtualClock, path: Path, plan: list[tuple[float, int, int, str, float | None]]
) -> None:
    ear, first_try = Ear(), set[bytes]()

    def upstream(sent: Sent) -> Answer | Broken:
        body = sent.request.body
        said = json.loads(body)
        kind = said["contents"][0]["parts"][0]["text"].split()[0]
        if body in first_try:  # what failed once is answered
            kind = "stream" if sent.request.streaming else "whole"
        first_try.add(body)
        return answer_to(kind, said["generationConfig"]["maxOutputTokens"])

    made = [guarded_gateway(upstream, clock, path, [ear]) for _ in range(2)]
    book = made[0][2].book
    assert book is not None
    spec = {"budget": dollars(BUDGET / 10**9), "limits": limits(concurrent=PLACES)}
    key = (await issued(book, **spec)).key
    await clock.sleep(1.0)
    under_way: set[asyncio.Future[object]] = set()
    for number, (wait, where, tokens, kind, leaves) in enumerate(plan):
        await clock.sleep(wait)
        verb = "streamGenerateContent?alt=sse" if kind in ("stream", "cut") else "generateContent"
        body = {
            "contents": [{"parts": [{"text": f"{kind} {number}"}]}],
            "generationConfig": {"maxOutputTokens": tokens},
        }
        url, headers = f"/gemini/v1beta/models/{PRICED}:{verb}", {"x-goog-api-key": key}
        client = Client(made[where][0], "POST", url, body, headers)
        under_way.add(asyncio.ensure_future(client.run()))
        if leaves is not None:
            asyncio.get_running_loop().call_later(leaves, client.go_away)
        found = (await book.usage("ann")).spending
        assert found.spent + found.held <= BUDGET
        assert found.under_way <= PLACES
    await asyncio.gather(*under_way)
    await clock.sleep(5.0)
    found = book._store.spending((await book.get("ann")).id, BudgetWindow.MONTH, clock.wall())
    prices, cost = DatedPrices(clock), 0
    for attempt in ear.attempts:
        usage = attempt.estimate or attempt.outcome.usage
        if usage is not None and usage.total:
            cost += prices.cost("gemini", attempt.model, usage) or 0
    assert (found.spent, found.held, found.under_way) == (cost, 0, 0)
    for gateway, _, desk in made:
        assert not desk._tabs
        await gateway.aclose()
