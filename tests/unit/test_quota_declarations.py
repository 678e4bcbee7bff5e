"""Declared quotas: how they are read, and which of them counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from headgate.core.errors import ConfigurationError
from headgate.core.quota import Counts, Kind
from headgate.policy.quota.table import Quota, QuotaTable
from headgate.wiring.keys import parse_keys
from headgate.wiring.quotas import quota_table
from headgate.wiring.settings import load_gemini, survey_gemini

KEYS = parse_keys("AIzaCANARY-one|k0|alpha")


def table(text: str, tmp_path: Path, **environ: str) -> QuotaTable | None:
    file = tmp_path / "headgate.toml"
    file.write_text(text)
    return load_gemini(keys=KEYS, environ={"HEADGATE_CONFIG": str(file), **environ}).quotas


def test_nothing_declared_is_no_table(tmp_path: Path) -> None:
    assert table("", tmp_path) is None


def test_the_variables_declare_for_every_project_and_model(tmp_path: Path) -> None:
    found = table("", tmp_path, HEADGATE_QUOTA_RPM="10", HEADGATE_QUOTA_TPD="9")
    assert found is not None
    assert found.quota("any", "any") == Quota(rpm=10, tpd=9)
    assert found.covers("any")


def test_the_most_specific_declaration_of_each_number_counts(tmp_path: Path) -> None:
    found = table(
        """
        [gemini]
        quota_rpm = 10
        quota_rpd = 100
        [gemini.quota.models.m]
        rpm = 5
        [gemini.quota.projects.alpha]
        rpm = 50
        tpm = 1000
        [gemini.quota.projects.alpha.models.m]
        tpm = 2000
        """,
        tmp_path,
    )
    assert found is not None
    assert found.quota("beta", "x") == Quota(rpm=10, rpd=100)
    assert found.quota("beta", "m") == Quota(rpm=5, rpd=100)
    assert found.quota("alpha", "x") == Quota(rpm=50, tpm=1000, rpd=100)
    assert found.quota("alpha", "m") == Quota(rpm=50, tpm=2000, rpd=100)


def test_a_key_without_a_project_is_declared_under_its_name() -> None:
    found = QuotaTable(projects={"primary": Quota(rpm=3)})
    assert found.quota("key:primary", "m").rpm == 3


def test_a_model_nobody_declared_is_not_covered() -> None:
    found = QuotaTable(models={"m": Quota(rpm=1)}, project_models={("a", "n"): Quota(rpm=1)})
    assert found.covers("m")
    assert found.covers("n")
    assert not found.covers("x")


@pytest.mark.parametrize(
    ("nominal", "margin", "enforced"), [(100, 0.29, 29), (10, 0.8, 8), (1, 0.5, 1), (15, 1.0, 15)]
)
def test_the_margin_is_taken_exactly_and_never_down_to_nothing(
    nominal: int, margin: float, enforced: int
) -> None:
    found = quota_table(Quota(rpm=nominal), {}, margin, "here")
    assert found is not None
    assert found.default.rpm == enforced


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"models": {"m": {"rpx": 1}}}, r"here: .*rpx.*models and projects"),
        ({"model": {}}, r"here: .*model"),
        ({"projects": {"a": {"rpm": "many"}}}, r"here: .*int.*str"),
        ({"projects": {"a": {"rpm": 0}}}, r"here projects\.a\.rpm is 0; it takes a whole number"),
    ],
)
def test_a_wrong_declaration_is_told_where_and_what_is_right(
    tables: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        quota_table(Quota(), tables, 1.0, "here")


def test_days_are_calendar_days_and_tokens_those_of_the_prompt() -> None:
    limits = {limit.name: limit for limit in Quota(1, 2, 3, 4).limits()}
    assert {name: limit.amount for name, limit in limits.items()} == {
        "rpm": 1, "tpm": 2, "rpd": 3, "tpd": 4
    }  # fmt: skip
    assert limits["rpd"].kind is limits["tpd"].kind is Kind.CALENDAR
    assert limits["tpm"].counts is limits["tpd"].counts is Counts.INPUT


def test_a_survey_finds_every_mistake_at_once(tmp_path: Path) -> None:
    file = tmp_path / "headgate.toml"
    file.write_text("[gemini]\nmax_retries = -1\n")
    found = survey_gemini({"HEADGATE_CONFIG": str(file), "HEADGATE_QUOTA_RPM": "x"})
    assert len(found.problems) == 3
    assert "max_retries" in found.problems[0]
    assert "HEADGATE_QUOTA_RPM" in found.problems[1]
    assert "No Gemini key" in found.problems[2]
    assert found.file == str(file)
