"""The catalogue of spans and what is exported are the same (trust.md 4.1): `tests.telemetry.telemetry`
looks at every span of every test that traces; here each entry and attribute is seen once."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from tests.gateway import CALLER_KEY, Client, ask, scripted_gateway
from tests.metrics import attempt, call
from tests.support import MODEL, broken_inside, said
from tests.telemetry import Seen, telemetry, uncatalogued

from headgate.core.call import Call, Operation, Reply, Usage
from headgate.core.outcome import Kind, Outcome
from headgate.core.records import Findings, WaitFor, WaitRecord
from headgate.engine import pipeline, stopwatch
from headgate.telemetry import trace_operation, trace_span
from headgate.telemetry.call_traces import TRACES
from headgate.telemetry.span_catalogue import SPANS, STAGES, entry_of
from headgate.testing import VirtualClock

GENERATE = f"/gemini/v1beta/models/{MODEL}:generateContent"
BODY = {"contents": [{"parts": [{"text": "Explain tides"}]}]}
OPTIONS = {
    "max_output_tokens": 9, "temperature": 0.5, "top_p": 0.5, "top_k": 3, "seed": 1,
    "candidate_count": 1, "frequency_penalty": 0.1, "presence_penalty": 0.1,
    "stop_sequences": ["a"], "response_mime_type": "application/json",
    "system_instruction": "Be brief.",
}  # fmt: skip


def told(spans: Iterable[ReadableSpan]) -> set[tuple[str, ...]]:
    """Entries, attributes and events of what was exported."""
    found: set[tuple[str, ...]] = set()
    for span in spans:
        entry = entry_of(span.name, span.kind.name)
        assert entry is not None, span.name
        found.add((entry.title,))
        found |= {(entry.title, name) for name in span.attributes or {}}
        for event in span.events:
            found |= {(entry.title, event.name, name) for name in event.attributes or {}}
    return found


def written() -> set[tuple[str, ...]]:
    """The same of the catalogue."""
    found: set[tuple[str, ...]] = set()
    for entry in SPANS:
        found.add((entry.title,))
        found |= {(entry.title, one.name) for one in entry.attributes}
        for event in entry.events:
            found |= {(entry.title, event.name, one.name) for one in event.attributes}
    return found


def a_call_that_says_all() -> None:
    """Streams, waits, is tried twice, is prepared, falls back and fails: more than one call does."""
    asked = Call(Operation.STREAM, MODEL, ("hi",), options=OPTIONS, request_id="all")
    TRACES.begun(asked)
    TRACES.waiting(WaitRecord("all", WaitFor.RETRY, 1.0))
    stages = TRACES.timing(asked)
    assert stages is not None
    stages("reserve", 10.0, 10.5)
    TRACES.answered(
        asked, Reply(text="tides", usage=Usage(), model=MODEL, finish_reason="STOP", upstream_id="u")
    )
    usage = Usage(prompt=50, output=3, thoughts=11, cached=20, cache_write=5)
    outcome = Outcome(Kind.SERVER, "broke", 500, usage=usage, upstream_id="u")
    record = attempt(request_id="all", number=2, outcome=outcome, operation=Operation.STREAM)
    TRACES.attempt(type(record)(**{**{name: getattr(record, name) for name in record.__struct_fields__},
                                   "first_piece": 10.5}))  # fmt: skip
    findings = Findings({"EMAIL": 1}, injection_score=0.2)
    TRACES.call(call("server", request_id="all", findings=findings, fallback="FailFast"))


async def requests(clock: VirtualClock) -> None:
    gateway, _ = scripted_gateway([said()], clock)
    sent = {"x-goog-api-key": CALLER_KEY}
    client = Client(gateway, "POST", GENERATE, BODY, sent)
    client._scope["server"] = ("127.0.0.1", 8080)
    assert (await client.run()).status == 200
    assert (await ask(gateway, "BREW", "/nowhere", None, sent)).status == 404
    gateway, _ = scripted_gateway([broken_inside()], clock)
    assert (await ask(gateway, "POST", GENERATE, BODY, sent)).status >= 500


async def exported(clock: VirtualClock) -> Seen:
    @trace_operation("own")
    def raises() -> None:
        raise LookupError("no")

    with telemetry(capture_content=True) as seen:
        await requests(clock)
        a_call_that_says_all()
        with pytest.raises(LookupError):
            raises()
        with trace_span("mine", {"what.i": "like"}):
            pass
    return seen


async def test_each_span_and_attribute_of_the_catalogue_is_exported(clock: VirtualClock) -> None:
    seen = await exported(clock)
    assert written() - told(seen.spans) == set()


async def test_an_attribute_that_is_not_written_down_is_noticed(clock: VirtualClock) -> None:
    """The check itself, that all tests of traces go through."""
    with telemetry() as seen:
        a_call_that_says_all()
        spans = list(seen.spans)
    ours = [span for span in spans if span.name.startswith("headgate.call")]
    ours[0]._attributes = {**(ours[0].attributes or {}), "headgate.made_up": 1}
    assert uncatalogued(ours[0]) == [f"{ours[0].name}: headgate.made_up"]
    ours[0]._name = "headgate.made up"
    assert uncatalogued(ours[0]) == ["headgate.made up"]


def test_stages_are_those_of_the_path() -> None:
    timed = [name for name in pipeline._NAMES if name not in stopwatch._UNTIMED]
    assert list(STAGES) == timed


def test_an_attribute_stands_once_in_its_entry() -> None:
    for entry in SPANS:
        names = [one.name for one in entry.attributes]
        assert len(names) == len(set(names)), entry.title
