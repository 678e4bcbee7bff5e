"""Spans of the engine's calls: one a call, and under it one for each attempt.

    headgate.call generate           what the caller waited for; waits are events of it
    ├── headgate.reserve             a stage that took time of its own, here for its turn
    ├── generate_content gemini-…    an attempt: which key, what became of it, tokens
    └── generate_content gemini-…

Names and attributes of attempts are those of OpenTelemetry's conventions for generative AI; these are
all in development, and the snapshot that is followed here is 1.42.0 (2026). What is ours stands under
`headgate.`.

Attempts become spans when their call is over, out of the records that observers hear: until then a call
costs one span, and one that is not sampled costs nothing more.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any

from headgate.core.call import Blob, Call, Operation, Reply, Role, Usage
from headgate.core.outcome import Kind
from headgate.core.ports import StageTimes
from headgate.core.records import AttemptRecord, CallRecord, WaitRecord
from headgate.policy.redaction import Redactor
from headgate.telemetry.raw_options import options_of
from headgate.telemetry.switch import KEPT, SWITCH, UNSAMPLED, Setup

if TYPE_CHECKING:
    from opentelemetry.trace import Span, SpanContext

__all__ = ["TRACES", "CallTraces"]

PROVIDERS = {"gemini": "gcp.gemini", "anthropic": "anthropic", "openai": "openai"}
"""`gen_ai.provider.name`, by what we call a provider."""

_OPERATIONS = {
    Operation.EMBED: "embeddings",
    Operation.COUNT: "count_tokens",
    Operation.LIST: "list",
}
_GENERATES = {"gemini": "generate_content"}  # the others chat
_OPTIONS = {
    "max_output_tokens": "gen_ai.request.max_tokens",
    "max_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "seed": "gen_ai.request.seed",
    "candidate_count": "gen_ai.request.choice.count",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
}
_NAMES = {operation: f"headgate.call {operation.value}" for operation in Operation}
_ROLES = {Role.USER: "user", Role.MODEL: "assistant"}
SHORTEST_STAGE = 0.001
"""Seconds that a stage must be busy itself to have a span, which costs 14 µs."""

_MOST_OPEN = 10_000  # calls whose end is not known; the oldest are ended
_MOST_ATTEMPTS = 1_000  # spans of one call
_MOST_CONTENT = 4_000  # characters of a piece of a prompt
_NANOSECONDS = 10**9
_redacted = Redactor()

Facts = dict[str, Any]


class _Open:
    """A call under way."""

    __slots__ = ("attempts", "began", "facts", "span", "stages")

    def __init__(self, span: Span, began: int, facts: Facts) -> None:
        self.span = span
        self.began = began  # nanoseconds of Unix time
        self.facts = facts
        self.attempts: list[AttemptRecord] = []
        self.stages: list[tuple[str, float, float]] = []

    def busy(self, stage: str, began: float, ended: float) -> None:
        """A stage took time of its own. What is over in no time is not worth a span."""
        if ended - began >= SHORTEST_STAGE and len(self.stages) < _MOST_ATTEMPTS:
            self.stages.append((stage, began, ended))


class CallTraces:
    """Hears what observers hear, and that a call begins. Threads may share it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._open: OrderedDict[str, _Open] = OrderedDict()

    @property
    def on(self) -> bool:
        """Whether anybody traces."""
        return SWITCH.setup is not None

    @property
    def busy(self) -> bool:
        """Whether any call under way is traced: else nothing it tells is of use."""
        return bool(self._open)

    def ids(self, request_id: str | None) -> tuple[int, int] | None:
        """Trace and span of what is under way here, or of this call; None where nothing is traced."""
        setup = SWITCH.setup
        if setup is None:
            return None
        unsampled = UNSAMPLED.get()
        if unsampled is not None:
            return unsampled.ids
        context = setup.api.get_current_span().get_span_context()
        if not context.is_valid:
            found = None if request_id is None else self._open.get(request_id)
            if found is None:
                return None
            context = found.span.get_span_context()
        return context.trace_id, context.span_id

    def kept_ids(self, request_id: str | None = None) -> tuple[int, int] | None:
        """As `ids`, of what is kept alone: what leads to a trace must not lead nowhere."""
        setup = SWITCH.setup
        if setup is None or UNSAMPLED.get() is not None:
            return None
        context = setup.api.get_current_span().get_span_context()
        found = None if context.is_valid or request_id is None else self._open.get(request_id)
        if found is not None:
            context = found.span.get_span_context()
        kept = context.is_valid and context.trace_flags.sampled
        return (context.trace_id, context.span_id) if kept else None

    # ── heard from the engine ───────────────────────────────────────────────────────────────────

    def begun(self, call: Call) -> Mapping[str, str] | None:
        """A call begins. Headers for its upstream requests, where they are to carry the trace."""
        setup = SWITCH.setup
        if setup is None:
            return None
        unsampled = UNSAMPLED.get()
        if unsampled is not None:
            return unsampled.carried() if setup.propagate_upstream else None
        parent = setup.api.get_current_span().get_span_context()
        if parent.is_valid and not parent.trace_flags.sampled:
            return _carried(parent) if setup.propagate_upstream else None  # nor will this be
        known = None
        if not parent.is_valid and setup.keeps is not None:
            if not setup.keeps():
                return None
            known = {KEPT: True}
        span = setup.tracer.start_span(_NAMES[call.operation], attributes=known)
        if not span.is_recording():
            return None
        facts = _asked(call)
        span.set_attributes({
            "gen_ai.request.model": call.model[:200],
            "headgate.request_id": call.request_id,
            "headgate.priority": call.priority.value,
            **(_said(call) if setup.capture_content else {}),
        })  # fmt: skip
        began = getattr(span, "start_time", None)
        with self._lock:
            lost = self._open.pop(call.request_id, None)  # ids that are used twice: the newer counts
            self._open[call.request_id] = _Open(span, 0 if began is None else began, facts)
            if len(self._open) > _MOST_OPEN:
                lost = self._open.popitem(last=False)[1]
        if lost is not None:
            lost.span.end()
        return _carried(span.get_span_context()) if setup.propagate_upstream else None

    def timing(self, call: Call) -> StageTimes | None:
        """Who hears where the time of a call goes, if it is traced."""
        found = self._open.get(call.request_id)
        return None if found is None else found.busy

    def answered(self, call: Call, reply: Reply) -> None:
        """A call was answered: by which model, and why that stopped; what it said if that is wanted."""
        found, setup = self._open.get(call.request_id), SWITCH.setup
        if found is None or setup is None:
            return
        facts: Facts = {}
        if reply.model:
            facts["gen_ai.response.model"] = reply.model
        if reply.upstream_id:
            facts["gen_ai.response.id"] = reply.upstream_id
        if reply.finish_reason:
            facts["gen_ai.response.finish_reasons"] = [reply.finish_reason]
        if setup.capture_content and reply.text:
            message = {"role": "assistant", "parts": [_piece(reply.text)]}
            facts["gen_ai.output.messages"] = json.dumps(
                [{**message, "finish_reason": reply.finish_reason or "unknown"}], ensure_ascii=False
            )
        found.span.set_attributes(facts)

    def attempt(self, record: AttemptRecord) -> None:
        """One attempt ended; its span is made with those of the others."""
        found = self._open.get(record.request_id)
        if found is not None and len(found.attempts) < _MOST_ATTEMPTS:
            found.attempts.append(record)

    def waiting(self, record: WaitRecord) -> None:
        """A call waits: an event of its span."""
        found = self._open.get(record.request_id)
        if found is not None:
            facts = {
                "headgate.wait.reason": record.reason.value,
                "headgate.wait.seconds": record.seconds,
            }
            found.span.add_event("headgate.wait", facts)

    def call(self, record: CallRecord) -> None:
        """One call ended: its attempts become spans, and its own ends."""
        with self._lock:
            found = self._open.pop(record.request_id, None)
        if found is None:
            return
        setup = SWITCH.setup
        if setup is None:
            found.span.end()
            return
        for attempt in found.attempts:
            _attempted(setup, found, attempt, record)
        for stage in found.stages:
            _staged(setup, found, stage, record)
        _finish(setup, found, record)


TRACES = CallTraces()
"""Of this process, as the switch is."""


def _asked(call: Call) -> Facts:
    """What every attempt of a call asks for."""
    facts: Facts = {}
    options = call.options if call.raw is None else options_of(call.raw.body)
    for option, name in _OPTIONS.items():
        value = options.get(option)
        if isinstance(value, int | float) and not isinstance(value, bool):
            facts[name] = value
    stops = options.get("stop_sequences")
    if isinstance(stops, list | tuple) and all(isinstance(stop, str) for stop in stops):
        facts["gen_ai.request.stop_sequences"] = [_shown(stop) for stop in stops]
    if options.get("response_mime_type") == "application/json":
        facts["gen_ai.output.type"] = "json"
    if call.operation is Operation.STREAM:
        facts["gen_ai.request.stream"] = True
    return facts


def _attempted(setup: Setup, found: _Open, attempt: AttemptRecord, record: CallRecord) -> None:
    api = setup.api
    operation = _operation(attempt.operation, attempt.provider)
    span = setup.tracer.start_span(
        f"{operation} {attempt.model}".rstrip(),
        context=api.set_span_in_context(found.span),
        kind=api.SpanKind.CLIENT,
        start_time=_instant(found, record, attempt.started),
    )
    outcome = attempt.outcome
    facts: Facts = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": PROVIDERS.get(attempt.provider, attempt.provider or "unknown"),
        "gen_ai.request.model": attempt.model,
        "headgate.attempt": attempt.number,
        "headgate.key_alias": attempt.key_name,
        "headgate.quota_domain": attempt.domain,
        **found.facts,
        **_used(outcome.usage),
    }
    if attempt.number > 1:
        facts["http.request.resend_count"] = attempt.number - 1
    if attempt.first_piece is not None:
        facts["gen_ai.response.time_to_first_chunk"] = attempt.first_piece - attempt.started
    if outcome.status is not None:
        facts["http.response.status_code"] = outcome.status
    if outcome.upstream_id is not None:
        facts["headgate.upstream_id"] = outcome.upstream_id
    if outcome.kind is not Kind.SUCCESS:
        facts["error.type"] = outcome.kind.value
        if outcome.kind is not Kind.CANCELLED:
            span.set_status(api.StatusCode.ERROR, _shown(outcome.message, 200))
    span.set_attributes(facts)
    span.end(_instant(found, record, attempt.ended))


def _staged(setup: Setup, found: _Open, stage: tuple[str, float, float], record: CallRecord) -> None:
    name, began, ended = stage
    span = setup.tracer.start_span(
        f"headgate.{name}",
        context=setup.api.set_span_in_context(found.span),
        start_time=_instant(found, record, began),
    )
    span.end(_instant(found, record, ended))


def _finish(setup: Setup, found: _Open, record: CallRecord) -> None:
    facts: Facts = {
        "gen_ai.operation.name": _operation(record.operation, record.provider),
        "gen_ai.provider.name": PROVIDERS.get(record.provider, record.provider or "unknown"),
        "gen_ai.request.model": record.model[:200],
        "headgate.attempts": record.attempts,
        "headgate.rotations": record.rotations,
        "headgate.retries": record.retries,
        "headgate.waited_seconds": record.waited,
        "headgate.cached": record.cached,
    }
    if record.key_name is not None:
        facts["headgate.key_alias"] = record.key_name
    if record.fallback is not None:
        facts["headgate.fallback"] = record.fallback
    if record.findings is not None:
        facts["headgate.redactions"] = sum(record.findings.redactions.values())
        facts["headgate.injection_score"] = record.findings.injection_score
    if record.error is not None:
        facts["error.type"] = record.error
        if record.error != Kind.CANCELLED.value:
            found.span.set_status(setup.api.StatusCode.ERROR, record.error)
    found.span.set_attributes(facts)
    found.span.end(_instant(found, record, record.ended))


def _instant(found: _Open, record: CallRecord, at: float) -> int | None:
    """Unix time in nanoseconds of an instant of the engine's clock: counted from the call's begin."""
    if not found.began:
        return None
    return found.began + max(0, round((at - record.started) * _NANOSECONDS))


def _operation(operation: Operation, provider: str) -> str:
    return _OPERATIONS.get(operation) or _GENERATES.get(provider, "chat")


def _used(usage: Usage | None) -> Facts:
    """Tokens, as the conventions count them: input with what came from a cache, output with
    thoughts."""
    if usage is None:
        return {}
    facts: Facts = {
        "gen_ai.usage.input_tokens": usage.prompt + usage.tool_prompt,
        "gen_ai.usage.output_tokens": usage.output + usage.thoughts,
    }
    for name, tokens in (
        ("cache_read.input_tokens", usage.cached),
        ("cache_creation.input_tokens", usage.cache_write),
        ("reasoning.output_tokens", usage.thoughts),
    ):
        if tokens:
            facts[f"gen_ai.usage.{name}"] = tokens
    return facts


def _said(call: Call) -> Facts:
    """The prompt, as the conventions write messages, without keys and personal data."""
    messages = [
        {"role": _ROLES[turn.role], "parts": [_piece(part) for part in turn.parts]}
        for turn in call.turns
    ]
    if call.parts:
        messages.append({"role": "user", "parts": [_piece(part) for part in call.parts]})
    facts: Facts = {}
    if messages:
        facts["gen_ai.input.messages"] = json.dumps(messages, ensure_ascii=False)
    system = call.options.get("system_instruction") or call.options.get("system")
    if isinstance(system, str):
        facts["gen_ai.system_instructions"] = json.dumps([_piece(system)], ensure_ascii=False)
    return facts


def _piece(part: object) -> Facts:
    if isinstance(part, str):
        return {"type": "text", "content": _shown(part)}
    if isinstance(part, Blob):
        return {"type": "blob", "mime_type": part.mime_type, "bytes": part.size}
    return {"type": "other"}  # a piece in the upstream's own form


def _shown(text: str, most: int = _MOST_CONTENT) -> str:
    # Loads the recognisers of personal data, which a client without traces of its content needs not.
    from headgate.policy.excerpt import excerpt  # noqa: PLC0415

    return excerpt(text, most, _redacted)


def _carried(context: SpanContext) -> Mapping[str, str]:
    """The trace as W3C Trace Context writes it."""
    flags = int(context.trace_flags) & 0xFF
    headers = {"traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}"}
    state = context.trace_state.to_header()
    return {**headers, "tracestate": state} if state else headers
