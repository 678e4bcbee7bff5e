"""Embeddings on the wire of the Gemini API: a text by `embedContent`, several by `batchEmbedContents`.

A batch saves round trips and no quota: each of its texts is charged as one request (probed 2026-06). It
takes 100 texts at the most, and each names the model again (Gemini API, models.batchEmbedContents).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from headgate.core.call import Call, Part, Reply
from headgate.core.errors import InvalidCallError
from headgate.core.outcome import Kind, Outcome
from headgate.providers.gemini_parts import wire_parts
from headgate.providers.gemini_usage import UsageMetadata, as_usage

__all__ = [
    "EMBED_OPTIONS",
    "MOST_BATCH_BYTES",
    "MOST_IN_A_BATCH",
    "embed_body",
    "embed_method",
    "read_embedded",
]

EMBED_OPTIONS: Mapping[str, str] = {
    "task_type": "taskType",
    "title": "title",
    "output_dimensionality": "outputDimensionality",
}
"""Options of an embedding, under their wire names."""

MOST_IN_A_BATCH = 100
"""Texts: "at most 100 requests can be in one batch" (error of the API, recorded 2025-09)."""

MOST_BATCH_BYTES = 4_194_304
"""Of a request for embeddings (error of the API, recorded in quarkus-langchain4j #1705)."""


class _Embedding(msgspec.Struct):
    values: list[float] = []


class _Embedded(msgspec.Struct, rename="camel"):
    embedding: _Embedding = msgspec.field(default_factory=_Embedding)
    embeddings: list[_Embedding] | None = None
    usage_metadata: UsageMetadata | None = None
    error: msgspec.Raw | None = None


_DECODE = msgspec.json.Decoder(_Embedded, strict=False)


def embed_method(call: Call) -> str:
    """The method that answers the call."""
    return "batchEmbedContents" if call.inputs else "embedContent"


def embed_body(call: Call, model: str) -> dict[str, object]:
    """The body of a request. Raises `InvalidCallError` for a batch the API would refuse as a whole."""
    if not call.inputs:
        return _content(call, call.parts, model)
    if len(call.inputs) > MOST_IN_A_BATCH:
        raise InvalidCallError(
            f"{len(call.inputs)} texts are too many for one request: the API embeds {MOST_IN_A_BATCH}."
        )
    for number, parts in enumerate(call.inputs):
        if not any(parts):
            raise InvalidCallError(f"Text {number} is empty: there is nothing to embed.")
    return {"requests": [_content(call, parts, model) for parts in call.inputs]}


def read_embedded(call: Call, body: bytes) -> Reply | Outcome | None:
    """The reply in a 200 body, or why it is none; None for an error in disguise.

    Raises `msgspec.DecodeError` and the like for a body that is no answer.
    """
    embedded = _DECODE.decode(body)
    if embedded.error:
        return None
    usage = as_usage(embedded.usage_metadata)
    if not call.inputs:
        if not embedded.embedding.values:
            return Outcome(Kind.PROTOCOL, "The answer holds no vector.", 200)
        return Reply(vector=tuple(embedded.embedding.values), usage=usage, model=call.model)
    vectors = tuple(tuple(embedding.values) for embedding in embedded.embeddings or ())
    if len(vectors) != len(call.inputs) or not all(vectors):
        found = sum(map(bool, vectors))
        return Outcome(
            Kind.PROTOCOL, f"The answer holds {found} vectors for {len(call.inputs)} texts.", 200
        )
    return Reply(vectors=vectors, usage=usage, model=call.model)


def _content(call: Call, parts: tuple[Part, ...], model: str) -> dict[str, object]:
    body: dict[str, object] = {"model": f"models/{model}", "content": {"parts": wire_parts(parts)}}
    body.update({EMBED_OPTIONS[name]: value for name, value in call.options.items()})
    return body
