"""The reference keeps up with the code: whatever is public stands in the page that describes it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest

from headgate import backend, gemini, telemetry
from headgate.core.outcome import RULES, Kind
from headgate.policy.alert_rules import AlertRules
from headgate.providers.gemini import EMBED_OPTIONS, GENERATE_OPTIONS, TOP_LEVEL_OPTIONS

DOCS = Path(__file__).parents[2] / "docs"
CALL_OPTIONS = ("timeout", "max_wait_seconds", "images", "files", "generation_config", "config")
NOT_RAISED = {"success", "quota", "cancelled"}  # quota has a class of its own


def members(cls: type) -> list[str]:
    return [name for name in dir(cls) if not name.startswith("_") and name != "over"]


def attributes(cls: Callable[..., object]) -> list[str]:
    return [name for name in inspect.signature(cls).parameters if name != "message"]


@pytest.mark.parametrize(
    "name",
    [
        *gemini.__all__,
        *members(gemini.ResilientGeminiClient),
        *attributes(gemini.ResilientGeminiClient),
        *members(gemini.GeminiKeyManager),
        *attributes(gemini.GeminiKeyManager),
        *members(gemini.ApiKeyConfig),
        *attributes(gemini.GeminiReply),
        *attributes(gemini.ApiKeyMetrics),
        *attributes(gemini.Usage),
        *(GENERATE_OPTIONS | TOP_LEVEL_OPTIONS | EMBED_OPTIONS),
        *CALL_OPTIONS,
    ],
)
def test_the_reference_has_every_public_name(name: str) -> None:
    """Names of the client, its options, replies, key view and metrics."""
    assert name in (DOCS / "reference" / "gemini.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name",
    [
        *backend.__all__,
        *members(backend.GeminiBackend),
        *attributes(backend.GeminiBackend),
        *backend.BackendConfig.__struct_fields__,
        *backend.RetryConfig.__struct_fields__,
        *backend.CircuitBreakerConfig.__struct_fields__,
        *backend.PreprocessConfig.__struct_fields__,
        *backend.LoggingConfig.__struct_fields__,
        *backend.GeminiRequest.__struct_fields__,
        *backend.GeminiResponse.__struct_fields__,
        *backend.StreamingChunk.__struct_fields__,
        *backend.TokenUsage.__struct_fields__,
        *backend.ModelMetadata.__struct_fields__,
        *backend.ModelCapabilities.__struct_fields__,
        *backend.ModelPricing.__struct_fields__,
        *backend.ModelPerformance.__struct_fields__,
        *backend.ModelEntry.__struct_fields__,
        *backend.ModelRecommendation.__struct_fields__,
        *backend.ModelSources.__struct_fields__,
        *(kind.value for kind in backend.ErrorType),
        *(status.value for status in backend.ValidationStatus),
        *(source.value for source in backend.Provenance),
    ],
)
def test_the_reference_of_the_backend_has_every_public_name(name: str) -> None:
    """Commands, configuration, requests, replies, cards and errors."""
    assert f"`{name}" in (DOCS / "reference" / "backend.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name",
    [
        *telemetry.__all__,
        *attributes(telemetry.setup_telemetry),
        *attributes(telemetry.setup_logging),
    ],
)
def test_the_reference_of_telemetry_has_every_public_name(name: str) -> None:
    """Functions, and the arguments of those that set something up."""
    assert f"`{name}" in (DOCS / "reference" / "telemetry.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("field", AlertRules.__struct_fields__)
def test_the_page_of_alerts_has_every_threshold(field: str) -> None:
    """A user who sets one finds what it means."""
    assert f"`{field}`" in (DOCS / "how-to" / "alerts.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", sorted({rule.public_kind for rule in RULES.values()} - NOT_RAISED))
def test_every_kind_of_error_has_advice(kind: str) -> None:
    """A user who looks up `error.kind` finds a row."""
    assert f"| `{kind}` |" in (DOCS / "how-to" / "handle-errors.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in (Kind.SUCCESS, Kind.CANCELLED)])
def test_every_class_of_outcome_is_explained(kind: Kind) -> None:
    """The page that the classification names as its source has all of its classes."""
    assert f"`{kind}`" in (DOCS / "explanation" / "gemini-errors.md").read_text(encoding="utf-8")
