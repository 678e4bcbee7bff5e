"""A stream that somebody leaves half read at the end of the event loop closes without a word."""

from __future__ import annotations

import gc
import warnings
from collections.abc import AsyncGenerator

import pytest
from tests.recalling import Recalling
from tests.support import said, stream

from headgate.core.call import Chunk
from headgate.engine.stream import ReplyStream
from headgate.testing import VirtualClock


async def _through(answer: ReplyStream) -> AsyncGenerator[Chunk]:
    """As the doors wrap a stream: closed by whoever closes this one."""
    try:
        async for chunk in answer:
            yield chunk
    finally:
        await answer.aclose()


@pytest.mark.parametrize("kept", [False, True], ids=["from the upstream", "from the cache"])
def test_a_half_read_stream_warns_of_nothing_when_the_loop_ends(kept: bool) -> None:
    clock = VirtualClock()
    it = Recalling(clock, [said("kept")] if kept else [stream("a", "b", "c", piece_delay=1.0)])
    left: list[AsyncGenerator[Chunk]] = []

    async def main() -> None:
        if kept:
            await it.ask()
        left.append(_through(await it.open()))
        first = await anext(left[0])
        assert first.text == ("kept" if kept else "a")

    with warnings.catch_warnings(record=True) as said_of_it:  # as errors the loop would swallow them
        warnings.simplefilter("always")
        clock.run(main())
        left.clear()
        gc.collect()
    assert [str(one.message) for one in said_of_it] == []
    assert it.transport.open_exchanges == 0
