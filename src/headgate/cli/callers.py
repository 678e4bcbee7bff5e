"""`headgate callers`: who may call the gateway, made, shown, changed and ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from headgate.cli import screen
from headgate.cli.caller_options import (
    BudgetOf,
    Concurrent,
    Expires,
    Grace,
    Models,
    PriorityOf,
    Rpd,
    Rpm,
    Surfaces,
    Tags,
    Tpm,
    WindowOf,
    Words,
    duration,
)
from headgate.cli.doors import AsJson, Verbose, between, guarded
from headgate.core.errors import ConfigurationError
from headgate.policy.redaction import one_line

if TYPE_CHECKING:
    from headgate.core.callers import Caller
    from headgate.gateway.caller_book import CallerBook, CallerUsage, IssuedKey

__all__ = ["create", "list_callers", "revoke", "rotate", "set_limits", "show"]

T = TypeVar("T")

NO_FILE = (
    "HEADGATE_CALLERS names no file, so there are no callers that come and go. Set it to a path, such "
    "as sqlite:///var/lib/headgate/callers.db, here and where the gateway runs."
)

_PER = {"day": "a day", "month": "a month", "total": "in total"}

Name = Annotated[str, typer.Argument(metavar="NAME", help="The caller's name, or its id.")]
NewName = Annotated[str, typer.Argument(metavar="NAME", help="What logs and usage call it.")]
Limit = Annotated[
    int, typer.Option("--limit", metavar="N", callback=between(1, 10_000), help="Callers at the most.")
]


@guarded
def create(
    name: NewName,
    *,
    rpm: Rpm = None,
    tpm: Tpm = None,
    rpd: Rpd = None,
    concurrent: Concurrent = None,
    budget: BudgetOf = None,
    window: WindowOf = None,
    models: Models = None,
    surfaces: Surfaces = None,
    priority: PriorityOf = None,
    expires: Expires = None,
    tags: Tags = None,
    as_json: AsJson = False,
    verbose: Verbose = False,  # noqa: ARG001 - `guarded` reads it
) -> None:
    """Make a caller, and show its key: this once."""
    words = Words(
        rpm, tpm, rpd, concurrent, budget, window, models, surfaces, priority, expires, tags
    )  # fmt: skip
    _issue(lambda book: book.create(words.spec(name, _now())), as_json=as_json)


@guarded
def set_limits(
    name: Name,
    *,
    rpm: Rpm = None,
    tpm: Tpm = None,
    rpd: Rpd = None,
    concurrent: Concurrent = None,
    budget: BudgetOf = None,
    window: WindowOf = None,
    models: Models = None,
    surfaces: Surfaces = None,
    priority: PriorityOf = None,
    expires: Expires = None,
    tags: Tags = None,
    as_json: AsJson = False,
    verbose: Verbose = False,  # noqa: ARG001 - `guarded` reads it
) -> None:
    """Change what a caller may. What is not named stays."""
    words = Words(
        rpm, tpm, rpd, concurrent, budget, window, models, surfaces, priority, expires, tags
    )  # fmt: skip

    async def work(book: CallerBook) -> Caller:
        caller = await book.get(name)
        return await book.update(caller.id, words.change(caller, _now()), version=caller.version)

    _tell(_asked(work), as_json=as_json)


@guarded
def list_callers(
    limit: Limit = 500,
    as_json: AsJson = False,
    verbose: Verbose = False,  # noqa: ARG001 - `guarded` reads it
) -> None:
    """List callers by name."""

    async def work(book: CallerBook) -> tuple[list[Caller], tuple[str, ...]]:
        found: list[Caller] = []
        after: str | None = ""
        while after is not None and len(found) < limit:
            page = await book.page(after=after, limit=min(500, limit - len(found)))
            found += page.callers
            after = page.following
        return found, book.fixed

    found, fixed = _asked(work)
    if as_json:
        screen.data_json({"callers": [_shape(one) for one in found], "fixed": list(fixed)})
        return
    if found:
        _table(found)
    if fixed:
        screen.note(f"HEADGATE_CALLER_KEYS has besides: {', '.join(fixed)}.")
    if not found:
        screen.note("There is no caller yet: `headgate callers create NAME` makes one.")


@guarded
def show(
    name: Name,
    as_json: AsJson = False,
    verbose: Verbose = False,  # noqa: ARG001 - `guarded` reads it
) -> None:
    """Show a caller, and what it used so far."""

    async def work(book: CallerBook) -> tuple[Caller, CallerUsage]:
        return await book.get(name), await book.usage(name)

    caller, usage = _asked(work)
    if as_json:
        from headgate.gateway.caller_shapes import shown_usage  # noqa: PLC0415 - as below

        screen.data_json({**_shape(caller), "usage": shown_usage(usage)})
        return
    _table([caller])
    _say_usage(usage)


@guarded
def rotate(
    name: Name,
    grace: Grace = "24h",
    as_json: AsJson = False,
    verbose: Verbose = False,  # noqa: ARG001 - `guarded` reads it
) -> None:
    """Give a caller another key, and show it: this once. The one before goes on for a while."""
    seconds = duration(grace)
    _issue(lambda book: book.rotate(name, grace_seconds=seconds), as_json=as_json)


@guarded
def revoke(
    name: Name,
    as_json: AsJson = False,
    verbose: Verbose = False,  # noqa: ARG001 - `guarded` reads it
) -> None:
    """End a caller with all its keys, for good."""
    caller = _asked(lambda book: book.revoke(name))
    if as_json:
        screen.data_json(_shape(caller))
        return
    screen.note(f"{caller.name} may not call any more, from the next second on.")


# ── asking ──────────────────────────────────────────────────────────────────────────────────────


def _asked(work: Callable[[CallerBook], Awaitable[T]]) -> T:
    """What the book says. Raises `ConfigurationError` where there is none."""
    from headgate.gateway.caller_opening import open_book  # noqa: PLC0415 - `--help` need not wait
    from headgate.wiring.clock import SystemClock  # noqa: PLC0415
    from headgate.wiring.gateway_settings import load_gateway  # noqa: PLC0415

    opened = open_book(load_gateway(), SystemClock())
    if opened is None:
        raise ConfigurationError(NO_FILE)
    book, store = opened

    async def run() -> T:
        return await work(book)

    try:
        return asyncio.run(run())
    finally:
        store.close()


def _now() -> float:
    from headgate.wiring.clock import SystemClock  # noqa: PLC0415 - as above

    return SystemClock().wall()


def _issue(work: Callable[[CallerBook], Awaitable[IssuedKey]], *, as_json: bool) -> None:
    caller, key = _asked(work)
    if as_json:
        screen.data_json({**_shape(caller), "key": str(key)})
        return
    screen.data(key)
    screen.note(
        f"This is the key of {caller.name}. It is shown this once: the book keeps its hash only."
    )


def _tell(caller: Caller, *, as_json: bool) -> None:
    if as_json:
        screen.data_json(_shape(caller))
        return
    _table([caller])


def _shape(caller: Caller) -> dict[str, object]:
    from headgate.gateway.caller_shapes import shown  # noqa: PLC0415 - as above

    return shown(caller, _now())


# ── showing ─────────────────────────────────────────────────────────────────────────────────────


def _table(callers: list[Caller]) -> None:
    from rich.text import Text  # noqa: PLC0415 - `--json` does without it

    from headgate.policy.budget import dollars  # noqa: PLC0415

    now = _now()
    numbers = ("rpm", "tpm", "rpd", "at once")
    table = screen.table("caller", "state", "key", *numbers, "budget", "may use", right=numbers)
    table.columns[0].no_wrap = True
    for caller in callers:
        state = str(_shape(caller)["state"])
        limits = caller.limits
        amounts = (
            limits.requests_per_minute, limits.tokens_per_minute, limits.requests_per_day,
            limits.concurrent,
        )  # fmt: skip
        endings = [key.ending for key in caller.keys if key.until is None or key.until > now]
        budget = caller.budget
        cells = (
            Text(one_line(caller.name)),
            Text(state, style=screen.GOOD if state == "active" else screen.BAD),
            Text(", ".join(f"…{ending}" for ending in endings)),
            *(Text(_amount(amount)) for amount in amounts),
            Text("" if budget is None else f"${dollars(budget.amount):,.2f} {_PER[budget.window]}"),
            Text(", ".join((*caller.surfaces, *caller.models)) or "all"),
        )
        table.add_row(*cells)
    screen.show(table)


def _amount(limit: int | None) -> str:
    """A limit, `none` where it is lifted, a dash where the gateway's own counts."""
    if limit is None:
        return "–"
    return f"{limit:,}" if limit else "none"


def _say_usage(usage: CallerUsage) -> None:
    from headgate.policy.budget import dollars  # noqa: PLC0415 - as above

    said = []
    if usage.amount is not None:
        spending = usage.spending
        calls = screen.count(spending.under_way, "call")
        said.append(
            f"Of ${dollars(usage.amount):,.2f} ({usage.window}) ${dollars(spending.spent):,.6f} is "
            f"spent and ${dollars(spending.held):,.6f} held for {calls} under way; "
            f"${dollars(usage.left or 0):,.6f} is left."
        )
        if spending.unpriced:
            said.append(f"What {screen.count(spending.unpriced, 'call')} cost nobody knows.")
    if usage.sums is not None:
        sums = usage.sums
        said.append(
            f"The usage ledger has {screen.count(sums.requests, 'request')} of this {usage.window}, "
            f"{sums.input_tokens:,} tokens in, {sums.output_tokens:,} out, ${dollars(sums.cost):,.6f}."
        )
    screen.note("\n".join(said) or "Nothing was used so far.", style=screen.QUIET)
