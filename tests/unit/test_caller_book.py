"""The book of callers, what a key leaves behind, and what a call may cost at the most."""

from __future__ import annotations

import json
import pickle
import traceback
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from msgspec import ValidationError, convert, structs
from tests.callers import PRICED, canary_key, dollars, issued, limits
from tests.unit.test_usage_ledger import row

from headgate.core.call import Call, Operation, Priority, Raw, Weight
from headgate.core.callers import (
    Budget,
    BudgetWindow,
    CallerConflictError,
    CallerLimits,
    CallerState,
    UnknownCallerError,
)
from headgate.core.errors import InvalidCallError
from headgate.core.tokens import Usage
from headgate.core.usage import UsageStore
from headgate.gateway.caller_book import CallerBook, CallerChange, CallerSpec
from headgate.gateway.caller_shapes import shown, shown_usage
from headgate.gateway.callers import Callers
from headgate.gateway.problems import RequestRefusedError
from headgate.gateway.worst_case import LARGEST_WINDOW, is_billed, most_used
from headgate.policy.redaction import redact
from headgate.providers import gemini_raw, openai_raw
from headgate.stores.callers import MemoryCallers
from headgate.stores.callers_sqlite import SqliteCallers
from headgate.stores.usage_sqlite import SqliteUsage
from headgate.testing import VirtualClock
from headgate.wiring.callers import DatedPrices


def book_over(clock: VirtualClock, store: Any = None, **more: Any) -> CallerBook:
    numbers = iter(range(1000))
    return CallerBook(
        MemoryCallers() if store is None else store,
        clock,
        new_key=canary_key,
        new_id=lambda: f"id{next(numbers)}",
        **more,
    )


# ── the book ────────────────────────────────────────────────────────────────────────────────────


async def test_a_key_is_in_nothing_but_the_answer_that_issued_it(
    clock: VirtualClock, tmp_path: Path
) -> None:
    """X-5, X-7, X-8: not in the store, a `repr`, a pickle or a traceback; four characters show."""
    store = SqliteCallers(tmp_path / "callers.db")
    book = book_over(clock, store)
    made = await issued(book)
    whole = str(made.key)
    assert len(whole) - len("hgk_") >= 32
    kept = store.changed(0)
    store.close()
    held = (tmp_path / "callers.db").read_bytes()
    try:
        raise ValueError(made)
    except ValueError as error:
        told = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    shapes = json.dumps(shown(made.caller, clock.wall()))
    told = told.replace(f"whole = {whole!r}", "")  # of this test
    for text in (repr(made), repr(kept), told, shapes, held.decode("latin-1")):
        assert whole not in text
        assert not any(whole[start : start + 5] in text for start in range(4, len(whole) - 4))
    assert whole.encode() not in pickle.dumps(made.caller)
    assert kept[0].keys[0].digest == sha256(whole.encode()).hexdigest()
    assert whole not in redact(f"what {whole} says")


async def test_pages_follow_one_another(clock: VirtualClock) -> None:
    book = book_over(clock)
    for number in range(7):
        await issued(book, f"name-{number}")
    await book.revoke("name-3")
    seen, after = [], ""
    while True:
        page = await book.page(after=after, limit=3)
        seen += [one.name for one in page.callers]
        if page.following is None:
            break
        after = page.following
    assert seen == [f"name-{number}" for number in range(7)]
    active = await book.page(state=CallerState.ACTIVE)
    assert len(active.callers) == 6
    for limit in (0, 501):
        with pytest.raises(InvalidCallError):
            await book.page(limit=limit)


async def test_a_change_of_an_older_version_is_refused(clock: VirtualClock) -> None:
    book = book_over(clock)
    first = (await issued(book)).caller
    second = await book.update("ann", CallerChange(priority=Priority.LOW), version=first.version)
    with pytest.raises(CallerConflictError):
        await book.update("ann", CallerChange(priority=Priority.HIGH), version=first.version)
    assert (await book.get(first.id)) == second
    assert await book.update("ann", CallerChange()) == second


async def test_a_change_leaves_what_it_does_not_name(clock: VirtualClock) -> None:
    book = book_over(clock)
    await issued(book, budget=dollars(5), models=("a*",), tags={"team": "x"})
    changed = await book.update("ann", CallerChange(budget=None, limits=limits(rpm=5)))
    assert (changed.name, changed.budget, changed.models) == ("ann", None, ("a*",))
    assert changed.limits == CallerLimits(requests_per_minute=5)
    with pytest.raises(UnknownCallerError):
        await book.get("eve")


async def test_revoked_is_for_good(clock: VirtualClock) -> None:
    book = book_over(clock)
    await issued(book)
    ended = await book.revoke("ann")
    assert await book.revoke("ann") == ended
    with pytest.raises(CallerConflictError, match="for good"):
        await book.rotate("ann")
    with pytest.raises(CallerConflictError, match="for good"):
        await book.update("ann", CallerChange(priority=Priority.LOW))
    with pytest.raises(CallerConflictError, match="not used again"):
        await issued(book)


async def test_keys_that_have_ended_leave_the_book(clock: VirtualClock) -> None:
    book = book_over(clock)
    await issued(book)
    for _ in range(3):
        await clock.sleep(100.0)
        rotated = (await book.rotate("ann", grace_seconds=150.0)).caller
    assert len(rotated.keys) == 3
    assert [one.until for one in rotated.keys][1:] == [clock.wall() + 150, clock.wall() + 50]
    assert len((await book.rotate("ann", grace_seconds=0.0)).caller.keys) == 1


@pytest.mark.parametrize(
    "spec",
    [
        {"name": ""},
        {"name": "x" * 65},
        {"name": "a\nb"},
        {"name": "AIzaSyCANARY0123456789"},
        {"expires": 5.0},
        {"limits": limits(rpm=-1)},
        {"limits": limits(tpm=10**13)},
        {"budget": Budget(0)},
        {"budget": Budget(2**63)},
        {"models": ("gemini (all)",)},
        {"models": ("[a]",)},
        {"models": ("m",) * 101},
        {"surfaces": ("azure",)},
        {"tags": {"": "x"}},
        {"tags": {"a": "b\x1b[2J"}},
    ],
    ids=str,
)
async def test_what_cannot_be_is_refused(clock: VirtualClock, spec: dict[str, Any]) -> None:
    book = book_over(clock)
    with pytest.raises(InvalidCallError):
        await book.create(CallerSpec(**{"name": "ann", **spec}))
    assert (await book.page()).callers == ()


def test_fields_nobody_may_set_are_refused() -> None:
    """X-13: of JSON that a client sends, id, keys and state are not taken."""
    for field in ("id", "keys", "state", "created", "version", "rotated"):
        for kind, body in ((CallerSpec, {"name": "ann"}), (CallerChange, {})):
            with pytest.raises(ValidationError, match="unknown field"):
                convert({**body, field: "x"}, kind)
    with pytest.raises(ValidationError, match="unknown field"):
        convert({"name": "eve"}, CallerChange)


async def test_usage_has_the_sums_of_the_ledger(clock: VirtualClock, tmp_path: Path) -> None:
    ledger = SqliteUsage(tmp_path / "usage.db")
    today = clock.wall() - 100
    ledger.write([
        row(1, caller="ann", at=today, cost=700, call="success"),
        row(2, caller="ann", at=today - 40 * 86_400, cost=50, call="success"),
        row(3, caller="bob", at=today, cost=9, call="success"),
    ])  # fmt: skip

    def opened() -> UsageStore:
        return SqliteUsage(tmp_path / "usage.db")

    book = book_over(clock, ledger=opened)
    await issued(book, budget=Budget(10_000, BudgetWindow.DAY))
    usage = await book.usage("ann")
    assert usage.sums is not None
    assert (usage.sums.requests, usage.sums.cost) == (1, 700)
    shape = shown_usage(usage)
    assert (shape["budget"], shape["left"], shape["window"]) == (10_000, 10_000, "day")
    await issued(book, "eve")
    assert (await book.usage("eve")).sums is None
    ledger.close()


# ── the directory ───────────────────────────────────────────────────────────────────────────────


async def test_a_change_of_keys_is_followed(clock: VirtualClock) -> None:
    store = MemoryCallers()
    book, callers = book_over(clock, store), Callers((), store, clock)
    first = (await issued(book, "ann")).key
    await callers.refresh()
    assert callers.name_of(first.encode()) == "ann"
    second = (await book.rotate("ann", grace_seconds=0.0)).key
    assert callers.name_of(first.encode()) == "ann"  # not heard of yet
    await callers.refresh()
    assert (callers.name_of(first.encode()), callers.name_of(second.encode())) == (None, "ann")
    assert callers.named("ann").name == "ann"
    with pytest.raises(RequestRefusedError):
        callers.named("eve")
    assert len(callers) == 1


async def test_a_name_that_is_set_later_in_the_environment_wins(clock: VirtualClock) -> None:
    from tests.gateway import CALLER_KEY, CALLERS

    store = MemoryCallers()
    key = (await issued(book_over(clock, store), "ann")).key
    callers = Callers(CALLERS, store, clock)
    await callers.refresh()
    assert callers.name_of(CALLER_KEY.encode()) == "ann"
    assert callers.name_of(key.encode()) is None


async def test_an_upload_ends_with_its_caller(clock: VirtualClock) -> None:
    store = MemoryCallers()
    book, callers = book_over(clock, store), Callers((), store, clock)
    await issued(book, expires=clock.wall() + 10)
    await callers.refresh()
    assert callers.named("ann").name == "ann"
    await clock.sleep(10.0)
    with pytest.raises(RequestRefusedError, match="expired"):
        callers.named("ann")


# ── the worst case ──────────────────────────────────────────────────────────────────────────────


def call(body: bytes, operation: Operation = Operation.GENERATE, **weight: Any) -> tuple[Call, Raw]:
    raw = Raw("POST", "/x", PRICED, {}, body, Weight(**{"ceiling": 100, **weight}))
    return Call(operation, PRICED, (), raw=raw), raw


@pytest.mark.parametrize(
    ("body", "prompt"),
    [
        (b'{"contents":"hi"}', 100),
        (b'{"tools":[]}', 1_100),
        (b'{"fileData":{"fileUri":"files/x"}}', 5_000),
        (b'{"file_data":{"file_uri":"files/x"}}', 5_000),
        (b'{"cachedContent":"cachedContents/x"}', 5_000),
        (b'{"tools":[{"googleSearch":{}}]}', 5_000),
        (b'{"tools":[{"url_context":{}}]}', 5_000),
        (b'{"source":{"type":"url","url":"https://x"}}', 5_000),
        (b'{"image_url":{"url": "https://x"}}', 5_000),
        (b'{"inlineData":{"mimeType":"application/pdf"}}', 5_000),
        (b'{"inlineData":{"mimeType":"video/mp4"}}', 5_000),
        (b'{"responseMimeType":"application/json"}', 100),
        (b'{"type":"web_search_20250305"}', 5_000),
        (rb'{"\u0066ileUri":"files/x"}', 5_000),
        (rb'{"contents":"\u00e9 \u003c"}', 100),
    ],
)
def test_what_a_body_only_refers_to_may_fill_the_window(body: bytes, prompt: int) -> None:
    asked, raw = call(body)
    assert most_used(asked, raw, 5_000, None).prompt == prompt
    unknown = most_used(asked, raw, None, None).prompt
    assert unknown == (LARGEST_WINDOW if prompt == 5_000 else prompt)


def test_answers_are_as_long_as_they_may_be_and_as_many() -> None:
    for weight, longest, output in (
        ({"most_output": 50}, 9_000, 50),
        ({}, 9_000, 9_000),
        ({"answers": 3}, 9_000, 27_000),
        ({"answers": 3}, None, 3 * 65_536),
        ({"most_output": 150, "answers": 3}, 9_000, 150),
    ):
        assert most_used(*call(b"{}", **weight), None, longest).output == output
    assert most_used(*call(b"{}", Operation.EMBED), None, 9_000).output == 0


def test_candidates_are_counted_as_answers() -> None:
    def weigh(config: str) -> Weight:
        body = f'{{"contents":[],"generationConfig":{config}}}'.encode()
        return gemini_raw.weigh(Operation.GENERATE, body)

    four = weigh('{"candidateCount":4}')
    assert (four.answers, four.most_output) == (4, None)
    assert weigh('{"candidate_count":"2","maxOutputTokens":100}').most_output == 200
    assert weigh('{"maxOutputTokens":10,"max_output_tokens":500}').most_output == 500
    assert weigh('{"candidateCount":-1}').answers == weigh('{"candidateCount":"x"}').answers == 1
    assert openai_raw.survey(b'{"model":"m","n":3,"max_tokens":5}').weight.answers == 3


def test_to_keep_a_cache_is_billed_and_to_look_is_not() -> None:
    looked, raw = call(b"", Operation.LIST)
    assert not is_billed(looked, raw)
    for method, model, billed in (
        ("POST", "cachedContents", True),
        ("PATCH", "cachedContents/x", True),
        ("DELETE", "cachedContents/x", False),
        ("POST", "files", False),
    ):
        assert is_billed(looked, structs.replace(raw, method=method, model=model)) is billed


def test_the_dearest_way_to_use_a_prompt_is_what_counts(clock: VirtualClock) -> None:
    prices = DatedPrices(clock)
    asked, raw = call(b'{"cache_control":{"type":"ephemeral"}}', most_output=10, ceiling=1_000)
    most = prices.most("anthropic", "claude-sonnet-4-5", most_used(asked, raw, None, None))
    assert most is not None
    for usage in (
        Usage(1_000, 10),
        Usage(1_000, 10, cached=1_000),
        Usage(1_000, 10, cache_write=1_000),
        Usage(1_000, 4, 6, cache_write=1_000, cache_write_long=1_000),
    ):
        cost = prices.cost("anthropic", "claude-sonnet-4-5", usage)
        assert cost is not None
        assert 0 < cost <= most


def test_a_retired_models_calls_are_held_at_the_dearer_of_both_prices(clock: VirtualClock) -> None:
    """What is sent to the successor is billed at its price."""
    prices = DatedPrices(clock)
    usage = Usage(10**6, 10**6)
    retired, successor = "gemini-2.5-flash", prices.most("gemini", PRICED, usage)
    assert successor is not None
    asked = prices.cost("gemini", retired, usage)
    most = prices.most("gemini", retired, usage)
    assert most is not None
    assert asked is None or most >= asked
    assert prices.most("openai", "gpt-4.1", usage) is None
    window, longest = prices.bounds("gemini", PRICED)
    assert window is not None
    assert longest is not None
    assert window > longest > 1_000
    assert prices.bounds("openai", "gpt-4.1") == (None, None)
