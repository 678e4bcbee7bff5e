"""The commands that ask a model: S3-08, S3-09 and S3-10, over the one engine.

A request becomes a call, with the turns of its session before it; the engine prepares and sends it; the
answer becomes a response, and is remembered in the session once it is whole.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Protocol, cast

from headgate.backend.calls import call_of, code_request, process_request
from headgate.backend.conversations import Conversations, Kept
from headgate.backend.errors import gemini_errors
from headgate.backend.replies import Gathered, chunk_of, response_of
from headgate.backend.sessions import Sessions
from headgate.backend.settings import BackendConfig
from headgate.backend.structures import GeminiRequest, GeminiResponse, StreamingChunk
from headgate.core.call import Call, Priority, Reply
from headgate.core.model_card import ModelMetadata
from headgate.core.ports import Clock
from headgate.core.records import Findings
from headgate.engine.passage import Passage
from headgate.engine.stream import ReplyStream
from headgate.policy.models import ModelPolicy
from headgate.policy.price_list import PriceList
from headgate.policy.registry import ModelRegistry
from headgate.wiring.build import Engine

__all__ = ["Executor", "Held", "Hold"]


@dataclass(slots=True)
class _Job:
    """One request under way."""

    request: GeminiRequest
    call: Call
    kept: Kept | None = None
    cwd: str | None = None
    warnings: list[str] = field(default_factory=list)


class Held(Protocol):
    """What a request runs on, for as long as it runs."""

    @property
    def engine(self) -> Engine:
        """The engine."""

    @property
    def config(self) -> BackendConfig:
        """What it was built from."""


Hold = Callable[[str | None, Priority, float | None], AbstractAsyncContextManager[Held]]
"""Takes an API key of the caller's own or None, a priority and a deadline; waits for a place."""


class Executor:
    """Asks models on behalf of a backend. Everything that may change at run time is asked for anew with
    each request; a request under way keeps what it began with.

    Args:
        hold: where requests run.
        models, prices: what is known of models and their prices at the moment.
        config: the configuration of the moment.
        sessions: where conversations are remembered.
    """

    def __init__(
        self,
        hold: Hold,
        *,
        models: Callable[[], ModelRegistry],
        prices: Callable[[], PriceList],
        config: Callable[[], BackendConfig],
        sessions: Sessions,
        clock: Clock,
        policy: ModelPolicy = ModelPolicy.SUCCESSOR,
    ) -> None:
        self._hold = hold
        self._models = models
        self._prices = prices
        self._config = config
        self._sessions = sessions
        self._clock = clock
        self._policy = policy

    # ── the commands ────────────────────────────────────────────────────────────────────────────

    async def execute(
        self, request: GeminiRequest, *, api_key: str | None = None, cwd: str | None = None
    ) -> GeminiResponse | AsyncGenerator[StreamingChunk]:
        """S3-08. A streaming request gives an iterator; nothing is sent until it is read.

        Args:
            api_key: asks with this key alone.
            cwd: a path the response is to name.

        Raises:
            GeminiError: the request is wrong or failed; `error_type` says how. Of a stream what is
                wrong with the request is raised here, anything later where it is read.
        """
        with gemini_errors(self._clock.wall):
            job = _Job(request, call_of(request, self._config(), self._clock), cwd=cwd)
        if request.stream:
            return self._pieces(job, api_key)
        return await self._whole(job, api_key)

    async def process(
        self,
        prompt: str,
        model: str,
        session_id: str | None = None,
        stream: bool = False,
        api_key: str | None = None,
    ) -> GeminiResponse | AsyncGenerator[StreamingChunk]:
        """S3-09: fixed parameters, sent as far as the model takes them. As `execute` otherwise."""
        request = process_request(
            prompt, model, self._card(str(model)), session_id=session_id, stream=stream
        )
        return await self.execute(request, api_key=api_key)

    async def code(  # noqa: PLR0917 - the accepted order
        self,
        prompt: str,
        model: str,
        project_path: str,
        temperature: float | None = None,
        max_output_tokens: int | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        stop_sequences: Sequence[str] | None = None,
        system_instruction: str | None = None,
    ) -> GeminiResponse:
        """S3-10: a request about a project. The path is reported as `cwd`; nothing in it is read, run
        or sent. As `execute` otherwise."""
        with gemini_errors(self._clock.wall):
            request = code_request(
                prompt,
                model,
                project_path,
                temperature=temperature,
                max_output_tokens=max_output_tokens,
                top_k=top_k,
                top_p=top_p,
                stop_sequences=stop_sequences,
                system_instruction=system_instruction,
            )
        return cast("GeminiResponse", await self.execute(request, cwd=project_path))

    # ── one request ─────────────────────────────────────────────────────────────────────────────

    async def _whole(self, job: _Job, api_key: str | None) -> GeminiResponse:
        with gemini_errors(self._clock.wall):
            try:
                await self._begun(job)
                async with self._hold(api_key, job.call.priority, job.call.deadline) as held:
                    await self._converse(job, held)
                    answer, passage = await held.engine.pipeline.run(job.call)
                return await self._finished(job, cast("Reply", answer), passage)
            finally:
                await self._ended(job)

    async def _pieces(self, job: _Job, api_key: str | None) -> AsyncGenerator[StreamingChunk]:
        with gemini_errors(self._clock.wall):
            try:
                await self._begun(job)
                async with self._hold(api_key, job.call.priority, job.call.deadline) as held:
                    await self._converse(job, held)
                    answer, passage = await held.engine.pipeline.run(job.call)
                    stream, gathered = cast("ReplyStream", answer), Gathered()
                    try:
                        async for chunk in stream:
                            gathered.add(chunk)
                            yield chunk_of(chunk)
                    finally:
                        await stream.aclose()
                response = await self._finished(job, gathered.reply(), passage)
            finally:
                await self._ended(job)
            yield StreamingChunk(usage=response.usage, response=response)

    async def _begun(self, job: _Job) -> None:
        """Take the session's turn, before a place is taken: who waits for a turn keeps nobody out."""
        request = job.request
        if request.session_id is None:
            return
        deadline = job.call.deadline
        if deadline is None:
            deadline = self._clock.monotonic() + self._config().request_timeout_seconds
        turn = await self._sessions.begin(request.caller, request.session_id, deadline)
        job.kept = Kept(turn, request.system_instruction or turn.session.system)

    async def _converse(self, job: _Job, held: Held) -> None:
        """Put what was said before into the call."""
        if job.kept is None:
            return
        card = self._card(job.request.model)
        conversations = Conversations(held.engine.pipeline, self._clock)
        job.call = await conversations.before(
            job.call,
            job.kept,
            window=None if card is None else card.capabilities.max_input_tokens,
            overflow=job.request.context_overflow or held.config.context_overflow,
        )

    async def _finished(self, job: _Job, reply: Reply, passage: Passage) -> GeminiResponse:
        findings = passage.findings or Findings()
        if job.kept is not None:
            await job.kept.remember(job.call, passage, reply, self._clock.wall())
            job.warnings += job.kept.warnings
        cost = self._prices().cost(passage.model, reply.usage, self._today())
        return response_of(
            reply,
            job.call,
            passage.model,
            findings,
            cost=None if cost is None else float(cost.total),
            session_id=job.request.session_id,
            cwd=job.cwd,
            shortened=job.kept is not None and job.kept.shortened,
            warnings=job.warnings,
        )

    @staticmethod
    async def _ended(job: _Job) -> None:
        if job.kept is not None:
            await job.kept.turn.end()

    def _card(self, model: str) -> ModelMetadata | None:
        """The card of the model a name means today."""
        models = self._models()
        return models.find(models.resolve(model, self._today(), self._policy).model.id)

    def _today(self) -> date:
        return datetime.fromtimestamp(self._clock.wall(), UTC).date()
