"""What a call in an upstream's own words asks for: the options that spans tell, nothing that is said.

Reads the bodies of all APIs alike, for their names do not collide. Only of calls that are traced.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

__all__ = ["LARGEST", "options_of"]

LARGEST = 256 * 1024
"""Bytes of a body that is looked at; larger ones hold media, and reading them takes milliseconds."""

_OF_GEMINI = {
    "maxOutputTokens": "max_output_tokens",
    "topP": "top_p",
    "topK": "top_k",
    "candidateCount": "candidate_count",
    "frequencyPenalty": "frequency_penalty",
    "presencePenalty": "presence_penalty",
    "stopSequences": "stop_sequences",
    "responseMimeType": "response_mime_type",
}
"""Of `generationConfig`, which takes both spellings."""

_JSON_FORMATS = ("json_object", "json_schema")


class _Body(msgspec.Struct):
    """The fields that matter; everything else, prompts above all, is passed over."""

    generationConfig: Any = None  # noqa: N815 - Google's name
    generation_config: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    temperature: Any = None
    top_p: Any = None
    top_k: Any = None
    seed: Any = None
    n: Any = None
    frequency_penalty: Any = None
    presence_penalty: Any = None
    stop: Any = None
    stop_sequences: Any = None
    response_format: Any = None


_decode = msgspec.json.Decoder(_Body).decode


def options_of(body: bytes) -> Mapping[str, object]:
    """Options under the names that `Call.options` has for them. What cannot be read has none."""
    if not body or len(body) > LARGEST:
        return {}
    try:
        found = _decode(body)
    except (msgspec.MsgspecError, RecursionError):
        return {}
    config = found.generationConfig or found.generation_config
    if isinstance(config, dict):
        return {_OF_GEMINI.get(str(name), str(name)): value for name, value in config.items()}
    stops = found.stop_sequences or found.stop
    wanted = found.response_format
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    return {
        "max_tokens": found.max_tokens or found.max_completion_tokens,
        "temperature": found.temperature,
        "top_p": found.top_p,
        "top_k": found.top_k,
        "seed": found.seed,
        "candidate_count": found.n,
        "frequency_penalty": found.frequency_penalty,
        "presence_penalty": found.presence_penalty,
        "stop_sequences": [stops] if isinstance(stops, str) else stops,
        "response_mime_type": "application/json" if kind in _JSON_FORMATS else None,
    }
