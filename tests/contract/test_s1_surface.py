"""S1: names, signatures, defaults, the error tree, and the example as it is written."""

from __future__ import annotations

import asyncio
import inspect
import logging
from pathlib import Path

import pytest
from tests.support import (
    broken_inside,
    environment,
    failure,
    key,
    key_books,
    keys,
    quota,
    said,
    scripted,
    vector,
)

import headgate.gemini
from headgate.core.errors import HeadgateError
from headgate.gemini import (
    AllKeysExhaustedError,
    ApiKeyConfig,
    ApiKeyMetrics,
    GeminiAPICallError,
    GeminiKeyManager,
    GeminiKeyRotationError,
    InvalidKeyConfigError,
    KeyStatus,
    NoValidKeysError,
    QuotaExceededError,
    ResilientGeminiClient,
)
from headgate.testing import BROKEN, ScriptedTransport, Sent, VirtualClock


def arguments(function: object) -> list[tuple[str, object]]:
    """Names and defaults of the positional arguments, `self` left out."""
    return [
        (name, parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()  # type: ignore[arg-type]
        if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD and name != "self"
    ]


# ── the example ─────────────────────────────────────────────────────────────────────────────────

EXAMPLE = '''
async def example():
    client = ResilientGeminiClient()                       # built outside any event loop
    text = await client.generate_content("Why is the sky blue?")          # str
    try:
        await client.generate_content("…")
    except GeminiAPICallError as error:
        print(error)
    finally:
        client.log_status()
    dimension = len(await client.embed_content("Some text"))
    print(client.get_key_metrics()); print(client.get_status_summary())
    return text, dimension
'''  # fmt: skip


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ScriptedTransport:
    """Every client built without a transport gets this one; keys come from the environment."""

    def answer(sent: Sent):  # type: ignore[no-untyped-def]
        if "embedContent" in sent.request.url:
            return vector(*[0.5] * 768)
        if "…".encode() in sent.request.body:
            return failure(400, "The prompt makes no sense.", "INVALID_ARGUMENT")
        return said("Because of Rayleigh scattering.")

    transport = ScriptedTransport(answer)
    monkeypatch.setattr("headgate.wiring.build._http", lambda settings, clock: transport)
    environment(monkeypatch, tmp_path, GEMINI_API_KEYS=keys(3))
    return transport


@pytest.mark.usefixtures("upstream")
def test_s1_05_the_example_runs_with_only_its_import_line_changed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names: dict[str, object] = {}
    imports = "from headgate.gemini import ResilientGeminiClient, GeminiAPICallError\n"
    exec(imports + EXAMPLE, names)  # noqa: S102 - the example is run as it is written
    text, dimension = asyncio.run(names["example"]())  # type: ignore[operator]
    assert text == "Because of Rayleigh scattering."
    assert dimension == 768
    shown = capsys.readouterr().out
    assert "The prompt makes no sense." in shown
    assert "Gemini Key Manager Status" in shown


@pytest.mark.usefixtures("upstream")
def test_s1_28_a_client_built_outside_any_loop_lives_through_two_runs() -> None:
    client = ResilientGeminiClient()
    assert asyncio.run(client.generate_content("Why?")) == "Because of Rayleigh scattering."
    assert asyncio.run(client.generate_content("Why?")) == "Because of Rayleigh scattering."
    assert sum(total for total, *_ in key_books(client)) == 2


# ── names ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name",
    [
        "generate_content",
        "embed_content",
        "get_key_metrics",
        "get_status_summary",
        "log_status",
    ],
)
def test_s1_01_the_client_has_the_method(name: str) -> None:
    assert callable(getattr(ResilientGeminiClient, name))
    assert name in dir(ResilientGeminiClient)


def test_s1_02_the_manager_has_its_methods_with_their_signatures() -> None:
    assert inspect.iscoroutinefunction(GeminiKeyManager.get_active_key)
    assert arguments(GeminiKeyManager.mark_quota_exceeded) == [
        ("key", inspect.Parameter.empty),
        ("retry_after", None),
    ]
    assert [name for name, _ in arguments(GeminiKeyManager.track_metrics)] == ["key", "outcome"]
    assert not inspect.iscoroutinefunction(GeminiKeyManager.get_metrics)
    assert not inspect.iscoroutinefunction(GeminiKeyManager.get_status_summary)


async def test_s1_02_get_active_key_returns_the_chosen_configuration(clock: VirtualClock) -> None:
    manager = GeminiKeyManager(keys(2), clock=clock)
    chosen = await manager.get_active_key()
    assert chosen is manager.keys[0]
    assert (chosen.name, chosen.value) == ("k0", key(0))
    assert (await manager.get_active_key()).name == "k1"


async def test_s1_02_mark_and_track_together_count_a_quota_error_once(clock: VirtualClock) -> None:
    """The pitfall: marking and recording each count the same error."""
    manager = GeminiKeyManager(keys(1), clock=clock)
    used = await manager.get_active_key()
    manager.mark_quota_exceeded(used, retry_after=20)
    manager.track_metrics(used, QuotaExceededError("quota exceeded", key_name="k0"))
    metrics = used.metrics
    assert (metrics.total_requests, metrics.failed_requests, metrics.quota_errors) == (1, 1, 1)
    assert metrics.other_errors == 0


async def test_s1_02_track_metrics_counts_successes_and_other_errors(clock: VirtualClock) -> None:
    manager = GeminiKeyManager(keys(1), clock=clock)
    used = await manager.get_active_key()
    manager.track_metrics(used, None)
    manager.track_metrics(used, RuntimeError(f"refused for {key(0)}"))
    metrics = used.metrics
    assert (metrics.successful_requests, metrics.failed_requests, metrics.other_errors) == (1, 1, 1)
    assert metrics.last_error_message is not None
    assert "CANARY" not in metrics.last_error_message


async def test_s1_02_marking_uses_the_backoff_unless_told_otherwise(clock: VirtualClock) -> None:
    manager = GeminiKeyManager(keys(2), backoff_seconds=45, clock=clock)
    first, second = manager.keys
    manager.mark_quota_exceeded(first)
    manager.mark_quota_exceeded(second, retry_after=5)
    clock.advance(5)
    assert (first.is_active, second.is_active) == (False, True)
    clock.advance(40)
    assert first.is_active


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), -1, 1e12])
def test_s1_02_a_cool_down_without_an_end_is_refused_and_the_status_stays_readable(
    seconds: float, clock: VirtualClock
) -> None:
    manager = GeminiKeyManager(keys(1), clock=clock)
    with pytest.raises(ValueError, match="retry_after takes seconds"):
        manager.mark_quota_exceeded(manager.keys[0], seconds)
    assert manager.get_metrics()["active_keys"] == 1
    assert "ACTIVE" in manager.get_status_summary()


async def test_s1_02_the_managers_refusal_says_when_a_key_recovers(clock: VirtualClock) -> None:
    manager = GeminiKeyManager(keys(2), clock=clock)
    for config in manager.keys:
        manager.mark_quota_exceeded(config, retry_after=30 if config.name == "k0" else 50)
    with pytest.raises(AllKeysExhaustedError) as caught:
        await manager.get_active_key()
    assert caught.value.total_keys == 2
    assert caught.value.retry_after == pytest.approx(30)


async def test_s1_02_the_clients_manager_shows_the_engines_books(clock: VirtualClock) -> None:
    client, _ = scripted([said()], clock, 2)
    await client.generate_content("hi")
    manager = client.key_manager
    assert isinstance(manager, GeminiKeyManager)
    assert manager.get_metrics()["keys"] == client.get_key_metrics()["keys"]
    assert manager.get_status_summary() == client.get_status_summary()
    assert manager.keys[0].metrics.successful_requests == 1


def test_s1_03_a_key_configuration_has_its_attributes() -> None:
    config = ApiKeyConfig(key(0), "primary", project="p1")
    assert (config.value, config.name, config.project) == (key(0), "primary", "p1")
    assert config.status is KeyStatus.ACTIVE
    assert config.is_active is True
    assert config.quota_exceeded_at is None
    assert config.retry_after is None
    assert isinstance(config.metrics, ApiKeyMetrics)
    assert [status.value for status in KeyStatus] == ["ACTIVE", "EXHAUSTED", "DISABLED"]


def test_s1_03_status_is_computed_from_the_clock_and_from_what_happened(clock: VirtualClock) -> None:
    manager = GeminiKeyManager(keys(1), clock=clock)
    config = manager.keys[0]
    manager.mark_quota_exceeded(config, retry_after=10)
    assert config.status is KeyStatus.EXHAUSTED
    assert config.quota_exceeded_at is not None
    assert config.retry_after is not None
    assert (config.retry_after - config.quota_exceeded_at).total_seconds() == pytest.approx(10)
    clock.advance(10)
    assert config.status is KeyStatus.ACTIVE
    manager.disable(config)
    assert config.status is KeyStatus.DISABLED
    manager.enable(config)
    assert config.status is KeyStatus.ACTIVE


@pytest.mark.parametrize("project", [None, "p1"])
def test_s1_03_no_repr_shows_a_key(project: str | None, clock: VirtualClock) -> None:
    config = ApiKeyConfig(key(7), "primary", project)
    client, _ = scripted([said()], clock, 2)
    shown = [repr(config), repr(client), repr(client.settings), repr(client.key_manager.keys)]
    assert "primary" in shown[0]
    for text in shown:
        assert "CANARY" not in text


def test_s1_04_metrics_have_the_fields_of_s1_40() -> None:
    fields = set(inspect.signature(ApiKeyMetrics).parameters)
    assert fields == {
        "total_requests",
        "successful_requests",
        "failed_requests",
        "quota_errors",
        "other_errors",
        "error_rate",
        "last_used_at",
        "last_error_at",
        "last_error_message",
    }


def test_s1_05_everything_of_s1_comes_from_one_module() -> None:
    accepted = {
        "ResilientGeminiClient",
        "GeminiKeyManager",
        "ApiKeyConfig",
        "ApiKeyMetrics",
        "GeminiKeyRotationError",
        "QuotaExceededError",
        "AllKeysExhaustedError",
        "NoValidKeysError",
        "InvalidKeyConfigError",
        "GeminiAPICallError",
    }
    assert accepted <= set(headgate.gemini.__all__)
    assert all(hasattr(headgate.gemini, name) for name in accepted)


# ── signatures ──────────────────────────────────────────────────────────────────────────────────


def test_s1_28_the_constructor_has_three_positional_arguments_that_default_to_none() -> None:
    assert arguments(ResilientGeminiClient.__init__) == [
        ("rotation_enabled", None),
        ("backoff_seconds", None),
        ("max_retries", None),
    ]
    parameters = inspect.signature(ResilientGeminiClient).parameters
    only_by_name = {
        name for name, found in parameters.items() if found.kind is inspect.Parameter.KEYWORD_ONLY
    }
    assert {"keys", "max_wait_seconds", "transport", "clock"} <= only_by_name


@pytest.mark.parametrize(
    ("method", "first", "result"),
    [
        ("generate_content", "prompt", "str"),
        ("embed_content", "content", "list[float]"),
    ],
)
@pytest.mark.parametrize("suffix", ["", "_sync"])
def test_s1_29_and_s1_30_calls_take_a_text_a_model_and_options(
    method: str, first: str, result: str, suffix: str
) -> None:
    function = getattr(ResilientGeminiClient, method + suffix)
    signature = inspect.signature(function)
    assert arguments(function) == [(first, inspect.Parameter.empty), ("model", None)]
    assert signature.parameters["kwargs"].kind is inspect.Parameter.VAR_KEYWORD
    assert signature.return_annotation == result
    assert inspect.iscoroutinefunction(function) is (suffix == "")


def test_s1_29a_the_sync_twins_stand_on_the_same_class() -> None:
    for name in (
        "generate_content_sync",
        "embed_content_sync",
        "generate_content_stream",
        "generate_content_stream_sync",
    ):
        assert callable(getattr(ResilientGeminiClient, name))


@pytest.mark.parametrize(
    ("name", "annotation"),
    [
        ("get_key_metrics", "dict[str, Any]"),
        ("get_status_summary", "str"),
        ("log_status", "None"),
    ],
)
def test_s1_31_s1_32_s1_33_status_methods_are_sync_and_take_nothing(name: str, annotation: str) -> None:
    function = getattr(ResilientGeminiClient, name)
    assert not inspect.iscoroutinefunction(function)
    assert list(inspect.signature(function).parameters) == ["self"]
    assert inspect.signature(function).return_annotation == annotation


def test_s1_31_key_metrics_are_a_dict_and_s1_32_the_summary_is_text(clock: VirtualClock) -> None:
    client, _ = scripted([said()], clock)
    assert isinstance(client.get_key_metrics(), dict)
    assert isinstance(client.get_status_summary(), str)


def test_s1_33_log_status_is_one_info_record(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    client, _ = scripted([said()], clock, 2)
    with caplog.at_level(logging.INFO, logger="headgate"):
        caplog.clear()
        client.log_status()  # returns nothing: `None` is in its signature
    (record,) = [record for record in caplog.records if record.name.startswith("headgate")]
    assert record.levelno == logging.INFO
    assert record.getMessage() == client.get_status_summary()


# ── errors ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name",
    [
        "QuotaExceededError",
        "AllKeysExhaustedError",
        "NoValidKeysError",
        "InvalidKeyConfigError",
        "GeminiAPICallError",
    ],
)
def test_s1_34_every_error_is_a_rotation_error(name: str) -> None:
    kind = getattr(headgate.gemini, name)
    assert kind.__mro__[1] is GeminiKeyRotationError
    assert issubclass(GeminiKeyRotationError, HeadgateError)


def test_s1_34_the_base_has_message_key_name_and_is_quota_error() -> None:
    error = GeminiKeyRotationError("it broke", key_name="primary", is_quota_error=True)
    assert (error.message, error.key_name, error.is_quota_error) == ("it broke", "primary", True)
    assert str(error) == "it broke"
    plain = GeminiKeyRotationError("it broke")
    assert (plain.key_name, plain.is_quota_error) == (None, False)


async def test_s1_34_all_keys_exhausted_says_how_many_and_for_how_long(clock: VirtualClock) -> None:
    client, _ = scripted([quota("Minute", "26s")], clock, 3, max_wait_seconds=0)
    with pytest.raises(AllKeysExhaustedError) as caught:
        await client.generate_content("hi")
    error = caught.value
    assert error.total_keys == 3
    assert error.retry_after == pytest.approx(26)
    assert error.is_quota_error
    assert isinstance(error.message, str)


async def test_s1_34_a_failed_call_carries_the_original_error_and_the_key(clock: VirtualClock) -> None:
    client, _ = scripted([broken_inside()], clock, max_retries=0)
    with pytest.raises(GeminiAPICallError) as caught:
        await client.generate_content("hi")
    error = caught.value
    assert isinstance(error.original_error, HeadgateError)
    assert error.key_name == "k0"
    assert not error.is_quota_error


async def test_s1_35_the_quota_of_one_key_is_the_cause_of_all_keys_exhausted(
    clock: VirtualClock,
) -> None:
    client, _ = scripted([quota("Minute", "26s")], clock, 2, max_wait_seconds=0)
    with pytest.raises(AllKeysExhaustedError) as caught:
        await client.generate_content("hi")
    cause = caught.value.__cause__
    assert isinstance(cause, QuotaExceededError)
    assert cause.key_name == "k1"
    assert cause.is_quota_error
    assert cause.retry_after == pytest.approx(26)


async def test_s1_35_a_call_that_failed_after_its_retries_is_an_api_call_error(
    clock: VirtualClock,
) -> None:
    client, transport = scripted([BROKEN], clock, max_retries=2)
    with pytest.raises(GeminiAPICallError) as caught:
        await client.generate_content("hi")
    assert caught.value.kind == "network"
    assert len(transport.sent) == 3


def test_s1_35_no_key_and_a_malformed_list_have_errors_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment(monkeypatch, tmp_path)
    with pytest.raises(NoValidKeysError):
        ResilientGeminiClient()
    environment(monkeypatch, tmp_path, GEMINI_API_KEYS="a|b|c|d")
    with pytest.raises(InvalidKeyConfigError):
        ResilientGeminiClient()
