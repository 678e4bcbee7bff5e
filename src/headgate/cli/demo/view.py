"""How the demo looks while it runs, and what it ends with."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from unicodedata import category

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from headgate.cli import screen
from headgate.cli.demo.books import Books
from headgate.cli.demo.watch import Happening, Watch
from headgate.cli.demo.world import MINUTE

__all__ = ["ending", "frame", "heading", "line_of", "progress_line"]

_EVENTS = 6
_HOUR = 3600.0
_SLACK = 24


def heading(total: int, keys: int, projects: int) -> str:
    """What is about to happen, in two lines."""
    return (
        f"{total} prompts through {keys} keys of {projects} projects, against an emulated Gemini\n"
        f"on this machine. A minute lasts {MINUTE:g} seconds here; nothing goes to Google."
    )


# ── while it runs ───────────────────────────────────────────────────────────────────────────────────


def frame(watch: Watch, metrics: dict[str, Any], total: int, width: int) -> RenderableType:
    """One picture: progress, keys, sums, what happened last. 18 lines of at most 80 columns."""
    # Nothing here pads its lines to the full width: see `_latest`.
    return Group(
        _progress(watch, total),
        Text(),
        keys_table(metrics),
        Text(),
        _sums(watch),
        Text(),
        *_events(watch),
        _latest(watch.latest, width),
    )


def _progress(watch: Watch, total: int) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(ratio=1)
    grid.add_column(no_wrap=True)
    bar = ProgressBar(
        total, watch.answered, complete_style=screen.ACCENT, finished_style=screen.GOOD, style="dim"
    )
    count = Text(f"{watch.answered:3}/{total} answered", style="bold")
    grid.add_row(bar, count.append(f"  {watch.elapsed():5.1f} s", style="not bold"))
    return grid


def keys_table(metrics: dict[str, Any]) -> Table:
    """Every key with its state and counts."""
    numbers = ("sent", "answered", "quota", "other")
    table = screen.table("key", "project", "state", *numbers, right=numbers)
    for column, width in zip(table.columns, (10, 8, 20, 5, 8, 6, 6), strict=True):
        column.width, column.no_wrap, column.overflow = width, True, "ellipsis"
    for key in metrics["keys"]:
        counts = key["metrics"]
        table.add_row(
            Text(key["name"]),
            Text(key["project"] or ""),
            _state(key, metrics["timestamp"]),
            str(counts["total_requests"]),
            _number(counts["successful_requests"], screen.GOOD),
            _number(counts["quota_errors"], screen.WARN),
            _number(counts["other_errors"], screen.BAD),
        )
    return table


def _state(key: dict[str, Any], now: str) -> Text:
    if key["status"] == "DISABLED":
        return Text("switched off", style=screen.BAD)
    if key["retry_after"] is None:
        return Text("ready", style=screen.GOOD)
    left = datetime.fromisoformat(key["retry_after"]) - datetime.fromisoformat(now)
    if left.total_seconds() > _HOUR:
        return Text("out until tomorrow", style=screen.BAD)
    return Text(f"cools down {left.total_seconds():2.0f} s", style=screen.WARN)


def _number(value: int, style: str) -> Text:
    return Text(str(value), style=style if value else screen.QUIET)


def _sums(watch: Watch) -> Text:
    sums = (
        ("rotations", watch.rotations),
        ("waits for quota", watch.waits),
        ("retries", watch.retries),
        ("tokens", watch.usage.total),
    )
    text = Text(no_wrap=True, overflow="ellipsis")
    for name, value in sums:
        text.append(f"{value:,}", style="bold").append(f" {name}    ")
    return text


def _events(watch: Watch) -> list[Text]:
    last = watch.happenings[-_EVENTS:]
    lines = [_line(line_of(one), screen.BAD if one.grave else "") for one in last]
    return lines + [Text()] * (_EVENTS - len(lines))


def line_of(one: Happening) -> str:
    """A happening as a line."""
    count = f"  ×{one.count}" if one.count > 1 else ""
    return f"{one.at:5.1f} s  {one.who:<8}  {one.what}{count}"


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _latest(text: str, width: int) -> Text:
    # Terminals disagree about how wide combining characters are. A line they make longer than it is
    # meant to be would wrap and leave its rest behind, so it keeps away from the edge.
    combining = any(category(character).startswith(("M", "Cf")) for character in text)
    line = _line(text, screen.QUIET)
    line.truncate(max(10, width - _SLACK if combining else width), overflow="ellipsis")
    return line


def progress_line(watch: Watch, total: int) -> str:
    """Progress where nothing can move: one line, now and then."""
    return (
        f"{watch.elapsed():5.1f} s  {watch.answered}/{total} answered; rotations {watch.rotations}, "
        f"waits {watch.waits}, retries {watch.retries}"
    )


# ── at the end ──────────────────────────────────────────────────────────────────────────────────────


def ending(watch: Watch, total: int, elapsed: float, status: str, books: Books) -> list[RenderableType]:
    """What it came to: the status summary, the cost, the books."""
    good = watch.answered == total
    first = Text(f"{watch.answered} of {total} prompts answered in {elapsed:.1f} s", style="bold")
    first.stylize(screen.GOOD if good else screen.BAD)
    if watch.failed:
        first.append(f", {len(watch.failed)} failed: {', '.join(sorted(set(watch.failed)))}")
    usage = watch.usage
    cost = Table.grid(padding=(0, 2, 0, 0))
    cost.add_row(
        "Time",
        f"{elapsed:.1f} s; waits for quota, side by side, add up to {watch.waited:.0f} s",
    )
    cost.add_row(
        "Tokens",
        f"{usage.prompt:,} in, {usage.output + usage.thoughts:,} out, {usage.total:,} in all",
    )
    cost.add_row(
        "Effort",
        f"requests {watch.attempts}, rotations {watch.rotations}, waits {watch.waits}, "
        f"retries {watch.retries}",
    )
    return [first, Text(), Text(status), Text(), cost, *_books(books)]


def _books(books: Books) -> list[RenderableType]:
    sides = Table.grid(padding=(0, 2, 0, 0))
    for name, row in (("Client's books", books.client), ("Emulator's books", books.upstream)):
        sides.add_row(
            name,
            f"{row.requests} requests, {row.answered} answered, {row.refused_for_quota} × 429",
        )
    if books.agree:
        verdict = [Text("They agree, key by key.", style=screen.GOOD)]
    else:
        verdict = [Text(line, style=screen.BAD) for line in ("They do not agree:", *books.differences)]
    return [Text(), sides, *verdict]
