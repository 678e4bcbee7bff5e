"""The models a backend knows: shipped data, the upstream's own list, prices, the user's configuration.

The upstream is asked when somebody asks about models and what is known of its list is older than
`model_refresh_seconds`; a call that generates never waits for it. What cannot be reached leaves things
as they were, and is asked again a minute later at the earliest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, date, datetime
from secrets import token_hex

from msgspec import Struct, structs

from headgate.backend.errors import ErrorType, GeminiError, ModelNotFoundError, gemini_errors
from headgate.backend.generations import EngineRoom
from headgate.backend.settings import BackendConfig
from headgate.backend.sightings import Sightings
from headgate.core.call import Call, Operation
from headgate.core.errors import HeadgateError, NoKeysError, UpstreamError
from headgate.core.model_card import (
    ModelEntry,
    ModelMetadata,
    ModelPerformance,
    Provenance,
    ValidationStatus,
)
from headgate.core.outcome import Kind
from headgate.core.ports import Clock
from headgate.engine.single_flight import SingleFlight
from headgate.engine.stream import ReplyStream
from headgate.policy.days import utc_day
from headgate.policy.price_list import PriceList
from headgate.policy.recommendation import Limits, ModelRecommendation, recommend
from headgate.policy.registry import ModelRegistry, merge_cards, newest_first, price_card
from headgate.wiring.discovery import Discovery
from headgate.wiring.model_data import gemini_cards, gemini_cards_date, gemini_prices
from headgate.wiring.price_source import PRICE_URL, fetch_prices

__all__ = ["ModelSources", "Models"]

_log = logging.getLogger("headgate.backend")

ASK_SECONDS = 10.0
"""Longest wait for the upstream's word on models."""

ASK_AGAIN_SECONDS = 60.0
"""Until it is asked again after it could not be reached."""


_MOST_MADE = 8
"""Registries that are kept: one for each configuration that calls under way still have."""


class ModelSources(Struct, frozen=True, kw_only=True):
    """Where what is known of models comes from.

    Attributes:
        shipped: day of the data in this package.
        prices_as_of: day of the prices, and who told them.
        discovered_at: when the upstream's list was read; None: never.
        discovered: how many models it had.
        failure: why the last attempt to read it failed; None: it did not.
    """

    shipped: date
    prices_as_of: date
    prices_from: str
    discovered_at: datetime | None = None
    discovered: int = 0
    failure: str | None = None


class Models:
    """The registry of a backend, and the commands about it (S3-11 to S3-14).

    Args:
        room: asked for the engine where the upstream is asked.
        sightings: what calls of this process showed.
    """

    def __init__(self, clock: Clock, config: Callable[[], BackendConfig], sightings: Sightings) -> None:
        self._clock = clock
        self._config = config
        self._sightings = sightings
        self._room: EngineRoom | None = None
        self._discovered: tuple[ModelMetadata, ...] = ()
        self._discovered_at: float | None = None  # monotonic seconds
        self._sources = ModelSources(
            shipped=gemini_cards_date(),
            prices_as_of=gemini_prices().as_of,
            prices_from=gemini_prices().source,
        )
        self._prices = gemini_prices()
        self._fresh_prices: PriceList | None = None
        self._ask_after = -float("inf")
        self._asking: SingleFlight[None] = SingleFlight()
        self._checked: dict[str, tuple[datetime, ValidationStatus]] = {}
        self._version = 0  # counts what was read anew
        self._made: dict[tuple[object, ...], tuple[ModelRegistry, object]] = {}

    def enter(self, room: EngineRoom) -> None:
        """The engine that is asked; before it the shipped and configured data answer alone."""
        self._room = room

    # ── what is known, without asking anybody ───────────────────────────────────────────────────

    def registry(self) -> ModelRegistry:
        """The registry of the moment; prices are today's. On the path of every call."""
        return self.registry_of(self._config())

    def registry_of(self, config: BackendConfig) -> ModelRegistry:
        """The registry under a configuration; a few are kept."""
        today, configured = self._today(), config.models
        state = (today, id(configured), self._version)
        made = self._made.get(state)
        if made is None:
            if len(self._made) >= _MOST_MADE:
                self._made.clear()
            told = merge_cards(
                [(Provenance.SHIPPED, gemini_cards()), (Provenance.DISCOVERED, self._discovered)]
            )
            priced = [self._priced(card, today) for card in told]
            registry = ModelRegistry(merge_cards([(Provenance.CONFIGURED, configured)], priced))
            # Kept with what its identity stands for, so that no other object can take that over.
            made = self._made[state] = registry, configured
        return made[0]

    def prices(self) -> PriceList:
        """The prices of the moment."""
        return self._prices

    @property
    def sources(self) -> ModelSources:
        """Where what is known comes from."""
        return self._sources

    def entry(self, name: str) -> ModelEntry:
        """A model with what this process has seen of it. Raises `ModelNotFoundError`."""
        card = self._card(name)
        seen = self._sightings.of(card.id)
        at, status = self._checked.get(card.id, (None, self._status(card)))
        return ModelEntry(
            metadata=card,
            last_validated=at,
            validation_status=status,
            usage_count=seen.calls,
            error_count=seen.errors,
            avg_response_time=seen.average_ms,
        )

    def name_of(self, name: str) -> str:
        """The id of the model that a name or alias stands for; an unknown name is its own."""
        card = self.registry().find(self._text(name))
        return name.strip().removeprefix("models/") if card is None else card.id

    # ── commands ────────────────────────────────────────────────────────────────────────────────

    async def info(self, model_id: str) -> ModelMetadata:
        """S3-11: the card of a model or alias. Raises `ModelNotFoundError` with near names."""
        await self._refresh_if_old()
        return self._card(model_id)

    async def listed(self) -> list[ModelMetadata]:
        """S3-12: every model once, the newest first."""
        await self._refresh_if_old()
        return newest_first(self._seen(card) for card in self.registry().cards)

    async def recommended(self, use_case: str, limits: Limits) -> list[ModelRecommendation]:
        """S3-13: the models that suit a use case, the best first, with reasons.

        Raises:
            GeminiError: the use case says nothing, or a word for a capability is not known.
        """
        await self._refresh_if_old()
        cards = [self._seen(card) for card in self.registry().cards]
        try:
            return recommend(cards, use_case, self._today(), limits)
        except ValueError as error:
            raise self._wrong(f"{error}. Say what the model is for, such as `coding`.") from None

    async def validate(self, model_id: str, api_key: str | None, *, probe: bool) -> bool:
        """S3-14: whether the upstream has a model for these keys; costs no generation without `probe`.

        Args:
            api_key: asked with this key alone.
            probe: also generate one token, which counts against quota and is billed.

        Raises:
            GeminiError: the upstream cannot be asked, or accepts none of the keys: that says nothing
                about the model.
        """
        card = self.registry().find(self._text(model_id))
        name = model_id.strip().removeprefix("models/") if card is None else card.id
        with gemini_errors(self._clock.wall):
            told = await self._discovery(api_key).model(name, self._clock.monotonic() + ASK_SECONDS)
            valid = told is not None
            if valid and probe:
                valid = await self._answers(name, api_key)
        status = self._status(card, valid=valid)
        if api_key is None and card is not None:
            self._checked[name] = datetime.fromtimestamp(self._clock.wall(), UTC), status
        return valid

    async def refresh(self) -> ModelSources:
        """Read the upstream's list of models now.

        Raises:
            GeminiError: it could not be read; what was known still is.
        """
        with gemini_errors(self._clock.wall):
            await self._asking.ask("models", self._read_list)
        return self._sources

    async def refresh_prices(self, url: str = PRICE_URL) -> ModelSources:
        """Read newer prices from the public data of genai-prices; models it leaves out keep theirs.

        Raises:
            GeminiError: they could not be read; the known ones stand.
        """
        with gemini_errors(self._clock.wall):
            deadline = self._clock.monotonic() + ASK_SECONDS
            transport = self._engine_room().generation().engine.transport
            fresh = await fetch_prices(transport, deadline, self._today(), url)
        self._fresh_prices = fresh
        self._prices = fresh.over(gemini_prices())
        self._version += 1
        self._sources = structs.replace(
            self._sources, prices_as_of=fresh.as_of, prices_from=fresh.source
        )
        return self._sources

    async def keep_fresh(self) -> None:
        """Read the upstream's list again and again: run it as a task, and cancel it at the end."""
        while True:
            await self._refresh_if_old()
            await self._clock.sleep(self._config().model_refresh_seconds)

    # ── asking the upstream ─────────────────────────────────────────────────────────────────────

    async def _refresh_if_old(self) -> None:
        now = self._clock.monotonic()
        if not self._config().model_discovery:
            return
        at = self._discovered_at
        if at is not None and now - at < self._config().model_refresh_seconds:
            return
        if now < self._ask_after:
            return
        try:
            await self._asking.ask("models", self._read_list)
        except HeadgateError as error:
            _log.info("the upstream's list of models was not read: %s", error.message)

    async def _read_list(self) -> None:
        try:
            cards = await self._discovery(None).models(self._clock.monotonic() + ASK_SECONDS)
        except HeadgateError as error:
            self._ask_after = self._clock.monotonic() + ASK_AGAIN_SECONDS
            self._sources = structs.replace(self._sources, failure=error.message)
            raise
        self._discovered = tuple(cards)
        self._version += 1
        self._discovered_at = self._clock.monotonic()
        self._sources = structs.replace(
            self._sources,
            discovered_at=datetime.fromtimestamp(self._clock.wall(), UTC),
            discovered=len(cards),
            failure=None,
        )

    async def _answers(self, model: str, api_key: str | None) -> bool:
        """Whether one token comes back. An answer that is all thought is one too."""
        call = Call(
            Operation.GENERATE, model, ("Hi",), {"max_output_tokens": 1}, request_id=token_hex(8)
        )
        try:
            async with self._engine_room().hold(api_key) as held:
                answer, _ = await held.engine.pipeline.run(call)
                if isinstance(answer, ReplyStream):  # no call of this kind gives one
                    await answer.aclose()
        except UpstreamError as error:
            outcome = error.outcome
            if outcome.kind is Kind.BLOCKED and outcome.status == 200:
                return True
            if outcome.status == 404 or outcome.kind in (Kind.KEY_MODEL, Kind.PROJECT_MODEL):
                return False
            raise
        return True

    def _discovery(self, api_key: str | None) -> Discovery:
        generation = self._engine_room().generation(api_key)
        settings = generation.settings
        return Discovery(generation.engine.transport, settings.base_url, settings.keys)

    def _engine_room(self) -> EngineRoom:
        if self._room is None:
            raise NoKeysError("No upstream can be asked here: nothing but data was given.")
        return self._room

    # ── cards ───────────────────────────────────────────────────────────────────────────────────

    def _card(self, name: str) -> ModelMetadata:
        registry = self.registry()
        card = registry.find(self._text(name))
        if card is None:
            now = datetime.fromtimestamp(self._clock.wall(), UTC)
            raise ModelNotFoundError(name, registry.near(name), timestamp=now)
        return self._seen(card)

    def _priced(self, card: ModelMetadata, today: date) -> ModelMetadata:
        fresh = self._fresh_prices is not None and card.id in self._fresh_prices
        source = Provenance.PRICES if fresh else Provenance.SHIPPED
        return price_card(card, self._prices, today, source)

    def _seen(self, card: ModelMetadata) -> ModelMetadata:
        """The card with the limits that are declared and what calls of this process showed."""
        layers = [(Provenance.OBSERVED, self._sightings.of(card.id).performance)]
        if (declared := self._declared(card.id)) is not None:
            layers.append((Provenance.CONFIGURED, declared))
        return merge_cards(
            [(who, [ModelMetadata(id=card.id, performance=told)]) for who, told in layers], [card]
        )[0]

    def _declared(self, model: str) -> ModelPerformance | None:
        """What the quotas of all domains together allow; None where some are not declared."""
        started = None if self._room is None else self._room.started
        if started is None or started.settings.quotas is None:
            return None
        domains = started.engine.pool.domain_names
        quotas = [started.settings.quotas.quota(domain, model) for domain in domains]
        return ModelPerformance(
            rate_limit_rpm=_sum([quota.rpm for quota in quotas]),
            rate_limit_tpd=_sum([quota.tpd for quota in quotas]),
            concurrency_limit=_sum([quota.concurrency for quota in quotas]),
        )

    def _status(self, card: ModelMetadata | None, *, valid: bool | None = None) -> ValidationStatus:
        """What is to be thought of a model, with the upstream's word where it was asked."""
        if valid is False or (valid is None and card is not None and card.dead(self._today())):
            return ValidationStatus.UNAVAILABLE
        if card is not None and (card.retired(self._today()) or card.stage == "deprecated"):
            return ValidationStatus.DEPRECATED
        listed = card is not None and any(card.id == other.id for other in self._discovered)
        return ValidationStatus.VALID if valid or listed else ValidationStatus.UNKNOWN

    def _text(self, name: object) -> str:
        if isinstance(name, str):
            return name
        raise self._wrong(f"A model is asked for by its name; got {type(name).__name__}.")

    def _wrong(self, sentence: str) -> GeminiError:
        now = datetime.fromtimestamp(self._clock.wall(), UTC)
        error = GeminiError(ErrorType.INVALID_PARAMETERS, sentence, timestamp=now, kind="invalid")
        error.http_status = 400
        return error

    def _today(self) -> date:
        return utc_day(self._clock.wall())


def _sum(numbers: list[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if known and len(known) == len(numbers) else None
