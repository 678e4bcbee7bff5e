"""`headgate explain`: what happened to one call, out of the usage ledger."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from headgate.cli import screen
from headgate.cli.doors import AsJson, Verbose, guarded, stop
from headgate.cli.exits import ExitCode
from headgate.cli.usage import money, open_ledger
from headgate.core.errors import ConfigurationError
from headgate.policy.redaction import one_line

if TYPE_CHECKING:
    from headgate.core.usage import UsageRow
    from headgate.policy.call_story import AttemptStory, CallStory
    from headgate.wiring.usage import UsagePlace

__all__ = ["explain"]

_MOST_ROWS = 1000
"""Of one call: far more attempts than any setting allows."""

_A_WAIT = 0.05
"""Seconds from which time between attempts is called a wait; below it is the path itself."""

_OVERLAP = -0.005
"""Seconds: rows are stamped when they are noted, so what followed at once may seem to be earlier."""

_NANO = 1e9
_GROUPS = {"gemini": "project", "anthropic": "organisation", "openai": "organisation"}

Id = Annotated[
    str,
    typer.Argument(metavar="REQUEST_ID", help="From x-headgate-request-id, an error, or the log."),
]


@guarded
def explain(
    request_id: Id,
    as_json: AsJson = False,
    verbose: Verbose = False,  # noqa: ARG001 - `guarded` reads it
) -> None:
    """Tell what happened to a call: attempts, keys by name, waits, cache, cost."""
    from headgate.policy.call_story import story_of  # noqa: PLC0415 - slow to import
    from headgate.wiring.usage import usage_place  # noqa: PLC0415 - likewise

    place, wanted = usage_place(), request_id.strip()
    if place.opener is None:
        raise ConfigurationError(
            f"No usage ledger is kept ({place.origin}), so nothing is known of any call. Set "
            "HEADGATE_USAGE to a file or a Postgres URL."
        )
    found = story_of(_rows(place, wanted))
    if found is None:
        screen.error(
            f"nothing is known of request {one_line(wanted)!r} in {place.shown}.",
            "Rows are written by the gateway and by a backend, within half a second after an attempt, "
            "and are dropped when they are old.",
            "What the gateway refuses at its door (an unknown key, path or method) leaves none.",
        )
        stop(ExitCode.USAGE)
    if as_json:
        screen.data_json(_plain(found, place))
        return
    _show(found)
    screen.note(f"\nFrom {place.shown}; times are UTC.", style=screen.QUIET)


def _rows(place: UsagePlace, request_id: str) -> list[UsageRow]:
    from headgate.core.usage import UsageFilter  # noqa: PLC0415 - slow to import

    store = open_ledger(place)
    if store is None:
        return []
    try:
        return store.following(None, _MOST_ROWS, UsageFilter(request_id=request_id))
    finally:
        store.close()


# ── for people ──────────────────────────────────────────────────────────────────────────────────────


def _show(story: CallStory) -> None:
    row = story.any
    screen.data(f"Request {one_line(row.request_id)} {_became(story)}")
    parts = [row.provider, one_line(row.model), row.operation]
    if row.caller:
        parts.append(f"caller {one_line(row.caller)}")
    parts.append(f"{datetime.fromtimestamp(row.at, UTC):%Y-%m-%d %H:%M:%S}")
    screen.data(f"  {', '.join(part for part in parts if part)}")
    for line in (_cache(story), _cost(story), _time(story)):
        if line:
            screen.data(f"  {line}")
    if story.attempts:
        screen.data()
        _show_attempts(story)


def _became(story: CallStory) -> str:
    end = story.end
    if end is None:
        return "has not ended, or its process was killed before it could say so."
    how = {"success": "was answered", "cancelled": "was given up by its caller"}.get(
        end.call, f"failed ({one_line(end.call)})"
    )
    if end.from_cache:
        how = "was answered with a kept reply"
    attempts = screen.count(len(story.attempts), "attempt") if story.attempts else "no attempt"
    retries = f", {screen.count(end.retries, 'retry')}" if end.retries == 1 else ""
    if end.retries > 1:
        retries = f", {end.retries} retries"
    return f"{how} after {_seconds(end.call_seconds)}: {attempts}{retries}."


def _cache(story: CallStory) -> str:
    end = story.end
    if end is None:
        return ""
    if end.from_cache:
        return f"cache: hit; it saved ${money([end.saved / _NANO])[0]}" if end.saved else "cache: hit"
    return "cache: asked, and nothing fitted" if end.looked_up else "cache: not asked"


def _cost(story: CallStory) -> str:
    if not story.attempts:
        return "cost: nothing"
    known = money([story.cost / _NANO])[0]
    said = f"${known}" if story.cost or not story.unpriced else "unknown"
    if story.unpriced and story.cost:
        said += " and what is unknown"
    tokens = f"{story.input_tokens:,} tokens in, {story.output_tokens:,} out"
    guessed = "; ~ are estimates" if any(one.row.estimated for one in story.attempts) else ""
    return f"cost: {said}, for {tokens}{guessed}"


def _time(story: CallStory) -> str:
    if story.outside is None or story.outside < _A_WAIT:
        return ""
    what = "waits for a key, a turn or a retry, which are not kept one by one"
    return f"outside of attempts: {_seconds(story.outside)} ({what})"


def _show_attempts(story: CallStory) -> None:
    from rich.text import Text  # noqa: PLC0415 - tables alone need it

    models = len({one.row.model for one in story.attempts}) > 1
    groups = any(one.row.domain != f"key:{one.row.key_name}" for one in story.attempts)
    right = ("#", "waited", "took", "in", "out", "$")
    names = ["#", "began", "waited", "key"]
    names += [_GROUPS.get(story.any.provider, "domain")] * groups
    names += ["model"] * models + ["took", "result", "in", "out", "$"]
    table = screen.table(*names, right=right)
    costs = money([(one.row.cost or 0) / _NANO for one in story.attempts])
    for one, cost in zip(story.attempts, costs, strict=True):
        row, sign = one.row, "~" if one.row.estimated else ""
        cells = [str(row.attempt), f"{datetime.fromtimestamp(one.began, UTC):%H:%M:%S}", _waited(one)]
        cells += [one_line(row.key_name)]
        cells += [one_line(row.domain)] * groups
        cells += [one_line(row.model)] * models
        cells += [_seconds(row.duration), _result(row)]
        cells += [f"{sign}{row.input_tokens:,}" if row.input_tokens else ""]
        cells += [f"{sign}{row.output_tokens:,}" if row.output_tokens else ""]
        cells += ["?" if row.cost is None else cost]
        table.add_row(*(Text(cell) for cell in cells))
    screen.show(table)


def _waited(one: AttemptStory) -> str:
    if one.waited is None:
        return ""
    if one.waited < _OVERLAP:
        return "beside"
    return _seconds(one.waited) if one.waited >= _A_WAIT else ""


def _result(row: UsageRow) -> str:
    if not row.error or row.error == row.result:
        return one_line(row.result)
    return f"{one_line(row.result)}: {one_line(row.error)}"


def _seconds(seconds: float) -> str:
    return f"{seconds:,.2f} s" if seconds < 10 else f"{seconds:,.1f} s"


# ── for programs ────────────────────────────────────────────────────────────────────────────────────


def _plain(story: CallStory, place: UsagePlace) -> dict[str, object]:
    row, end = story.any, story.end
    cache = None
    if end is not None:
        cache = "hit" if end.from_cache else "miss" if end.looked_up else "off"
    return {
        "request_id": row.request_id,
        "ledger": place.shown,
        "result": None if end is None else end.call,
        "provider": row.provider,
        "model": row.model,
        "operation": row.operation,
        "caller": row.caller,
        "seconds": None if end is None else end.call_seconds,
        "seconds_outside_attempts": story.outside,
        "retries": None if end is None else end.retries,
        "cache": cache,
        "saved": None if end is None else end.saved / _NANO,
        "cost": story.cost / _NANO,
        "unpriced_attempts": story.unpriced,
        "attempts": [_plain_attempt(one) for one in story.attempts],
    }


def _plain_attempt(one: AttemptStory) -> dict[str, object]:
    row = one.row
    return {
        "attempt": row.attempt,
        "began": datetime.fromtimestamp(one.began, UTC).isoformat(timespec="microseconds"),
        "seconds": row.duration,
        "waited": one.waited,
        "key_name": row.key_name,
        "domain": row.domain,
        "model": row.model,
        "result": row.result,
        "error": row.error,
        "input_tokens": row.input_tokens,
        "cached_tokens": row.cached_tokens,
        "output_tokens": row.output_tokens,
        "reasoning_tokens": row.reasoning_tokens,
        "cost": None if row.cost is None else row.cost / _NANO,
        "estimated": row.estimated,
    }
