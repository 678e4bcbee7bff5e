"""Which limits a model gets, how a shortage is worded, how long things take."""

from __future__ import annotations

import re
import statistics
from typing import Any

import pytest

from headgate.emulator import EmulatorConfig, Latency, Limits, Model, Project
from headgate.emulator.books import Books
from headgate.emulator.catalogue import Catalogue
from headgate.emulator.chance import seeded
from headgate.emulator.errors import Shortage, quota_refusal
from headgate.emulator.pace import Pace

KEY = "AIzaCANARY-alpha-1"
SEEN_IDS = re.compile(
    r"GenerateRequestsPer(Minute|Day)PerProjectPerModel(-FreeTier|-PaidTier|-PaidTier2|-PaidTier3)?"
    r"|GenerateContentInputTokensPerModelPer(Minute|Day)-(FreeTier|PaidTier[23]?)"
    r"|GenerateContentPaidTierInputTokensPerModelPerMinute"
    r"|EmbedContentRequestsPer(Minute|Day)PerUserPerProjectPerModel-FreeTier"
    r"|EmbedContentRequestsPer(Minute|Day)PerProjectPerModel-PaidTier[23]?"
)
SEEN_METRICS = re.compile(
    r"generativelanguage\.googleapis\.com/("
    r"generate_content_(free_tier|paid_tier|paid_tier_2|paid_tier_3)_(requests|input_token_count)"
    r"|generate_requests_per_model(_per_day)?|embed_content_(free_tier|paid_tier(_[23])?)_requests)"
)


def refused(*shortages: Shortage, **how: Any) -> dict[str, Any]:
    settings = {
        "family": "some-model",
        "tier": "free",
        "embedding": False,
        "form": "2026",
        "rounding": "up",
        "chance": seeded(1),
    }
    error: dict[str, Any] = quota_refusal(shortages, **{**settings, **how}).body["error"]
    return error


@pytest.mark.parametrize("tier", ["free", "paid", "paid_2", "paid_3"])
@pytest.mark.parametrize("quota", ["rpm", "tpm", "rpd"])
def test_quotas_have_names_that_were_seen(tier: str, quota: str) -> None:
    for embedding in (False, True):
        if embedding and quota == "tpm":
            continue  # never seen
        error = refused(Shortage(quota, 5, 3.0), tier=tier, embedding=embedding)
        (violation,) = error["details"][1]["violations"]
        assert SEEN_IDS.fullmatch(violation["quotaId"])
        assert SEEN_METRICS.fullmatch(violation["quotaMetric"])
        assert ("PerDay" in violation["quotaId"]) == (quota == "rpd")
        assert ("Tokens" in violation["quotaId"]) == (quota == "tpm")


def test_the_hint_is_rounded_as_configured_and_the_message_is_exact() -> None:
    short = Shortage("rpm", 5, 45.811974541)
    up, down = refused(short), refused(short, rounding="down")
    assert up["details"][2]["retryDelay"] == "46s"
    assert down["details"][2]["retryDelay"] == "45s"
    assert up["message"].endswith("\nPlease retry in 45.811974541s.")


def test_the_longest_of_several_waits_is_named_and_all_are_listed() -> None:
    error = refused(Shortage("rpm", 5, 3.0), Shortage("tpm", 100, 30.0))
    assert error["details"][2]["retryDelay"] == "30s"
    assert len(error["details"][1]["violations"]) == 2
    assert error["message"].count("* Quota exceeded") == 2


def test_a_call_larger_than_the_limit_still_gets_a_finite_delay() -> None:
    delay = refused(Shortage("tpm", 100, float("inf")))["details"][2]["retryDelay"]
    assert 0 < int(delay.rstrip("s")) <= 47


def test_shuffled_details_are_the_same_in_another_order() -> None:
    chance = seeded(5)
    orders = set()
    for _ in range(30):
        details = refused(Shortage("rpm", 5, 3.0), form="shuffled", chance=chance)["details"]
        orders.add(tuple(d["@type"].rsplit(".", 1)[1] for d in details))
    assert len(orders) == 6


@pytest.mark.parametrize(
    ("model", "expected"),
    [("exact-model", 1), ("exact-other", 2), ("exam", 3), ("something", 4), ("family-member", 5)],
)
def test_the_exact_name_wins_then_the_longest_pattern(model: str, expected: int) -> None:
    limits = {
        "*": Limits(rpm=4),
        "exa*": Limits(rpm=3),
        "exact-*": Limits(rpm=2),
        "exact-model": Limits(rpm=1),
        "family": Limits(rpm=5),
    }
    project = Project("alpha", {"alpha-1": KEY}, limits)
    books = Books(EmulatorConfig(projects=[project]), born=0.0)
    account = books.account(KEY)
    assert account is not None
    family = "family" if model == "family-member" else None
    books.admit(account, Model(id=model, quota_family=family), 0.0, 1, 1)
    quotas = books.report(0.0).projects["alpha"].models[family or model].quotas
    assert quotas["rpm"].limit == expected


def test_a_model_without_limits_is_unlimited() -> None:
    books = Books(EmulatorConfig(projects=[Project("alpha", {"alpha-1": KEY})]), born=0.0)
    account = books.account(KEY)
    assert account is not None
    assert books.admit(account, Model(id="m"), 0.0, 10**9, 10**9) == []


def test_each_quota_may_have_its_own_mechanism() -> None:
    limits = Limits(
        rpm=1,
        tpm=2,
        rpd=3,
        mechanism="sliding_log",
        tpm_mechanism="token_bucket",
        rpd_mechanism="fixed",
    )
    project = Project("alpha", {"alpha-1": KEY}, {"*": limits})
    books = Books(EmulatorConfig(projects=[project]), born=0.0)
    account = books.account(KEY)
    assert account is not None
    books.admit(account, Model(id="m"), 0.0, 1, 1)
    quotas = books.report(0.0).projects["alpha"].models["m"].quotas
    mechanisms = {name: quota.mechanism for name, quota in quotas.items()}
    assert mechanisms == {"rpm": "sliding_log", "tpm": "token_bucket", "rpd": "fixed"}


def test_every_shipped_model_is_listed_under_its_name_and_aliases_resolve() -> None:
    catalogue = Catalogue(EmulatorConfig(projects=[]))
    now = 1_795_262_400.0
    listed = catalogue.listed("v1beta", now)
    assert all(catalogue.resolve(name, "v1beta", now) is model for name, model in listed)
    assert {model.kind for _, model in listed} == {"text", "image", "embedding"}
    assert len(catalogue.listed("v1", now)) < len(listed)


@pytest.mark.parametrize(
    ("distribution", "spread", "low", "high"),
    [
        ("fixed", 0.5, 2.0, 2.0),
        ("uniform", 0.5, 1.0, 3.0),
        ("exponential", 0.0, 0.0, 10.0),
        ("lognormal", 0.5, 0.0, 10.0),
    ],
)
def test_waits_have_the_middle_and_the_bounds_of_their_distribution(
    distribution: Any, spread: float, low: float, high: float
) -> None:
    latency = Latency(first_byte=2.0, distribution=distribution, spread=spread, maximum=10.0)
    pace = Pace(latency, seeded(3))
    waits = [pace.first_byte() for _ in range(4000)]
    assert low <= min(waits) <= max(waits) <= high
    middle = statistics.mean(waits) if distribution == "exponential" else statistics.median(waits)
    assert middle == pytest.approx(2.0, rel=0.06)
    assert Pace(latency, seeded(3)).first_byte() == waits[0]
    assert pace.chunk() == 0.0
