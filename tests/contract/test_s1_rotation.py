"""S1: which key sends, what a refusal costs it, how long a call waits."""

from __future__ import annotations

import asyncio
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from tests.support import (
    MODEL,
    Ear,
    bad_key,
    broken_inside,
    failure,
    key_books,
    keys,
    number_of,
    quota,
    reply,
    said,
    scripted,
    settle,
    vector,
)

from headgate.gemini import AllKeysExhaustedError, GeminiAPICallError, ResilientGeminiClient
from headgate.testing import BROKEN, Answer, ScriptedTransport, Sent, VirtualClock


def numbers(transport: ScriptedTransport) -> list[int]:
    return [number_of(sent) for sent in transport.sent]


async def test_s1_06_a_key_out_of_quota_is_replaced_at_once(clock: VirtualClock) -> None:
    client, transport = scripted(
        lambda sent: quota("Minute", "30s") if number_of(sent) == 0 else said("second"), clock, 3
    )
    assert await client.generate_content("hi") == "second"
    assert numbers(transport) == [0, 1]
    assert clock.monotonic() == 0


@pytest.mark.parametrize("count", [1, 4, 300])
async def test_s1_07_any_number_of_keys_takes_its_turn(count: int, clock: VirtualClock) -> None:
    client, transport = scripted([said()], clock, count)
    for _ in range(count):
        await client.generate_content("hi")
    assert sorted(numbers(transport)) == list(range(count))
    shown = client.get_key_metrics()
    assert shown["total_keys"] == len(shown["keys"]) == count
    assert [entry["metrics"]["total_requests"] for entry in shown["keys"]] == [1] * count


async def test_s1_08_each_key_has_its_own_metrics(clock: VirtualClock) -> None:
    answers = {0: [said(), said()], 1: [quota("Minute", "30s")], 2: [broken_inside(), said()]}
    client, _ = scripted(lambda sent: answers[number_of(sent)].pop(0), clock, 3)
    for _ in range(3):
        await client.generate_content("hi")
    assert key_books(client) == [(2, 2, 0, 0), (1, 0, 1, 1), (2, 1, 1, 0)]


@pytest.mark.parametrize("retries", [0, 1, 3, 7])
async def test_s1_09_retries_are_configurable_and_s1_15_count_extra_tries(
    retries: int, clock: VirtualClock
) -> None:
    """The pitfall of S1-15: `max_retries` read as attempts in all."""
    client, transport = scripted([broken_inside()], clock, max_retries=retries)
    with pytest.raises(GeminiAPICallError):
        await client.generate_content("hi")
    assert len(transport.sent) == retries + 1


async def test_s1_15_three_is_the_default_and_rotations_do_not_count(clock: VirtualClock) -> None:
    transport_script = [quota("Minute", "99s"), broken_inside(), broken_inside(), broken_inside()]
    client, transport = scripted([*transport_script, said("at last")], clock, 2)
    assert client.settings.max_retries == 3
    assert await client.generate_content("hi") == "at last"
    assert numbers(transport) == [0, 1, 1, 1, 1]


async def test_s1_10_delays_double_from_one_second_with_full_jitter(clock: VirtualClock) -> None:
    """Each delay lies in [0, 1), [0, 2), [0, 4) …, capped at 60, and is not constant."""
    delays: list[list[float]] = []
    for _ in range(12):
        ear = Ear()
        client, _ = scripted([broken_inside()], clock, max_retries=8, observers=[ear])
        with pytest.raises(GeminiAPICallError):
            await client.generate_content("hi")
        delays.append([wait.seconds for wait in ear.waits])
    for retry, column in enumerate(zip(*delays, strict=True)):
        ceiling = min(60.0, 2.0**retry)
        assert all(0 <= delay <= ceiling for delay in column)
        assert len(set(column)) > 1, "without jitter the callers retry in step"
    assert max(delay for row in delays for delay in row) > 4


async def test_s1_10_the_upstreams_hint_comes_first(clock: VirtualClock) -> None:
    refused = failure(503, "The model is overloaded.", "UNAVAILABLE", headers={"retry-after": "17"})
    client, _ = scripted([refused, said()], clock)
    await client.generate_content("hi")
    assert clock.monotonic() == pytest.approx(17)


async def test_s1_12_errors_are_booked_on_the_key_of_the_call_that_met_them(
    clock: VirtualClock,
) -> None:
    """The pitfall: a shared current key. Answers come back in another order than calls went out."""
    outcomes = {
        0: said(delay=9.0),
        1: quota("Minute", "300s", delay=7.0),
        2: broken_inside(delay=5.0),
        3: said(delay=1.0),
    }

    def answer(sent: Sent) -> Answer:
        return outcomes.pop(number_of(sent), None) or said()

    client, transport = scripted(answer, clock, 4)
    await asyncio.gather(*(client.generate_content(f"call {number}") for number in range(4)))
    books = key_books(client)
    assert [failed for _, _, failed, _ in books] == [0, 1, 1, 0]
    assert [quotas for *_, quotas in books] == [0, 1, 0, 0]
    assert sum(successes for _, successes, _, _ in books) == 4
    await settle(client, transport)


async def test_s1_13_waits_for_the_first_key_to_recover_within_the_bound(clock: VirtualClock) -> None:
    hints = {0: "50s", 1: "20s"}

    def answer(sent: Sent) -> Answer:
        hint = hints.pop(number_of(sent), None)
        return quota("Minute", hint) if hint else said(f"key {number_of(sent)}")

    client, transport = scripted(answer, clock, 2)
    assert await client.generate_content("hi") == "key 1"
    assert numbers(transport) == [0, 1, 1]
    assert clock.monotonic() == pytest.approx(20)


async def test_s1_13_the_bound_is_the_backoff_unless_one_is_given(clock: VirtualClock) -> None:
    client, _ = scripted([quota("Minute", "61s")], clock)
    assert client.settings.max_wait_seconds == 60
    with pytest.raises(AllKeysExhaustedError):
        await client.generate_content("hi")
    assert clock.monotonic() == 0
    client, _ = scripted([quota("Minute", "61s"), said()], clock, max_wait_seconds=61)
    assert await client.generate_content("hi") == "fine"
    assert clock.monotonic() == pytest.approx(61)


async def test_s1_13_a_call_may_bring_its_own_bound(clock: VirtualClock) -> None:
    client, _ = scripted([quota("Minute", "100s"), said()], clock)
    assert await client.generate_content("hi", max_wait_seconds=100) == "fine"
    assert clock.monotonic() == pytest.approx(100)


async def test_s1_13_nought_never_waits(clock: VirtualClock) -> None:
    client, _ = scripted([quota("Minute", "1s")], clock, max_wait_seconds=0)
    with pytest.raises(AllKeysExhaustedError):
        await client.generate_content("hi")
    assert clock.monotonic() == 0


@pytest.mark.parametrize(("timeout", "waits"), [(45.0, True), (30.0, False), (29.0, False)])
async def test_s1_13_a_deadline_is_the_bound_where_there_is_one(
    timeout: float, waits: bool, clock: VirtualClock
) -> None:
    client, _ = scripted([quota("Minute", "30s"), said()], clock, max_wait_seconds=0)
    if waits:
        assert await client.generate_content("hi", timeout=timeout) == "fine"
        assert clock.monotonic() == pytest.approx(30)
    else:
        with pytest.raises(AllKeysExhaustedError) as caught:
            await client.generate_content("hi", timeout=timeout)
        assert caught.value.retry_after == pytest.approx(30)
        assert clock.monotonic() == 0


@pytest.mark.parametrize(
    ("timeout", "wait", "waits"), [(100, 30, True), (100, 29, False), (29, 100, False), (100, 0, False)]
)
async def test_s1_13_of_a_deadline_and_a_bound_the_smaller_counts(
    timeout: float, wait: float, waits: bool, clock: VirtualClock
) -> None:
    client, _ = scripted([quota("Minute", "30s"), said()], clock)
    call = client.generate_content("hi", timeout=timeout, max_wait_seconds=wait)
    if waits:
        assert await call == "fine"
    else:
        with pytest.raises(AllKeysExhaustedError):
            await call
        assert clock.monotonic() == 0


async def test_s1_13_such_a_wait_uses_one_retry(clock: VirtualClock) -> None:
    """The pitfall of unbounded waiting: refused again and again, the call ends with its retries."""
    client, transport = scripted([quota("Minute", "10s")], clock, max_retries=3)
    with pytest.raises(AllKeysExhaustedError):
        await client.generate_content("hi")
    assert len(transport.sent) == 4
    assert 30 <= clock.monotonic() <= 60, "refusals that nothing explains are paced beyond the hint"
    client, transport = scripted([quota("Minute", "10s"), said()], clock, max_retries=0)
    with pytest.raises(AllKeysExhaustedError):
        await client.generate_content("hi")
    assert len(transport.sent) == 1


async def test_s1_14_four_keys_and_three_retries_reach_all_four(clock: VirtualClock) -> None:
    """The pitfall: a rotation that spends a try, so that the fourth key is never reached."""
    client, transport = scripted(
        lambda sent: said("fourth") if number_of(sent) == 3 else quota("Minute", "30s"), clock, 4
    )
    assert await client.generate_content("hi") == "fourth"
    assert numbers(transport) == [0, 1, 2, 3]
    assert clock.monotonic() == 0, "a rotation must not sleep"


async def test_s1_14_twenty_keys_are_reached_without_any_retry(clock: VirtualClock) -> None:
    """In whichever order: once refusals have told the limits, those with room are drawn."""
    ear, refused = Ear(), set[int]()

    def upstream(sent: Sent) -> Answer:
        if len(refused) == 19:
            return said()
        refused.add(number_of(sent))
        return quota("Minute", "30s")

    client, transport = scripted(
        upstream,
        clock,
        20,
        max_retries=0,
        observers=[ear],
    )
    await client.generate_content("hi")
    assert sorted(number_of(sent) for sent in transport.sent) == list(range(20))
    assert (ear.calls[0].rotations, ear.calls[0].retries, ear.calls[0].waited) == (19, 0, 0.0)


async def test_s1_16_an_exhausted_key_is_eligible_again_after_its_backoff(clock: VirtualClock) -> None:
    client, transport = scripted([quota("Minute", "20s"), said()], clock, max_wait_seconds=0)
    with pytest.raises(AllKeysExhaustedError):
        await client.generate_content("hi")
    clock.advance(19)
    with pytest.raises(AllKeysExhaustedError) as caught:
        await client.generate_content("hi")
    assert caught.value.retry_after == pytest.approx(1)
    assert len(transport.sent) == 1, "an exhausted key must not be sent with"
    clock.advance(1)
    assert client.get_key_metrics()["active_keys"] == 1
    assert await client.generate_content("hi") == "fine"


async def test_s1_18_a_single_key_honours_its_hint(clock: VirtualClock) -> None:
    """The pitfall: going on to send with the exhausted key."""
    client, transport = scripted([quota("Minute", "30s"), said()], clock)
    assert await client.generate_content("hi") == "fine"
    assert [sent.at for sent in transport.sent] == [0, pytest.approx(30)]


async def test_s1_18_without_rotation_only_the_first_key_is_used(clock: VirtualClock) -> None:
    client, transport = scripted(
        [quota("Minute", "30s"), said(), quota("Minute", "300s")], clock, 3, rotation_enabled=False
    )
    assert await client.generate_content("hi") == "fine"
    with pytest.raises(AllKeysExhaustedError):
        await client.generate_content("hi")
    assert numbers(transport) == [0, 0, 0]
    assert [sent.at for sent in transport.sent][1] == pytest.approx(30)


# ── how long a refusal lasts ────────────────────────────────────────────────────────────────────


async def refused_until(client: ResilientGeminiClient) -> float:
    with pytest.raises(AllKeysExhaustedError) as caught:
        await client.generate_content("hi", MODEL)
    assert caught.value.retry_after is not None
    return caught.value.retry_after


async def test_s1_20_without_a_hint_a_key_cools_for_sixty_seconds(clock: VirtualClock) -> None:
    client, _ = scripted([quota("Minute")], clock, max_wait_seconds=0)
    assert client.settings.backoff_seconds == 60
    assert await refused_until(client) == pytest.approx(60)


async def test_s1_20_the_hint_wins_over_the_backoff(clock: VirtualClock) -> None:
    client, _ = scripted([quota("Minute", "22s")], clock, max_wait_seconds=0)
    assert await refused_until(client) == pytest.approx(22)


async def test_s1_20_a_daily_quota_with_a_short_hint_parks_until_midnight_pacific(
    clock: VirtualClock,
) -> None:
    """The pitfall: a fixed minute, or the hint, for a quota that comes back tomorrow."""
    client, transport = scripted([quota("Day", "22s"), said()], clock, max_wait_seconds=0)
    assert await refused_until(client) == pytest.approx(3600)  # one probe an hour comes before that
    clock.advance(22)
    assert await refused_until(client) == pytest.approx(3600 - 22)
    assert len(transport.sent) == 1
    shown = client.get_key_metrics()["keys"][0]
    recovery = datetime.fromisoformat(shown["retry_after"])
    assert 0 < recovery.timestamp() - clock.wall() <= 25 * 3600
    at_home = recovery.astimezone(ZoneInfo("America/Los_Angeles"))
    assert (at_home.hour, at_home.minute, at_home.second) == (0, 0, 0)


async def test_near_the_reset_it_comes_before_the_probe(clock: VirtualClock) -> None:
    clock.advance(20 * 3600 - 600 - clock.monotonic())  # ten minutes before midnight in California
    client, _ = scripted([quota("Day", "22s")], clock, max_wait_seconds=0)
    assert await refused_until(client) == pytest.approx(600)


async def test_s1_20_a_hint_longer_than_an_hour_replaces_the_computed_reset(
    clock: VirtualClock,
) -> None:
    client, _ = scripted([quota("Day", "7200s")], clock, max_wait_seconds=0)
    assert await refused_until(client) == pytest.approx(3600)  # by a probe
    shown = client.get_key_metrics()["keys"][0]
    reset = datetime.fromisoformat(shown["retry_after"]).timestamp()
    assert reset == pytest.approx(clock.wall() + 7200)


async def test_s1_20_one_probe_an_hour_guards_against_another_reset(clock: VirtualClock) -> None:
    client, transport = scripted([quota("Day", "22s")], clock, max_wait_seconds=0)
    await refused_until(client)
    clock.advance(3599)
    await refused_until(client)
    assert len(transport.sent) == 1
    clock.advance(2)
    await refused_until(client)
    await refused_until(client)
    assert len(transport.sent) == 2, "exactly one probe"
    clock.advance(3601)
    await refused_until(client)
    assert len(transport.sent) == 3


async def test_s1_20_a_probe_that_succeeds_opens_the_key(clock: VirtualClock) -> None:
    client, _ = scripted([quota("Day", "22s"), said()], clock, max_wait_seconds=0)
    await refused_until(client)
    clock.advance(3601)
    assert await client.generate_content("hi", MODEL) == "fine"
    assert client.get_key_metrics()["keys"][0]["is_active"] is True
    assert await client.generate_content("hi", MODEL) == "fine"


async def test_s1_20_probes_go_on_after_two_refusals_of_one_burst(clock: VirtualClock) -> None:
    """Two calls in flight are refused for the day one after the other: the hourly probe remains."""
    client, transport = scripted(
        [quota("Day", "22s", delay=1), quota("Day", "22s", delay=2), said()],
        clock,
        max_wait_seconds=0,
    )
    await asyncio.gather(refused_until(client), refused_until(client))
    clock.advance(3700)
    assert await client.generate_content("hi", MODEL) == "fine"
    assert len(transport.sent) == 3


async def test_s1_20_exhaustion_is_for_one_model_only(clock: VirtualClock) -> None:
    """The pitfall: marking the key for all models."""
    client, transport = scripted(
        lambda sent: said() if "lite" in sent.request.url else quota("Day", "22s"),
        clock,
        max_wait_seconds=0,
    )
    await refused_until(client)
    assert await client.generate_content("hi", "gemini-3.5-flash-lite") == "fine"
    assert [MODEL in sent.request.url for sent in transport.sent] == [True, False]


@pytest.mark.parametrize("hint", ["nan", "-5", "1e9", "inf", "soon"])
async def test_s1_20_an_absurd_hint_becomes_no_sleep(hint: str, clock: VirtualClock) -> None:
    client, _ = scripted([quota("Minute", f"{hint}s"), said()], clock)
    assert await client.generate_content("hi") == "fine"
    assert clock.monotonic() == pytest.approx(60), "as if there were no hint"
    refused = failure(503, "The model is overloaded.", "UNAVAILABLE", headers={"retry-after": hint})
    client, _ = scripted([refused, said()], clock)
    if hint == "1e9":  # beyond the deadline: the call ends at once
        with pytest.raises(GeminiAPICallError) as caught:
            await client.generate_content("hi", timeout=30)
        assert caught.value.kind == "unavailable"
    else:
        assert await client.generate_content("hi", timeout=30) == "fine"
    assert clock.monotonic() < 90


async def test_s1_21_keys_of_one_project_share_fate(clock: VirtualClock) -> None:
    """The pitfall: promising capacity × number of keys."""
    client, transport = scripted(
        [quota("Minute", "30s")], clock, keys=keys(5, project="p1"), max_wait_seconds=0
    )
    await refused_until(client)
    assert len(transport.sent) == 1, "the other keys of the project would meet the same quota"
    shown = client.get_key_metrics()
    assert shown["active_keys"] == 0
    assert [entry["is_active"] for entry in shown["keys"]] == [False] * 5


async def test_s1_21_another_project_takes_over(clock: VirtualClock) -> None:
    listed = ",".join([keys(2, project="p1"), "AIzaCANARY-002-y|k2|p2"])
    client, transport = scripted(
        lambda sent: said() if number_of(sent) == 2 else quota("Minute", "30s"), clock, keys=listed
    )
    assert await client.generate_content("hi") == "fine"
    assert numbers(transport) == [0, 2]


async def test_s1_21_keys_of_one_project_take_turns_as_credentials(clock: VirtualClock) -> None:
    client, transport = scripted([said()], clock, keys=keys(3, project="p1"))
    for _ in range(6):
        await client.generate_content("hi")
    assert numbers(transport) == [0, 1, 2, 0, 1, 2]


# ── S1-37: what else may happen ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_s1_37_a_dead_key_is_disabled_and_only_that_key(status: int, clock: VirtualClock) -> None:
    client, transport = scripted(
        lambda sent: bad_key(status) if number_of(sent) == 0 else said(), clock, 2, max_retries=0
    )
    for _ in range(3):
        assert await client.generate_content("hi") == "fine"
    assert numbers(transport) == [0, 1, 1, 1]
    shown = client.get_key_metrics()
    assert shown["active_keys"] == 1
    assert [entry["status"] for entry in shown["keys"]] == ["DISABLED", "ACTIVE"]


async def test_s1_37_a_dead_key_of_a_project_leaves_its_siblings_alone(clock: VirtualClock) -> None:
    client, transport = scripted(
        lambda sent: bad_key() if number_of(sent) == 0 else said(), clock, keys=keys(2, project="p1")
    )
    assert await client.generate_content("hi") == "fine"
    assert numbers(transport) == [0, 1]


async def test_s1_37_when_no_key_is_left_the_kind_is_auth(clock: VirtualClock) -> None:
    client, transport = scripted([bad_key()], clock, 3)
    with pytest.raises(GeminiAPICallError) as caught:
        await client.generate_content("hi")
    assert caught.value.kind == "auth"
    assert len(transport.sent) == 3
    assert clock.monotonic() == 0
    with pytest.raises(GeminiAPICallError) as caught:
        await client.generate_content("hi")
    assert len(transport.sent) == 3, "a disabled key is never sent with again"


@pytest.mark.parametrize(
    "fault", [broken_inside(), failure(503, "The model is overloaded."), BROKEN, failure(504, "late")]
)
async def test_s1_37_passing_faults_retry_on_the_same_key(fault: Answer, clock: VirtualClock) -> None:
    client, transport = scripted([fault, fault, said()], clock, 3)
    assert await client.generate_content("hi") == "fine"
    assert numbers(transport) == [0, 0, 0]


async def test_s1_37_overload_does_not_walk_through_all_keys(clock: VirtualClock) -> None:
    client, transport = scripted([failure(503, "The model is overloaded.")], clock, 10)
    with pytest.raises(GeminiAPICallError) as caught:
        await client.generate_content("hi")
    assert caught.value.kind == "unavailable"
    assert set(numbers(transport)) == {0}
    assert client.get_key_metrics()["active_keys"] == 10


def blocked(**extra: object) -> Answer:
    import json

    return Answer(body=json.dumps(extra).encode())


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (blocked(promptFeedback={"blockReason": "PROHIBITED_CONTENT"}), "blocked"),
        (blocked(candidates=[{"content": {}, "finishReason": "SAFETY"}]), "blocked"),
        (blocked(candidates=[{"finishReason": "RECITATION"}]), "blocked"),
        (blocked(**reply("")), "blocked"),
        (failure(400, "The input token count exceeds the maximum.", "INVALID_ARGUMENT"), "invalid"),
        (failure(404, "models/x is not found for API version v1beta", "NOT_FOUND"), "invalid"),
        (failure(413, "too large"), "invalid"),
        (failure(400, "User location is not supported for the API use."), "egress"),
    ],
)
async def test_s1_37_what_cannot_change_is_asked_once(
    answer: Answer, kind: str, clock: VirtualClock
) -> None:
    """The pitfall: retrying everything."""
    client, transport = scripted([answer], clock, 3)
    with pytest.raises(GeminiAPICallError) as caught:
        await client.generate_content("hi")
    assert caught.value.kind == kind
    assert not caught.value.retryable
    assert len(transport.sent) == 1
    assert client.get_key_metrics()["active_keys"] == 3, "no key is at fault"


async def test_s1_37_embeddings_follow_the_same_rules(clock: VirtualClock) -> None:
    client, transport = scripted([quota("Minute", "30s"), broken_inside(), vector(1.0)], clock, 2)
    assert await client.embed_content("text") == [1.0]
    assert numbers(transport) == [0, 1, 1]
