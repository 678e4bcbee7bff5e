"""Where settings come from, what they may be, and what never shows (S5-14, S5-15, S5-16, C6, C18)."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from tests.codegen import ORG, RUN, SECRET, TOKEN, USER, said, scripted

from headgate import codegen
from headgate.codegen import (
    AsyncCodegenClient,
    AuthenticationError,
    ClientConfig,
    ConfigPresets,
    FeatureDisabledError,
    create_client_from_env,
)
from headgate.core.errors import ConfigurationError
from headgate.testing import ScriptedTransport, VirtualClock
from headgate.wiring.codegen_options import CODEGEN_OPTIONS

DEFAULTS = {
    "base_url": "https://api.codegen.com/v1", "timeout": 30, "max_retries": 3,
    "rate_limit_requests_per_period": 60, "rate_limit_period_seconds": 60, "enable_caching": True,
    "cache_ttl_seconds": 300, "cache_max_size": 128, "enable_webhooks": True,
    "enable_bulk_operations": True, "enable_streaming": True, "enable_metrics": True,
    "log_level": "INFO", "log_requests": True, "log_responses": False, "agent_run_timeout": 1800,
    "retry_delay": 1.0, "retry_backoff_factor": 2.0, "retry_jitter": True, "rate_limit_buffer": 0.0,
    "log_sensitive_data": False, "webhook_timeout": 30, "bulk_max_workers": 5, "bulk_batch_size": 100,
    "debug_mode": False, "mock_responses": False, "custom_headers": {}, "api_token": "", "org_id": "",
    "webhook_secret": "",
}  # fmt: skip
VARIABLES = {
    "CODEGEN_API_TOKEN": "api_token", "CODEGEN_ORG_ID": "org_id", "CODEGEN_BASE_URL": "base_url",
    "CODEGEN_TIMEOUT": "timeout", "CODEGEN_MAX_RETRIES": "max_retries",
    "CODEGEN_RATE_LIMIT_REQUESTS": "rate_limit_requests_per_period",
    "CODEGEN_RATE_LIMIT_PERIOD": "rate_limit_period_seconds",
    "CODEGEN_ENABLE_CACHING": "enable_caching", "CODEGEN_CACHE_TTL": "cache_ttl_seconds",
    "CODEGEN_CACHE_MAX_SIZE": "cache_max_size", "CODEGEN_ENABLE_WEBHOOKS": "enable_webhooks",
    "CODEGEN_ENABLE_BULK_OPERATIONS": "enable_bulk_operations",
    "CODEGEN_ENABLE_STREAMING": "enable_streaming", "CODEGEN_ENABLE_METRICS": "enable_metrics",
    "CODEGEN_LOG_LEVEL": "log_level", "CODEGEN_LOG_REQUESTS": "log_requests",
    "CODEGEN_LOG_RESPONSES": "log_responses", "CODEGEN_AGENT_RUN_TIMEOUT": "agent_run_timeout",
    "CODEGEN_RETRY_DELAY": "retry_delay", "CODEGEN_RETRY_BACKOFF_FACTOR": "retry_backoff_factor",
    "CODEGEN_RETRY_JITTER": "retry_jitter", "CODEGEN_RATE_LIMIT_BUFFER": "rate_limit_buffer",
    "CODEGEN_LOG_SENSITIVE_DATA": "log_sensitive_data", "CODEGEN_WEBHOOK_SECRET": "webhook_secret",
    "CODEGEN_WEBHOOK_TIMEOUT": "webhook_timeout", "CODEGEN_BULK_MAX_WORKERS": "bulk_max_workers",
    "CODEGEN_BULK_BATCH_SIZE": "bulk_batch_size", "CODEGEN_DEBUG_MODE": "debug_mode",
    "CODEGEN_MOCK_RESPONSES": "mock_responses",
}  # fmt: skip


def test_s5_14_documented_defaults() -> None:
    config = ClientConfig(environ={})
    assert config.model_dump() == DEFAULTS
    assert {config.origin(name) for name in DEFAULTS} == {"default"}


@pytest.mark.parametrize(("variable", "name"), VARIABLES.items())
def test_s5_14_every_variable_is_read(variable: str, name: str) -> None:
    default = DEFAULTS[name]
    texts: dict[type, tuple[str, Any]] = {
        bool: ("no" if default else "yes", not default),
        int: ("7", 7),
        float: ("0.5" if name == "rate_limit_buffer" else "7.5", 0.5 if "buffer" in name else 7.5),
        str: ("x", "x"),
    }
    text, value = texts[type(default)]
    special = {"base_url": "http://127.0.0.1:9/v1", "log_level": "error"}
    if name in special:
        text, value = special[name], special[name].upper() if name == "log_level" else special[name]
    config = ClientConfig(environ={variable: f" {text} "})
    assert getattr(config, name) == value
    assert config.origin(name) == variable
    assert getattr(ClientConfig(environ={variable: "  "}), name) == default


def test_s5_14_every_option_has_its_accepted_variable() -> None:
    table = {option.variable: option.name for option in CODEGEN_OPTIONS}
    assert table == {**VARIABLES, "CODEGEN_HEADER_*": "custom_headers"}


def test_s5_14_the_vendors_own_variable_stands_in() -> None:
    theirs = {"CODEGEN_API_BASE_URL": "http://theirs/v1"}
    assert ClientConfig(environ=theirs).base_url == "http://theirs/v1"
    both = {**theirs, "CODEGEN_BASE_URL": "http://ours/v1"}
    assert ClientConfig(environ=both).base_url == "http://ours/v1"


def test_s5_14_headers_from_the_environment() -> None:
    config = ClientConfig(environ={"CODEGEN_HEADER_X_TEAM_NAME": "blue", "CODEGEN_HEADER_": "no"})
    assert config.custom_headers == {"x-team-name": "blue"}


def test_s5_14_secrets_may_stand_in_files(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    config = ClientConfig(environ={"CODEGEN_API_TOKEN_FILE": str(file)})
    assert config.api_token == TOKEN
    assert ClientConfig(environ={"CODEGEN_WEBHOOK_SECRET_FILE": str(file)}).webhook_secret == TOKEN
    file.chmod(0o644)
    with pytest.raises(ConfigurationError, match="CODEGEN_API_TOKEN_FILE"):
        ClientConfig(environ={"CODEGEN_API_TOKEN_FILE": str(file)})


def test_s5_14_precedence(tmp_path: Path) -> None:
    """Argument, variable, headgate.toml, preset, default: each speaks where none before it does."""
    file = tmp_path / "settings.toml"
    file.write_text("[codegen]\ntimeout = 11\nmax_retries = 8\nbulk_max_workers = 9\n")
    environ = {"HEADGATE_CONFIG": str(file), "CODEGEN_TIMEOUT": "12", "CODEGEN_MAX_RETRIES": "6"}
    config = ClientConfig(preset="development", environ=environ, timeout=13)
    assert (config.timeout, config.origin("timeout")) == (13, "argument timeout")
    assert (config.max_retries, config.origin("max_retries")) == (6, "CODEGEN_MAX_RETRIES")
    assert (config.bulk_max_workers, config.origin("bulk_max_workers")) == (
        9, f"{file} [codegen] bulk_max_workers",
    )  # fmt: skip
    assert (config.log_level, config.origin("log_level")) == ("DEBUG", "preset development")
    assert config.origin("cache_max_size") == "default"


@pytest.mark.parametrize(
    "text", ["[codegen]\nno_such = 1\n", '[codegen]\napi_token = "x"\n', "codegen = 1\n", "[codegen"]
)
def test_a_wrong_file_is_refused(text: str, tmp_path: Path) -> None:
    """Among what is wrong: a token, which has no place in a file that is shared."""
    file = tmp_path / "headgate.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError):
        ClientConfig(environ={"HEADGATE_CONFIG": str(file)})


# ── presets ─────────────────────────────────────────────────────────────────────────────────────

PRESETS: dict[str, dict[str, Any]] = {
    "development": {
        "log_level": "DEBUG", "log_requests": True, "log_responses": True, "timeout": 60,
        "max_retries": 1, "enable_caching": False, "rate_limit_requests_per_period": 30,
        "debug_mode": True,
    },
    "production": {
        "log_level": "INFO", "log_requests": True, "log_responses": False, "timeout": 30,
        "max_retries": 3, "enable_caching": True, "cache_ttl_seconds": 300,
        "rate_limit_requests_per_period": 60, "debug_mode": False,
    },
    "high_performance": {
        "log_level": "WARNING", "log_requests": False, "log_responses": False, "timeout": 15,
        "max_retries": 2, "enable_caching": True, "cache_ttl_seconds": 600,
        "rate_limit_requests_per_period": 100, "bulk_max_workers": 10,
    },
    "testing": {
        "log_level": "DEBUG", "timeout": 5, "max_retries": 0, "enable_caching": False,
        "rate_limit_requests_per_period": 1000, "mock_responses": True, "debug_mode": True,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_s5_16_presets(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = getattr(ConfigPresets, name)()
    shown = config.model_dump()
    assert {key: shown[key] for key in PRESETS[name]} == PRESETS[name]
    assert {key: shown[key] for key in shown if key not in PRESETS[name]} == {
        key: DEFAULTS[key] for key in DEFAULTS if key not in PRESETS[name]
    }
    monkeypatch.setenv("CODEGEN_TIMEOUT", "77")
    assert getattr(ConfigPresets, name)().timeout == 77, "a variable that is set beats the preset"
    assert getattr(ConfigPresets, name)(timeout=78).timeout == 78


async def test_s5_16_a_preset_needs_no_environment_and_can_be_changed_after(
    clock: VirtualClock,
) -> None:
    config = ConfigPresets.development()
    config.api_token = TOKEN
    config.org_id = "1"
    transport = ScriptedTransport([said(USER)], clock)
    client = AsyncCodegenClient(config, transport=transport, clock=clock)
    await client.get_current_user()
    assert transport.sent[0].credential == {"authorization": f"Bearer {TOKEN}"}


@pytest.mark.parametrize("token", ["", "two words", "tökén", "a\nb"])
async def test_s5_16_a_token_is_checked_when_it_is_used(token: str, clock: VirtualClock) -> None:
    client, transport = scripted([said(USER)], clock, api_token=token)
    with pytest.raises(AuthenticationError):
        await client.get_current_user()
    assert not transport.sent
    client.config.api_token = TOKEN
    await client.get_current_user()
    assert len(transport.sent) == 1


@pytest.mark.parametrize("environment", [None, *PRESETS])
def test_s5_06_create_client_from_env(environment: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if environment is None:
        monkeypatch.delenv("ENVIRONMENT", raising=False)
    else:
        monkeypatch.setenv("ENVIRONMENT", environment.upper())
    monkeypatch.setenv("CODEGEN_API_TOKEN", TOKEN)
    config = create_client_from_env().config
    wanted = PRESETS[environment or "production"]
    assert {key: config.model_dump()[key] for key in wanted} == wanted
    assert config.api_token == TOKEN


def test_an_unknown_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVIRONMENT", "staging")
    with pytest.raises(ConfigurationError, match="development, high_performance, production, testing"):
        create_client_from_env()


# ── values ──────────────────────────────────────────────────────────────────────────────────────

WRONG: dict[str, tuple[Any, ...]] = {
    "timeout": (0, -1, "soon", float("inf"), float("nan"), True),
    "max_retries": (-1, 1.5, "x", True),
    "rate_limit_requests_per_period": (0, -5),
    "rate_limit_period_seconds": (0, "x"),
    "rate_limit_buffer": (-0.1, 1.1),
    "retry_backoff_factor": (0.5,),
    "cache_ttl_seconds": (-1,),
    "cache_max_size": (0,),
    "bulk_max_workers": (0,),
    "bulk_batch_size": (0,),
    "base_url": ("ftp://x", "no url", "http://", "https://user:pw@host/v1"),
    "log_level": ("LOUD", 12),
    "enable_caching": ("maybe",),
    "custom_headers": ("x", {"bad name": "x"}, {"x": "a\r\nb: c"}),
    "org_id": (["1"],),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_s5_15_wrong_values_are_refused_wherever_they_come_from(name: str, value: Any) -> None:
    """Built, assigned or updated; the error names the setting and what it takes."""
    with pytest.raises(ConfigurationError, match=name):
        ClientConfig(environ={}, **{name: value})
    config = ClientConfig(environ={})
    with pytest.raises(ConfigurationError, match=name):
        setattr(config, name, value)
    with pytest.raises(ConfigurationError, match=name):
        config.update(debug_mode=True, **{name: value})
    assert config.model_dump() == DEFAULTS, "one that is wrong changes nothing"


def test_s5_15_boundaries_are_allowed() -> None:
    config = ClientConfig(
        environ={}, max_retries=0, cache_ttl_seconds=0, rate_limit_buffer=1, retry_backoff_factor=1
    )
    assert config.rate_limit_buffer == 1


@pytest.mark.parametrize("how", ["built", "set", "updated"])
def test_s5_15_unknown_settings_are_refused(how: str) -> None:
    config = ClientConfig(environ={})
    ways: dict[str, Any] = {
        "built": lambda: ClientConfig(environ={}, time_out=3),
        "set": lambda: setattr(config, "time_out", 3),
        "updated": lambda: config.update(time_out=3),
    }
    with pytest.raises(ConfigurationError, match="time_out"):
        ways[how]()


def test_s5_15_secrets_are_masked_everywhere() -> None:
    config = ClientConfig(
        environ={}, api_token=TOKEN, webhook_secret=SECRET, custom_headers={"x-api-key": SECRET}
    )
    client = AsyncCodegenClient(config)
    for shown in (repr(config), str(config), repr(config.to_dict()), repr(client),
                  repr(config.settings()), json.dumps(client.get_metrics_summary())):  # fmt: skip
        assert "CANARY" not in shown
    assert config.to_dict()["api_token"].startswith("…")
    assert config.api_token == TOKEN


def test_a_secret_that_is_wrong_is_not_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        ClientConfig(environ={}, api_token=["CANARY-in-a-list"])
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["json", "yaml", "yml"])
def test_files_hold_everything_but_secrets(suffix: str, tmp_path: Path) -> None:
    config = ClientConfig(environ={}, api_token=TOKEN, webhook_secret=SECRET, timeout=12, org_id="5")
    path = tmp_path / f"config.{suffix}"
    config.save_to_file(path)
    assert "CANARY" not in path.read_text()
    again = ClientConfig.from_file(path, api_token=TOKEN)
    assert {**again.model_dump(), "webhook_secret": SECRET} == config.model_dump()


@pytest.mark.parametrize(
    ("name", "text"), [("a.json", "{"), ("b.json", "[]"), ("c.yaml", "a: ["), ("d.txt", "x"),
                       ("e.json", '{"time_out": 1}'), ("f.yaml", "!!python/object:os.system {}")],
)  # fmt: skip
def test_a_file_that_is_no_configuration_is_refused(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigurationError):
        ClientConfig.from_file(tmp_path / name)
    with pytest.raises(ConfigurationError):
        ClientConfig.from_file(tmp_path / f"missing-{name}")


def test_a_copy_is_its_own() -> None:
    config = ClientConfig(environ={}, custom_headers={"x-a": "1"})
    copy = config.copy(timeout=5)
    copy.custom_headers["x-b"] = "2"
    assert (config.timeout, copy.timeout) == (30, 5)
    assert config.custom_headers == {"x-a": "1"}


# ── what settings do ────────────────────────────────────────────────────────────────────────────


async def test_c20_a_change_holds_from_the_next_call_on(clock: VirtualClock) -> None:
    client, transport = scripted([said(USER)], clock, enable_caching=False)
    await client.get_current_user()
    client.update_config(base_url="http://elsewhere/v1", custom_headers={"x-team": "blue"})
    await client.get_current_user()
    with pytest.raises(ConfigurationError):
        client.update_config(base_url="http://third/v1", timeout=-1)
    await client.get_current_user()
    hosts = [sent.request.url.split("/users")[0] for sent in transport.sent]
    assert hosts == ["https://api.codegen.com/v1", "http://elsewhere/v1", "http://elsewhere/v1"]
    assert transport.sent[1].request.headers["x-team"] == "blue"


async def test_custom_headers_never_replace_the_credential(clock: VirtualClock) -> None:
    client, transport = scripted([said(USER)], clock, custom_headers={"Authorization": "Bearer other"})
    await client.get_current_user()
    assert "authorization" not in transport.sent[0].request.headers
    assert transport.sent[0].credential == {"authorization": f"Bearer {TOKEN}"}


@pytest.mark.parametrize("feature", ["webhooks", "bulk_operations", "streaming"])
async def test_a_disabled_feature_says_so(feature: str, clock: VirtualClock) -> None:
    client, transport = scripted([said(RUN)], clock, **{f"enable_{feature}": False})

    async def use() -> None:
        match feature:
            case "webhooks":
                client.get_webhook_handler()
            case "bulk_operations":
                await client.bulk_get_users(ORG, ["1"])
            case _:
                client.get_users_stream(ORG)

    with pytest.raises(FeatureDisabledError, match=f"enable_{feature}"):
        await use()
    assert not transport.sent


async def test_mock_responses_come_from_the_emulator(clock: VirtualClock) -> None:
    """The testing preset works without a token, without a network, for any organisation."""
    client = codegen.AsyncCodegenClient(ConfigPresets.testing(), clock=clock)
    assert (await client.get_current_user()).github_username.startswith("mock")
    run = await client.create_agent_run(77, "Do it")
    done = await client.wait_for_agent_run_completion(77, run.id, poll_interval=1)
    assert (done.organization_id, done.succeeded) == (77, True)


# ── logs ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("settings", "requests", "responses", "bodies"),
    [
        ({}, 1, 0, 0),
        ({"log_responses": True}, 1, 1, 0),
        ({"log_requests": False}, 0, 0, 0),
        ({"log_level": "ERROR"}, 0, 0, 0),
        ({"log_level": "ERROR", "debug_mode": True}, 1, 0, 0),
        ({"log_responses": True, "log_sensitive_data": True}, 1, 1, 2),
    ],
)
async def test_s5_03a_what_is_logged(
    settings: dict[str, Any],
    requests: int,
    responses: int,
    bodies: int,
    clock: VirtualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Structured too; the token is masked even where bodies are logged (the conftest looks)."""
    caplog.set_level(logging.DEBUG, "headgate.codegen")
    client, _ = scripted([said({**RUN, "result": f"the key is {TOKEN}"})], clock, **settings)
    await client.create_agent_run(ORG, f"My secret is {TOKEN}, keep it")
    said_ = [record.getMessage() for record in caplog.records if record.name == "headgate.codegen"]
    assert sum(line.startswith("codegen request end") for line in said_) == requests
    assert sum(line.startswith("codegen response end") for line in said_) == responses
    assert sum(" body " in line for line in said_) == bodies
    assert all(record.codegen for record in caplog.records if record.name == "headgate.codegen")
