"""The way up of a prepared call: what was redacted is put back, and the reply is held to its schema."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from msgspec import structs

from headgate.core.call import Chunk, Reply
from headgate.core.errors import ReplySchemaError
from headgate.policy.json_schema import problems
from headgate.policy.preparing import map_piece
from headgate.policy.privacy.markers import Redaction

__all__ = ["Restoring"]

_CUT = "MAX_TOKENS"


class Restoring:
    """What is done to one answer, whole or in pieces; it serves one.

    Args:
        redaction: what to put back; None where nothing is.
        schema: what the text must fit; None checks nothing.
    """

    def __init__(
        self, redaction: Redaction | None, schema: Mapping[str, object] | None, request_id: str
    ) -> None:
        self._redaction = redaction
        self._restorer = None if redaction is None else redaction.restorer()
        self._schema = schema
        self._request_id = request_id
        self._said: list[str] = []
        self._reason: str | None = None
        self._called = False

    def whole(self, reply: Reply) -> Reply:
        """The answer as the caller gets it. Raises `ReplySchemaError`."""
        if self._redaction is not None:
            reply = structs.replace(
                reply, text=self._redaction.restore(reply.text), content=self._pieces(reply.content)
            )
        if not reply.content:  # a call of a function stands instead of an answer
            self._check(reply.text, reply.finish_reason)
        return reply

    def feed(self, chunk: Chunk) -> Chunk:
        """See `headgate.engine.stream.Change`."""
        if self._restorer is not None:
            text = self._restorer.feed(chunk.text) if chunk.text else ""
            if chunk.finish_reason is not None:
                text += self._restorer.finish()
            chunk = structs.replace(chunk, text=text, content=self._pieces(chunk.content))
        if self._schema is not None:
            self._said.append(chunk.text)
            self._reason = chunk.finish_reason or self._reason
            self._called = self._called or bool(chunk.content)
        return chunk

    def finish(self) -> Chunk | None:
        """See `headgate.engine.stream.Change`. Raises `ReplySchemaError`."""
        held = "" if self._restorer is None else self._restorer.finish()
        if held:
            self._said.append(held)
            return Chunk(held)
        if self._schema is not None and not self._called:
            self._check("".join(self._said), self._reason)
        return None

    def _pieces(self, content: Sequence[Mapping[str, object]]) -> tuple[Mapping[str, object], ...]:
        if self._redaction is None:
            return tuple(content)
        return tuple(map_piece(piece, self._redaction.restore) for piece in content)

    def _check(self, text: str, reason: str | None) -> None:
        if self._schema is None:
            return
        try:
            found = problems(json.loads(text), self._schema)
        except (ValueError, RecursionError):
            found = ["$ is no JSON"]
        if not found:
            return
        cut = " It was cut at the token limit: raise max_output_tokens." if reason == _CUT else ""
        raise ReplySchemaError(
            f"The reply does not fit its schema: {'; '.join(found)}.{cut} Ask again, or make the "
            "schema simpler; the error's `text` holds the reply.",
            text=text,
            problems=tuple(found),
            request_id=self._request_id,
        )
