"""S3-01d, S3-01e, S3-01h, S3-03d, S3-03e, S3-06a to c, S3-07b to e, S3-07h: the backend as a whole.

What other files show piece by piece is shown here as its user meets it: one object, from its settings
to what it tells of itself afterwards.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from pathlib import Path
from typing import Any, cast

import pytest
import typer
from tests.support import MODEL, Ear, broken_inside, failure, key, keys, quota, said

from headgate import backend as door
from headgate.backend import (
    BackendConfig,
    BackendStatus,
    DefaultResponse,
    ErrorType,
    GeminiBackend,
    GeminiError,
    GeminiRequest,
    GeminiResponse,
    RetryConfig,
    default,
)
from headgate.core.errors import ConfigurationError
from headgate.core.outcome import Kind
from headgate.emulator import Emulator, EmulatorConfig, Fault, Latency, Limits, Project
from headgate.testing import Answer, Broken, ScriptedTransport, VirtualClock

OFFLINE = BackendConfig(model_discovery=False, cache_ttl_seconds=0)

COMMANDS = (
    "execute_gemini_enhanced",
    "process_gemini_request",
    "execute_gemini_code_enhanced",
    "get_gemini_model_info",
    "list_gemini_models",
    "recommend_gemini_model",
    "validate_gemini_model",
    "get_gemini_performance_metrics",
    "get_gemini_cache_stats",
    "get_gemini_monitoring_metrics",
    "get_gemini_analytics",
    "get_gemini_health_status",
    "get_gemini_backend_config",
    "update_gemini_backend_config",
    "get_gemini_backend_status",
)
"""S3-08 to S3-22, in their order."""


def scripted(
    clock: VirtualClock, script: Any, config: BackendConfig = OFFLINE, count: int = 1
) -> tuple[GeminiBackend, ScriptedTransport, Ear]:
    transport, ear = ScriptedTransport(script, clock), Ear()
    made = GeminiBackend(
        config, keys=keys(count), transport=transport, clock=clock, environ={}, observers=[ear]
    )
    return made, transport, ear


def emulated(emulator: Emulator, clock: VirtualClock, count: int = 1, **fields: Any) -> GeminiBackend:
    own = {"model_discovery": False, "cache_ttl_seconds": 0, **fields}
    listed = ",".join(f"{key(number)}|k{number}|p{number}" for number in range(count))
    return GeminiBackend(
        BackendConfig(**own), keys=listed, base_url=emulator.base_url, clock=clock, environ={}
    )


def projects(count: int = 1, **limits: Limits) -> list[Project]:
    return [Project(f"p{n}", {f"k{n}": key(n)}, limits=dict(limits)) for n in range(count)]


async def ask(made: GeminiBackend, prompt: str = "Explain tides", **fields: Any) -> GeminiResponse:
    request = GeminiRequest(prompt, MODEL, **fields)
    return cast("GeminiResponse", await made.execute_gemini_enhanced(request))


async def answered(made: GeminiBackend, request: GeminiRequest) -> None:
    """Ask, and read to the end."""
    answer = await made.execute_gemini_enhanced(request)
    if not isinstance(answer, GeminiResponse):
        async for _ in answer:
            pass


# ── S3-01 ───────────────────────────────────────────────────────────────────────────────────────


async def test_s3_01d_what_is_recommended_for_a_use_case_lives_and_answers(
    clock: VirtualClock,
) -> None:
    config, fresh = EmulatorConfig(projects=projects()), {"model_discovery": True}
    async with Emulator(config, clock=clock) as emulator, emulated(emulator, clock, **fresh) as made:
        found = await made.recommend_gemini_model("write code for an agent", needs=("json_mode",))
        assert found
        assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
        best = found[0].metadata
        assert best.capabilities.json_mode
        assert best.successor is None
        assert all(one.reasons for one in found)
        request = GeminiRequest("Write a loop", best.id)
        reply = cast("GeminiResponse", await made.execute_gemini_enhanced(request))
        assert reply.model == best.id


async def test_s3_01e_availability_is_asked_live_and_follows_the_upstream(clock: VirtualClock) -> None:
    """The same model, at the same moment: there for one project, closed to another."""
    closed = Project("p1", {"k1": key(1)}, closed_models=[MODEL])
    config = EmulatorConfig(projects=[*projects(), closed])
    async with Emulator(config, clock=clock) as emulator, emulated(emulator, clock) as made:
        assert await made.validate_gemini_model(MODEL) is True
        assert await made.validate_gemini_model(MODEL, api_key=key(1)) is False
        assert await made.validate_gemini_model("gemini-9-nothing") is False
        report = emulator.report().projects
    assert sum(one.totals.charged_requests for one in report.values()) == 0, "no generation was paid"


async def test_s3_01h_flags_decide_what_a_request_may_ask_for(clock: VirtualClock) -> None:
    """Function calling, JSON mode, context caching: told of every living model, and held to."""
    made, transport, _ = scripted(clock, [said()])
    living = [model for model in await made.list_gemini_models() if model.successor is None]
    writers = [model for model in living if model.capabilities.text_generation]
    assert writers
    for model in writers:
        flags = model.capabilities
        assert None not in (flags.function_calling, flags.json_mode, flags.context_caching), model.id
    deaf = next(model.id for model in writers if model.capabilities.function_calling is False)
    tools = [{"functionDeclarations": [{"name": "find"}]}]
    with pytest.raises(GeminiError, match="function") as caught:
        await made.execute_gemini_enhanced(GeminiRequest("Find it", deaf, tools=tools))
    assert caught.value.error_type is ErrorType.INVALID_PARAMETERS
    assert transport.sent == []


# ── S3-03 ───────────────────────────────────────────────────────────────────────────────────────


async def test_s3_03d_requests_and_tokens_are_held_to_their_quotas_and_calls_to_their_number(
    clock: VirtualClock,
) -> None:
    """A limiter of amounts over time, not of calls at once: the upstream refuses nothing."""
    limits = Limits(rpm=10, tpm=100_000, rpd=15)
    config = EmulatorConfig(projects=projects(**{"*": limits}), latency=Latency(first_byte=0.5))
    own: dict[str, Any] = {
        "quotas": {"rpm": 10, "tpm": 100_000, "rpd": 15},
        "max_concurrent_requests": 4,
    }
    async with Emulator(config, clock=clock) as emulator, emulated(emulator, clock, **own) as made:
        began = clock.monotonic()
        calls = [ask(made, f"Question {n}", timeout_seconds=150.0) for n in range(15)]
        await asyncio.gather(*calls)
        assert 55.0 <= clock.monotonic() - began <= 130.0, "ten in a minute, five in the next"
        with pytest.raises(GeminiError) as caught:
            await ask(made, "One too many today", timeout_seconds=100.0)
        totals = emulator.report().projects["p0"].totals
    assert caught.value.error_type in (ErrorType.RATE_LIMIT_EXCEEDED, ErrorType.QUOTA_EXCEEDED)
    assert totals.answered == 15
    assert totals.refused == {}


async def test_s3_03e_a_quota_is_learned_from_refusals_and_kept_to(clock: VirtualClock) -> None:
    """Nobody declared anything: the first minutes teach the limit, later ones draw few refusals."""
    config = EmulatorConfig(projects=projects(**{"*": Limits(rpm=6)}))
    async with Emulator(config, clock=clock) as emulator, emulated(emulator, clock) as made:

        async def minutes(calls: int) -> int:
            before = emulator.report().projects["p0"].totals.refused.get("rpm", 0)
            for number in range(calls):
                await ask(made, f"Question {number}", timeout_seconds=300.0)
            return emulator.report().projects["p0"].totals.refused.get("rpm", 0) - before

        assert await minutes(12) >= 1, "nobody knew"
        assert await minutes(18) == 0, "now it is known"


# ── S3-06 ───────────────────────────────────────────────────────────────────────────────────────


async def test_s3_06a_one_object_orchestrates_all(clock: VirtualClock) -> None:
    """What one command does, the others tell of: there is one state behind them."""
    made, transport, _ = scripted(clock, lambda _: said(), BackendConfig(model_discovery=False))
    assert (await ask(made)).cached is False
    assert (await ask(made)).cached is True
    process = await made.process_gemini_request("Explain tides", MODEL)
    code = await made.execute_gemini_code_enhanced("Explain", MODEL, str(Path.cwd()))
    assert isinstance(process, GeminiResponse)
    assert code.cwd == str(Path.cwd())
    status = await made.get_gemini_backend_status()
    assert isinstance(status, BackendStatus)
    counted = status.performance_metrics[MODEL]
    assert (counted.total_requests, counted.successful_requests) == (4, 4)
    assert (counted.cache_hits, status.cache_stats.total_hits) == (1, 1)
    history = (await made.get_gemini_monitoring_metrics(MODEL)).request_history
    assert len(history) == 4
    assert status.config == await made.get_gemini_backend_config()
    assert len(transport.sent) == 3


async def test_s3_06b_one_configuration_holds_for_everything_and_can_be_replaced(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the functions, which share one backend: what is set is read, and takes effect."""
    made, transport, _ = scripted(clock, lambda _: broken_inside())
    monkeypatch.setattr(default, "_backend", [made])
    config = await default.get_gemini_backend_config()
    assert config == OFFLINE
    once = {"model_discovery": False, "cache_ttl_seconds": 0, "retry_config": {"max_attempts": 1}}
    await default.update_gemini_backend_config(once)
    assert (await default.get_gemini_backend_config()).retry_config == RetryConfig(max_attempts=1)
    with pytest.raises(GeminiError):
        await default.execute_gemini_enhanced(GeminiRequest("hi", MODEL))
    assert len(transport.sent) == 1
    assert [change.changed for change in made.get_gemini_config_history()] == [("retry_config",)]


def test_s3_06c_every_command_is_a_method_a_function_and_exported() -> None:
    for name in COMMANDS:
        method, function = getattr(GeminiBackend, name), getattr(default, name)
        assert inspect.iscoroutinefunction(method), name
        assert inspect.iscoroutinefunction(function), name
        assert getattr(door, name) is function, name
        ours = list(inspect.signature(method).parameters)[1:]
        assert list(inspect.signature(function).parameters) == ours, name


def test_s3_06c_the_command_line_has_the_verbs_of_the_table() -> None:
    from headgate.cli.main import app

    commands = cast("Any", typer.main.get_command(app)).commands
    assert {"ask", "usage", "models", "cache", "backend"} <= set(commands)
    assert {"list", "info", "recommend", "check", "validate"} <= set(commands["models"].commands)
    assert {"stats", "clear"} <= set(commands["cache"].commands)
    assert "status" in commands["backend"].commands
    options = {name for one in commands["ask"].params for name in one.opts}
    assert {"--project", "--json"} <= options


# ── S3-07 ───────────────────────────────────────────────────────────────────────────────────────


async def test_s3_07b_a_network_error_is_tried_again_after_a_growing_pause(
    clock: VirtualClock,
) -> None:
    lost = Broken(Kind.NETWORK)
    patient = BackendConfig(
        model_discovery=False,
        retry_config=RetryConfig(max_attempts=4, initial_delay_ms=1000, jitter=False),
    )
    made, transport, ear = scripted(clock, [lost, lost, lost, said()], patient)
    assert (await ask(made)).text == "fine"
    assert [sent.at for sent in transport.sent] == pytest.approx([0, 1, 3, 7])
    assert [record.outcome.kind for record in ear.attempts] == [Kind.NETWORK] * 3 + [Kind.SUCCESS]


async def test_s3_07c_a_rate_limit_makes_calls_wait_in_a_bounded_line(clock: VirtualClock) -> None:
    """They are throttled to what there is room for; more than may wait are told when to come back."""
    bounded = BackendConfig(
        model_discovery=False, cache_ttl_seconds=0, quotas={"rpm": 5}, max_concurrent_requests=2,
        max_queued_requests=3,
    )  # fmt: skip
    made, transport, _ = scripted(clock, lambda _: said(delay=1.0), bounded)
    asked = [ask(made, f"Question {n}", timeout_seconds=200.0) for n in range(9)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    refused = [one for one in answers if isinstance(one, GeminiError)]
    assert len(refused) == 4
    assert {one.error_type for one in refused} == {ErrorType.SERVICE_UNAVAILABLE}
    assert all((one.retry_after or 0) > 0 for one in refused)
    assert len(transport.sent) == 5
    began = clock.monotonic()
    assert (await ask(made, timeout_seconds=200.0)).text == "fine"
    assert clock.monotonic() - began > 40.0, "the sixth of this minute waits for the next"


async def test_s3_07c_a_refusal_is_waited_out_not_passed_on(clock: VirtualClock) -> None:
    made, transport, _ = scripted(clock, [quota("Minute", "22s"), said()])
    assert (await ask(made, timeout_seconds=60.0)).text == "fine"
    assert transport.sent[1].at >= 22.0


@pytest.mark.parametrize(
    ("answer", "word", "retryable"),
    [
        (failure(400, "Invalid value at 'contents'.", "INVALID_ARGUMENT"), "InvalidRequest", False),
        (failure(404, "models/x is not found for API version v1beta.", "NOT_FOUND"),
         "ModelNotFound", False),
        (failure(500, "Internal error encountered.", "INTERNAL"), "InternalServerError", True),
        (failure(503, "The model is overloaded.", "UNAVAILABLE"), "ServiceUnavailable", True),
        (failure(504, "Deadline expired.", "DEADLINE_EXCEEDED"), "GatewayTimeout", True),
        (Broken(Kind.NETWORK), "NetworkError", True),
        (Broken(Kind.TLS), "SslError", False),
    ],
)  # fmt: skip
async def test_s3_07d_an_error_says_of_which_category_it_is_and_what_to_do(
    clock: VirtualClock, answer: Answer | Broken, word: str, retryable: bool
) -> None:
    once = BackendConfig(model_discovery=False, retry_config=RetryConfig(max_attempts=1))
    made, _, _ = scripted(clock, [answer], once)
    with pytest.raises(GeminiError) as caught:
        await ask(made)
    error = caught.value
    assert (error.error_type.value, error.is_retryable) == (word, retryable)
    assert error.message
    assert error.request_id
    shown = error.to_dict()
    assert shown["error_type"] == word
    (report,) = made.get_gemini_errors()
    assert (report.error_type, report.model) == (word, MODEL)


@pytest.mark.parametrize(
    ("config", "fault", "streams", "seconds"),
    [
        ({"request_timeout_seconds": 7.0}, Fault("stall"), False, 7.0),
        ({"stream_idle_seconds": 5.0}, Fault("stall_mid"), True, 5.0),
        ({}, Fault("stall"), False, 9.0),
    ],
    ids=["whole answer", "silence in a stream", "the request's own"],
)
async def test_s3_07e_each_wait_ends_when_it_was_said_to(
    clock: VirtualClock, config: dict[str, Any], fault: Fault, streams: bool, seconds: float
) -> None:
    upstream = EmulatorConfig(projects=projects(), faults=[fault])
    own = {"retry_config": RetryConfig(max_attempts=1), **config}
    timeout = 9.0 if not config else None
    async with Emulator(upstream, clock=clock) as emulator, emulated(emulator, clock, **own) as made:
        began = clock.monotonic()
        request = GeminiRequest("Explain tides", MODEL, stream=streams, timeout_seconds=timeout)
        with pytest.raises(GeminiError) as caught:
            await answered(made, request)
        assert clock.monotonic() - began == pytest.approx(seconds, abs=0.5)
    assert caught.value.error_type in (ErrorType.REQUEST_TIMEOUT, ErrorType.NETWORK_ERROR)


async def test_s3_07e_what_timed_out_may_fall_back(clock: VirtualClock) -> None:
    upstream = EmulatorConfig(projects=projects(), faults=[Fault("stall")])
    own: dict[str, Any] = {
        "request_timeout_seconds": 3.0, "retry_config": RetryConfig(max_attempts=1),
        "fallback": (DefaultResponse("Later, please."),),
    }  # fmt: skip
    async with Emulator(upstream, clock=clock) as emulator, emulated(emulator, clock, **own) as made:
        reply = await ask(made)
    assert (reply.text, reply.from_fallback) == ("Later, please.", True)


async def test_s3_07h_a_key_is_read_from_a_private_file_and_travels_in_a_header(
    clock: VirtualClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    file = tmp_path / "gemini-keys"
    file.write_text(f"{key(0)}|k0|alpha\n")
    file.chmod(0o600)
    transport = ScriptedTransport([said()], clock)
    environ = {"GEMINI_API_KEYS_FILE": str(file)}
    made = GeminiBackend(OFFLINE, transport=transport, clock=clock, environ=environ)
    assert (await ask(made)).text == "fine"
    (sent,) = transport.sent
    assert sent.credential == {"x-goog-api-key": key(0)}
    told = (sent.request.url, str(sent.request.headers), sent.request.body.decode(), repr(made))
    config = await made.get_gemini_backend_config()
    assert key(0) not in " ".join((*told, repr(config), caplog.text))


async def test_s3_07h_a_file_that_everybody_may_read_is_refused(
    clock: VirtualClock, tmp_path: Path
) -> None:
    file = tmp_path / "gemini-keys"
    file.write_text(f"{key(0)}|k0|alpha\n")
    file.chmod(0o644)
    made = GeminiBackend(OFFLINE, clock=clock, environ={"GEMINI_API_KEYS_FILE": str(file)})
    with pytest.raises(ConfigurationError, match="gemini-keys") as caught:
        await ask(made)
    assert key(0) not in str(caught.value)
