"""An engine with recall over a scripted transport, and calls that ask for it."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.support import MODEL, Ear, Script, key

from headgate.core.call import Call, Chunk, Keeping, Key, Operation, Preparation, Reply
from headgate.core.model_card import Provenance
from headgate.core.replies import ReplyCache
from headgate.engine.passage import Passage
from headgate.engine.stream import ReplyStream
from headgate.policy.registry import ModelRegistry, merge_cards
from headgate.providers.gemini import GeminiProvider
from headgate.stores.replies import MemoryReplies
from headgate.testing import ScriptedTransport, VirtualClock
from headgate.wiring.build import assemble
from headgate.wiring.model_data import gemini_cards
from headgate.wiring.resilience import Resilience
from headgate.wiring.settings import load_gemini

KEPT = Keeping(ttl=60.0)


class Remote(MemoryReplies):
    """A cache in memory that takes its time, as one of many processes does."""

    remote = True

    def __init__(self, clock: VirtualClock, delay: float = 0.001) -> None:
        super().__init__(clock, most_entries=1000, most_bytes=10**7)
        self.delay = delay
        self.looks = 0

    async def look(self, *place: Any, **how: Any) -> Any:
        self.looks += 1
        await self._clock.sleep(self.delay)
        return await super().look(*place, **how)


class Recalling:
    """An engine, what it sent, and what it told its observers."""

    def __init__(
        self, clock: VirtualClock, script: Script, cache: ReplyCache | None = None, **settings: Any
    ) -> None:
        self.clock = clock
        self.ear = Ear()
        self.transport = ScriptedTransport(script, clock)
        self.cache = cache or MemoryReplies(clock, most_entries=1000, most_bytes=10**7)
        registry = ModelRegistry(merge_cards([(Provenance.SHIPPED, gemini_cards())]))
        arguments = {"max_retries": 0, **settings}
        loaded = load_gemini(arguments, keys=(Key("k0", key(0), "alpha"), Key("k1", key(1), "beta")))
        self.engine = assemble(
            loaded,
            GeminiProvider(loaded.base_url),
            registry.names,
            clock=clock,
            observer=self.ear,
            warn=lambda _: None,
            transport=self.transport,
            learning=False,
            chance=lambda: 0.5,
            models=lambda: registry,
            resilience=Resilience(cache=self.cache, fallbacks=True),
        )

    def call(self, prompt: str = "hi", *, stream: bool = False, **fields: Any) -> Call:
        operation = Operation.STREAM if stream else Operation.GENERATE
        fields = {"keeping": KEPT, "operation": operation, "request_id": "r", **fields}
        return Call(model=MODEL, parts=(prompt,), **fields)

    async def run(self, prompt: str = "hi", **fields: Any) -> tuple[Reply, Passage]:
        """The whole answer and what it took."""
        answer, passage = await self.engine.pipeline.run(self.call(prompt, **fields))
        assert isinstance(answer, Reply)
        return answer, passage

    async def ask(self, prompt: str = "hi", **fields: Any) -> str:
        """The text of the whole answer."""
        return (await self.run(prompt, **fields))[0].text

    async def open(self, prompt: str = "hi", **fields: Any) -> ReplyStream:
        """A streamed answer."""
        answer, _ = await self.engine.pipeline.run(self.call(prompt, stream=True, **fields))
        assert isinstance(answer, ReplyStream)
        return answer

    async def read(self, prompt: str = "hi", **fields: Any) -> list[Chunk]:
        """All pieces of a streamed answer."""
        return [chunk async for chunk in await self.open(prompt, **fields)]

    @property
    def sends(self) -> int:
        """How often the upstream was asked."""
        return len(self.transport.sent)

    async def at_rest(self) -> None:
        """Nothing is left open or under way."""
        await self.engine.aclose()
        for _ in range(5):
            await asyncio.sleep(0)  # noqa: TID251 - yields to the loop, no time passes
        assert self.transport.open_exchanges == 0, "an exchange stayed open"
        assert asyncio.all_tasks() == {asyncio.current_task()}, "a task was left behind"


def redacting() -> Preparation:
    """Personal data is taken out, and put back into the reply."""
    return Preparation(sanitize=False, redact=True, restore=True, enforce_tokens=False)
