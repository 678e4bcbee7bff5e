"""Invariants of the Codegen client, over random histories."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.codegen import ORG, RUN, SECRET, scripted

from headgate.codegen import (
    BulkOperationConfig,
    BulkOperationError,
    Page,
    WebhookError,
    WebhookHandler,
)
from headgate.codegen.pagination import paged
from headgate.codegen.status import status_of
from headgate.core.outcome import Kind
from headgate.emulator.quotas import SlidingLog
from headgate.policy.pace import Allowance, Pace
from headgate.providers.codegen_errors import field_errors, read_answer
from headgate.testing import Answer, Broken, Sent, VirtualClock

# ── pagination ──────────────────────────────────────────────────────────────────────────────────


@given(
    start=st.integers(0, 60),
    size=st.integers(1, 9),
    events=st.lists(st.tuples(st.integers(1, 8), st.booleans()), max_size=40),
)
def test_pagination_never_loses_and_never_repeats(
    start: int, size: int, events: list[tuple[int, bool]]
) -> None:
    """Items are added in front, or removed anywhere that was read, between any two reads.

    Everything that was there at the start and still is comes exactly once.
    """
    items = list(range(start, 0, -1))
    newest, waiting = start, list(events)
    seen: list[int] = []

    async def fetch(skip: int, limit: int) -> Page[int]:
        return Page[int](
            items=items[skip : skip + limit], total=len(items), page=1, size=limit, pages=1
        )

    def happen() -> None:
        nonlocal newest
        if not waiting:
            return
        count, added = waiting.pop()
        if added:
            for _ in range(count):
                newest += 1
                items.insert(0, newest)
        else:
            for number in [item for item in items if item in seen][:count]:
                items.remove(number)

    async def main() -> None:
        stream = paged(fetch, lambda item: item, size=size)
        async for item in stream:
            seen.append(item)
            happen()

    before = set(items)
    VirtualClock().run(main())
    assert len(set(seen)) == len(seen)
    assert (before & set(items)) <= set(seen)


# ── bulk ────────────────────────────────────────────────────────────────────────────────────────

FATES = ("ok", "400", "429", "500", "lost", "unsent", "late", "garbage")


def answer_of(fate: str) -> Answer | Broken:
    match fate:
        case "ok":
            return Answer(200, json.dumps(RUN).encode(), delay=0.3)
        case "lost":
            return Broken(Kind.NETWORK, delay=0.1)
        case "unsent":
            return Broken(Kind.NETWORK, sent=False)
        case "late":
            return Broken(Kind.TIMEOUT, delay=2)
        case "garbage":
            return Answer(200, b"<")
    return Answer(int(fate), b"{}", {"retry-after": "0"})


@settings(max_examples=60)
@given(
    fates=st.lists(st.sampled_from(FATES), max_size=30),
    workers=st.integers(1, 8),
    fail_fast=st.booleans(),
)
def test_bulk_accounts_for_each_item_once(fates: list[str], workers: int, fail_fast: bool) -> None:
    clock = VirtualClock()
    told: list[tuple[int, int]] = []

    def script(sent: Sent) -> Answer | Broken:
        return answer_of(fates[int(json.loads(sent.request.body)["prompt"])])

    async def main() -> None:
        client, transport = scripted(script, clock, max_retries=0)
        config = BulkOperationConfig(
            max_workers=workers, fail_fast=fail_fast, max_retries=0,
            progress_callback=lambda *numbers: told.append(numbers),
        )  # fmt: skip
        items = [{"prompt": str(number)} for number in range(len(fates))]
        try:
            result = await client.bulk_create_agent_runs(ORG, items, config)
        except BulkOperationError as error:
            result = error.result
            assert fail_fast
            assert result.failed_items >= 1
        else:
            assert result.successful_items + result.failed_items == len(fates)
        assert result.total_items == len(fates)
        assert result.successful_items == len(result.results)
        assert result.failed_items == len(result.errors)
        indices = [error["index"] for error in result.errors]
        assert indices == sorted(set(indices))
        assert all(error["item"] == items[error["index"]] for error in result.errors)
        assert transport.open_exchanges == 0
        prompts = [json.loads(sent.request.body)["prompt"] for sent in transport.sent]
        assert len(set(prompts)) == len(prompts), "nothing was sent twice"
        done = result.successful_items + result.failed_items
        assert [number for number, _ in told] == list(range(1, done + 1))
        assert {total for _, total in told} <= {len(fates)}
        assert asyncio.all_tasks() == {asyncio.current_task()}

    clock.run(main())


# ── webhooks ────────────────────────────────────────────────────────────────────────────────────

HEADERS = st.dictionaries(
    st.sampled_from(["x-signature", "x-hub-signature-256", "webhook-id", "webhook-timestamp",
                     "webhook-signature", "x-event-id"]),
    st.text(max_size=90),
)  # fmt: skip


@given(
    body=st.binary(max_size=200)
    | st.builds(
        lambda name, moment: json.dumps({"event_type": name, "timestamp": moment, "data": {}}).encode(),
        st.text(min_size=1, max_size=10),
        st.floats() | st.text(max_size=20) | st.none() | st.just(1_795_262_400),
    ),
    signature=st.none() | st.text(max_size=80) | st.binary(min_size=32, max_size=32).map(bytes.hex),
    headers=HEADERS,
)
def test_a_forged_webhook_never_passes(
    body: bytes, signature: str | None, headers: dict[str, str]
) -> None:
    """Whatever somebody without the secret sends."""
    handler = WebhookHandler(SECRET, clock=VirtualClock())
    heard: list[Any] = []
    handler.register_handler("*", heard.append)
    with pytest.raises(WebhookError) as caught:
        asyncio.run(handler.process(body, signature, headers))
    assert caught.value.status_code in (400, 401)
    assert not heard


@given(
    flip=st.integers(0, 10_000), data=st.dictionaries(st.text(max_size=5), st.integers(), max_size=5)
)
def test_one_changed_bit_is_a_forgery(flip: int, data: dict[str, int]) -> None:
    clock = VirtualClock()
    handler = WebhookHandler(SECRET, clock=clock)
    body = json.dumps({"event_type": "x", "timestamp": clock.wall(), "data": data}).encode()
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    changed = bytearray(body)
    changed[flip // 8 % len(body)] ^= 1 << flip % 8
    with pytest.raises(WebhookError) as caught:
        asyncio.run(handler.process(bytes(changed), signature))
    assert caught.value.status_code == 401
    assert asyncio.run(handler.process(body, signature))["status"] == "no_handlers"


# ── pace ────────────────────────────────────────────────────────────────────────────────────────


@given(
    requests=st.integers(1, 30),
    seconds=st.integers(1, 60),
    steps=st.lists(st.tuples(st.floats(0, 20), st.sampled_from(["", "ok", "refused"])), max_size=200),
)
def test_never_more_than_a_bucket_of_the_documented_size_allows(
    requests: int, seconds: int, steps: list[tuple[float, str]]
) -> None:
    """In any stretch of time, whatever answers teach; and after a refusal no more than a window."""
    pace = Pace(Allowance(requests, seconds), floor=10, ceiling=200)
    now, sent, refused_at = 0.0, [], None
    for pause, news in steps:
        now += pause
        wait = pace.take(now)
        assert wait >= 0
        if wait == 0:
            sent.append(now)
        if news == "ok":
            pace.succeeded()
        elif news == "refused":
            pace.refused(now, now, None)
            refused_at = now if refused_at is None else refused_at
        view = pace.view(now)
        assert view.floor <= view.limit <= view.ceiling <= requests
    for first, start in enumerate(sent):
        for count, end in enumerate(sent[first:], 1):
            assert count <= requests * (1 + (end - start) / seconds) + 1e-6
    late = [moment for moment in sent if refused_at is not None and moment > refused_at]
    log = SlidingLog(requests, seconds)
    for moment in late:
        assert log.room(moment + 1e-6, 1)
        log.charge(moment + 1e-6, 1)


@given(requests=st.integers(1, 40), seconds=st.integers(1, 60), start=st.floats(0, 1e6))
def test_a_wait_is_long_enough_and_not_longer(requests: int, seconds: int, start: float) -> None:
    pace = Pace(Allowance(requests, seconds))
    now = start
    for _ in range(requests * 2):
        wait = pace.take(now)
        if wait:
            assert wait <= seconds / requests + 2e-6
            now += wait + 1e-6
            assert pace.take(now) == 0


# ── answers ─────────────────────────────────────────────────────────────────────────────────────

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(
    status=st.integers(200, 599),
    body=st.binary(max_size=100)
    | JSON.map(lambda value: json.dumps(value).encode())
    | JSON.map(lambda value: json.dumps({"detail": value}).encode()),
    retry=st.text(max_size=20),
    date=st.text(max_size=30),
)
def test_any_answer_is_classified(status: int, body: bytes, retry: str, date: str) -> None:
    outcome, _ = read_answer(status, {"retry-after": retry, "date": date}, body)
    assert outcome.status == status
    assert (outcome.kind is Kind.SUCCESS) <= (status < 300)
    assert outcome.kind is Kind.SUCCESS or outcome.message
    assert outcome.retry_after is None or outcome.retry_after >= 0


@given(JSON)
def test_any_detail_is_read(value: Any) -> None:
    found = field_errors({"detail": value})
    assert all(isinstance(text, str) for errors in found.values() for text in errors)


@given(st.text() | st.none() | st.integers())
def test_any_status_has_a_meaning(raw: Any) -> None:
    assert isinstance(status_of(raw).is_terminal, bool)
