"""`headgate usage`: what was used, by whom, and what it cost, out of the usage ledger."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headgate.cli import screen
from headgate.cli.doors import AsJson, Verbose, guarded
from headgate.policy.redaction import one_line

if TYPE_CHECKING:
    from headgate.backend.accounts import UsageLine
    from headgate.core.usage import UsageStore
    from headgate.wiring.usage import UsagePlace

__all__ = ["money", "open_ledger", "usage"]

_DURATION = re.compile(r"(\d+)\s*(m|min|h|d|w)")
_SECONDS = {"m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Group(StrEnum):
    """What usage is summed over."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    MODEL = "model"
    CALLER = "caller"
    KEY = "key"
    PROVIDER = "provider"


# How far back, where nobody says: a screen of rows, or all there is.
_BACK = {
    Group.HOUR: 86_400,
    Group.DAY: 30 * 86_400,
    Group.WEEK: 182 * 86_400,
    Group.MONTH: 366 * 86_400,
}


def _instant(text: str | None) -> float | None:
    """A Unix second out of `7d`, a day, or an instant."""
    if text is None:
        return None
    from headgate.wiring.clock import SystemClock  # noqa: PLC0415 - `--help` need not wait for it

    found = _DURATION.fullmatch(text.strip().lower())
    if found:
        return SystemClock().wall() - int(found[1]) * _SECONDS[found[2]]
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is neither how long ago, such as 24h or 7d, nor a day or instant, such as "
            "2026-11-01 or 2026-11-01T08:00:00Z."
        ) from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


By = Annotated[
    Group, typer.Option("--by", metavar="WHAT", help="hour, day, week, month, model, caller …")
]
Model = Annotated[str | None, typer.Option("--model", metavar="NAME", help="Only this model.")]
Caller = Annotated[str | None, typer.Option("--caller", metavar="NAME", help="Only this caller.")]
Since = Annotated[
    str | None, typer.Option("--since", metavar="WHEN", help="How long ago, or a day: 24h, 2026-11-01.")
]
Until = Annotated[str | None, typer.Option("--until", metavar="WHEN", help="Up to then.")]


@guarded
def usage(
    by: By = Group.DAY,
    model: Model = None,
    caller: Caller = None,
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
    verbose: Verbose = False,  # noqa: ARG001 - `guarded` reads it
) -> None:
    """Show what was used and what it cost, from the usage ledger."""
    from headgate.backend.accounts import UsageBy  # noqa: PLC0415 - as above
    from headgate.backend.usage_sums import group_of, line_of, regrouped  # noqa: PLC0415
    from headgate.core.usage import UsageFilter  # noqa: PLC0415
    from headgate.wiring.clock import SystemClock  # noqa: PLC0415
    from headgate.wiring.usage import usage_place  # noqa: PLC0415

    begin, end = _instant(since), _instant(until)
    if begin is None:
        begin = max(0.0, SystemClock().wall() - _BACK[by]) if by in _BACK else 0.0
    place, group = usage_place(), UsageBy(by.value)
    chosen = UsageFilter(begin, end, None if model is None else _named(model), caller)
    store = open_ledger(place)
    lines: list[UsageLine] = []
    if store is not None:
        try:
            lines = [
                line_of(one, group) for one in regrouped(store.sums(group_of(group), chosen), group)
            ]
        finally:
            store.close()
    if as_json:
        screen.data_json(
            {"ledger": place.shown, "by": by.value, "lines": [_plain(one) for one in lines]}
        )
        return
    if lines:
        _show(lines, by)
    _say(place, lines, missing=store is None)


def open_ledger(place: UsagePlace) -> UsageStore | None:
    """The ledger; None where there is none yet, or none is kept. Raises `ConfigurationError`."""
    if place.opener is None:
        return None
    if "://" not in place.shown and not Path(place.shown).is_file():
        return None  # to look must not make one
    return place.opener()


def _named(model: str) -> str:
    from headgate.wiring.presets import gemini_registry  # noqa: PLC0415 - as above

    return gemini_registry().find(model.strip()).id


def _show(lines: Sequence[UsageLine], by: Group) -> None:
    from rich.text import Text  # noqa: PLC0415 - tables alone need it

    right = ("requests", "failed", "cached", "in", "out", "$", "seconds")
    table = screen.table(by.value, *right, right=right)
    table.columns[0].no_wrap = True
    costs = money([line.total_cost for line in lines])
    for line, cost in zip(lines, costs, strict=True):
        latency = line.avg_latency_ms
        cells = (
            one_line(line.name) or "–",
            f"{line.total_requests:,}",
            f"{line.failed_requests:,}" if line.failed_requests else "",
            f"{line.cached_requests:,}" if line.cached_requests else "",
            f"{line.input_tokens:,}",
            f"{line.output_tokens:,}",
            cost + ("+?" if line.unpriced_attempts else ""),
            "" if latency is None else f"{latency / 1000:.1f}",
        )
        table.add_row(*(Text(cell) for cell in cells))
    if len(lines) > 1:
        table.add_section()
        table.add_row(*(Text(cell, style="bold") for cell in _total(lines)))
    screen.show(table)


def _total(lines: Sequence[UsageLine]) -> tuple[str, ...]:
    unpriced = any(line.unpriced_attempts for line in lines)
    failed, cached = (
        sum(line.failed_requests for line in lines),
        sum(line.cached_requests for line in lines),
    )
    return (
        "all",
        f"{sum(line.total_requests for line in lines):,}",
        f"{failed:,}" if failed else "",
        f"{cached:,}" if cached else "",
        f"{sum(line.input_tokens for line in lines):,}",
        f"{sum(line.output_tokens for line in lines):,}",
        money([sum(line.total_cost for line in lines)])[0] + ("+?" if unpriced else ""),
        "",
    )


def money(dollars: Sequence[float]) -> list[str]:
    """Dollars of one column, with as many digits as their sum asks for."""
    whole = sum(dollars)
    digits = 2 if whole >= 100 else 4 if whole >= 0.1 else 6
    return [f"{one:,.{digits}f}" if one else "0" for one in dollars]


def _say(place: UsagePlace, lines: Sequence[UsageLine], *, missing: bool) -> None:
    if place.opener is None:
        screen.note(
            f"No usage ledger is kept ({place.origin}). Set HEADGATE_USAGE to a file or a Postgres URL."
        )
        return
    if missing:
        screen.note(f"There is no usage ledger at {place.shown} yet: it begins with the first call.")
        return
    said = f"From {place.shown}."
    if not lines:
        said = f"Nothing was used in that time, says {place.shown}."
    if any(line.unpriced_attempts for line in lines):
        said += " +? is what models without a known price cost."
    estimated = sum(line.estimated_attempts for line in lines)
    if estimated:
        said += (
            f" Tokens of {screen.count(estimated, 'attempt')} are estimates: the upstream did not tell."
        )
    screen.note(f"\n{said}" if lines else said, style=screen.QUIET)


def _plain(line: UsageLine) -> dict[str, object]:
    from msgspec import structs  # noqa: PLC0415 - as above

    told = structs.asdict(line)
    start = line.start
    return {**told, "start": None if start is None else start.isoformat(timespec="microseconds")}
