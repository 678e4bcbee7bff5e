"""Where a Claude client's keys and settings come from, and what is said when they are wrong."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from headgate import claude
from headgate.claude.client import ResilientClaudeClient
from headgate.core.errors import ConfigurationError, KeyFormatError, NoKeysError
from headgate.policy.models import ModelPolicy
from headgate.policy.quota.table import Quota
from headgate.providers.anthropic import MESSAGE_OPTIONS
from headgate.wiring.claude import CLAUDE_OPTIONS, load_claude
from headgate.wiring.presets import anthropic_default_model, anthropic_registry

ONE, TWO = "sk-ant-CANARY-one-0123456789", "sk-ant-CANARY-two-0123456789"
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "claude.md"


def shown(environ: dict[str, str]) -> tuple[list[tuple[str, str]], str]:
    settings = load_claude(environ=environ)
    return [(key.name, key.domain) for key in settings.keys], settings.keys_origin


def test_a_list_names_keys_and_organisations() -> None:
    text = f"{ONE}|first|acme, {TWO}"
    expected = [("first", "acme"), ("key_2", "key:key_2")], "ANTHROPIC_API_KEYS"
    assert shown({"ANTHROPIC_API_KEYS": text, "ANTHROPIC_API_KEY": "unused"}) == expected


def test_one_key_is_called_primary() -> None:
    assert shown({"ANTHROPIC_API_KEY": ONE}) == ([("primary", "key:primary")], "ANTHROPIC_API_KEY")


@pytest.mark.parametrize("variable", ["ANTHROPIC_API_KEYS", "ANTHROPIC_API_KEY"])
def test_each_may_stand_in_a_file(variable: str, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{ONE}\n")
    file.chmod(0o600)
    assert shown({f"{variable}_FILE": str(file)})[1] == f"{variable}_FILE"
    file.chmod(0o604)
    with pytest.raises(ConfigurationError, match="open to every user"):
        load_claude(environ={f"{variable}_FILE": str(file)})


def test_no_key_and_a_wrong_list_say_what_to_do() -> None:
    with pytest.raises(NoKeysError, match=r"Set ANTHROPIC_API_KEYS to key.name.organisation"):
        ResilientClaudeClient(environ={})
    with pytest.raises(
        KeyFormatError, match=r"entry 2 has 3 '.' signs; the form is key.name.organisation"
    ):
        ResilientClaudeClient(environ={"ANTHROPIC_API_KEYS": f"{ONE}, {TWO}|a|b|c"})
    with pytest.raises(KeyFormatError, match="put a list into ANTHROPIC_API_KEYS"):
        ResilientClaudeClient(environ={"ANTHROPIC_API_KEY": f"{ONE},{TWO}"})
    with pytest.raises(KeyFormatError, match="keys: entry 2 repeats"):
        ResilientClaudeClient(keys=[ONE, ONE])
    with pytest.raises(ConfigurationError, match="keys is empty"):
        ResilientClaudeClient(keys=[])


def test_the_defaults_are_those_of_the_reference() -> None:
    settings = load_claude(environ={"ANTHROPIC_API_KEY": ONE})
    assert settings.base_url == "https://api.anthropic.com"
    assert (settings.version, settings.max_tokens) == ("2023-06-01", 4096)
    assert (settings.max_retries, settings.backoff_seconds, settings.max_wait_seconds) == (3, 60, 60.0)
    assert settings.default_model == anthropic_default_model()
    assert settings.attempt_timeout_seconds == 600.0


def test_an_argument_beats_a_variable_beats_the_default() -> None:
    environ = {
        "ANTHROPIC_API_KEY": ONE,
        "HEADGATE_ANTHROPIC_BASE_URL": "http://127.0.0.1:8765/",
        "HEADGATE_ANTHROPIC_MODEL": "claude-x",
        "HEADGATE_ANTHROPIC_MAX_RETRIES": "7",
        "HEADGATE_ANTHROPIC_ROTATION_ENABLED": "off",
        "HEADGATE_MODEL_POLICY": "strict",
    }
    client = ResilientClaudeClient(max_retries=1, version="2026-10-21", environ=environ)
    settings = client.settings
    assert (settings.base_url, settings.default_model) == ("http://127.0.0.1:8765", "claude-x")
    assert (settings.max_retries, settings.version) == (1, "2026-10-21")
    assert (settings.rotation_enabled, settings.model_policy) == (False, ModelPolicy.STRICT)
    origins = {item.option.name: item.origin for item in settings.resolved}
    assert origins["max_retries"] == "argument max_retries"
    assert origins["base_url"] == "HEADGATE_ANTHROPIC_BASE_URL"
    assert origins["max_tokens"] == "default"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"version": "new"}, "argument version is 'new'; it takes a date"),
        ({"max_tokens": 0}, "a whole number, 1 or more"),
        ({"base_url": "https://user:CANARYpass@host"}, "'…@host'; it takes scheme and host"),
    ],
)
def test_a_wrong_setting_names_itself_and_what_is_allowed(
    arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        ResilientClaudeClient(keys=ONE, **arguments)


def file(tmp_path: Path, text: str, **environ: str) -> dict[str, str]:
    path = tmp_path / "headgate.toml"
    path.write_text(text)
    return {"ANTHROPIC_API_KEY": ONE, "HEADGATE_CONFIG": str(path), **environ}


def test_the_file_has_a_table_for_claude(tmp_path: Path) -> None:
    text = "[gemini]\nmax_retries = 1\n[claude]\nmax_retries = 7\nmax_tokens = 99\n"
    environ = file(tmp_path, text, HEADGATE_ANTHROPIC_MAX_TOKENS="55")
    settings = load_claude({"backoff_seconds": 5}, environ=environ)
    assert (settings.max_retries, settings.max_tokens, settings.max_wait_seconds) == (7, 55, 5.0)
    origins = {item.option.name: item.origin for item in settings.resolved}
    assert origins["max_retries"] == f"{environ['HEADGATE_CONFIG']} [claude] max_retries"
    assert origins["max_tokens"] == "HEADGATE_ANTHROPIC_MAX_TOKENS"


def test_keys_may_stand_in_a_file_that_the_table_names(tmp_path: Path) -> None:
    secrets = tmp_path / "keys"
    secrets.write_text(f"{ONE}|first|acme\n{TWO}\n")
    secrets.chmod(0o600)
    environ = file(tmp_path, f'[claude]\nkeys_file = "{secrets}"\n', ANTHROPIC_API_KEY="")
    assert shown(environ) == ([("first", "acme"), ("key_2", "key:key_2")], "claude.keys_file")
    assert shown({**environ, "ANTHROPIC_API_KEY": TWO})[1] == "ANTHROPIC_API_KEY"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[claude]\nmax_tokns = 1\n", r"\[claude\]: there is no setting 'max_tokns'.*max_tokens"),
        ("[claude]\nmax_tokens = 0\n", r"\[claude\] max_tokens is '0'; it takes a whole number"),
        ("claude = 1\n", "claude must be a table"),
        ("[claude]\nkeys_file = 1\n", r"\[claude\] keys_file takes the path"),
        ("[claude]\nquota = 1\n", r"\[claude.quota\] must be a table"),
        ("[claude]\nquota_tpm = 1\n", "there is no setting 'quota_tpm'"),
        ("[claude.quota.models.m]\nrpd = 1\n", "Anthropic has no limit a day"),
        ("[claud]\n", "did you mean claude"),
    ],
)
def test_a_wrong_table_says_where_and_what_is_right(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=said):
        load_claude(environ=file(tmp_path, text))


def test_quotas_come_from_arguments_variables_and_the_file(tmp_path: Path) -> None:
    text = """
        [claude]
        quota_otpm = 800
        quota_itpm = 9
        [claude.quota.models."claude-opus-4-8"]
        rpm = 5
        [claude.quota.organisations.acme]
        concurrency = 4
    """
    environ = file(tmp_path, text, HEADGATE_CLAUDE_QUOTA_ITPM="1000", HEADGATE_QUOTA_MARGIN="0.5")
    table = load_claude(environ=environ).quotas
    assert table is not None
    assert table.quota("acme", "claude-opus-4-6") == Quota(rpm=2, itpm=500, otpm=400, concurrency=2)
    assert table.quota("bolt", "claude-haiku-5-5") == Quota(itpm=500, otpm=400)
    given = ResilientClaudeClient(
        quotas={"itpm": 70, "models": {"claude-haiku-5": {"rpm": 6}}}, environ=environ
    ).settings.quotas
    assert given is not None
    assert given.quota("acme", "claude-haiku-5-5") == Quota(rpm=3, itpm=35, otpm=400)


def test_variables_for_every_provider_count_where_claude_has_none_of_its_own(tmp_path: Path) -> None:
    general = {"HEADGATE_QUOTA_RPM": "10", "HEADGATE_QUOTA_TPM": "1000", "HEADGATE_QUOTA_RPD": "5"}
    environ = {"ANTHROPIC_API_KEY": ONE, **general, "HEADGATE_QUOTA_CONCURRENCY": "3"}
    settings = load_claude(environ=environ)
    assert settings.quotas is not None
    assert settings.quotas.default == Quota(rpm=10, itpm=1000, concurrency=3)
    origins = {item.option.name: item.origin for item in settings.resolved}
    assert origins["quota_rpm"] == "HEADGATE_QUOTA_RPM"
    assert origins["quota_itpm"] == "HEADGATE_QUOTA_TPM"
    own = load_claude(environ={**environ, "HEADGATE_CLAUDE_QUOTA_RPM": "1000"})
    assert own.quota_rpm == 1000
    table = load_claude(environ=file(tmp_path, "[claude]\nquota_rpm = 70\n", **general))
    assert table.quota_rpm == 70


def test_nothing_declared_is_no_table() -> None:
    assert load_claude(environ={"ANTHROPIC_API_KEY": ONE}).quotas is None


def test_every_successor_of_the_shipped_data_is_a_model_that_stays() -> None:
    from datetime import date

    registry, today = anthropic_registry(), date(2026, 12, 1)
    for name in ("claude-3-opus", "claude-3-7-sonnet-latest", "claude-sonnet-4-0", "claude-sonnet-4-5"):
        resolution = registry.resolve(name, today, ModelPolicy.SUCCESSOR)
        assert resolution.warning
        assert not resolution.model.retired(today)


@pytest.mark.parametrize("option", CLAUDE_OPTIONS, ids=lambda option: option.name)
def test_the_reference_has_every_setting(option: Any) -> None:
    lines = PAGE.read_text("utf-8").splitlines()
    rows = [row for row in lines if row.startswith(f"| `{option.name}` | `{option.variable}` |")]
    default = str(option.default).lower() if isinstance(option.default, bool) else option.default
    text = (
        "unset" if default is None else f"{default:g}" if isinstance(default, float) else str(default)
    )
    assert len(rows) == 1
    assert f"`{text}`" in rows[0]


@pytest.mark.parametrize(
    "name",
    [
        *(name for name in claude.__all__ if name != "ClaudeRateLimiter"),
        *(name for name in dir(ResilientClaudeClient) if not name.startswith("_")),
        *inspect.signature(ResilientClaudeClient).parameters,
        *inspect.signature(claude.ClaudeReply).parameters,
        *MESSAGE_OPTIONS,
    ],
)
def test_the_reference_has_every_public_name(name: str) -> None:
    assert f"`{name}" in PAGE.read_text("utf-8") or f"    {name}," in PAGE.read_text("utf-8")
