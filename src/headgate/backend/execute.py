"""The commands that ask a model: S3-08, S3-09 and S3-10, over the one engine.

A request becomes a call, with the turns of its session before it; the engine prepares and sends it; the
answer becomes a response, and is remembered in the session once it is whole.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import date
from typing import Protocol, cast

from headgate.backend.calls import call_of, code_request, process_request
from headgate.backend.conversations import Conversations, Kept
from headgate.backend.errors import gemini_errors
from headgate.backend.reading import read_request
from headgate.backend.remembering import age_of
from headgate.backend.replies import chunk_of, response_of
from headgate.backend.sessions import Sessions
from headgate.backend.settings import BackendConfig
from headgate.backend.structures import GeminiRequest, GeminiResponse, StreamingChunk
from headgate.core.call import Call, Reply
from headgate.core.errors import HeadgateError
from headgate.core.fallback import NOT_SAID
from headgate.core.model_card import ModelMetadata
from headgate.core.ports import Clock
from headgate.core.records import Findings
from headgate.engine.gathering import Gathered
from headgate.engine.passage import Answer, Passage
from headgate.engine.stream import ReplyStream
from headgate.policy.days import utc_day
from headgate.policy.models import ModelPolicy
from headgate.policy.price_list import PriceList
from headgate.policy.registry import ModelRegistry
from headgate.telemetry.request_log import RequestLog
from headgate.wiring.build import Engine

__all__ = ["Executor", "Held", "Hold"]

_NOT_SAID = "This turn is no part of the session: no model answered it as a whole."


@dataclass(slots=True)
class _Job:
    """One request under way."""

    request: GeminiRequest
    call: Call
    kept: Kept | None = None
    cwd: str | None = None
    api_key: str | None = field(default=None, repr=False)
    warnings: list[str] = field(default_factory=list)
    entered: bool = False  # the path, which tells its observers of what happens from then on


@dataclass(slots=True)
class _Refusals:
    """Tells of what fails before the path. A plain class, for what `gemini_errors` says."""

    job: _Job
    began: float
    log: RequestLog | None
    refused: Callable[[Call, HeadgateError, float], None] | None

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self.job.entered or not isinstance(error, HeadgateError):
            return
        if self.log is not None:
            self.log.refused(self.job.call, error)
        if self.refused is not None:
            self.refused(self.job.call, error, self.began)


class Held(Protocol):
    """What a request runs on, for as long as it runs."""

    @property
    def engine(self) -> Engine:
        """The engine."""

    @property
    def config(self) -> BackendConfig:
        """What it was built from."""


Hold = Callable[[str | None], AbstractAsyncContextManager[Held]]
"""Takes an API key of the caller's own or None."""


class Executor:
    """Asks models on behalf of a backend. Everything that may change at run time is asked for anew with
    each request; a request under way keeps what it began with.

    Args:
        hold: where requests run.
        models, prices: what is known of models and their prices at the moment.
        config: the configuration of the moment.
        sessions: where conversations are remembered.
        log: what is logged of requests; None: nothing.
        refused: hears of requests that failed before they entered the path, and when they began.
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
        log: RequestLog | None = None,
        refused: Callable[[Call, HeadgateError, float], None] | None = None,
        policy: ModelPolicy = ModelPolicy.SUCCESSOR,
    ) -> None:
        self._hold = hold
        self._log = log
        self._refused = refused
        self._models = models
        self._prices = prices
        self._config = config
        self._sessions = sessions
        self._clock = clock
        self._policy = policy

    # ── the commands ────────────────────────────────────────────────────────────────────────────

    async def execute(
        self,
        request: GeminiRequest | Mapping[str, object],
        *,
        api_key: str | None = None,
        cwd: str | None = None,
    ) -> GeminiResponse | AsyncGenerator[StreamingChunk]:
        """S3-08. A streaming request gives an iterator; nothing is sent until it is read.

        Args:
            request: one, or one as it came from JSON.
            api_key: asks with this key alone.
            cwd: a path the response is to name.

        Raises:
            GeminiError: the request is wrong or failed; `error_type` says how. Of a stream what is
                wrong with the request is raised here, anything later where it is read.
        """
        with gemini_errors(self._clock.wall):
            request = read_request(request)
            call = call_of(request, self._config(), self._clock, api_key=api_key)
            job = _Job(request, call, cwd=cwd, api_key=api_key)
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
        with self._errors(job), self._refusals(job):
            try:
                await self._begun(job)
                async with self._hold(api_key) as held:
                    await self._converse(job, held)
                    answer, passage = await self._run(job, held)
                return await self._finished(job, cast("Reply", answer), passage)
            finally:
                await self._ended(job)

    async def _pieces(self, job: _Job, api_key: str | None) -> AsyncGenerator[StreamingChunk]:
        with self._errors(job), self._refusals(job):
            try:
                await self._begun(job)
                async with self._hold(api_key) as held:
                    await self._converse(job, held)
                    answer, passage = await self._run(job, held)
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

    async def _run(self, job: _Job, held: Held) -> tuple[Answer, Passage]:
        job.entered = True
        return await held.engine.pipeline.run(job.call)

    def _errors(self, job: _Job) -> gemini_errors:
        def unknown() -> tuple[str, tuple[str, ...]] | None:
            models, name = self._models(), job.request.model
            return None if models.find(name) is not None else (name, models.near(name))

        return gemini_errors(self._clock.wall, unknown)

    def _refusals(self, job: _Job) -> _Refusals:
        """Log a request as it begins, and what fails before the path: no record tells of that."""
        if self._log is not None:
            self._log.asked(job.call)
        return _Refusals(job, self._clock.monotonic(), self._log, self._refused)

    async def _begun(self, job: _Job) -> None:
        """Take the session's turn. It is no part of the path: who waits for it keeps nobody out."""
        request = job.request
        if request.session_id is None:
            return
        deadline = job.call.deadline
        if deadline is None:
            deadline = self._clock.monotonic() + self._config().request_timeout_seconds
        turn = await self._sessions.begin(
            request.caller, request.session_id, deadline, api_key=job.api_key
        )
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
        job.warnings += passage.notes
        if job.kept is not None:
            if passage.fallback in NOT_SAID:
                job.warnings.append(_NOT_SAID)
            else:
                await job.kept.remember(job.call, passage, reply, self._clock.wall())
            job.warnings += job.kept.warnings
        if self._log is not None:
            model = reply.model or passage.model
            self._log.replied(job.call.request_id, model, reply.text, reply.finish_reason, job.api_key)
        cost = self._prices().cost(passage.model, reply.usage, self._today())
        dollars = None if cost is None else float(cost.total)
        return response_of(
            reply,
            job.call,
            passage.model,
            findings,
            cost=dollars if passage.recalled is None else 0.0,
            session_id=job.request.session_id,
            cwd=job.cwd,
            shortened=job.kept is not None and job.kept.shortened,
            warnings=job.warnings,
            fallback=passage.fallback,
            age=age_of(passage.recalled, self._clock.wall()),
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
        return utc_day(self._clock.wall())
