"""Which answers may be kept: complete and normal ones. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping

from headgate.core.call import Call, Operation, Reply
from headgate.policy.json_schema import problems

__all__ = ["keepable"]

_NORMAL = frozenset(
    (
        "STOP",  # Gemini
        "end_turn", "stop_sequence", "tool_use",  # Anthropic
        "stop", "tool_calls", "completed",  # OpenAI: chat completions, responses
    )
)  # fmt: skip
"""Why a model stops that has said all it had to say, in each upstream's words. Any other reason, known
or new, keeps an answer out: cut, withheld, paused."""


def keepable(call: Call, reply: Reply) -> bool:
    """Whether the answer to a call may be given for the same question again.

    One that does not fit the schema it was asked for is not kept: the caller gets an error that says to
    ask again, which must then ask.
    """
    if call.operation is Operation.EMBED:
        return bool(reply.vector or reply.vectors or reply.raw is not None)
    if reply.finish_reason not in _NORMAL:
        return False
    if reply.raw is not None:
        return reply.raw.status == 200
    schema = None if call.preparation is None else call.preparation.schema
    if reply.content or schema is None:
        return bool(reply.text or reply.blobs or reply.content)
    return _fits(reply.text, schema)


def _fits(text: str, schema: Mapping[str, object]) -> bool:
    try:
        return not problems(json.loads(text), schema)
    except (ValueError, RecursionError):
        return False
