"""What telemetry costs a call: off, on and not sampled, on and sampled; and its pieces one by one.

Spans go to a processor that drops them: what an exporter costs is its thread's business, and its own.
"""

from __future__ import annotations

import asyncio
import io
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler

from bench.micro.figures import Figure, Scale, in_turn, per_call
from bench.micro.upstream import REPLY
from headgate.core.alerts import AlertRule
from headgate.core.call import Call, Operation, Usage
from headgate.core.outcome import Kind, Outcome
from headgate.core.records import AttemptRecord, CallRecord
from headgate.gemini import ResilientGeminiClient
from headgate.policy.alert_rules import AlertRules
from headgate.telemetry import (
    TelemetryMiddleware,
    record_metric,
    setup_logging,
    setup_telemetry,
    shutdown_telemetry,
    trace_span,
)
from headgate.telemetry.alerting import Alerting
from headgate.telemetry.call_traces import CallTraces
from headgate.telemetry.request_traces import traced
from headgate.telemetry.sampling import EarlyRatio
from headgate.telemetry.switch import SWITCH
from headgate.testing import Answer, ScriptedTransport
from headgate.wiring.clock import SystemClock

__all__ = ["CALL", "PIECES", "measure"]

CALL = "A call without a socket, by what is traced"
PIECES = "Pieces of telemetry"
MODEL = "gemini-3.8-flash"
KEYS = "bench-key-number-one|one|alpha"

Once = Callable[[], object]
Way = Callable[[], AbstractContextManager[None]]


@contextmanager
def _on(sampler: Sampler) -> Iterator[None]:
    tracers = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    tracers.add_span_processor(SpanProcessor())
    meters = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    assert setup_telemetry("bench", tracer_provider=tracers, meter_provider=meters)
    try:
        yield
    finally:
        shutdown_telemetry()


@contextmanager
def _off() -> Iterator[None]:
    yield


def measure(scale: Scale) -> list[Figure]:
    """Every figure of this group."""
    level = logging.getLogger("headgate.telemetry").level
    logging.getLogger("headgate.telemetry").setLevel(logging.ERROR)
    try:
        return [*_calls(scale), *_pieces(scale)]
    finally:
        logging.getLogger("headgate.telemetry").setLevel(level)


def _calls(scale: Scale) -> list[Figure]:
    client = ResilientGeminiClient(keys=KEYS, transport=ScriptedTransport([Answer(body=REPLY)]))
    ways: dict[str, Way] = {
        "telemetry off": _off,
        "on, not sampled": lambda: _on(ParentBased(EarlyRatio(0.0))),
        "on, sampled": lambda: _on(ParentBased(ALWAYS_ON)),
    }

    async def once() -> object:
        return await client.generate_reply("Why is the sky blue?", MODEL)

    def taking(way: Way) -> Callable[[], float]:
        def take() -> float:
            with way():
                return asyncio.run(_cpu(once, scale.calls))

        return take

    taken = in_turn(scale.repeats, [taking(way) for way in ways.values()])
    figures = [
        Figure(CALL, f"{name}, CPU", "µs", values) for name, values in zip(ways, taken, strict=True)
    ]
    for name, values in list(zip(ways, taken, strict=True))[1:]:
        added = tuple(above - below for above, below in zip(values, taken[0], strict=True))
        figures.append(Figure(CALL, f"added by {name}, CPU", "µs", added))
    return figures


async def _cpu(once: Callable[[], Awaitable[object]], calls: int) -> float:
    """Microseconds of this process's CPU a call."""
    await once()
    began = time.process_time()
    for _ in range(calls):
        await once()
    return per_call(time.process_time() - began, calls)


def _pieces(scale: Scale) -> list[Figure]:
    calls = scale.calls * 5

    def taking(once: Once, sampler: Sampler | None) -> Callable[[], float]:
        def take() -> float:
            with _off() if sampler is None else _on(sampler):
                once()
                began = time.process_time()
                for _ in range(calls):
                    once()
                return per_call(time.process_time() - began, calls)

        return take

    pieces = _all_pieces()
    taken = in_turn(scale.repeats, [taking(once, sampler) for once, sampler in pieces.values()])
    figures = [Figure(PIECES, name, "µs", values) for name, values in zip(pieces, taken, strict=True)]
    return [*figures, *_requests(scale), *_gateway(scale), *_lines(scale)]


def _all_pieces() -> dict[str, tuple[Once, Sampler | None]]:
    sampled, unsampled = ParentBased(ALWAYS_ON), ParentBased(EarlyRatio(0.0))
    traces = CallTraces()
    call = Call(Operation.GENERATE, MODEL, ("Why is the sky blue?",), request_id="r")
    attempt = AttemptRecord(
        "r", 1, "one", "alpha", MODEL, 0.0, 1.0, Outcome(Kind.SUCCESS, status=200, usage=Usage(9, 9))
    )
    record = CallRecord(
        "r", Operation.GENERATE, MODEL, 0.0, 1.0, 1, 0, 0, 0.0, "one", Usage(9, 9), None
    )
    failed = AttemptRecord("r", 1, "one", "alpha", MODEL, 0.0, 1.0, Outcome(Kind.SERVER, status=500))
    alerting, busy = (Alerting(AlertRules(), SystemClock()) for _ in range(2))

    def traced() -> None:
        traces.begun(call)
        traces.attempt(attempt)
        traces.call(record)

    def watched() -> None:
        alerting.attempt(attempt)
        alerting.call(record)

    def troubled() -> None:
        busy.attempt(failed)

    def spanned() -> None:
        with trace_span("piece"):
            pass

    return {
        "spans of a call and its attempt, off": (traced, None),
        "spans of a call and its attempt, not sampled": (traced, unsampled),
        "spans of a call and its attempt, sampled": (traced, sampled),
        "alerts: a call with one good attempt": (watched, None),
        f"alerts: a failed attempt ({AlertRule.ERROR_RATE.value} looked at)": (troubled, None),
        "trace_span, off": (spanned, None),
        "trace_span, sampled": (spanned, sampled),
        "record_metric, off": (lambda: record_metric("piece", 1), None),
        "record_metric, a counter": (lambda: record_metric("piece", 1), unsampled),
        "record_metric, a histogram": (lambda: record_metric("piece", 1.5, "ms"), unsampled),
    }


async def _app(scope: object, receive: object, send: object) -> None:
    pass


def _requests(scale: Scale) -> list[Figure]:
    scope = {
        "type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "path": "/x",
        "headers": [(b"host", b"localhost")], "server": ("127.0.0.1", 80),
    }  # fmt: skip
    wrapped = TelemetryMiddleware(_app, route=lambda _: "/x")

    async def once() -> object:
        await wrapped(dict(scope), None, None)  # type: ignore[arg-type]
        return None

    def taking(way: Way) -> Callable[[], float]:
        def take() -> float:
            with way():
                return asyncio.run(_cpu(once, scale.calls))

        return take

    ways: dict[str, Way] = {
        "TelemetryMiddleware, off": _off,
        "TelemetryMiddleware, not sampled": lambda: _on(ParentBased(EarlyRatio(0.0))),
        "TelemetryMiddleware, sampled": lambda: _on(ParentBased(ALWAYS_ON)),
    }
    taken = in_turn(scale.repeats, [taking(way) for way in ways.values()])
    return [Figure(PIECES, name, "µs", values) for name, values in zip(ways, taken, strict=True)]


def _gateway(scale: Scale) -> list[Figure]:
    """What tracing adds to a request of the gateway: with the share of traces at none, with a client
    that does not sample, and sampled. Nothing is served."""
    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": "/x",
        "server": ("127.0.0.1", 80),
    }  # fmt: skip
    usual = (b"host", b"accept", b"user-agent", b"content-type", b"content-length", b"x-goog-api-key")
    without: Mapping[bytes, bytes] = dict.fromkeys(usual, b"one of the usual headers")
    trace, span = b"4bf92f3577b34da6a3ce929d0e0e4736", b"00f067aa0ba902b7"
    left_out = {**without, b"traceparent": b"-".join((b"00", trace, span, b"00"))}
    wanted = {**without, b"traceparent": b"-".join((b"00", trace, span, b"01"))}

    async def work(send: object) -> None:
        pass

    async def send(message: object) -> None:
        pass

    def taking(sampler: Sampler | None, headers: Mapping[bytes, bytes]) -> Callable[[], float]:
        async def plain() -> object:
            await work(send)
            return None

        asked = {**scope, "headers": list(headers.items())}

        async def once() -> object:
            setup = SWITCH.setup
            assert setup is not None
            await traced(setup, asked, headers, "/x", send, work)
            return None

        def take() -> float:
            if sampler is None:
                return asyncio.run(_cpu(plain, scale.calls * 5))
            with _on(sampler):
                return asyncio.run(_cpu(once, scale.calls * 5))

        return take

    none = ParentBased(EarlyRatio(0.0))
    ways = {
        "not traced": taking(None, without),
        "outside the share": taking(none, without),
        "not sampled by its client": taking(none, left_out),
        "sampled": taking(none, wanted),
    }
    taken = in_turn(scale.repeats, list(ways.values()))
    return [
        Figure(PIECES, f"a request of the gateway, {name}", "µs", values)
        for name, values in zip(ways, taken, strict=True)
    ]


def _lines(scale: Scale) -> list[Figure]:
    """A line of five fields, as JSON, redacted; and one that its level leaves out."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers[:] = []
    try:
        setup_logging(json=True, stream=io.StringIO(), level="INFO")
        logger = logging.getLogger("bench")
        fields = {"request_id": "r-1", "model": MODEL, "ms": 12.5, "attempts": 1, "key": "one"}

        def written() -> None:
            logger.info("call %s answered", "r-1", extra={"headgate": fields})

        def left_out() -> None:
            logger.debug("call %s answered", "r-1", extra={"headgate": fields})

        def taking(once: Once) -> Callable[[], float]:
            def take() -> float:
                began = time.process_time()
                for _ in range(scale.calls):
                    once()
                return per_call(time.process_time() - began, scale.calls)

            return take

        taken = in_turn(scale.repeats, [taking(written), taking(left_out)])
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    names = ("a log line of five fields, JSON, redacted", "a log line that its level leaves out")
    return [Figure(PIECES, name, "µs", values) for name, values in zip(names, taken, strict=True)]
