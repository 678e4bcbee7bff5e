"""What metrics cost a call: on the path, when somebody reads, and beside prometheus-client's own."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram

from bench.micro.figures import Figure, Scale, in_turn, per_call
from bench.micro.upstream import REPLY
from headgate.core.call import Operation, Usage
from headgate.core.outcome import Kind, Outcome
from headgate.core.records import AttemptRecord, CallRecord
from headgate.gemini import ResilientGeminiClient
from headgate.policy.nano_prices import NOTHING
from headgate.telemetry.metrics.exposition import exposed
from headgate.telemetry.metrics.metrics import Metrics
from headgate.telemetry.metrics.publication import Publication
from headgate.testing import Answer, ScriptedTransport
from headgate.wiring.clock import SystemClock
from headgate.wiring.metrics import metrics_of

__all__ = ["CALL", "PATH", "READ", "measure"]

PATH = "Metrics on the path of a call"
READ = "Metrics when somebody reads"
CALL = "A call without a socket, by whether it is counted"

MODEL = "gemini-3.8-flash"
_BETWEEN = 1_000
"""Calls between two scrapes: what is left for the reader is not let pile up."""

Once = Callable[[], object]


def measure(scale: Scale) -> list[Figure]:
    """Every figure of this group."""
    return [*_path(scale), *_calls(scale), *_reading(scale)]


def _records(model: str = MODEL, domain: str = "alpha") -> tuple[AttemptRecord, CallRecord]:
    outcome = Outcome(Kind.SUCCESS, status=200, usage=Usage(900, 300))
    attempt = AttemptRecord("r", 1, "one", domain, model, 0.0, 1.0, outcome, provider="gemini")
    call = CallRecord(
        "r", Operation.GENERATE, model, 0.0, 1.0, 1, 0, 0, 0.0, "one", Usage(900, 300), None,
        provider="gemini",
    )  # fmt: skip
    return attempt, call


def _path(scale: Scale) -> list[Figure]:
    metrics = Metrics(SystemClock())
    metrics.engine.price = lambda *_: NOTHING
    attempt, call = _records()
    theirs = CollectorRegistry()
    counter = Counter("a", "a", ["model", "outcome"], registry=theirs)
    histogram = Histogram("b", "b", ["model"], registry=theirs)
    child, spread = counter.labels(MODEL, "success"), histogram.labels(MODEL)

    def counted() -> None:
        metrics.engine.attempt(attempt)
        metrics.engine.call(call)

    def visited() -> None:
        with metrics.http.visit("POST", "create_subtopics") as visit:
            visit.status = 200

    pieces: dict[str, Once] = {
        "one attempt and its call": counted,
        "one attempt": lambda: metrics.engine.attempt(attempt),
        "a call without an attempt": lambda: metrics.engine.call(call),
        "a request of HTTP": visited,
        "one counter by name and labels": lambda: metrics.add("quota_exceeded_total", 1, "rpm"),
        "prometheus-client: one counter, its child kept": child.inc,
        "prometheus-client: one counter, by labels": lambda: counter.labels(MODEL, "success").inc(),
        "prometheus-client: one histogram, its child kept": lambda: spread.observe(1.0),
    }

    def taking(once: Once) -> Callable[[], float]:
        def take() -> float:
            spent = 0.0
            rounds = max(1, scale.calls * 5 // _BETWEEN)
            for _ in range(rounds):
                began = time.process_time()
                for _ in range(_BETWEEN):
                    once()
                spent += time.process_time() - began
                metrics.engine.settle()
            return per_call(spent, rounds * _BETWEEN)

        return take

    taken = in_turn(scale.repeats, [taking(once) for once in pieces.values()])
    return [
        Figure(PATH, f"{name}, CPU", "µs", values) for name, values in zip(pieces, taken, strict=True)
    ]


def _calls(scale: Scale) -> list[Figure]:
    clock = SystemClock()

    def client(*, counted: bool) -> ResilientGeminiClient:
        made = ResilientGeminiClient(
            keys="bench-key-number-one|one|alpha", transport=ScriptedTransport([Answer(body=REPLY)])
        )
        if counted:
            made.export_metrics(registry)
        return made

    registry = CollectorRegistry()
    metrics = metrics_of(registry, clock)

    def taking(using: ResilientGeminiClient) -> Callable[[], float]:
        async def main() -> float:
            await using.generate_reply("Why is the sky blue?", MODEL)
            began = time.process_time()
            for _ in range(scale.calls):
                await using.generate_reply("Why is the sky blue?", MODEL)
            return per_call(time.process_time() - began, scale.calls)

        def take() -> float:
            taken = asyncio.run(main())
            metrics.engine.settle()
            return taken

        return take

    names = ("not counted", "counted")
    taken = in_turn(scale.repeats, [taking(client(counted=word == "counted")) for word in names])
    figures = [
        Figure(CALL, f"{name}, CPU", "µs", values) for name, values in zip(names, taken, strict=True)
    ]
    added = tuple(above - below for below, above in zip(*taken, strict=True))
    return [*figures, Figure(CALL, "added by counting, CPU", "µs", added)]


def _reading(scale: Scale) -> list[Figure]:
    clock = SystemClock()
    registry = CollectorRegistry()
    metrics = metrics_of(registry, clock)
    metrics.engine.price = lambda *_: NOTHING
    for number in range(20):
        for model in range(5):
            for record, count in zip(
                _records(f"m{model}", f"d{number}"),
                (metrics.engine.attempt, metrics.engine.call),
                strict=True,
            ):
                count(record)  # type: ignore[operator] # each takes its own kind
    attempt, call = _records()

    def settled() -> float:
        for _ in range(_BETWEEN):
            metrics.engine.attempt(attempt)
            metrics.engine.call(call)
        began = time.process_time()
        metrics.engine.settle()
        return per_call(time.process_time() - began, _BETWEEN)

    def timed(once: Once) -> Callable[[], float]:
        def take() -> float:
            times = max(1, scale.calls // 100)
            began = time.process_time()
            for _ in range(times):
                once()
            return per_call(time.process_time() - began, times)

        return take

    with tempfile.TemporaryDirectory() as folder:
        publications = [Publication(Path(folder), f"w{number}", registry) for number in range(3)]
        for publication in publications:
            publication.publish()
        series = sum(len(family.samples) for family in registry.collect())
        takings: dict[str, Callable[[], float]] = {
            "settling an attempt and its call": settled,
            f"a scrape of {series} series, text": timed(lambda: exposed(registry)),
            f"a scrape of {series} series, OpenMetrics": timed(
                lambda: exposed(registry, "application/openmetrics-text")
            ),
            f"publishing {series} series": timed(publications[0].publish),
            f"a scrape of three workers of {series} series": timed(publications[0].exposition),
        }
        taken = in_turn(scale.repeats, list(takings.values()))
        for publication in publications:
            publication.close()
    return [
        Figure(READ, f"{name}, CPU", "µs", values) for name, values in zip(takings, taken, strict=True)
    ]
