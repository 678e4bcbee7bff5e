"""Labels are bounded whatever callers send, and nothing is lost in `other`."""

from __future__ import annotations

from random import Random  # noqa: TID251 - seeded
from threading import Thread

from hypothesis import given, settings
from hypothesis import strategies as some
from prometheus_client import CollectorRegistry, generate_latest
from tests.metrics import attempt, call, fresh, values

from headgate.core.call import Operation, Usage
from headgate.core.outcome import Kind
from headgate.telemetry.metrics.catalogue import BY_NAME, CATALOGUE
from headgate.telemetry.metrics.family import MOST_CHILDREN, OTHER, Feeder
from headgate.telemetry.metrics.labels import MODEL as MODEL_LABEL
from headgate.telemetry.metrics.snapshots import Snapshot, merged, taken
from headgate.testing import VirtualClock

MANY = 10_000
MADE_UP = 1_000
SECRET = "CANARY-in-a-label"
METHODS_AND_CODES = BY_NAME["http_requests_total"].labels[2].values * 2


def families(registry: CollectorRegistry) -> dict[str, list[dict[str, str]]]:
    """The label sets of each family, `le` left out."""
    return {
        family.name: [
            {name: value for name, value in sample.labels.items() if name != "le"}
            for sample in family.samples
        ]
        for family in registry.collect()
    }


def test_ten_thousand_random_names_are_a_bounded_number_of_series() -> None:
    """Issue 6: of models, callers, domains, paths, methods, statuses, errors."""
    chance = Random(1)
    metrics, registry = fresh(VirtualClock())
    metrics.feed(*Feeder)
    kinds, operations = list(Kind), list(Operation)
    for number in range(MANY):
        name = f"{SECRET}-{number}-{chance.random()}"
        kind, operation = chance.choice(kinds), chance.choice(operations)
        facts = {"model": name, "provider": name, "request_id": name, "operation": operation}
        metrics.engine.attempt(
            attempt(kind, domain=name, status=number, caller=name, estimate=Usage(1), **facts)
        )
        metrics.engine.call(call(name, caller=name, fallback=name, key_name=name, **facts))
        with metrics.http.visit(name, f"/{name}") as visit:
            visit.status = number
        metrics.content.gemini_call(name, name, "success", seconds=1.0, tokens=1)
        metrics.content.error(name, name)
        metrics.content.validation_failure(name, name)
    text = generate_latest(registry).decode()
    earned, shown = MODEL_LABEL.most + 1, families(registry)
    for family in registry.collect():
        known = BY_NAME.get(family.name) or BY_NAME[f"{family.name}_total"]
        sets = {tuple(sorted(held.items())) for held in shown[family.name]}
        assert len(sets) <= MOST_CHILDREN + len(METHODS_AND_CODES), (
            known.name
        )  # `other`, and closed words
        for label in known.labels:
            held = {dict(one)[label.name] for one in sets if label.name in dict(one)}
            assert len(held) <= (len(label.values) or label.most + 1), (known.name, label.name)
            assert not label.values or held <= set(label.values), (known.name, label.name)
    assert "model" in text
    assert len({line for line in text.splitlines() if "headgate_attempts_total{" in line}) <= 7 * earned
    seen = values(text)
    assert sum(v for n, v in seen.items() if n.startswith("headgate_calls_total{")) == MANY
    assert sum(v for n, v in seen.items() if n.startswith("headgate_attempts_total{")) == MANY
    assert sum(v for n, v in seen.items() if n.startswith("http_requests_total{")) == MANY
    assert sum(v for n, v in seen.items() if n.startswith("gemini_api_calls_total{")) == MANY


def test_names_that_no_upstream_knows_get_no_series() -> None:
    """Callers make up models: what they name is `other` until an upstream answers for it."""
    metrics, registry = fresh(VirtualClock())
    for number in range(MADE_UP):
        model = f"{SECRET}-{number}"
        metrics.engine.attempt(attempt(Kind.PROJECT_MODEL, status=404, model=model))
        metrics.engine.call(call("no_access", model=model))
    metrics.engine.attempt(attempt())
    text = generate_latest(registry).decode()
    assert SECRET not in text
    seen = values(text)
    assert (
        seen['headgate_attempts_total{model="other",outcome="project_model",provider="gemini"}']
        == MADE_UP
    )
    assert sum(v for n, v in seen.items() if n.startswith("headgate_attempts_total{")) == MADE_UP + 1


def test_a_hundred_keys_and_five_models_are_about_two_thousand_series() -> None:
    """The budget of a process, quotas by domain aside: they are as many as there are."""
    metrics, registry = fresh(VirtualClock())
    metrics.feed(Feeder.ENGINE)
    metrics.engine.serves("gemini")
    for key in range(100):
        for model in range(5):
            facts = {"model": f"m{model}", "domain": f"d{key}"}
            metrics.engine.attempt(attempt(usage=Usage(1, 1), **facts))
            metrics.engine.attempt(attempt(Kind.QUOTA_MINUTE, status=429, **facts))
            metrics.engine.call(call(model=f"m{model}"))
    assert sum(len(sets) for sets in families(registry).values()) <= 2_000


def test_threads_lose_no_count() -> None:
    metrics, registry = fresh(VirtualClock())

    def work(number: int) -> None:
        for step in range(500):
            metrics.engine.attempt(attempt(usage=Usage(1), model=f"m{(number * 500 + step) % 97}"))
            if step % 50 == 0:
                metrics.engine.settle()

    threads = [Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = values(registry)
    assert sum(v for n, v in seen.items() if n.startswith("headgate_attempts_total{")) == 2_000
    tokens = [v for n, v in seen.items() if n.startswith("headgate_tokens_total{") and "input" in n]
    assert sum(tokens) == 2_000


def test_a_family_that_is_full_counts_on_under_other() -> None:
    metrics, _ = fresh(VirtualClock())
    for number in range(40 * 40):
        labels = "gemini", f"d{number % 40}", f"m{number // 40}"
        metrics.add("headgate_admitted_requests_total", 1, *labels)
    rows = metrics.rows("headgate_admitted_requests_total")
    assert MOST_CHILDREN <= len(rows) <= MOST_CHILDREN + 1
    assert sum(count for _, count in rows) == 40 * 40
    assert any(OTHER in labels for labels, _ in rows)


# ── several processes ───────────────────────────────────────────────────────────────────────────

_AMOUNTS = some.lists(some.integers(0, 1000), min_size=1, max_size=5)


@settings(max_examples=25, deadline=None)
@given(_AMOUNTS, some.randoms(use_true_random=False))
def test_processes_merge_to_what_one_would_have_counted(amounts: list[int], order: Random) -> None:
    """Whatever the order, and however they are grouped."""
    whole, one_registry = fresh(VirtualClock())
    snapshots = []
    for amount in amounts:
        metrics, registry = fresh(VirtualClock())
        for target in (metrics, whole):
            target.add("subtopics_generated_total", amount)
            target.see("content_quality_score", amount / 1000, "topic")
        snapshots.append(Snapshot.decoded(taken(registry).encoded()))
    order.shuffle(snapshots)
    middle = len(snapshots) // 2
    halves = [merged(snapshots[:middle]).snapshot(), merged(snapshots[middle:]).snapshot()]
    names = ("subtopics_generated_total", "content_quality_score_count", "content_quality_score_sum")
    for found in (merged(snapshots), merged(halves)):
        seen, expected = values(_Read(found)), values(one_registry)
        for name, value in expected.items():
            if name.startswith(names):
                assert abs(seen[name] - value) < 1e-6, name


class _Read(CollectorRegistry):
    def __init__(self, source: object) -> None:
        super().__init__()
        self.register(source)  # type: ignore[arg-type]


def test_every_family_s_bounds_are_known() -> None:
    for family in CATALOGUE:
        for label in family.labels:
            assert label.values or 0 < label.most <= MOST_CHILDREN, (family.name, label.name)
