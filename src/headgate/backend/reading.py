"""What users type, read before anything is done with it: requests, wishes for a model, numbers.

A request that came from JSON is a mapping; so are its parts. What cannot be read is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import msgspec
from msgspec import structs

from headgate.backend.settings import ContextOverflow, PreprocessConfig
from headgate.backend.structures import GeminiRequest
from headgate.core.errors import ConfigurationError, InvalidCallError
from headgate.policy.recommendation import Limits

__all__ = ["read_limits", "read_request"]


def read_request(given: object) -> GeminiRequest:
    """A request out of what was given: one, or a mapping as it came from JSON.

    Raises:
        InvalidCallError: it is neither, or a field that decides how it is read is wrong.
    """
    if isinstance(given, Mapping):
        request = _request_of(given)
    elif isinstance(given, GeminiRequest):
        request = given
    else:
        raise InvalidCallError(f"request takes a GeminiRequest; got {type(given).__name__}.")
    for name in ("stream", "use_cache"):
        value: object = getattr(request, name)
        if not isinstance(value, bool):
            raise InvalidCallError(f"{name} takes true or false; got {type(value).__name__}.")
    changed: dict[str, object] = {}
    how, overflow = _preprocessing(request.preprocess_config), _overflow(request.context_overflow)
    if how is not request.preprocess_config:
        changed["preprocess_config"] = how
    if overflow is not request.context_overflow:
        changed["context_overflow"] = overflow
    if cast("object", request.caller) is None:  # as JSON says it; sessions are kept by it
        changed["caller"] = ""
    return structs.replace(request, **changed) if changed else request


def read_limits(
    budget: object, input_tokens: object, output_tokens: object, needs: object, max_latency_ms: object
) -> Limits:
    """What a recommended model must keep to. Raises `InvalidCallError`."""
    for name, value in (("budget", budget), ("max_latency_ms", max_latency_ms)):
        if value is not None and not _is_amount(value):
            raise InvalidCallError(f"{name} takes a number, 0 or more; got {value!r:.40}.")
    for name, value in (("input_tokens", input_tokens), ("output_tokens", output_tokens)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise InvalidCallError(f"{name} takes a whole number, 0 or more; got {value!r:.40}.")
    listed = isinstance(needs, Sequence | set | frozenset) and not isinstance(needs, str | bytes)
    if not listed or not all(isinstance(word, str) for word in needs):  # type: ignore[attr-defined]
        raise InvalidCallError(
            f"needs takes a list of capabilities, such as ['image']; got {type(needs).__name__}."
        )
    return Limits(
        budget, input_tokens, output_tokens, tuple(needs), max_latency_ms  # type: ignore[arg-type]
    )  # fmt: skip


def _request_of(given: Mapping[object, object]) -> GeminiRequest:
    try:
        return msgspec.convert(dict(given), GeminiRequest)
    except (msgspec.ValidationError, ConfigurationError) as error:
        raise InvalidCallError(f"request: {_sentence(error)}") from None


def _preprocessing(given: object) -> PreprocessConfig | None:
    if given is None or isinstance(given, PreprocessConfig):
        return given
    if not isinstance(given, Mapping):
        raise InvalidCallError(
            f"preprocess_config takes a PreprocessConfig; got {type(given).__name__}."
        )
    try:
        return msgspec.convert(dict(given), PreprocessConfig)
    except (msgspec.ValidationError, ConfigurationError) as error:
        raise InvalidCallError(f"preprocess_config: {_sentence(error)}") from None


def _overflow(given: object) -> ContextOverflow | None:
    if given is None or isinstance(given, ContextOverflow):
        return given
    try:
        return ContextOverflow(cast("str", given))
    except ValueError:
        allowed = ", ".join(ContextOverflow)
        raise InvalidCallError(f"context_overflow takes {allowed}; got {given!r:.40}.") from None


def _is_amount(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 <= float(value) < math.inf  # type: ignore[arg-type]


def _sentence(error: Exception) -> str:
    return f"{str(error).rstrip('.')}."
