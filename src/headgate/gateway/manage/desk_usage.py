"""Usage, costs and single calls, out of the usage ledger."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, TypeVar

from msgspec import Meta, Struct

from headgate.backend.accounts import UsageBy, UsageLine
from headgate.backend.usage_sums import group_of, line_of, regrouped
from headgate.core.usage import UsageFilter, UsageRow, UsageStore
from headgate.gateway.manage.house import House
from headgate.gateway.manage.pages import Page, Paged, place_in, written
from headgate.gateway.manage.table import Ask, Endpoint, NoQuery, endpoint
from headgate.gateway.manage.trouble import TroubleError
from headgate.gateway.manage.views import AttemptView, CallView, UsageView
from headgate.policy.call_story import AttemptStory, CallStory, story_of

__all__ = ["ENDPOINTS"]

T = TypeVar("T")

_NANO = 1e9
_MOST_ROWS = 1000
"""Of one call: far more attempts than any setting allows."""

_MOST_LINES = 2000
"""Of sums: four months of hours."""

Since = Annotated[datetime, Meta(tz=True, description="What ended from then on, with its offset.")]
Until = Annotated[datetime, Meta(tz=True, description="What ended before then.")]
Model = Annotated[str, Meta(description="Only this model.")]
Caller = Annotated[str, Meta(description="Only this caller.")]


class Sums(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is summed."""

    by: UsageBy = UsageBy.DAY
    model: Model | None = None
    caller: Caller | None = None
    since: Since | None = None
    until: Until | None = None


class Rows(Paged, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which rows."""

    model: Model | None = None
    caller: Caller | None = None
    since: Since | None = None
    until: Until | None = None


class SumsView(Struct, frozen=True):
    """Sums over periods, the oldest first, or over names, the dearest first."""

    by: UsageBy
    lines: list[UsageLine]


async def show_usage(house: House, ask: Ask[Sums, None]) -> SumsView:
    """What was used and what it cost."""
    query = ask.query
    chosen = _filter(query.since, query.until, query.model, query.caller)
    sums = await _asked(house, lambda store: store.sums(group_of(query.by), chosen))
    lines = [line_of(one, query.by) for one in regrouped(sums, query.by)]
    if len(lines) > _MOST_LINES:
        what = f"These are {len(lines)} lines, and at most {_MOST_LINES} are told at once."
        raise TroubleError("invalid", what, hint="Name since and until, or sum over longer periods.")
    return SumsView(query.by, lines)


async def list_calls(house: House, ask: Ask[Rows, None]) -> Page[UsageView]:
    """Rows of the ledger, the oldest first."""
    query = ask.query
    place = place_in(query.cursor)
    after: tuple[float, str, int] | None = None
    if place is not None:
        if len(place) != 3 or not isinstance(place[1], str) or isinstance(place[0] or 0, str):
            raise TroubleError("invalid", "cursor is not one that this list gave; begin without it.")
        after = (float(place[0]), place[1], int(place[2]))
    chosen = _filter(query.since, query.until, query.model, query.caller)
    rows = await _asked(house, lambda store: store.following(after, query.limit + 1, chosen))
    shown = rows[: query.limit]
    more = written(list(shown[-1].place)) if len(rows) > query.limit else None
    return Page([_row(house, row) for row in shown], more)


async def explain_call(house: House, ask: Ask[NoQuery, None]) -> CallView:
    """What happened to a call."""
    wanted = ask.path["request_id"]
    chosen = UsageFilter(request_id=wanted)
    story = story_of(await _asked(house, lambda store: store.following(None, _MOST_ROWS, chosen)))
    if story is None:
        raise TroubleError(
            "not-found",
            f"The ledger has nothing of request {wanted[:80]!r}.",
            hint="Rows are written within half a second after an attempt. What is refused at the door, "
            "for its key, path or size, leaves none.",
        )
    return _call(house, story)


# ── inside ──────────────────────────────────────────────────────────────────────────────────────


def _filter(
    since: datetime | None, until: datetime | None, model: str | None, caller: str | None
) -> UsageFilter:
    begin = 0.0 if since is None else since.timestamp()
    return UsageFilter(begin, None if until is None else until.timestamp(), model, caller)


async def _asked(house: House, question: Callable[[UsageStore], T]) -> T:
    """The ledger's answer. Raises `TroubleError` where none is kept, `StoreError` where it fails."""
    answer = None if house.usage is None else await house.usage.ask(question)
    if answer is None:
        raise TroubleError("no-ledger", "This gateway keeps no usage ledger, or it cannot be opened.")
    return answer


def _row(house: House, row: UsageRow) -> UsageView:
    return UsageView(
        request_id=row.request_id,
        attempt=row.attempt,
        at=house.instant(row.at),
        provider=row.provider,
        model=row.model,
        operation=row.operation,
        caller=row.caller,
        key=row.key_name,
        domain=row.domain,
        result=row.result,
        error=row.error,
        call=row.call,
        seconds=row.duration,
        input_tokens=row.input_tokens,
        cached_tokens=row.cached_tokens,
        output_tokens=row.output_tokens,
        reasoning_tokens=row.reasoning_tokens,
        cost=None if row.cost is None else row.cost / _NANO,
        estimated=row.estimated,
        from_cache=row.from_cache,
    )


def _call(house: House, story: CallStory) -> CallView:
    row, end = story.any, story.end
    cache = None
    if end is not None:
        cache = "hit" if end.from_cache else "miss" if end.looked_up else "off"
    return CallView(
        request_id=row.request_id,
        result=None if end is None else end.call,
        provider=row.provider,
        model=row.model,
        operation=row.operation,
        caller=row.caller,
        seconds=None if end is None else end.call_seconds,
        seconds_outside_attempts=story.outside,
        retries=None if end is None else end.retries,
        cache=cache,
        saved=None if end is None else end.saved / _NANO,
        cost=story.cost / _NANO,
        unpriced_attempts=story.unpriced,
        attempts=[_attempt(house, one) for one in story.attempts],
    )


def _attempt(house: House, one: AttemptStory) -> AttemptView:
    row = one.row
    return AttemptView(
        attempt=row.attempt,
        began_at=house.instant(one.began),
        seconds=row.duration,
        waited=one.waited,
        key=row.key_name,
        domain=row.domain,
        model=row.model,
        result=row.result,
        error=row.error,
        input_tokens=row.input_tokens,
        cached_tokens=row.cached_tokens,
        output_tokens=row.output_tokens,
        reasoning_tokens=row.reasoning_tokens,
        cost=None if row.cost is None else row.cost / _NANO,
        estimated=row.estimated,
    )


# ── the table ───────────────────────────────────────────────────────────────────────────────────

_AT = "2026-11-21T08:00:00.000000+00:00"
_LINE_SHOWN = {
    "name": "ann", "start": None, "total_requests": 120, "successful_requests": 118,
    "failed_requests": 2, "cancelled_requests": 0, "cached_requests": 4, "attempts": 123,
    "input_tokens": 48210, "cached_tokens": 0, "output_tokens": 9120, "reasoning_tokens": 0,
    "total_cost": 0.0371, "cached_cost": 0.0, "output_cost": 0.0227, "reasoning_cost": 0.0,
    "cached_savings": 0.0012, "unpriced_attempts": 0, "estimated_attempts": 1, "avg_latency_ms": 812.5,
}  # fmt: skip
_ROW_SHOWN = {
    "request_id": "5f0c1d9a2b3e4f60", "attempt": 1, "at": _AT, "provider": "gemini",
    "model": "gemini-3.8-flash", "operation": "generate", "caller": "ann", "key": "primary",
    "domain": "project-a", "result": "success", "error": "", "call": "success", "seconds": 0.81,
    "input_tokens": 402, "cached_tokens": 0, "output_tokens": 76, "reasoning_tokens": 0,
    "cost": 0.00031, "estimated": False, "from_cache": False,
}  # fmt: skip
_CALL_SHOWN = {
    "request_id": "5f0c1d9a2b3e4f60", "result": "success", "provider": "gemini",
    "model": "gemini-3.8-flash", "operation": "generate", "caller": "ann", "seconds": 0.83,
    "seconds_outside_attempts": 0.02, "retries": 0, "cache": "off", "saved": 0.0, "cost": 0.00031,
    "unpriced_attempts": 0,
    "attempts": [{
        "attempt": 1, "began_at": _AT, "seconds": 0.81, "waited": 0.02, "key": "primary",
        "domain": "project-a", "model": "gemini-3.8-flash", "result": "success", "error": "",
        "input_tokens": 402, "cached_tokens": 0, "output_tokens": 76, "reasoning_tokens": 0,
        "cost": 0.00031, "estimated": False,
    }],
}  # fmt: skip
_TAG = "usage"
_LEDGER = ("no-ledger", "store")

ENDPOINTS: tuple[Endpoint, ...] = (
    endpoint("GET", "/usage", show_usage, query=Sums, body=type(None), answer=SumsView, tag=_TAG,
             summary="What was used and what it cost", problems=_LEDGER,
             description="Sums over hours, days, weeks or months of UTC, or over models, callers, keys "
             "or providers; of all processes that share the ledger.",
             query_example={"by": "caller", "since": "2026-11-01T00:00:00Z"},
             answer_example={"by": "caller", "lines": [_LINE_SHOWN]}),
    endpoint("GET", "/calls", list_calls, query=Rows, body=type(None), answer=Page[UsageView], tag=_TAG,
             summary="Rows of the usage ledger, the oldest first", problems=_LEDGER,
             description="A row for each attempt; pages go on where the one before ended, so a program "
             "that keeps the cursor can follow the ledger.",
             query_example={"caller": "ann", "limit": 2},
             answer_example={"items": [_ROW_SHOWN], "next": None}),
    endpoint("GET", "/calls/{request_id}", explain_call, query=NoQuery, body=type(None),
             answer=CallView, tag=_TAG, summary="What happened to a call",
             description="Attempts, keys by name, waits, cache and cost of the call whose "
             "x-headgate-request-id this is: `headgate explain` over HTTP.",
             problems=_LEDGER, path_examples={"request_id": "5f0c1d9a2b3e4f60"},
             answer_example=_CALL_SHOWN),
)  # fmt: skip
