"""Where the keys and settings of an OpenAI-compatible upstream come from, and what is said when they
are wrong.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from headgate.cli.main import app
from headgate.core.errors import ConfigurationError, KeyFormatError, NoKeysError
from headgate.core.quota import Counts, Kind
from headgate.emulator import Emulator, EmulatorConfig, OpenAIOrganisation
from headgate.policy.models import ModelPolicy
from headgate.policy.quota.table import Quota
from headgate.wiring.openai import OPENAI_OPTIONS, load_openai

ONE, TWO = "sk-CANARY-one-0123456789", "sk-CANARY-two-0123456789"
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"


def shown(environ: dict[str, str]) -> tuple[list[tuple[str, str]], str]:
    settings = load_openai(environ=environ)
    return [(key.name, key.domain) for key in settings.keys], settings.keys_origin


def test_a_list_names_keys_and_organisations() -> None:
    text = f"{ONE}|first|acme, {TWO}"
    expected = [("first", "acme"), ("key_2", "key:key_2")], "OPENAI_API_KEYS"
    assert shown({"OPENAI_API_KEYS": text, "OPENAI_API_KEY": "unused"}) == expected


def test_one_key_is_called_primary() -> None:
    assert shown({"OPENAI_API_KEY": ONE}) == ([("primary", "key:primary")], "OPENAI_API_KEY")


@pytest.mark.parametrize("variable", ["OPENAI_API_KEYS", "OPENAI_API_KEY"])
def test_each_may_stand_in_a_file(variable: str, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{ONE}\n")
    file.chmod(0o600)
    assert shown({f"{variable}_FILE": str(file)})[1] == f"{variable}_FILE"
    file.chmod(0o604)
    with pytest.raises(ConfigurationError, match="open to every user"):
        load_openai(environ={f"{variable}_FILE": str(file)})


def test_no_key_and_a_wrong_list_say_what_to_do() -> None:
    with pytest.raises(NoKeysError, match=r"No OpenAI key found. Set OPENAI_API_KEYS to key.name"):
        load_openai(environ={})
    with pytest.raises(KeyFormatError, match=r"the form is key.name.organisation"):
        load_openai(environ={"OPENAI_API_KEYS": f"{ONE}, {TWO}|a|b|c"})
    with pytest.raises(KeyFormatError, match="put a list into OPENAI_API_KEYS"):
        load_openai(environ={"OPENAI_API_KEY": f"{ONE},{TWO}"})


def test_the_defaults_are_those_of_the_reference() -> None:
    settings = load_openai(environ={"OPENAI_API_KEY": ONE})
    assert settings.base_url == "https://api.openai.com/v1"
    assert (settings.max_retries, settings.backoff_seconds, settings.max_wait_seconds) == (3, 60, 60.0)
    assert (settings.attempt_timeout_seconds, settings.quotas) == (600.0, None)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("http://127.0.0.1:8765", "http://127.0.0.1:8765/v1"),
        ("http://127.0.0.1:8765/", "http://127.0.0.1:8765/v1"),
        ("https://api.openai.com/v1/", "https://api.openai.com/v1"),
        ("https://generativelanguage.googleapis.com/v1beta/openai/",
         "https://generativelanguage.googleapis.com/v1beta/openai"),
    ],
)  # fmt: skip
def test_the_address_holds_the_path_of_the_api(given: str, expected: str) -> None:
    environ = {"OPENAI_API_KEY": ONE, "HEADGATE_OPENAI_BASE_URL": given}
    assert load_openai(environ=environ).base_url == expected


@pytest.mark.parametrize(
    "given",
    [
        "api.openai.com/v1",
        "ftp://x/v1",
        "https://x/v1?a=b",
        "https://x/v1#a",
        "https://x/a b",
        "http://[",
    ],
)
def test_an_address_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(ConfigurationError, match="it takes scheme, host and path of an API"):
        load_openai({"base_url": given}, environ={"OPENAI_API_KEY": ONE})


def test_a_password_in_an_address_is_not_repeated() -> None:
    with pytest.raises(ConfigurationError, match="…@host"):
        load_openai({"base_url": "https://user:CANARYpass@host/v1"}, environ={"OPENAI_API_KEY": ONE})


def test_an_argument_beats_a_variable_beats_the_file(tmp_path: Path) -> None:
    text = "[claude]\nmax_retries = 1\n[openai]\nmax_retries = 7\nbackoff_seconds = 9\n"
    environ = file(tmp_path, text, HEADGATE_OPENAI_MAX_RETRIES="5", HEADGATE_MODEL_POLICY="strict")
    settings = load_openai({"rotation_enabled": False}, environ=environ)
    assert (settings.max_retries, settings.backoff_seconds) == (5, 9)
    assert (settings.rotation_enabled, settings.model_policy) == (False, ModelPolicy.STRICT)
    origins = {item.option.name: item.origin for item in settings.resolved}
    assert origins["max_retries"] == "HEADGATE_OPENAI_MAX_RETRIES"
    assert origins["backoff_seconds"] == f"{environ['HEADGATE_CONFIG']} [openai] backoff_seconds"


def file(tmp_path: Path, text: str, **environ: str) -> dict[str, str]:
    path = tmp_path / "headgate.toml"
    path.write_text(text)
    return {"OPENAI_API_KEY": ONE, "HEADGATE_CONFIG": str(path), **environ}


def test_quotas_come_from_variables_and_the_file_and_count_as_openai_does(tmp_path: Path) -> None:
    text = """
        [openai]
        quota_tpm = 30_000
        [openai.quota.models."gpt-4.1-2025-04-14"]
        rpm = 500
        [openai.quota.organisations.acme]
        rpd = 10_000
    """
    environ = file(tmp_path, text, HEADGATE_OPENAI_QUOTA_CONCURRENCY="8", HEADGATE_QUOTA_MARGIN="0.5")
    table = load_openai(environ=environ).quotas
    assert table is not None
    expected = Quota(rpm=250, tpm=15_000, rpd=5_000, concurrency=4)
    assert table.quota("acme", "gpt-4.1") == expected  # a version's declaration is its model's
    assert table.quota("bolt", "gpt-4o") == Quota(tpm=15_000, concurrency=4)
    limits = {limit.name: limit for limit in table.limits("acme", "gpt-4.1")}
    assert limits["tpm"].counts is Counts.TOTAL
    assert limits["rpd"].kind is Kind.ROLLING


def test_variables_for_every_provider_count_where_openai_has_none_of_its_own() -> None:
    general = {"HEADGATE_QUOTA_RPM": "10", "HEADGATE_QUOTA_TPM": "1000", "HEADGATE_QUOTA_RPD": "5"}
    settings = load_openai(
        environ={"OPENAI_API_KEY": ONE, **general, "HEADGATE_OPENAI_QUOTA_RPM": "20"}
    )
    assert settings.quotas is not None
    assert settings.quotas.default == Quota(rpm=20, tpm=1000, rpd=5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[openai.quota.models.x]\nitpm = 1\n", "prompt and answer together: declare tpm"),
        ("[openai.quota.projects.x]\nrpm = 1\n", "declare organisations"),
        ("[openai]\nmax_tokens = 1\n", "there is no setting 'max_tokens'"),
        ("[openai]\nmax_retries = -1\n", "whole number, 0 or more"),
    ],
)
def test_a_wrong_table_names_the_place_and_what_is_allowed(
    text: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        load_openai(environ=file(tmp_path, text))


def check(environ: dict[str, str], *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["config", "check", *arguments], env=environ)
    return result.exit_code, result.stdout if arguments else result.output


def test_config_check_shows_the_section_where_anything_of_it_is_set() -> None:
    code, said = check({"OPENAI_API_KEYS": f"{ONE}|first|acme", "HEADGATE_OPENAI_QUOTA_RPM": "500"})
    assert code == 0, said
    for words in ("OpenAI", "first", "acme", "https://api.openai.com/v1", "rpm 500"):
        assert words in said
    code, said = check({"OPENAI_API_KEYS": f"{ONE}|first|acme"}, "--json")
    shape = json.loads(said)
    assert (code, shape["ok"], shape["claude"]) == (0, True, None)
    assert [key["organisation"] for key in shape["openai"]["keys"]["keys"]] == ["acme"]
    assert shape["openai"]["models"] == {"data_date": None, "data_age_days": None}


def test_config_check_is_silent_about_what_nobody_uses() -> None:
    code, said = check({"GEMINI_API_KEY": "AIzaCANARY-0123456789"}, "--json")
    assert (code, json.loads(said)["openai"]) == (0, None)


def keys(environ: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["keys", *arguments], env=environ)
    return result.exit_code, result.stdout, result.stderr


def test_keys_shows_those_of_openai_where_there_are_no_others() -> None:
    environ = {"OPENAI_API_KEYS": f"{ONE}|first|acme,{TWO}|second"}
    code, out, _ = keys(environ)
    assert code == 0
    assert all(word in out for word in ("first", "acme", "second", "ACTIVE"))
    _, out, _ = keys({**environ, "GEMINI_API_KEY": "AIzaCANARY-0123456789"}, "--json")
    assert [key["name"] for key in json.loads(out)["keys"]] == ["primary"]
    code, _, said = keys({}, "--provider", "openai")
    assert (code, "No OpenAI key found" in said) == (3, True)
    code, _, said = keys({})
    assert (code, "No Gemini key found" in said) == (3, True)


def test_a_check_of_openai_keys_asks_for_the_list_of_models() -> None:
    owners = [
        OpenAIOrganisation("acme", {"first": ONE}),
        OpenAIOrganisation("own", {"second": TWO}, key_states={"second": "deactivated"}),
    ]
    environ = {"OPENAI_API_KEYS": f"{ONE}|first|acme,{TWO}|second"}
    with Emulator(EmulatorConfig(openai=owners)).in_thread() as upstream:
        environ["HEADGATE_OPENAI_BASE_URL"] = upstream.base_url
        code, out, _ = keys(environ, "--check", "--json")
        totals = upstream.report().totals
    assert code == 0
    assert [key["check"]["state"] for key in json.loads(out)["keys"]] == ["ok", "invalid"]
    assert (totals.requests, totals.charged_requests) == (2, 0)
    environ["HEADGATE_OPENAI_BASE_URL"] = "http://127.0.0.1:9"
    code, _, said = keys(environ, "--check")
    assert (code, "HEADGATE_OPENAI_BASE_URL" in said) == (7, True)


@pytest.mark.parametrize("option", OPENAI_OPTIONS, ids=lambda option: option.name)
def test_the_reference_has_every_setting(option: Any) -> None:
    assert f"`{option.variable}`" in PAGE.read_text("utf-8")
