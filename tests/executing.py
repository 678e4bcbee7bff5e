"""An executor of the backend over a scripted transport or an emulator, without the service."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

from tests.support import Ear, Script, key

from headgate.backend.execute import Executor
from headgate.backend.sessions import Sessions
from headgate.backend.structures import (
    BackendConfig,
    GeminiRequest,
    GeminiResponse,
    ModelCapabilities,
    ModelMetadata,
    Provenance,
    StreamingChunk,
)
from headgate.core.call import Key
from headgate.core.sessions import SessionStore
from headgate.policy.registry import ModelRegistry, merge_cards
from headgate.providers.gemini import GeminiProvider
from headgate.stores.sessions import MemorySessions
from headgate.testing import ScriptedTransport, Sent, VirtualClock
from headgate.wiring.build import Engine, assemble
from headgate.wiring.model_data import gemini_cards, gemini_prices
from headgate.wiring.resilience import Resilience
from headgate.wiring.settings import load_gemini

TINY = "gemini-tiny"
"""A model whose window holds 400 tokens."""

PLAIN = "gemini-plain"
"""A model that answers text and can do nothing else."""

_CAN = ModelCapabilities(
    text_generation=True,
    image_understanding=True,
    function_calling=True,
    json_mode=True,
    system_instructions=True,
    max_input_tokens=400,
    max_output_tokens=1000,
)
CARDS = (
    ModelMetadata(id=TINY, capabilities=_CAN),
    ModelMetadata(
        id=PLAIN,
        capabilities=ModelCapabilities(
            text_generation=True,
            image_understanding=False,
            function_calling=False,
            json_mode=False,
            system_instructions=False,
            supports_top_k=False,
            supports_stop_sequences=False,
        ),
    ),
)


class Backend:
    """What a test needs of a backend."""

    def __init__(
        self,
        clock: VirtualClock,
        script: Script | None = None,
        *,
        base_url: str | None = None,
        config: BackendConfig | None = None,
        store: SessionStore | None = None,
    ) -> None:
        self.clock = clock
        self.config = config or BackendConfig()
        self.ear = Ear()
        self.keys: list[str | None] = []
        self.transport = None if script is None else ScriptedTransport(script, clock)
        self.models = ModelRegistry(
            merge_cards([(Provenance.SHIPPED, gemini_cards()), (Provenance.CONFIGURED, CARDS)])
        )
        settings = load_gemini({"base_url": base_url}, keys=(Key("k0", key(0), "alpha"),))
        self.engine_settings = settings
        self.engine: Engine = assemble(
            settings,
            GeminiProvider(settings.base_url),
            self.models.names,
            clock=clock,
            observer=self.ear,
            warn=lambda _: None,
            transport=self.transport,
            learning=False,
            chance=lambda: 0.5,
            resilience=Resilience(fallbacks=True),
            models=lambda: self.models,
        )
        self.sessions = Sessions(store or MemorySessions(), clock, ttl=self.config.session_ttl_seconds)
        self.executor = Executor(
            self._hold,
            models=lambda: self.models,
            prices=gemini_prices,
            config=lambda: self.config,
            sessions=self.sessions,
            clock=clock,
        )

    @asynccontextmanager
    async def _hold(self, api_key: str | None) -> AsyncGenerator[Backend]:
        self.keys.append(api_key)
        yield self

    async def ask(self, prompt: str, model: str = TINY, **fields: Any) -> GeminiResponse:
        """The whole answer to a request."""
        reply = await self.executor.execute(GeminiRequest(prompt, model, **fields))
        return cast("GeminiResponse", reply)

    async def read(self, prompt: str, model: str = TINY, **fields: Any) -> list[StreamingChunk]:
        """All pieces of the answer to a request."""
        request = GeminiRequest(prompt, model, stream=True, **fields)
        pieces = cast("AsyncGenerator[StreamingChunk]", await self.executor.execute(request))
        return [piece async for piece in pieces]

    @property
    def sent(self) -> list[Mapping[str, Any]]:
        """The bodies that were sent, in order."""
        assert self.transport is not None
        return [body_of(sent) for sent in self.transport.sent]

    @property
    def last(self) -> Mapping[str, Any]:
        """The body that was sent last."""
        return self.sent[-1]


def body_of(sent: Sent) -> Mapping[str, Any]:
    """What a request said."""
    body: Mapping[str, Any] = json.loads(sent.request.body)
    return body


def said_in(body: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Role and text of every turn in a request."""
    return [
        (content["role"], " ".join(part.get("text", "…") for part in content["parts"]))
        for content in body["contents"]
    ]
