"""S3-04f: any chain and failures give one answer or the first failure, within the bound of sends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.degrading import (
    MODEL,
    UNFIT,
    Act,
    Answers,
    Fails,
    Rest,
    asked,
    kept,
    read,
    run,
)

from headgate.core.call import Reply
from headgate.core.errors import UpstreamError
from headgate.core.fallback import (
    DefaultResponse,
    FailFast,
    FallbackStrategy,
    PartialResponse,
    SwitchModel,
    UseCachedResponse,
)
from headgate.core.outcome import RULES, Kind
from headgate.engine.stream import ReplyStream
from headgate.policy.degrading import degrades
from headgate.testing import VirtualClock

STRATEGIES = st.sampled_from([
    UseCachedResponse(),
    DefaultResponse("Later."),
    PartialResponse(),
    FailFast(),
    *(SwitchModel(model) for model in (MODEL, "model-b", "model-c", UNFIT)),
])  # fmt: skip
KINDS = st.sampled_from([kind for kind in Kind if kind not in (Kind.SUCCESS, Kind.CANCELLED)])
SAID_BY = {
    None: ("fine", "well"),
    "SwitchModel": ("fine", "well"),
    "DefaultResponse": ("Later.",),
    "PartialResponse": ("The moon",),
    "UseCachedResponse": ("of yesterday",),
}
ACTS: st.SearchStrategy[Act] = st.one_of(
    st.builds(Answers, st.sampled_from(["fine", "well"])),
    st.builds(Fails, KINDS, st.sampled_from(["", "The moon"]), st.sampled_from([0.0, 3.0])),
)


@given(
    chain=st.lists(STRATEGIES, max_size=5),
    acts=st.lists(ACTS, min_size=1, max_size=6),
    stream=st.booleans(),
    has_stale=st.booleans(),
    deadline=st.sampled_from([None, 2.0, 100.0]),
)
def test_one_answer_or_the_first_failure_and_never_more_sends_than_the_bound(
    chain: list[FallbackStrategy],
    acts: list[Act],
    stream: bool,
    has_stale: bool,
    deadline: float | None,
) -> None:
    clock = VirtualClock()
    rest = Rest(clock, acts)

    async def scene() -> None:
        call = asked(*chain, stream=stream, deadline=deadline)
        got, passage = await run(call, rest, clock, stale=kept() if has_stale else None)
        text, broke = "", None
        if isinstance(got, ReplyStream):
            text, _, _, broke = await read(got)
        elif isinstance(got, Reply):
            text = got.text
        before_end = chain[: chain.index(FailFast())] if FailFast() in chain else chain
        others = {one.model for one in before_end if isinstance(one, SwitchModel)} - {MODEL, UNFIT}
        assert len(rest.models) <= 1 + len(others)
        assert len(set(rest.models)) == len(rest.models), "no model is asked twice"
        assert passage.attempts == len(rest.models), "what was sent is counted"
        assert all(exchange.closed for exchange in rest.exchanges)
        first = acts[0]
        if isinstance(got, UpstreamError):
            assert isinstance(first, Fails)
            assert got.outcome.kind is first.kind, "the first failure is raised"
            assert passage.fallback is None
            assert passage.recalled is None
        elif broke is None:
            assert text in SAID_BY[passage.fallback]
            assert (passage.recalled is not None) == (passage.fallback == "UseCachedResponse")
        if isinstance(first, Fails) and not (stream and first.after):
            if not degrades(RULES[first.kind].public_kind):
                assert isinstance(got, UpstreamError)
                assert rest.models == [MODEL]
            elif DefaultResponse("Later.") in before_end:
                assert not isinstance(got, UpstreamError), "a text is always there"

    clock.run(scene())
