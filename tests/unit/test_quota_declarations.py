"""Declared quotas: how they are read, and which of them counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from headgate.core.errors import ConfigurationError
from headgate.core.quota import Counts, Kind, Mode
from headgate.policy.quota.table import Quota, QuotaTable
from headgate.wiring.keys import parse_keys
from headgate.wiring.quotas import Grammar, quota_table
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


def test_exact_reservations_are_asked_for_everywhere_or_by_model(tmp_path: Path) -> None:
    found = table("[gemini.quota]\nexact = true", tmp_path)
    assert found is not None
    assert found.is_exact("any")
    found = table("[gemini.quota.models.m]\ntpm = 10\nexact = true", tmp_path)
    assert found is not None
    assert (found.is_exact("m"), found.is_exact("n")) == (True, False)
    assert found.quota("p", "m") == Quota(tpm=10)
    found = table("[gemini]\nquota_rpm = 1", tmp_path)
    assert found is not None
    assert not found.is_exact("m")


@pytest.mark.parametrize(
    "text",
    [
        "[gemini.quota]\nexact = 1",
        "[gemini.quota.models.m]\nexact = 'yes'",
        "[gemini.quota.projects.p]\nexact = true",  # which project serves is not known before
    ],
)
def test_exact_is_true_or_false_and_not_of_a_project(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="exact"):
        table(text, tmp_path)


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
        ({"models": {"m": {"rpx": 1}}}, r"here models\.m: .*'rpx'.*Did you mean rpm.*projects"),
        ({"model": {}}, r"here: .*'model'\. Did you mean models"),
        ({"projects": {"a": {"rpm": "many"}}}, r"here projects\.a: .*int.*str"),
        ({"models": {"m": {"itpm": 5}}}, r"here models\.m: .*'itpm'.*declare tpm"),
        ({"organisations": {}}, r"here: .*'organisations'.*declare projects"),
        ({"models": 5}, r"here: models takes a table; got int"),
        ({"projects": {"a": 5}}, r"here: projects\.a takes a table; got int"),
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


def test_output_is_held_until_it_has_come_out_and_slots_while_a_call_runs() -> None:
    limits = {limit.name: limit for limit in Quota(itpm=5, otpm=6, concurrency=7).limits()}
    assert {name: limit.amount for name, limit in limits.items()} == {
        "itpm": 5, "otpm": 6, "concurrency": 7
    }  # fmt: skip
    assert (limits["itpm"].counts, limits["itpm"].mode) == (Counts.INPUT, Mode.EARLY)
    assert (limits["otpm"].counts, limits["otpm"].mode) == (Counts.OUTPUT, Mode.ENVELOPE)
    assert (limits["concurrency"].counts, limits["concurrency"].kind) == (
        Counts.SLOTS,
        Kind.CONCURRENT,
    )


def test_of_models_that_are_counted_together_any_name_declares_for_all() -> None:
    grammar = Grammar(("rpm",), "organisations", {}, lambda model: model.split("-")[0])
    tables = {"models": {"m-1": {"rpm": 5}}, "organisations": {"a": {"models": {"m": {"rpm": 7}}}}}
    found = quota_table(Quota(), tables, 1.0, "here", grammar)
    assert found is not None
    assert [found.quota(name, "m-2").rpm for name in ("a", "b")] == [7, 5]
    assert found.covers("m")
    assert not found.covers("n-1")
    with pytest.raises(ConfigurationError, match=r"models\.m-1 and models\.m-2 are counted together"):
        quota_table(Quota(), {"models": {"m-1": {}, "m-2": {}}}, 1.0, "here", grammar)


def test_a_survey_finds_every_mistake_at_once(tmp_path: Path) -> None:
    file = tmp_path / "headgate.toml"
    file.write_text("[gemini]\nmax_retries = -1\n")
    found = survey_gemini({"HEADGATE_CONFIG": str(file), "HEADGATE_QUOTA_RPM": "x"})
    assert len(found.problems) == 3
    assert "max_retries" in found.problems[0]
    assert "HEADGATE_QUOTA_RPM" in found.problems[1]
    assert "No Gemini key" in found.problems[2]
    assert found.file == str(file)
