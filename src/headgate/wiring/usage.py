"""The usage ledger: where it is, who opens it, and what the tokens in it cost."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import cast

from headgate.core.errors import ConfigurationError
from headgate.core.tokens import Usage
from headgate.core.usage import UsageStore
from headgate.policy.nano_prices import NanoCost, NanoPrices, nano_cost
from headgate.policy.price_list import Cost, PriceList
from headgate.policy.prices import Tokens
from headgate.stores.usage_sqlite import SqliteUsage
from headgate.stores.usage_url import UsageUrl, UsageWhere
from headgate.telemetry.usage_rows import CostOf
from headgate.wiring.prices import anthropic_prices
from headgate.wiring.settings import process_environment, resolve_alone

__all__ = ["FILE", "UsagePlace", "costs_of", "usage_place"]

FILE = "usage.sqlite3"
"""Name of the ledger's file where nobody names one."""


@dataclass(frozen=True, slots=True)
class UsagePlace:
    """Where the usage ledger of this process is.

    Attributes:
        shown: the file or URL, without a password; `off` where nothing is kept.
        origin: the argument, variable or file that says so.
        required: somebody asked for it: then a ledger that cannot be opened is an error.
        opener: opens it, and blocks; None where nothing is kept.
    """

    shown: str
    origin: str
    required: bool
    opener: Callable[[], UsageStore] | None


def usage_place(argument: str | None = None, environ: Mapping[str, str] | None = None) -> UsagePlace:
    """Where the usage ledger is. Opens nothing. Raises `ConfigurationError`.

    Args:
        argument: as `HEADGATE_USAGE` would say it; None: environment and file decide.
        environ: instead of the process environment.
    """
    found = resolve_alone("usage", argument, environ)
    url = cast("UsageUrl", found.value)
    if url.where is UsageWhere.OFF:
        return UsagePlace("off", found.origin, False, None)
    if url.where is UsageWhere.POSTGRES:
        return UsagePlace(url.shown, found.origin, True, lambda: _postgres(url.written))
    if url.where is UsageWhere.SQLITE:
        return UsagePlace(url.shown, found.origin, True, lambda: SqliteUsage(url.written))
    folder = _state_folder(process_environment(environ))
    if folder is None:
        return UsagePlace("off", "no home directory", False, None)
    path = folder / "headgate" / FILE
    return UsagePlace(str(path), found.origin, False, lambda: _in_own_folder(path))


def costs_of(gemini: Callable[[], PriceList]) -> CostOf:
    """What tokens cost, by provider. A model without a price of its own costs nobody knows.

    Args:
        gemini: the prices of Gemini models at the moment.
    """
    known: list[NanoPrices] = []

    def cost(provider: str, model: str, usage: Usage, day: date) -> NanoCost | None:
        if provider == "gemini":
            prices = gemini()
            if not known or known[0].prices is not prices:
                known[:] = [NanoPrices(prices)]
            return known[0].cost(model, usage, day)
        return _claude(model, usage) if provider == "anthropic" else None

    return cost


def _claude(model: str, usage: Usage) -> NanoCost | None:
    price, own = anthropic_prices().price(model)
    if not own:
        return None
    short = usage.cache_write - usage.cache_write_long
    fresh = usage.prompt - usage.cached - usage.cache_write + usage.tool_prompt
    return nano_cost(
        Cost(
            input=price.cost(Tokens(fresh, 0, 0, short, usage.cache_write_long)),
            cached=price.cost(Tokens(cache_read=usage.cached)),
            output=price.cost(Tokens(completion=usage.output)),
            reasoning=price.cost(Tokens(completion=usage.thoughts)),
        )
    )


def _postgres(url: str) -> UsageStore:
    from headgate.stores.usage_postgres import PostgresUsage  # noqa: PLC0415 - an extra

    return PostgresUsage(url)


def _in_own_folder(path: Path) -> UsageStore:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"The folder {path.parent} of the usage ledger cannot be made ({type(error).__name__}). "
            "Set HEADGATE_USAGE to a file that may be written, or to off."
        ) from None
    return SqliteUsage(path)


def _state_folder(environ: Mapping[str, str]) -> Path | None:
    """Where this system keeps the state of a user's programs; None where there is no such user.

    On Linux as the XDG Base Directory Specification 0.8 says.
    """
    if sys.platform == "win32":
        local = environ.get("LOCALAPPDATA", "")
        return Path(local) if local else None
    given = environ.get("XDG_STATE_HOME", "")
    if given.startswith("/"):
        return Path(given)
    home = environ.get("HOME", "")
    if not home.startswith("/"):
        return None
    if sys.platform == "darwin":
        return Path(home) / "Library" / "Application Support"
    return Path(home) / ".local" / "state"
