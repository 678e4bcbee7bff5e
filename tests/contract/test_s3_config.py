"""S3-20, S3-21, S3-06d, S3-03a, S3-02f, C20: a configuration is changed as a whole while calls run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from msgspec import structs
from tests.support import MODEL, Ear, key, keys, overloaded, quota, said, stream

from headgate.backend import (
    BackendConfig,
    CircuitBreakerConfig,
    ErrorType,
    FallbackStrategy,
    GeminiBackend,
    GeminiError,
    GeminiRequest,
    ModelMetadata,
    RetryConfig,
    StreamingChunk,
    default,
)
from headgate.core.call import Priority
from headgate.core.errors import ConfigurationError, NoKeysError, QueueFullError
from headgate.emulator import Emulator, EmulatorConfig, Latency, Limits, Project
from headgate.engine.places import Places
from headgate.testing import ScriptedTransport, VirtualClock

OFFLINE = BackendConfig(model_discovery=False)
ASK = GeminiRequest("Explain tides", MODEL, use_cache=False)
PATIENT = GeminiRequest("Explain tides", MODEL, timeout_seconds=120, use_cache=False)


def changed(config: BackendConfig = OFFLINE, **fields: Any) -> BackendConfig:
    return structs.replace(config, **fields)


def backend(
    clock: VirtualClock, script: Any, config: Any = OFFLINE, **given: Any
) -> tuple[GeminiBackend, ScriptedTransport]:
    transport = ScriptedTransport(script, clock)
    given.setdefault("keys", keys(1))
    return GeminiBackend(config, transport=transport, clock=clock, environ={}, **given), transport


@asynccontextmanager
async def emulated(
    clock: VirtualClock, config: EmulatorConfig, own: BackendConfig, count: int = 1
) -> AsyncIterator[tuple[Emulator, GeminiBackend]]:
    async with Emulator(config, clock=clock) as emulator:
        made = GeminiBackend(own, keys=keys(count), base_url=emulator.base_url, clock=clock, environ={})
        async with made:
            yield emulator, made


# ── S3-06d: nothing before the first call ───────────────────────────────────────────────────────


def test_s3_06d_building_a_backend_needs_no_loop_no_key_and_opens_nothing() -> None:
    made = GeminiBackend(environ={})
    assert made._room.started is None
    assert repr(made) == "GeminiBackend(idle)"


async def test_s3_06d_without_a_key_the_first_call_says_so(clock: VirtualClock) -> None:
    made = GeminiBackend(OFFLINE, clock=clock, environ={})
    with pytest.raises(NoKeysError, match="GEMINI_API_KEYS"):
        await made.execute_gemini_enhanced(ASK)


def test_s3_06d_a_backend_survives_a_second_loop() -> None:
    clock = VirtualClock()
    made, _ = backend(clock, [said("a"), said("b")])
    for text in ("a", "b"):
        answer = clock.run(made.execute_gemini_enhanced(ASK))
        assert getattr(answer, "text", None) == text


def test_s3_06d_the_functions_share_one_backend_made_when_first_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(default, "_backend", [])
    monkeypatch.setenv("GEMINI_API_KEYS", keys(1))
    first = default.default_backend()
    assert default.default_backend() is first
    assert first._room.started is None
    config = VirtualClock().run(default.get_gemini_backend_config())
    assert config == BackendConfig()


async def test_every_command_is_a_method_and_a_function() -> None:
    commands = [name for name in default.__all__ if name != "default_backend"]
    assert len(commands) >= 9
    for name in commands:
        assert asyncio.iscoroutinefunction(getattr(GeminiBackend, name))
        assert asyncio.iscoroutinefunction(getattr(default, name))


# ── S3-20 ───────────────────────────────────────────────────────────────────────────────────────


async def test_s3_20_the_configuration_comes_back_with_secrets_masked(clock: VirtualClock) -> None:
    config = changed(store="redis://user:CANARY-password@host:6379/0?password=CANARY-2", batch_size=7)
    made, _ = backend(clock, [said()], config)
    shown = await made.get_gemini_backend_config()
    assert "CANARY" not in str(structs.asdict(shown))
    assert "host" in str(shown.store)
    assert shown.batch_size == 7


async def test_s3_20_what_was_read_can_be_written_back_without_losing_the_secret(
    clock: VirtualClock,
) -> None:
    secret = "redis://user:CANARY-password@host:6379/0"
    made, _ = backend(clock, [said()], changed(store=secret))
    shown = await made.get_gemini_backend_config()
    await made.update_gemini_backend_config(structs.replace(shown, batch_size=9))
    assert made._room.config.store == secret
    assert made._room.config.batch_size == 9
    (change,) = made.get_gemini_config_history()
    assert change.changed == ("batch_size",)
    assert "CANARY" not in str(structs.asdict(change.config))


# ── S3-21: whole, checked, atomic ───────────────────────────────────────────────────────────────


async def test_s3_21_a_change_takes_effect_and_is_remembered(clock: VirtualClock) -> None:
    made, _ = backend(clock, [said()])
    await made.execute_gemini_enhanced(ASK)
    await clock.sleep(10)
    await made.update_gemini_backend_config(changed(batch_size=9, session_ttl_seconds=60))
    await made.update_gemini_backend_config(changed(batch_size=8))
    assert (await made.get_gemini_backend_config()).batch_size == 8
    newest, oldest = made.get_gemini_config_history()
    assert (newest.number, newest.changed) == (2, ("batch_size", "session_ttl_seconds"))
    assert (oldest.number, oldest.changed) == (1, ("batch_size", "session_ttl_seconds"))
    assert oldest.at.timestamp() == clock.wall()
    assert repr(made) == "GeminiBackend(generation 3)"


async def test_s3_21_a_configuration_may_come_as_json(clock: VirtualClock) -> None:
    made, _ = backend(clock, [said()])
    sent = {"batch_size": 9, "model_discovery": False, "fallback": [{"strategy": "FailFast"}]}
    await made.update_gemini_backend_config(json.loads(json.dumps(sent)))
    config = await made.get_gemini_backend_config()
    assert (config.batch_size, config.batch_timeout_ms) == (9, 5000)
    assert list(config.fallback) == [FallbackStrategy.FailFast()]


BAD: list[tuple[Any, str]] = [
    ({"batch_size": 0}, "batch_size"),
    ({"batch_sise": 3}, "batch_sise"),
    ({"batch_size": "nine"}, "batch_size"),
    ({"retry_config": {"max_attempts": 0}}, "max_attempts"),
    ({"quotas": {"rpm": 0}}, "rpm"),
    ({"quotas": {"itpm": 5}}, "tpm"),
    ({"quotas": {"models": {"m": {"rmp": 1}}}}, "rpm"),
    ({"store": "ftp://CANARY-secret@host"}, "store"),
    ({"store": "redis://host?processes=none"}, "processes"),
    ({"session_file": "/elsewhere"}, "session_file"),
    ([1, 2], "BackendConfig"),
    (None, "BackendConfig"),
]


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize(("bad", "named"), BAD, ids=lambda value: str(value)[:30])
async def test_s3_21_a_bad_change_is_named_and_leaves_everything_as_it_was(
    bad: Any, named: str, started: bool, clock: VirtualClock
) -> None:
    made, transport = backend(clock, lambda _: said())
    if started:
        await made.execute_gemini_enhanced(ASK)
    before = made._room.started
    with pytest.raises(ConfigurationError, match=named):
        await made.update_gemini_backend_config(bad)
    assert made._room.started is before
    assert await made.get_gemini_backend_config() == OFFLINE
    assert made.get_gemini_config_history() == ()
    await made.execute_gemini_enhanced(ASK)
    assert transport.open_exchanges == 0


async def test_s3_21_a_bad_change_is_found_before_the_first_call_too(clock: VirtualClock) -> None:
    with pytest.raises(ConfigurationError, match="batch_size"):
        GeminiBackend({"batch_size": 0}, clock=clock, environ={})
    without_keys = GeminiBackend(OFFLINE, clock=clock, environ={})
    await without_keys.update_gemini_backend_config(changed(batch_size=3))  # keys may come later
    with pytest.raises(ConfigurationError, match="rpm"):
        await without_keys.update_gemini_backend_config(changed(quotas={"rpm": -1}))


# ── calls under way ─────────────────────────────────────────────────────────────────────────────


async def test_s3_21_calls_under_way_keep_the_old_engine_which_ends_with_the_last(
    clock: VirtualClock,
) -> None:
    made, _ = backend(clock, [said("old", delay=5.0), said("new")])
    call = asyncio.ensure_future(made.execute_gemini_enhanced(ASK))
    await clock.sleep(1)
    old = made._room.started
    assert old is not None
    await made.update_gemini_backend_config(changed(request_timeout_seconds=2))
    assert (old.retired, old.closed, old.calls) == (True, False, 1)
    answer = await made.execute_gemini_enhanced(ASK)
    assert getattr(answer, "text", None) == "new"
    assert getattr(await call, "text", None) == "old"
    assert old.closed
    assert made._room.started is not None
    assert not made._room.started.closed


async def test_s3_21_a_stream_under_way_keeps_it_until_its_last_piece(clock: VirtualClock) -> None:
    made, transport = backend(clock, [stream("one ", "two ", "three", piece_delay=1.0)])
    pieces = await made.execute_gemini_enhanced(GeminiRequest("p", MODEL, stream=True))
    assert hasattr(pieces, "__aiter__")
    texts: list[str] = []
    async for piece in pieces:
        assert isinstance(piece, StreamingChunk)
        texts.append(piece.delta)
        if len(texts) == 1:
            old = made._room.started
            await made.update_gemini_backend_config(changed(batch_size=3))
            assert old is not None
            assert not old.closed
    assert "".join(texts) == "one two three"
    assert old is not None
    assert old.closed
    assert transport.open_exchanges == 0


async def test_s3_21_a_stream_that_is_left_lets_go_too(clock: VirtualClock) -> None:
    made, transport = backend(clock, [stream("one ", "two ", "three", piece_delay=1.0)])
    pieces = await made.execute_gemini_enhanced(GeminiRequest("p", MODEL, stream=True))
    assert hasattr(pieces, "aclose")
    await anext(pieces)
    assert made._room.places.used == 1
    await pieces.aclose()
    assert made._room.places.used == 0
    assert transport.open_exchanges == 0


async def test_s3_21_a_hundred_changes_among_a_hundred_calls_lose_none(clock: VirtualClock) -> None:
    made, transport = backend(clock, lambda _: said("x", delay=0.5), changed(max_concurrent_requests=7))

    async def change(number: int) -> None:
        await clock.sleep(number * 0.05)
        config = changed(max_concurrent_requests=3 + number % 9, batch_size=1 + number)
        await made.update_gemini_backend_config(config)

    calls = [made.execute_gemini_enhanced(ASK) for _ in range(100)]
    changes = [change(number) for number in range(100)]
    answers = await asyncio.gather(*calls, *changes)
    assert sum(getattr(answer, "text", None) == "x" for answer in answers) == 100
    assert len(transport.sent) == 100
    assert transport.open_exchanges == 0
    assert made._room.places.used == 0
    room = made._room.started
    assert room is not None
    assert room.ledgers.users == 1  # every older generation is closed


# ── what really changes ─────────────────────────────────────────────────────────────────────────


async def test_s3_21_retries_change(clock: VirtualClock) -> None:
    ear = Ear()
    made, transport = backend(
        clock,
        lambda _: overloaded(),
        changed(retry_config=RetryConfig(max_attempts=2, jitter=False), circuit_breaker_enabled=False),
        observers=[ear],
    )
    with pytest.raises(GeminiError):
        await made.execute_gemini_enhanced(ASK)
    assert len(transport.sent) == 2
    assert transport.sent[1].at - transport.sent[0].at == pytest.approx(1.0)
    retry = RetryConfig(
        max_attempts=4, initial_delay_ms=100, max_delay_ms=400, exponential_base=3, jitter=False
    )
    await made.update_gemini_backend_config(changed(retry_config=retry, circuit_breaker_enabled=False))
    with pytest.raises(GeminiError) as caught:
        await made.execute_gemini_enhanced(ASK)
    assert caught.value.error_type is ErrorType.SERVICE_UNAVAILABLE
    times = [sent.at for sent in transport.sent[2:]]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps == pytest.approx([0.1, 0.3, 0.4])


async def test_s3_25_full_jitter_never_waits_longer_than_the_bound(clock: VirtualClock) -> None:
    retry = RetryConfig(max_attempts=6, initial_delay_ms=1000, max_delay_ms=2000)
    own = changed(retry_config=retry, circuit_breaker_enabled=False)
    made, transport = backend(clock, lambda _: overloaded(), own)
    with pytest.raises(GeminiError):
        await made.execute_gemini_enhanced(ASK)
    times = [sent.at for sent in transport.sent]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert len(gaps) == 5
    assert all(0 <= gap <= 2.0 for gap in gaps)
    assert len({round(gap, 6) for gap in gaps}) > 1


async def test_s3_04c_what_timed_out_after_it_was_sent_is_not_sent_again(clock: VirtualClock) -> None:
    config = EmulatorConfig(projects=[Project("p0", {"k0": key(0)})], latency=Latency(first_byte=60.0))
    own = changed(request_timeout_seconds=5)
    async with emulated(clock, config, own) as (emulator, made):
        with pytest.raises(GeminiError) as caught:
            await made.execute_gemini_enhanced(ASK)
        assert caught.value.error_type is ErrorType.REQUEST_TIMEOUT
        await made.update_gemini_backend_config(changed(request_timeout_seconds=100))
        answer = await made.execute_gemini_enhanced(ASK)
        assert getattr(answer, "finish_reason", None) == "STOP"
        assert emulator.report().projects["p0"].totals.requests == 2


async def most_at_once(
    made: GeminiBackend, transport: ScriptedTransport, calls: int, clock: VirtualClock
) -> int:
    """The most exchanges that were open together while so many calls were made."""
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, transport.open_exchanges, made._room.places.used)
            await clock.sleep(0.05)

    watching = asyncio.ensure_future(watch())
    await asyncio.gather(*(made.execute_gemini_enhanced(ASK) for _ in range(calls)))
    watching.cancel()
    return most


async def test_s3_21_the_number_of_calls_at_once_changes(clock: VirtualClock) -> None:
    made, transport = backend(clock, lambda _: said(delay=1.0))
    assert await most_at_once(made, transport, 25, clock) == 10
    await made.update_gemini_backend_config(changed(max_concurrent_requests=4))
    assert await most_at_once(made, transport, 25, clock) == 4
    pool = changed(max_concurrent_requests=50, connection_pool_size=6)
    await made.update_gemini_backend_config(pool)  # who waits for a connection is not connecting
    assert await most_at_once(made, transport, 25, clock) == 6


async def test_s3_03a_s3_21_the_pool_of_connections_changes(clock: VirtualClock) -> None:
    config = EmulatorConfig(projects=[Project("p0", {"k0": key(0)})], latency=Latency(first_byte=1.0))
    own = changed(connection_pool_size=2, connection_idle_seconds=45)
    async with emulated(clock, config, own) as (_, made):
        begun = clock.monotonic()
        await asyncio.gather(*(made.execute_gemini_enhanced(ASK) for _ in range(6)))
        assert clock.monotonic() - begun >= 3.0
        transport: Any = made._room.generation().engine.transport
        connector = (await transport._session()).connector
        assert (connector.limit, connector._keepalive_timeout) == (2, 45)
        await made.update_gemini_backend_config(changed(connection_pool_size=6))
        assert connector.closed  # nobody was on it
        begun = clock.monotonic()
        await asyncio.gather(*(made.execute_gemini_enhanced(ASK) for _ in range(6)))
        assert clock.monotonic() - begun < 2.0


async def test_s3_21_rates_change_and_what_was_sent_counts_against_the_new_ones(
    clock: VirtualClock,
) -> None:
    made, transport = backend(clock, lambda _: said(), changed(quotas={"rpm": 5}))
    await asyncio.gather(*(made.execute_gemini_enhanced(ASK) for _ in range(5)))
    assert transport.sent[-1].at < 1
    await made.update_gemini_backend_config(changed(quotas={"rpm": 8}))
    begun = clock.monotonic()
    await asyncio.gather(*(made.execute_gemini_enhanced(ASK) for _ in range(3)))
    assert clock.monotonic() - begun < 1  # three more are allowed now
    await made.execute_gemini_enhanced(PATIENT)
    assert clock.monotonic() - begun >= 58  # and not eight: the first five are not forgotten


async def test_s3_21_a_quota_that_is_declared_no_more_holds_nobody(clock: VirtualClock) -> None:
    quiet = {"HEADGATE_QUOTA_LEARNING": "off"}
    transport = ScriptedTransport(lambda _: said(), clock)
    made = GeminiBackend(
        changed(quotas={"rpm": 2}), keys=keys(1), transport=transport, clock=clock, environ=quiet
    )
    await asyncio.gather(*(made.execute_gemini_enhanced(ASK) for _ in range(2)))
    await made.update_gemini_backend_config(changed(quotas={"models": {MODEL: {"rpd": 100}}}))
    begun = clock.monotonic()
    await asyncio.gather(*(made.execute_gemini_enhanced(ASK) for _ in range(10)))
    assert clock.monotonic() - begun < 1


async def test_s3_21_a_change_of_something_else_forgets_no_quota_and_no_cool_down(
    clock: VirtualClock,
) -> None:
    limits = {"*": Limits(rpm=3)}
    config = EmulatorConfig(projects=[Project("p0", {"k0": key(0)}, limits=limits)])
    own = changed(quotas={"rpm": 3})
    async with emulated(clock, config, own) as (emulator, made):
        for number in range(3):
            await made.execute_gemini_enhanced(ASK)
            await made.update_gemini_backend_config(changed(own, batch_size=2 + number))
        begun = clock.monotonic()
        await made.execute_gemini_enhanced(PATIENT)
        assert clock.monotonic() - begun > 50
        assert emulator.report().projects["p0"].totals.refused == {}


async def test_s3_21_a_parked_key_stays_parked(clock: VirtualClock) -> None:
    answers = iter([quota("Day", "3600s"), said("a"), said("b")])
    made, transport = backend(clock, lambda _: next(answers), keys=keys(2))
    await made.execute_gemini_enhanced(ASK)
    await made.update_gemini_backend_config(changed(batch_size=2))
    await made.execute_gemini_enhanced(ASK)
    used = [sent.credential["x-goog-api-key"] for sent in transport.sent]
    assert used == [key(0), key(1), key(1)]


async def test_s3_21_models_change(clock: VirtualClock) -> None:
    made, transport = backend(clock, lambda _: said())
    await made.execute_gemini_enhanced(ASK)
    own = ModelMetadata(id="gemini-3.5-flash", aliases=("tides",))
    await made.update_gemini_backend_config(changed(models=[own]))
    await made.execute_gemini_enhanced(GeminiRequest("p", "tides"))
    assert "/gemini-3.5-flash:" in transport.sent[-1].request.url


# ── S3-02e, S3-02f: the line before the places ──────────────────────────────────────────────────


async def test_s3_02f_the_line_is_bounded_and_tells_when_to_come_back(clock: VirtualClock) -> None:
    config = changed(max_concurrent_requests=1, max_queued_requests=2)
    made, _ = backend(clock, lambda _: said(delay=10.0), config)
    await made.execute_gemini_enhanced(ASK)  # it is known now how long one takes
    calls = [asyncio.ensure_future(made.execute_gemini_enhanced(ASK)) for _ in range(3)]
    await clock.sleep(0.1)
    assert made._room.places.waiting == 2
    with pytest.raises(GeminiError) as caught:
        await made.execute_gemini_enhanced(ASK)
    assert caught.value.error_type is ErrorType.SERVICE_UNAVAILABLE
    assert caught.value.kind == "busy"
    assert caught.value.retry_after is not None
    assert 3 <= caught.value.retry_after <= 30
    await asyncio.gather(*calls)


async def test_s3_02e_urgent_calls_go_first_and_equals_in_their_order(clock: VirtualClock) -> None:
    places, order = Places(1, 100, clock), []

    async def call(name: str, priority: Priority) -> None:
        async with places.place(priority, None):
            order.append(name)
            await clock.sleep(1)

    words = [("a", Priority.LOW), ("b", Priority.LOW), ("c", Priority.NORMAL), ("d", Priority.CRITICAL)]
    tasks = [asyncio.ensure_future(call("first", Priority.LOW))]
    await clock.sleep(0.1)
    tasks += [asyncio.ensure_future(call(*word)) for word in words]
    await asyncio.gather(*tasks)
    assert order == ["first", "d", "c", "a", "b"]


async def test_s3_02f_a_deadline_ends_the_wait_and_gives_the_turn_on(clock: VirtualClock) -> None:
    made, _ = backend(clock, lambda _: said(delay=5.0), changed(max_concurrent_requests=1))
    long = asyncio.ensure_future(made.execute_gemini_enhanced(ASK))
    await clock.sleep(0.1)
    with pytest.raises(GeminiError) as caught:
        await made.execute_gemini_enhanced(structs.replace(ASK, timeout_seconds=2))
    assert caught.value.error_type is ErrorType.SERVICE_UNAVAILABLE
    assert (caught.value.kind, caught.value.is_retryable) == ("busy", True)
    assert "Nothing was sent" in caught.value.message
    assert caught.value.retry_after is not None
    assert clock.monotonic() == pytest.approx(2.1)
    assert made._room.places.waiting == 0
    await long


async def test_places_no_one_is_lost_however_calls_end(clock: VirtualClock) -> None:
    places = Places(3, 1000, clock)

    async def call(number: int) -> None:
        deadline = clock.monotonic() + 2 if number % 5 == 0 else None
        async with places.place(Priority.NORMAL, deadline):
            await clock.sleep(0.3)

    tasks = [asyncio.ensure_future(call(number)) for number in range(120)]
    await clock.sleep(1)
    for task in tasks[::7]:
        task.cancel()
    places.resize(1, 1000)
    await clock.sleep(1)
    assert places.used <= 1
    places.resize(9, 1000)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (places.used, places.waiting) == (0, 0)


async def test_places_cancelled_in_the_moment_of_its_turn_passes_it_on(clock: VirtualClock) -> None:
    places = Places(1, 10, clock)
    inside: list[str] = []

    async def call(name: str) -> None:
        async with places.place(Priority.NORMAL, None):
            inside.append(name)

    async with places.place(Priority.NORMAL, None):
        unlucky = asyncio.ensure_future(call("unlucky"))
        lucky = asyncio.ensure_future(call("lucky"))
        await clock.sleep(0.1)
    unlucky.cancel()  # it has been let in, and has not run since
    await asyncio.gather(unlucky, lucky, return_exceptions=True)
    assert inside == ["lucky"]
    assert (places.used, places.waiting) == (0, 0)


async def test_places_none_may_wait_where_the_line_has_none(clock: VirtualClock) -> None:
    places = Places(1, 0, clock)
    async with places.place(Priority.NORMAL, None):
        with pytest.raises(QueueFullError):
            async with places.place(Priority.CRITICAL, None):
                raise AssertionError("it was full")


def test_places_serve_threads_with_loops_of_their_own() -> None:
    from concurrent.futures import ThreadPoolExecutor

    from headgate.wiring.clock import SystemClock

    clock = SystemClock()
    places, most = Places(2, 100, clock), [0]

    async def call() -> None:
        async with places.place(Priority.NORMAL, None):
            most[0] = max(most[0], places.used)
            await clock.sleep(0.001)

    async def several() -> None:
        await asyncio.gather(*(call() for _ in range(20)))

    with ThreadPoolExecutor(4) as threads:
        for future in [threads.submit(asyncio.run, several()) for _ in range(4)]:
            future.result(timeout=60)
    assert (places.used, places.waiting) == (0, 0)
    assert most[0] <= 2


# ── own keys, closing ───────────────────────────────────────────────────────────────────────────


async def test_s3_09_a_key_that_is_none_is_refused_without_being_shown(clock: VirtualClock) -> None:
    made, transport = backend(clock, lambda _: said())
    for bad in ("CANARY one", "a,CANARY-b", ""):
        with pytest.raises(ConfigurationError) as caught:
            await made.validate_gemini_model(MODEL, bad)
        assert "CANARY" not in str(caught.value)
    assert transport.sent == []


async def test_callers_keys_are_kept_within_bounds(clock: VirtualClock) -> None:
    made, _ = backend(clock, lambda _: said())
    for number in range(100):
        await made.execute_gemini_enhanced(ASK, api_key=key(1000 + number))
    assert len(made._room._running) <= 65
    await made.update_gemini_backend_config(changed(batch_size=2))
    assert list(made._room._running) == []  # the backend's own was never used


async def test_who_makes_room_for_another_key_is_closed(clock: VirtualClock) -> None:
    """Idle generations at once, a busy one with its last call; then the ledgers' store can close."""
    delays = iter([50.0])
    made, _ = backend(clock, lambda _: said(delay=next(delays, 0.0)))
    busy = asyncio.ensure_future(made.execute_gemini_enhanced(ASK, api_key=key(1000)))
    await clock.sleep(0.1)
    seen = [*made._room._running.values()]
    for number in range(1, 80):
        await made.execute_gemini_enhanced(ASK, api_key=key(1000 + number))
        seen += [each for each in made._room._running.values() if each not in seen]
    gone = [each for each in seen if each not in made._room._running.values()]
    assert len(gone) == 16
    assert [each.closed for each in gone] == [False] + 15 * [True]
    ledgers = seen[-1].ledgers
    assert ledgers.users == 64 + 1
    await busy
    assert gone[0].closed
    assert ledgers.users == 64
    await made.aclose()
    assert ledgers.users == 0


async def test_closing_lets_calls_end_and_the_backend_can_be_used_again(clock: VirtualClock) -> None:
    made, _ = backend(clock, lambda _: said(delay=1.0))
    call = asyncio.ensure_future(made.execute_gemini_enhanced(ASK))
    await clock.sleep(0.1)
    held = made._room.started
    await made.aclose()
    assert getattr(await call, "text", None) == "fine"
    assert held is not None
    assert held.closed
    await made.execute_gemini_enhanced(ASK)


def test_a_breaker_of_the_configuration_is_checked_with_it() -> None:
    with pytest.raises(ConfigurationError, match="failure_threshold"):
        BackendConfig(circuit_breaker=CircuitBreakerConfig(failure_threshold=0))


# ── S3-26: the calls of the description ─────────────────────────────────────────────────────────

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360000000020001e221bc330000000049454e44ae426082"
)


@pytest.mark.parametrize("model", ["gemini-2.0-flash-exp", "gemini-exp-1206", MODEL])
def test_s3_26_the_three_examples_run_as_functions(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from headgate.backend import execute_gemini_enhanced
    from headgate.emulator import InThread

    async def examples() -> tuple[str, str, str]:
        request = GeminiRequest(
            prompt="Explain tides", model=model, temperature=0.7, max_output_tokens=2000
        )
        reply: Any = await execute_gemini_enhanced(request)
        stream: Any = await execute_gemini_enhanced(
            GeminiRequest(prompt="Explain tides", model=model, stream=True)
        )
        pieces = [chunk.delta async for chunk in stream]
        shown = GeminiRequest(prompt="What is shown?", model=model, images=[("image/png", PNG)])
        picture: Any = await execute_gemini_enhanced(shown)
        await default.default_backend().aclose()
        return reply.text, "".join(pieces), picture.text

    config = EmulatorConfig(projects=[Project("p0", {"k0": key(0)})])
    with InThread(Emulator(config)) as emulator:
        monkeypatch.setattr(default, "_backend", [])
        monkeypatch.setenv("GEMINI_API_KEYS", f"{key(0)}|k0|p0")
        monkeypatch.setenv("HEADGATE_GEMINI_BASE_URL", emulator.base_url)
        assert all(asyncio.run(examples()))
        assert emulator.report().projects["p0"].totals.answered == 3
