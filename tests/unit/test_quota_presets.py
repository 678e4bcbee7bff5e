"""Quotas by usage tier: dated data, completed by what is declared and never above it."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
from tests.support import environment
from typer.testing import CliRunner

from headgate.cli.main import app
from headgate.core.errors import ConfigurationError
from headgate.policy.quota.table import Quota
from headgate.providers.anthropic_quota import class_of
from headgate.wiring.claude import load_claude
from headgate.wiring.keys import parse_keys
from headgate.wiring.presets_quota import preset, tier_name, with_preset
from headgate.wiring.quotas import CLAUDE_QUOTAS, GEMINI_QUOTAS
from headgate.wiring.settings import load_gemini

KEYS = parse_keys("AIzaCANARY-one|k0|alpha")
FREE = {"HEADGATE_QUOTA_TIER": "free"}
MODEL = "gemini-3.8-flash"


@pytest.mark.parametrize(
    ("provider", "tier", "numbers"),
    [("gemini", tier, GEMINI_QUOTAS.numbers) for tier in ("free", "tier1", "tier2")]
    + [("anthropic", tier, CLAUDE_QUOTAS.numbers) for tier in ("start", "build", "scale")],
)
def test_every_number_is_one_the_provider_counts_and_the_data_is_dated(
    provider: str, tier: str, numbers: tuple[str, ...]
) -> None:
    found = preset(provider, tier)
    assert found.date >= date(2026, 11, 21)
    assert found.quotas
    for model, quota in found.quotas.items():
        limits = quota.limits()  # refuses amounts below 1
        assert limits, model
        assert {limit.name for limit in limits} <= set(numbers), model


def test_the_names_of_claude_data_are_classes() -> None:
    for tier in ("start", "build", "scale"):
        assert all(class_of(name) == name for name in preset("anthropic", tier).quotas)


def test_a_tier_fills_in_what_is_not_declared() -> None:
    found = load_gemini(keys=KEYS, environ={**FREE, "HEADGATE_QUOTA_RPM": "2"}).quotas
    assert found is not None
    assert found.quota("alpha", MODEL) == Quota(rpm=2, tpm=250_000, rpd=20)
    assert found.explicit("alpha", MODEL) == Quota(rpm=2)
    alone = load_gemini(keys=KEYS, environ=FREE).quotas
    assert alone is not None
    assert alone.quota("alpha", MODEL) == Quota(rpm=5, tpm=250_000, rpd=20)
    assert alone.covers(MODEL)
    assert not alone.covers("a model nobody has seen")


def test_the_margin_counts_for_presets_too() -> None:
    found = load_gemini(keys=KEYS, environ={**FREE, "HEADGATE_QUOTA_MARGIN": "0.9"}).quotas
    assert found is not None
    assert found.quota("alpha", MODEL) == Quota(rpm=4, tpm=225_000, rpd=18)


def test_an_argument_replaces_tables_but_not_the_tier() -> None:
    given = {"models": {MODEL: {"rpd": 7}}}
    found = load_gemini(keys=KEYS, quotas=given, environ=FREE).quotas
    assert found is not None
    assert found.quota("alpha", MODEL) == Quota(rpm=5, tpm=250_000, rpd=7)


def test_a_claude_tier_is_counted_by_class() -> None:
    keys = parse_keys("CANARY-sk|k|org", group="organisation")
    found = load_claude(keys=keys, environ={"HEADGATE_CLAUDE_QUOTA_TIER": "start"}).quotas
    assert found is not None
    assert found.quota("org", "claude-haiku-4-5-20251001").itpm == 2_000_000
    assert found.quota("org", "claude-fable-5-2") == Quota(rpm=1000, itpm=500_000, otpm=100_000)


def test_an_unknown_tier_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="free, tier1, tier2"):
        tier_name("gemini")("platinum")
    with pytest.raises(ConfigurationError, match="HEADGATE_QUOTA_TIER is 'gold'"):
        load_gemini(keys=KEYS, environ={"HEADGATE_QUOTA_TIER": "gold"})


def test_no_declaration_and_no_tier_is_no_table() -> None:
    assert load_gemini(keys=KEYS, environ={}).quotas is None
    completed = with_preset(None, preset("gemini", "tier2"), 1.0)
    assert completed.presets_from.startswith("tier tier2, state 20")


def test_config_check_says_where_each_number_comes_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment(
        monkeypatch, tmp_path, GEMINI_API_KEYS="AIzaCANARY-012345|k|p", HEADGATE_QUOTA_RPM="3", **FREE
    )
    result = CliRunner().invoke(app, ["config", "check", "--json"])
    assert result.exit_code == 0
    rows = json.loads(result.stdout)["quotas"]
    assert rows[0] == {"project": None, "model": None, "from": "declared", "rpm": 3}
    of_model = next(row for row in rows if row["model"] == MODEL)
    assert of_model["from"] == f"tier free, state {preset('gemini', 'free').date}"
    assert of_model["rpd"] == 20
