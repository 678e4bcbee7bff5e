"""What the records of calls and attempts become in the metrics, and what a scrape gets."""

from __future__ import annotations

import weakref
from threading import Lock

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from tests.metrics import MODEL, attempt, call, fresh, values

from headgate.core.call import Operation, Usage
from headgate.core.outcome import RULES, Kind
from headgate.core.records import AttemptRecord, WaitFor, WaitRecord
from headgate.policy.nano_prices import NanoCost
from headgate.telemetry.metrics.books import Sheet
from headgate.telemetry.metrics.exposition import OPENMETRICS, PLAIN, exposed
from headgate.telemetry.metrics.family import Feeder
from headgate.telemetry.metrics.labels import ERROR_KIND, RESULT, code_of, result_of
from headgate.telemetry.metrics.metrics import Metrics
from headgate.telemetry.of_registry import one_of
from headgate.testing import VirtualClock

_MODEL = f'model="{MODEL}",provider="gemini"'


async def test_an_attempt_and_its_call_are_in_every_family_they_concern(clock: VirtualClock) -> None:
    metrics, registry = fresh(clock)
    usage = Usage(prompt=100, output=20, thoughts=7, cached=30, tool_prompt=2, cache_write=10)
    metrics.engine.attempt(attempt(Kind.QUOTA_MINUTE, status=429))
    metrics.engine.attempt(attempt(usage=usage, domain="key:beta"))
    metrics.engine.waiting(WaitRecord("r", WaitFor.KEY, 2.0))
    metrics.engine.call(call(attempts=3, rotations=1, retries=1, waited=2.0, looked_up=True))
    metrics.engine.call(call(attempts=0, cached=True, looked_up=True, saved=usage))
    metrics.engine.call(call("quota", fallback="SwitchModel"))
    seen = values(registry)
    assert seen[f'headgate_attempts_total{{{_MODEL[:-18]},outcome="success",provider="gemini"}}'] == 1
    assert (
        seen[f'headgate_attempts_total{{{_MODEL[:-18]},outcome="quota_minute",provider="gemini"}}'] == 1
    )
    assert seen[f'headgate_upstream_requests_total{{code="429",{_MODEL}}}'] == 1
    assert seen[f'headgate_upstream_requests_total{{code="200",{_MODEL}}}'] == 1
    assert seen[f'headgate_admitted_requests_total{{{_MODEL},quota_domain="alpha"}}'] == 1
    assert seen[f'headgate_admitted_requests_total{{{_MODEL},quota_domain="beta"}}'] == 1
    assert seen[f'headgate_quota_refusals_total{{avoidable="false",{_MODEL}}}'] == 1
    assert seen[f'headgate_quota_refusals_total{{avoidable="true",{_MODEL}}}'] == 0
    assert seen[f"headgate_upstream_duration_seconds_count{{{_MODEL}}}"] == 2
    assert seen[f"headgate_upstream_duration_seconds_sum{{{_MODEL}}}"] == 2.0
    tokens = {"input": 62, "output": 20, "cache_read": 30, "cache_write": 10, "reasoning": 7}
    for kind, number in tokens.items():
        assert seen[f'headgate_tokens_total{{{_MODEL},type="{kind}"}}'] == number
    assert sum(tokens.values()) == usage.total
    assert seen[f"headgate_rotations_total{{{_MODEL}}}"] == 1
    assert seen[f"headgate_retries_total{{{_MODEL}}}"] == 1
    assert seen[f"headgate_call_wait_seconds_count{{{_MODEL}}}"] == 3
    assert seen[f'headgate_call_wait_seconds_bucket{{le="0.01",{_MODEL}}}'] == 2
    assert seen[f"headgate_call_wait_seconds_sum{{{_MODEL}}}"] == 2.0
    assert seen['headgate_waits_total{reason="key"}'] == 1
    assert seen['headgate_cache_requests_total{layer="replies",result="hit"}'] == 1
    assert seen['headgate_cache_requests_total{layer="replies",result="miss"}'] == 1
    assert seen[f"headgate_cache_saved_tokens_total{{{_MODEL}}}"] == usage.total
    assert seen['headgate_fallbacks_total{provider="gemini",strategy="SwitchModel"}'] == 1
    assert seen['headgate_call_errors_total{error_type="quota",provider="gemini"}'] == 1
    assert seen['headgate_calls_total{operation="generate",provider="gemini",result="success"}'] == 2
    assert seen['headgate_calls_total{operation="generate",provider="gemini",result="quota"}'] == 1
    assert seen['headgate_call_duration_seconds_count{operation="generate",provider="gemini"}'] == 3


async def test_reading_changes_no_count(clock: VirtualClock) -> None:
    metrics, registry = fresh(clock)
    metrics.engine.attempt(attempt(usage=Usage(5, 3)))
    metrics.engine.call(call())
    assert values(registry) == values(registry)


async def test_a_stream_that_breaks_after_its_first_piece_is_cut(clock: VirtualClock) -> None:
    metrics, registry = fresh(clock)
    stream = {"operation": Operation.STREAM}
    for request_id, kind, first, error in (
        ("cut", Kind.NETWORK, 10.5, "network"),
        ("early", Kind.NETWORK, None, "network"),
        ("left", Kind.CANCELLED, 10.5, "cancelled"),
        ("whole", Kind.SUCCESS, 10.5, None),
    ):
        metrics.engine.attempt(attempt(kind, request_id=request_id, first_piece=first, **stream))
        metrics.engine.call(call(error, request_id=request_id, **stream))
    seen = values(registry)
    for result in ("cut", "upstream", "cancelled", "success"):
        name = f'headgate_calls_total{{operation="stream",provider="gemini",result="{result}"}}'
        assert seen[name] == 1, result
    assert seen['headgate_call_errors_total{error_type="network",provider="gemini"}'] == 2
    assert seen[f"headgate_first_piece_seconds_count{{{_MODEL}}}"] == 3


async def test_a_stream_that_something_stood_in_for_is_no_cut_one(clock: VirtualClock) -> None:
    """And one whose call never ends does not stand in the way of those that come."""
    metrics, registry = fresh(clock)
    stream = {"operation": Operation.STREAM}
    for number in range(2_000):
        lost = {"request_id": f"lost-{number}", "first_piece": 10.5}
        metrics.engine.attempt(attempt(Kind.NETWORK, **lost, **stream))
    for request_id, error in (("mended", None), ("cut", "network")):
        told = {"request_id": request_id, **stream}
        metrics.engine.attempt(attempt(Kind.NETWORK, first_piece=10.5, **told))
        metrics.engine.call(call(error, fallback=None if error else "PartialResponse", **told))
    seen = values(registry)
    for result in ("success", "cut"):
        name = f'headgate_calls_total{{operation="stream",provider="gemini",result="{result}"}}'
        assert seen[name] == 1
    assert len(metrics.engine._cut) <= 1_000


async def test_a_wait_for_a_key_is_a_retry_of_a_call_with_one_attempt(clock: VirtualClock) -> None:
    metrics, registry = fresh(clock)
    metrics.engine.call(call(attempts=1, retries=1, waited=5.0))
    assert values(registry)[f"headgate_retries_total{{{_MODEL}}}"] == 1


async def test_cost_is_by_the_price_and_what_has_none_is_counted(clock: VirtualClock) -> None:
    metrics, registry = fresh(clock)
    prices = {MODEL: NanoCost(2_500_000_000, 500_000_000, 1_000_000_000, 250_000_000)}
    metrics.engine.price = lambda provider, model, usage: prices.get(model)
    metrics.engine.serves("gemini")
    metrics.engine.attempt(attempt(usage=Usage(5, 3)))
    metrics.engine.attempt(attempt(usage=Usage(5, 3), model="gemini-unpriced"))
    metrics.engine.attempt(attempt(Kind.TIMEOUT, estimate=Usage(5)))
    metrics.engine.attempt(attempt(Kind.SERVER))  # used nothing, so it needs no price
    seen = values(registry)
    assert seen[f"headgate_cost_usd_total{{{_MODEL}}}"] == 5.0
    for kind, dollars in (("input", 1.5), ("cache_read", 1.0), ("output", 2.0), ("reasoning", 0.5)):
        assert seen[f'headgate_cost_by_type_usd_total{{{_MODEL},type="{kind}"}}'] == dollars
    assert seen['headgate_unpriced_attempts_total{provider="gemini"}'] == 1
    assert seen[f'headgate_tokens_total{{{_MODEL},type="input"}}'] == 10


async def test_tokens_that_nobody_reads_do_not_pile_up(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headgate.telemetry.metrics.engine_measures._MOST_USED", 10)
    metrics, registry = fresh(clock)
    for _ in range(100):
        metrics.engine.attempt(attempt(usage=Usage(1)))
    assert len(metrics.engine._used) <= 11
    assert values(registry)[f'headgate_tokens_total{{{_MODEL},type="input"}}'] == 100


async def test_whether_a_refusal_was_avoidable_is_asked_of_the_provider_s_engine(
    clock: VirtualClock,
) -> None:
    class Foreseen:
        def predicted(self, record: AttemptRecord) -> bool:
            return record.domain == "alpha"

    metrics, registry = fresh(clock)
    metrics.engine.serves("gemini", Foreseen())
    for domain, number in (("alpha", 2), ("beta", 3)):
        for _ in range(number):
            metrics.engine.attempt(attempt(Kind.QUOTA_MINUTE, status=429, domain=domain))
    metrics.engine.attempt(attempt(Kind.QUOTA_DAY, status=429, provider="openai"))
    seen = values(registry)
    assert seen[f'headgate_quota_refusals_total{{avoidable="true",{_MODEL}}}'] == 2
    assert seen[f'headgate_quota_refusals_total{{avoidable="false",{_MODEL}}}'] == 3


def test_every_error_has_a_word_of_whose_doing_it_is() -> None:
    """A new public kind must be sorted: it would be `other` on the error budget."""
    kinds = {rule.public_kind for rule in RULES.values()} - {"success"}
    assert {kind: result_of(kind) for kind in kinds if result_of(kind) == "other"} == {}
    assert kinds <= set(ERROR_KIND.values)
    assert {result_of(kind) for kind in ERROR_KIND.values} <= set(RESULT.values)
    assert result_of(None) == "success"
    assert result_of("never heard of") == "other"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (None, "none"),
        (200, "200"),
        (429, "429"),
        (418, "4xx"),
        (302, "3xx"),
        (599, "5xx"),
        (7, "other"),
    ],
)
def test_statuses_are_words_of_a_closed_set(status: int | None, code: str) -> None:
    assert code_of(status) == code


# ── one registry ────────────────────────────────────────────────────────────────────────────────


async def test_a_registry_has_one_set_of_metrics_however_often_it_is_built(clock: VirtualClock) -> None:
    metrics, registry = fresh(clock)
    assert one_of(registry, Metrics, clock) is metrics
    assert one_of(CollectorRegistry(), Metrics, clock) is not metrics
    with pytest.raises(TypeError, match="CollectorRegistry"):
        one_of("no registry", Metrics, clock)


async def test_only_what_runs_here_is_exported(clock: VirtualClock) -> None:
    metrics, registry = fresh(clock)
    assert values(registry) == {}
    metrics.feed(Feeder.ENGINE)
    seen = values(registry)
    assert seen['headgate_usage_rows_total{result="lost"}'] == 0
    assert not [name for name in seen if name.startswith(("subtopics", "db_", "quota_"))]
    metrics.feed(Feeder.CONTENT)
    seen = values(registry)
    assert seen["subtopics_generated_total"] == 0
    assert seen['quota_exceeded_total{limit_type="tpd"}'] == 0
    assert seen['images_generated_total{source="dalle"}'] == 0
    assert "quota_rpm_remaining" not in seen, "a gauge is not 0 because nobody looked"


async def test_state_is_read_at_the_scrape_and_only_of_what_is_still_there(clock: VirtualClock) -> None:
    class Source:
        used = 3.0

    def read(source: Source, sheet: Sheet) -> None:
        sheet.put("headgate_quota_used", source.used, "gemini", "alpha", MODEL, "rpm")

    metrics, registry = fresh(clock)
    source, other = Source(), Source()
    other.used = 2.0
    for one in (source, source, other):  # watched twice, it is read once
        metrics.watch(one, read)
    name = f'headgate_quota_used{{limit="rpm",{_MODEL},quota_domain="alpha"}}'
    assert values(registry)[name] == 3.0  # two that look at one ledger: the larger, never the sum
    source.used = 7.0
    assert values(registry)[name] == 7.0
    gone = weakref.ref(source)
    del source, one
    assert gone() is None
    assert values(registry)[name] == 2.0


async def test_openmetrics_has_exemplars_and_text_has_none(clock: VirtualClock) -> None:
    metrics, registry = fresh(clock)
    metrics.engine.attempt(attempt(request_id="r-1"))
    metrics.engine.attempt(attempt(request_id="x" * 65, ended=20.0))  # too long to be told
    text, kind = exposed(registry, "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3")
    assert kind == OPENMETRICS
    assert text.endswith(b"# EOF\n")
    told = [
        sample.exemplar
        for family in openmetrics(text.decode())
        for sample in family.samples
        if sample.exemplar is not None
    ]
    assert [(one.labels, one.value) for one in told] == [({"request_id": "r-1"}, 1.0)]
    assert float(told[0].timestamp) == clock.wall() - clock.monotonic() + 11.0
    text, kind = exposed(registry, "text/plain;version=0.0.4")
    assert kind == PLAIN
    assert b"r-1" not in text
    assert b"_created" not in text


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", PLAIN),
        ("*/*", PLAIN),
        ("text/plain", PLAIN),
        ("application/openmetrics-text", OPENMETRICS),
        ("text/plain;q=0.9, application/openmetrics-text;q=0.5", PLAIN),
        ("application/openmetrics-text;q=0", PLAIN),
        ("application/openmetrics-text;q=nonsense", PLAIN),
    ],
)
async def test_the_format_is_what_the_scrape_likes_best(
    accept: str, kind: str, clock: VirtualClock
) -> None:
    assert exposed(fresh(clock)[1], accept)[1] == kind


async def test_a_call_that_ends_while_a_scrape_is_made_disturbs_nothing(clock: VirtualClock) -> None:
    """Calls go on between counting and writing: what is not ready for the text waits for the next."""
    metrics, registry = fresh(clock)
    metrics.engine.attempt(attempt())
    told = metrics.collect()
    next(told)
    metrics.engine.attempt(attempt(request_id="late"))
    assert [family.name for family in told]
    assert values(registry)[f'headgate_upstream_requests_total{{code="200",{_MODEL}}}'] == 2


async def test_a_model_that_earned_its_name_is_named_in_every_family(clock: VirtualClock) -> None:
    """Also where it failed before, as `other`."""
    metrics, registry = fresh(clock)
    for kind in (Kind.SERVER, Kind.SUCCESS, Kind.SERVER):
        metrics.engine.attempt(attempt(kind))
        metrics.engine.call(call(None if kind is Kind.SUCCESS else "server"))
    seen = values(registry)
    assert seen['headgate_attempts_total{model="other",outcome="server",provider="gemini"}'] == 1
    assert seen[f'headgate_attempts_total{{model="{MODEL}",outcome="server",provider="gemini"}}'] == 1
    assert seen[f"headgate_call_wait_seconds_count{{{_MODEL}}}"] == 2


async def test_counting_tokens_asks_no_quota_domain(clock: VirtualClock) -> None:
    metrics, registry = fresh(clock)
    metrics.engine.attempt(attempt())
    metrics.engine.attempt(attempt(operation=Operation.COUNT))
    seen = values(registry)
    assert seen[f'headgate_admitted_requests_total{{{_MODEL},quota_domain="alpha"}}'] == 1
    assert seen[f'headgate_upstream_requests_total{{code="200",{_MODEL}}}'] == 2


async def test_what_a_thread_counts_in_a_lane_that_was_dropped_meanwhile_is_not_lost(
    clock: VirtualClock,
) -> None:
    """Twice over: between the look-up of a lane and the count in it any number of others may go by."""
    metrics, registry = fresh(clock)
    engine = metrics.engine
    for count in (lambda: engine.attempt(attempt()), lambda: engine.call(call(waited=0.0))):
        count()

        class Late:
            def __init__(self, lock: Lock) -> None:
                self.lock, self.others = lock, 2

            def __enter__(self) -> None:
                while self.others:
                    self.others -= 1
                    engine._lock = self.lock
                    engine._forget_lanes()
                self.lock.acquire()

            def __exit__(self, *_: object) -> None:
                self.lock.release()

        real = engine._lock
        engine._lock = Late(real)  # type: ignore[assignment]
        count()
        engine._lock = real
    seen = values(registry)
    assert seen[f'headgate_attempts_total{{model="{MODEL}",outcome="success",provider="gemini"}}'] == 2
    assert seen['headgate_calls_total{operation="generate",provider="gemini",result="success"}'] == 2
    assert seen[f"headgate_call_wait_seconds_count{{{_MODEL}}}"] == 2
