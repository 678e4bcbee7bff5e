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


def test_every_successor_of_the_shipped_data_is_a_model_that_stays() -> None:
    from datetime import date

    registry, today = anthropic_registry(), date(2026, 12, 1)
    for name in ("claude-3-opus", "claude-3-7-sonnet-latest", "claude-sonnet-4-0", "claude-sonnet-4-5"):
        resolution = registry.resolve(name, today, ModelPolicy.SUCCESSOR)
        assert resolution.warning
        assert not resolution.model.retired(today)


@pytest.mark.parametrize("option", CLAUDE_OPTIONS, ids=lambda option: option.name)
def test_the_reference_has_every_setting(option: Any) -> None:
    rows = [row for row in PAGE.read_text("utf-8").splitlines() if f"`{option.variable}`" in row]
    default = str(option.default).lower() if isinstance(option.default, bool) else option.default
    text = (
        "unset" if default is None else f"{default:g}" if isinstance(default, float) else str(default)
    )
    assert len(rows) == 1
    assert f"`{option.name}`" in rows[0]
    assert f"`{text}`" in rows[0]


@pytest.mark.parametrize(
    "name",
    [
        *(name for name in claude.__all__ if name != "ClaudeRateLimiter"),
        *(name for name in vars(ResilientClaudeClient) if not name.startswith("_")),
        *inspect.signature(ResilientClaudeClient).parameters,
        *inspect.signature(claude.ClaudeReply).parameters,
        *MESSAGE_OPTIONS,
    ],
)
def test_the_reference_has_every_public_name(name: str) -> None:
    assert f"`{name}" in PAGE.read_text("utf-8") or f"    {name}," in PAGE.read_text("utf-8")
