"""The digest a kept answer is found by: all that changes the answer, and whose answer it is. Pure.

What is hashed is one msgpack array. Each piece says its own type and length, so no two questions are
written alike; tables are written in the order of their names. Whether an answer was asked for in pieces
is no part of it: a stream and a whole call share their answers. `1` and `1.0` are two questions, for
they travel as two texts.

SHA-256 because tenants must not be able to make two questions meet: of the functions that promise this
it is the fastest where the processor helps (docs/adr/0051 has the figures).
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

import msgspec

from headgate.core.call import Blob, Call, Operation, Part, Raw

__all__ = ["recall_key"]

_FORM = 1
"""Of what is hashed: another form finds nothing of this one."""

_LARGE = 65_536
"""Bytes of media from which on their digest stands for them."""

_UNWRITABLE = (TypeError, ValueError, OverflowError, RecursionError)
"""What writing raises for options that are no JSON either: numbers beyond 64 bits, half a surrogate
pair, tables nested without end."""


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is nothing a call holds")


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_plain, order="deterministic")


def recall_key(call: Call, *, model: str, origin: str, headers: Mapping[str, str]) -> str | None:
    """The digest of a call that brings a `Keeping`, in 64 hexadecimal digits.

    Args:
        model: as it is on the wire.
        origin: which provider, and where.
        headers: those of the request on the wire; they hold no credential.

    Returns None for a call that cannot be written down: its answer is not kept.
    """
    keeping = call.keeping
    question = (
        _FORM,
        origin,
        model,
        call.domain,  # what a call names there may be another thing elsewhere
        dict(headers),
        "" if keeping is None else keeping.partition,
        "" if keeping is None else keeping.namespace,
        "embed" if call.operation is Operation.EMBED else "generate",
        _parts(call.parts),
        dict(call.options),
        [(turn.role.value, _parts(turn.parts)) for turn in call.turns],
        call.messages,
        [_parts(parts) for parts in call.inputs],
        None if call.preparation is None else call.preparation.schema,
        None if call.raw is None else _raw(call.raw, call.operation),
    )
    try:
        return sha256(_ENCODER.encode(question)).hexdigest()
    except _UNWRITABLE:
        return None


def _parts(parts: tuple[Part | Mapping[str, object], ...]) -> list[object]:
    """Texts as texts, media as pairs, pieces in the upstream's own form as tables: never alike."""
    return [_media(part) if isinstance(part, Blob) else part for part in parts]


def _media(blob: Blob) -> tuple[object, ...]:
    """Of media that are uploaded the digest: wherever they are kept, they are the same. Large ones are
    hashed by themselves, which lets other threads run; to write them down would not."""
    if blob.upload is not None:
        return (blob.mime_type, blob.upload.digest, "uploaded")
    if len(blob.data) < _LARGE:
        return (blob.mime_type, blob.data)
    return (blob.mime_type, sha256(blob.data).digest(), len(blob.data), "hashed")


def _raw(raw: Raw, operation: Operation) -> tuple[object, ...]:
    """A call in the upstream's own words. Its answer is passed on as it came: its form counts too."""
    return (operation.value, raw.method, raw.path, dict(raw.headers), raw.body)
