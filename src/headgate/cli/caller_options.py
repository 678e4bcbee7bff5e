"""What `headgate callers` can be told about a caller, and what it makes of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

if TYPE_CHECKING:
    from headgate.core.call import Priority
    from headgate.core.callers import Budget, BudgetWindow, Caller, CallerLimits
    from headgate.gateway.caller_book import CallerChange, CallerSpec

__all__ = [
    "BudgetOf",
    "Concurrent",
    "Expires",
    "Grace",
    "Models",
    "PriorityOf",
    "Rpd",
    "Rpm",
    "Surfaces",
    "Tags",
    "Tpm",
    "WindowOf",
    "Words",
    "duration",
]

_DURATION = re.compile(r"(\d+)\s*(s|m|min|h|d|w)")
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}

Rpm = Annotated[
    str | None,
    typer.Option("--rpm", metavar="N", help="Requests a minute; `none`, or `default`: the gateway's."),
]
Tpm = Annotated[str | None, typer.Option("--tpm", metavar="N", help="Tokens a minute, likewise.")]
Rpd = Annotated[str | None, typer.Option("--rpd", metavar="N", help="Requests a day, likewise.")]
Concurrent = Annotated[
    str | None, typer.Option("--concurrent", metavar="N", help="Calls at a time, likewise.")
]
BudgetOf = Annotated[
    str | None, typer.Option("--budget", metavar="DOLLARS", help="What it may spend, or `none`.")
]
WindowOf = Annotated[
    str | None, typer.Option("--window", metavar="WHAT", help="Of the budget: day, month, total.")
]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="GLOB", help="A model it may use; again for more; `all`."),
]
Surfaces = Annotated[
    list[str] | None,
    typer.Option("--surface", metavar="NAME", help="gemini, anthropic, openai; again for more; `all`."),
]
PriorityOf = Annotated[
    str | None,
    typer.Option("--priority", metavar="WHAT", help="The most urgent its calls may be; `none`: any."),
]
Expires = Annotated[
    str | None,
    typer.Option("--expires", metavar="WHEN", help="In how long, or when: 30d, 2027-01-01; `never`."),
]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", metavar="NAME=VALUE", help="A word of yours; `none`.")
]
Grace = Annotated[
    str, typer.Option("--grace", metavar="TIME", help="How long the key before goes on: 0s, 24h, 7d.")
]


def duration(text: str) -> float:
    """Seconds out of `90s` or `7d`. Raises `typer.BadParameter`."""
    found = _DURATION.fullmatch(text.strip().lower())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no time, such as 90s, 24h or 7d.")
    return float(int(found[1]) * _SECONDS[found[2]])


class Words(NamedTuple):
    """The options of a command, as they were typed; None: not at all."""

    rpm: str | None
    tpm: str | None
    rpd: str | None
    concurrent: str | None
    budget: str | None
    window: str | None
    models: list[str] | None
    surfaces: list[str] | None
    priority: str | None
    expires: str | None
    tags: list[str] | None

    def spec(self, name: str, now: float) -> CallerSpec:
        """A caller as they describe it. Raises `typer.BadParameter`."""
        from headgate.core.callers import CallerLimits  # noqa: PLC0415 - `--help` need not wait for it
        from headgate.gateway.caller_book import CallerSpec  # noqa: PLC0415

        return CallerSpec(
            name,
            expires=self._expires(now),
            priority=self._priority(),
            limits=self._limits(CallerLimits()),
            budget=self._budget(None),
            models=_listed(self.models) or (),
            surfaces=_listed(self.surfaces) or (),
            tags=self._tags() or {},
        )

    def change(self, caller: Caller, now: float) -> CallerChange:
        """What they change of a caller. Raises `typer.BadParameter`."""
        from msgspec import UNSET  # noqa: PLC0415 - as above

        from headgate.gateway.caller_book import CallerChange  # noqa: PLC0415

        models, surfaces, tags = _listed(self.models), _listed(self.surfaces), self._tags()
        if self.budget is None and self.window is not None and caller.budget is None:
            raise typer.BadParameter("--window is of a budget, and the caller has none: give --budget.")
        return CallerChange(
            expires=UNSET if self.expires is None else self._expires(now),
            priority=UNSET if self.priority is None else self._priority(),
            limits=self._limits(caller.limits),
            budget=UNSET if self.budget is self.window is None else self._budget(caller.budget),
            models=UNSET if models is None else models,
            surfaces=UNSET if surfaces is None else surfaces,
            tags=UNSET if tags is None else tags,
        )

    # ── one by one ──────────────────────────────────────────────────────────────────────────────

    def _limits(self, before: CallerLimits) -> CallerLimits:
        from msgspec import structs  # noqa: PLC0415 - as above

        typed = {
            "requests_per_minute": ("--rpm", self.rpm),
            "tokens_per_minute": ("--tpm", self.tpm),
            "requests_per_day": ("--rpd", self.rpd),
            "concurrent": ("--concurrent", self.concurrent),
        }
        given = {
            name: _limit(option, text) for name, (option, text) in typed.items() if text is not None
        }
        return structs.replace(before, **given)

    def _budget(self, before: Budget | None) -> Budget | None:
        from headgate.core.callers import Budget, BudgetWindow  # noqa: PLC0415 - as above

        window = BudgetWindow.MONTH if before is None else before.window
        if self.window is not None:
            window = _window(self.window)
        if self.budget is None:
            return None if before is None else Budget(before.amount, window)
        if self.budget.strip().lower() == "none":
            return None
        return Budget(_money(self.budget), window)

    def _priority(self) -> Priority | None:
        from headgate.core.call import Priority  # noqa: PLC0415 - as above

        word = (self.priority or "none").strip().lower()
        if word == "none":
            return None
        try:
            return Priority(word)
        except ValueError:
            raise typer.BadParameter(f"--priority takes {', '.join(Priority)} or none.") from None

    def _expires(self, now: float) -> float | None:
        text = (self.expires or "never").strip()
        if text.lower() == "never":
            return None
        if _DURATION.fullmatch(text.lower()):
            return now + duration(text)
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            raise typer.BadParameter(
                "--expires takes how long, such as 30d, a day or instant, such as 2027-01-01 or "
                "2027-01-01T08:00:00Z, or never."
            ) from None
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()

    def _tags(self) -> dict[str, str] | None:
        if self.tags is None:
            return None
        found = {}
        for text in self.tags:
            name, sign, value = text.partition("=")
            if text.strip().lower() == "none":
                continue
            if not sign:
                raise typer.BadParameter(f"--tag takes NAME=VALUE; got {text!r}.")
            found[name.strip()] = value.strip()
        return found


def _limit(option: str, text: str) -> int | None:
    word = text.strip().lower()
    if word == "default":
        return None
    if word == "none":
        return 0
    if not word.isdecimal() or int(word) < 1:
        raise typer.BadParameter(f"{option} takes a whole number from 1 on, none or default.")
    return int(word)


def _money(text: str) -> int:
    from headgate.policy.budget import nano  # noqa: PLC0415 - as above

    try:
        return nano(float(text.strip().lstrip("$").replace(",", "")))
    except ValueError as error:
        what = str(error) if "dollars" in str(error) else "an amount in dollars, such as 25 or 0.50"
        raise typer.BadParameter(f"--budget takes {what}, or none.") from None


def _window(text: str) -> BudgetWindow:
    from headgate.core.callers import BudgetWindow  # noqa: PLC0415 - as above

    try:
        return BudgetWindow(text.strip().lower())
    except ValueError:
        raise typer.BadParameter(f"--window takes {', '.join(BudgetWindow)}.") from None


def _listed(given: list[str] | None) -> tuple[str, ...] | None:
    """What was named; `all` is no restriction."""
    if given is None:
        return None
    found = [part.strip() for text in given for part in text.split(",")]
    return tuple(dict.fromkeys(part for part in found if part and part.lower() != "all"))
