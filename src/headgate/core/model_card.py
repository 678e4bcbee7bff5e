"""What is known of a model: its card, what it can do, what it costs, how it has been doing.

None always means that nobody has told: a number is never made up.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from enum import StrEnum

from msgspec import Struct

__all__ = [
    "CAPABILITY_WORDS",
    "ModelCapabilities",
    "ModelEntry",
    "ModelMetadata",
    "ModelPerformance",
    "ModelPricing",
    "Provenance",
    "ValidationStatus",
]


class ValidationStatus(StrEnum):
    """What the last look at a model told."""

    VALID = "Valid"  # the upstream lists it
    DEPRECATED = "Deprecated"  # it answers still, but its end was announced
    UNAVAILABLE = "Unavailable"  # shut down, or the upstream does not have it
    UNKNOWN = "Unknown"  # nobody asked the upstream


class Provenance(StrEnum):
    """Who told a fact of a model."""

    SHIPPED = "shipped"  # the dated data of this package
    DISCOVERED = "discovered"  # the upstream's own list of models
    CONFIGURED = "configured"  # the user's configuration
    OBSERVED = "observed"  # what calls of this process showed
    PRICES = "prices"  # price data refreshed on request


class ModelCapabilities(Struct, frozen=True, kw_only=True):
    """What a model can do. None: nobody has told.

    Attributes:
        max_input_tokens, max_output_tokens: of one call.
        supports_temperature, supports_top_k, supports_top_p, supports_stop_sequences: whether the
            option may be sent.
    """

    text_generation: bool | None = None
    image_understanding: bool | None = None
    code_generation: bool | None = None
    function_calling: bool | None = None
    json_mode: bool | None = None
    system_instructions: bool | None = None
    context_caching: bool | None = None
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    supports_temperature: bool | None = None
    supports_top_k: bool | None = None
    supports_top_p: bool | None = None
    supports_stop_sequences: bool | None = None


CAPABILITY_WORDS: Mapping[str, str] = {
    "text": "text_generation",
    "image": "image_understanding",
    "code": "code_generation",
    "function_calling": "function_calling",
    "json_mode": "json_mode",
    "system_instructions": "system_instructions",
    "context_caching": "context_caching",
}
"""The accepted words of a query, and the fields they ask about."""


class ModelPricing(Struct, frozen=True, kw_only=True):
    """Dollars per million tokens, and per thousand images. None: no price is known.

    Attributes:
        image_output_per_million: pictures as tokens of output.
        long_prompt_above: prompts of more tokens cost more than this says.
        changes_on: the next day on which another price is known to begin.
        as_of: the day of the data.
    """

    input_per_million: float | None = None
    output_per_million: float | None = None
    cached_input_per_million: float | None = None
    image_per_thousand: float | None = None
    image_output_per_million: float | None = None
    long_prompt_above: int | None = None
    changes_on: date | None = None
    as_of: date | None = None


class ModelPerformance(Struct, frozen=True, kw_only=True):
    """How a model does: as measured here. Limits are those known of it; None: nobody has told.

    Attributes:
        avg_latency_ms: of whole answers, in milliseconds.
        tokens_per_second: of output.
        concurrency_limit: calls at once.
        rate_limit_rpm: requests a minute.
        rate_limit_tpd: tokens a day.
    """

    avg_latency_ms: float | None = None
    tokens_per_second: float | None = None
    concurrency_limit: int | None = None
    rate_limit_rpm: int | None = None
    rate_limit_tpd: int | None = None


class ModelMetadata(Struct, frozen=True, kw_only=True):
    """The card of a model.

    Attributes:
        id: the name on the wire.
        stage: `stable`, `preview`, `experimental`, `closed` (to new projects), `deprecated` (its end
            was announced), or empty: not told.
        release_date: None where nobody has told.
        retiring: first day on which withdrawals were announced or seen.
        deprecation_date: the day the provider shuts it down.
        successor: where calls go then; None where nothing can stand in.
        recommended_use_cases: phrases that a use case is matched with.
        limitations: sentences.
        provenance: who told a field; `capabilities.max_input_tokens` names a nested one.
    """

    id: str
    name: str = ""
    description: str = ""
    version: str = ""
    stage: str = ""
    release_date: date | None = None
    retiring: date | None = None
    deprecation_date: date | None = None
    successor: str | None = None
    capabilities: ModelCapabilities = ModelCapabilities()
    pricing: ModelPricing = ModelPricing()
    performance: ModelPerformance = ModelPerformance()
    aliases: tuple[str, ...] = ()
    recommended_use_cases: tuple[str, ...] = ()
    limitations: tuple[str, ...] = ()
    provenance: Mapping[str, Provenance] = {}

    def retired(self, today: date) -> bool:
        """Whether calls should no longer go to this model."""
        days = [day for day in (self.retiring, self.deprecation_date) if day is not None]
        return bool(days) and today >= min(days)

    def dead(self, today: date) -> bool:
        """Whether it has been shut down."""
        return self.deprecation_date is not None and today >= self.deprecation_date


class ModelEntry(Struct, frozen=True, kw_only=True):
    """A model in the registry, with what this process has seen of it.

    Attributes:
        last_validated: when the upstream was last asked, aware UTC; None: never.
        usage_count, error_count: calls of this process.
        avg_response_time: of its answered calls, in milliseconds; None before the first.
    """

    metadata: ModelMetadata
    last_validated: datetime | None = None
    validation_status: ValidationStatus = ValidationStatus.UNKNOWN
    usage_count: int = 0
    error_count: int = 0
    avg_response_time: float | None = None
