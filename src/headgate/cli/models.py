"""`headgate models`: what models there are, what is known of one, which suits, and which answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from headgate.cli import screen
from headgate.cli.doors import AsJson, Verbose, between, guarded, stop
from headgate.cli.exits import ExitCode
from headgate.policy.redaction import one_line

if TYPE_CHECKING:
    from rich.table import Table

    from headgate.backend import GeminiBackend, ModelMetadata, ModelRecommendation, ModelSources

__all__ = ["check", "info", "list_models", "recommend"]

T = TypeVar("T")

Offline = Annotated[
    bool, typer.Option("--offline", metavar="", help="Use what the package knows; ask nobody.")
]
All = Annotated[bool, typer.Option("--all", metavar="", help="Also those that were shut down.")]
Prices = Annotated[
    bool, typer.Option("--refresh-prices", metavar="", help="Read newer public prices first.")
]
Name = Annotated[str, typer.Argument(metavar="MODEL", help="A name or an alias.", show_default=False)]
Names = Annotated[
    list[str], typer.Argument(metavar="MODEL", help="Names or aliases.", show_default=False)
]
UseCase = Annotated[
    list[str],
    typer.Argument(metavar="USE-CASE", help="What the model is for, in words.", show_default=False),
]
Needs = Annotated[
    list[str] | None,
    typer.Option("--needs", metavar="WORD", help="A capability, such as image; repeatable."),
]
Budget = Annotated[
    float | None,
    typer.Option("--budget", metavar="DOLLARS", callback=between(0.0), help="Most a call may cost."),
]
TokensIn = Annotated[
    int, typer.Option("--input-tokens", metavar="N", callback=between(0), help="Of a typical call.")
]
TokensOut = Annotated[
    int, typer.Option("--output-tokens", metavar="N", callback=between(0), help="Of a typical call.")
]
Probe = Annotated[
    bool,
    typer.Option("--probe", metavar="", help="Also generate a token: it costs quota and money."),
]


@guarded
def list_models(
    everything: All = False,
    offline: Offline = False,
    refresh_prices: Prices = False,
    as_json: AsJson = False,
    verbose: Verbose = False,  # noqa: ARG001 - `guarded` reads it
) -> None:
    """List the models, the newest first, with limits and prices."""

    async def ask(backend: GeminiBackend) -> tuple[list[ModelMetadata], ModelSources]:
        if refresh_prices:
            await backend.refresh_gemini_prices()
        return await backend.list_gemini_models(), backend.get_gemini_model_sources()

    found, sources = _asked(ask, offline=offline)
    today = _today()
    shown = [card for card in found if everything or not card.dead(today)]
    if as_json:
        screen.data_json({"sources": _plain(sources), "models": [_plain(card) for card in shown]})
        return
    right = ("in", "out", "$ in", "$ out")
    table = screen.table("model", "released", *right, "", right=right)
    table.columns[0].no_wrap = True  # names are copied
    for card in shown:
        price = card.pricing
        _add(
            table,
            card.id,
            _day(card.release_date),
            _short(card.capabilities.max_input_tokens),
            _short(card.capabilities.max_output_tokens),
            _dollars(price.input_per_million),
            _dollars(price.output_per_million),
            _remark(card, today),
        )
    screen.show(table)
    hidden = len(found) - len(shown)
    _tell_sources(sources, f" {screen.count(hidden, 'model')} shut down: see --all." * bool(hidden))


@guarded
def info(
    model: Name,
    offline: Offline = False,
    as_json: AsJson = False,
    verbose: Verbose = False,  # noqa: ARG001 - `guarded` reads it
) -> None:
    """Show all that is known of a model, and who told it."""

    async def ask(backend: GeminiBackend) -> tuple[ModelMetadata, ModelSources]:
        return await backend.get_gemini_model_info(model), backend.get_gemini_model_sources()

    card, sources = _asked(ask, offline=offline)
    if as_json:
        screen.data_json({"sources": _plain(sources), "model": _plain(card)})
        return
    table = screen.table("", "told by", "")
    for name, value, field in _facts(card):
        _add(table, name, _by(card, field), value)
    screen.show(table)
    _tell_sources(sources)


@guarded
def recommend(
    use_case: UseCase,
    needs: Needs = None,
    budget: Budget = None,
    input_tokens: TokensIn = 1000,
    output_tokens: TokensOut = 500,
    offline: Offline = False,
    as_json: AsJson = False,
    verbose: Verbose = False,  # noqa: ARG001 - `guarded` reads it
) -> None:
    """Say which models suit a use case, and why."""

    async def ask(backend: GeminiBackend) -> tuple[list[ModelRecommendation], list[ModelMetadata]]:
        suited = await backend.recommend_gemini_model(
            " ".join(use_case),
            budget=budget,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            needs=needs or (),
        )
        return suited, await backend.list_gemini_models()

    found, cards = _asked(ask, offline=offline)
    if as_json:
        screen.data_json([_plain_recommendation(one) for one in found])
    elif found:
        table = screen.table("model", "score", "reasons", right=("score",))
        for one in found:
            _add(table, one.id, f"{one.score:.2f}", "; ".join(one.reasons))
        screen.show(table)
    if not found:
        words = sorted({case for card in cards for case in card.recommended_use_cases})
        screen.error(
            "no living model is known for that, within these limits.",
            f"Use cases that are known: {', '.join(words)}.",
        )
        stop(ExitCode.REFUSED)


@guarded
def check(
    models: Names,
    probe: Probe = False,
    as_json: AsJson = False,
    verbose: Verbose = False,  # noqa: ARG001 - `guarded` reads it
) -> None:
    """Ask the upstream whether it has these models for your keys; uses no quota without --probe."""

    async def ask(backend: GeminiBackend) -> list[tuple[str, bool, str]]:
        return [await _verdict(backend, name, probe=probe) for name in models]

    found = _asked(ask)
    if as_json:
        screen.data_json(
            [{"model": name, "available": valid, "remark": said or None} for name, valid, said in found]
        )
    else:
        _show_verdicts(found)
    if not all(valid for _, valid, _ in found):
        stop(ExitCode.REFUSED)


async def _verdict(backend: GeminiBackend, name: str, *, probe: bool) -> tuple[str, bool, str]:
    from headgate.backend import ModelNotFoundError  # noqa: PLC0415 - `--help` need not wait for it

    valid = await backend.validate_gemini_model(name, probe=probe)
    try:
        card = backend.get_gemini_model_entry(name).metadata
    except ModelNotFoundError as unknown:
        near = f"did you mean {' or '.join(unknown.near)}?" if unknown.near else ""
        return name, valid, "" if valid else near
    said = _remark(card, _today())
    return name, valid, said if card.id == name else f"means {card.id}" + (f"; {said}" if said else "")


def _show_verdicts(found: Sequence[tuple[str, bool, str]]) -> None:
    from rich.text import Text  # noqa: PLC0415 - tables alone need it

    table = screen.table("model", "check", "remark")
    for name, valid, said in found:
        verdict = Text("ok", style=screen.GOOD) if valid else Text("not there", style=screen.BAD)
        table.add_row(Text(one_line(name)), verdict, Text(one_line(said)))
    screen.show(table)


# ── asking ──────────────────────────────────────────────────────────────────────────────────────


def _asked(ask: Callable[[GeminiBackend], Awaitable[T]], *, offline: bool = False) -> T:
    from headgate.backend import BackendConfig, GeminiBackend  # noqa: PLC0415 - slow to import

    async def run() -> T:
        async with GeminiBackend(BackendConfig(model_discovery=not offline)) as backend:
            return await ask(backend)

    return asyncio.run(run())


def _tell_sources(sources: ModelSources, more: str = "") -> None:
    said = f"Prices in dollars per million tokens, of {sources.prices_as_of}."
    if sources.discovered_at is not None:
        said += f" The upstream lists {screen.count(sources.discovered, 'model')}."
    elif sources.failure is not None:
        said += f" From the package alone, of {sources.shipped}: the upstream was not asked, or did not"
        said += " answer; --verbose says why."
    else:
        said += f" From the package alone, of {sources.shipped}."
    screen.note(f"\n{said}{more}", style=screen.QUIET)


def _add(table: Table, *cells: str) -> None:
    """A row. Cards hold what an upstream says: it may neither mark up nor move the cursor."""
    from rich.text import Text  # noqa: PLC0415 - as above

    table.add_row(*(Text(one_line(cell)) for cell in cells))


# ── words ───────────────────────────────────────────────────────────────────────────────────────


def _facts(card: ModelMetadata) -> list[tuple[str, str, str]]:
    """What is shown of a model: a name, a value, and the field it comes from."""
    can, price, seen = card.capabilities, card.pricing, card.performance
    rows = [
        ("model", card.id, ""),
        ("name", card.name, "name"),
        ("", card.description, "description"),
        ("aliases", ", ".join(card.aliases), "aliases"),
        ("stage", card.stage, "stage"),
        ("released", _day(card.release_date), "release_date"),
        ("withdrawn since", _day(card.retiring), "retiring"),
        ("shut down", _day(card.deprecation_date), "deprecation_date"),
        ("successor", card.successor or "", "successor"),
        ("tokens in", _count(can.max_input_tokens), "capabilities.max_input_tokens"),
        ("tokens out", _count(can.max_output_tokens), "capabilities.max_output_tokens"),
    ]
    flags = [name for name in can.__struct_fields__ if not name.startswith("max_")]
    for said, value in (("can", True), ("cannot", False), ("not known", None)):
        named = [_words(name) for name in flags if getattr(can, name) is value]
        rows.append((said, ", ".join(named), "capabilities.text_generation" if value else ""))
    rows += [
        ("$ input", _dollars(price.input_per_million), "pricing.input_per_million"),
        ("$ output", _dollars(price.output_per_million), "pricing.output_per_million"),
        (
            "$ cached input",
            _dollars(price.cached_input_per_million),
            "pricing.cached_input_per_million",
        ),
        (
            "$ image output",
            _dollars(price.image_output_per_million),
            "pricing.image_output_per_million",
        ),
        ("$ 1000 images", _dollars(price.image_per_thousand), "pricing.image_per_thousand"),
        ("dearer above", _count(price.long_prompt_above), "pricing.long_prompt_above"),
        ("price changes", _day(price.changes_on), "pricing.changes_on"),
        ("requests a minute", _count(seen.rate_limit_rpm), "performance.rate_limit_rpm"),
        ("tokens a day", _count(seen.rate_limit_tpd), "performance.rate_limit_tpd"),
        ("good for", ", ".join(card.recommended_use_cases), "recommended_use_cases"),
        ("mind", " ".join(card.limitations), "limitations"),
    ]
    return [row for row in rows if row[1] not in ("", "–")]


def _words(flag: str) -> str:
    return flag.removeprefix("supports_").replace("_", " ")


def _by(card: ModelMetadata, field: str) -> str:
    return card.provenance[field].value if field in card.provenance else ""


def _remark(card: ModelMetadata, today: date) -> str:
    ends, instead = card.deprecation_date, f" → {card.successor}" if card.successor else ""
    if ends is not None and today >= ends:
        return f"shut down {ends}{instead}"
    if card.retired(today):
        return f"leaving until {_day(ends)}{instead}"
    if ends is not None:
        return f"until {ends}"
    return {"stable": "", "closed": "closed to new projects"}.get(card.stage, card.stage)


def _day(day: date | None) -> str:
    return "–" if day is None else str(day)


def _count(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"


def _short(tokens: int | None) -> str:
    """Limits are mostly powers of two: 64k, 1M."""
    for unit, size in (("M", 1 << 20), ("k", 1 << 10)):
        if tokens and tokens % size == 0:
            return f"{tokens // size}{unit}"
    return _count(tokens)


def _dollars(price: float | None) -> str:
    return "–" if price is None else f"{price:g}"


def _today() -> date:
    from headgate.wiring.clock import SystemClock  # noqa: PLC0415 - as above

    return datetime.fromtimestamp(SystemClock().wall(), UTC).date()


def _plain(value: object) -> object:
    """For JSON: dates as ISO 8601, instants with microseconds and `+00:00`."""
    import msgspec  # noqa: PLC0415 - as above

    return _dated(msgspec.to_builtins(value, builtin_types=(date, datetime)))


def _dated(value: object) -> object:
    if isinstance(value, dict):
        return {key: _dated(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_dated(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds")
    return str(value) if isinstance(value, date) else value


def _plain_recommendation(one: ModelRecommendation) -> dict[str, object]:
    return {
        "model": one.id,
        "score": one.score,
        "cost_per_call": one.cost_per_call,
        "reasons": list(one.reasons),
    }
