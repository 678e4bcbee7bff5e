"""An engine with protection over a scripted transport, without a door."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

from tests.support import MODEL, Ear, Script, key

from headgate.core.call import Call, Chunk, Key, Operation, Priority, Reply
from headgate.engine.protection import ProtectionRules
from headgate.engine.stream import ReplyStream
from headgate.policy.backoff import Backoff
from headgate.providers.gemini import GeminiProvider
from headgate.testing import ScriptedTransport, VirtualClock
from headgate.wiring.build import Engine, assemble
from headgate.wiring.presets import gemini_registry
from headgate.wiring.resilience import Resilience
from headgate.wiring.settings import load_gemini


class Guarded:
    """What a test needs of an engine: keys k0, k1, … of projects p0, p1, …"""

    def __init__(
        self,
        clock: VirtualClock,
        script: Script,
        rules: ProtectionRules,
        *,
        domains: int = 2,
        quotas: Mapping[str, object] | None = None,
        max_retries: int = 2,
    ) -> None:
        self.clock = clock
        self.ear = Ear()
        self.transport = ScriptedTransport(script, clock)
        numbers = {f"quota_{name}": value for name, value in (quotas or {}).items()}
        settings = load_gemini(
            {"max_retries": max_retries, **numbers},
            keys=tuple(Key(f"k{number}", key(number), f"p{number}") for number in range(domains)),
            environ={},
        )
        self.engine: Engine = assemble(
            settings,
            GeminiProvider(settings.base_url),
            gemini_registry(),
            clock=clock,
            observer=self.ear,
            warn=lambda _: None,
            transport=self.transport,
            quotas=settings.quotas,
            learning=False,
            chance=lambda: 0.5,
            backoff=Backoff(base=1.0, factor=2.0, cap=60.0),
            retry_timeouts=False,
            resilience=Resilience(protection=rules),
        )
        self.numbers = 0

    async def run(self, operation: Operation = Operation.GENERATE, **fields: Any) -> Any:
        """The answer to a call; a stream is not read."""
        self.numbers += 1
        fields.setdefault("request_id", f"r{self.numbers}")
        fields.setdefault("priority", Priority.NORMAL)
        call = Call(operation, fields.pop("model", MODEL), ("hi",), **fields)
        answer, _ = await self.engine.pipeline.run(call)
        return answer

    async def ask(self, **fields: Any) -> Reply:
        """A whole answer."""
        return cast("Reply", await self.run(**fields))

    async def read(self, **fields: Any) -> list[Chunk]:
        """All pieces of a streamed answer."""
        stream = cast("ReplyStream", await self.run(Operation.STREAM, **fields))
        try:
            return [chunk async for chunk in stream]
        finally:
            await stream.aclose()

    @property
    def sends(self) -> int:
        """How much was sent."""
        return len(self.transport.sent)

    async def at_rest(self) -> None:
        """Nothing is left behind: no exchange, no task, nothing counted as under way."""
        for _ in range(5):
            await asyncio.sleep(0)  # noqa: TID251 - yields to the loop, no time passes
        assert self.transport.open_exchanges == 0
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others, others
        known = self.engine.protection
        assert (known.in_flight, known.waiting) == (0, 0)
        for ward in known._wards.values():
            assert ward.places is None or ward.places.used == 0
