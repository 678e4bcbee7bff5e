"""What OpenAI's limits count: which models together, and what of a call.

Limits belong to an organisation (and to its projects) and a model; a dated version is counted with the
model it is a version of, as refusals say ("gpt-4.1-2025-04-14 (for limit gpt-4.1)": continue #11717,
2026-03-22). There is one limit of tokens, and it counts prompt and answer together. The vendor's page
of rate limits (read in copies of 2023 to 2026-06) has a call counted when it arrives, with the larger
of `max_tokens` and its estimate of the prompt; a refusal names the sum as "Requested". So a bound that
a call sets is reserved and stays charged, whatever comes out; a call without one is charged what it
used. Tokens read from a cache count like any other (vendor's page of prompt caching).

Days are buckets that refill evenly: "Limit 200, Used 200 … try again in 7m12s" is a two-hundredth of a
day (openai/codex #797, 2025-05-03).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from headgate.core.call import Blob, Call, Part, Usage
from headgate.core.quota import Costs, Counts, Kind
from headgate.policy.quota.table import Counting
from headgate.providers.prompt_parts import as_json, rows

__all__ = ["OPENAI_COUNTING", "OpenAITariff", "class_of"]

OPENAI_COUNTING = Counting(tokens=Counts.TOTAL, days=Kind.ROLLING)
"""What its numbers mean."""

_INPUT, _OUTPUT, _TOTAL = Counts.INPUT, Counts.OUTPUT, Counts.TOTAL  # a member is a call to look up

_DATED = re.compile(r"(.+?)-\d{4}-\d\d-\d\d")
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)[;,]")
_BOUNDS = ("max_completion_tokens", "max_tokens")
_SHAPES = ("tools", "functions", "response_format")
_NOT_COUNTED = ("role", "name", "type", "id", "tool_call_id", "cache_control")
_MOST_ANSWERS = 128
"""The largest `n` that is believed (OpenAI's own bound)."""


@lru_cache(maxsize=1000)
def class_of(model: str) -> str:
    """The class a model is counted in: `gpt-4.1` for `gpt-4.1-2025-04-14`."""
    dated = _DATED.fullmatch(model)
    return model if dated is None else dated[1]


class OpenAITariff:
    """What OpenAI's limits count of a call. See `headgate.core.ports.Tariff`."""

    def prompt(self, call: Call) -> tuple[Part, ...]:
        """See `Tariff.prompt`: every message, the tools, and the schema of the answer."""
        found: list[Part] = [part for turn in call.turns for part in _of_turn(turn.parts)]
        found += call.parts
        found += [part for parts in call.inputs for part in parts]
        for message in call.messages:
            found += _of_message(message)
        for name in _SHAPES:
            if value := call.options.get(name):
                found.append(as_json(value))
        return tuple(found)

    def cached(self, call: Call) -> bool:  # noqa: ARG002 - part of the port
        """See `Tariff.cached`."""
        return False

    def requests(self, call: Call) -> int:  # noqa: ARG002 - part of the port
        """See `Tariff.requests`: a batch of texts is one request, whose tokens are counted."""
        return 1

    def most_output(self, call: Call) -> int | None:
        """See `Tariff.most_output`."""
        bounds = [call.options.get(name) for name in _BOUNDS]
        given = [bound for bound in bounds if isinstance(bound, int) and bound > 0]
        if not given:
            return None if call.raw is None else call.raw.weight.most_output
        answers = call.options.get("n")
        times = min(answers, _MOST_ANSWERS) if isinstance(answers, int) and answers > 0 else 1
        return max(given) * times

    def prepaid_output(self, call: Call) -> int:
        """See `Tariff.prepaid_output`: the bound that the call sets, if any."""
        return self.most_output(call) or 0

    def counted(self, usage: Usage) -> Costs:
        """See `Tariff.counted`."""
        spent = usage.output + usage.thoughts
        return {_INPUT: usage.prompt, _OUTPUT: spent, _TOTAL: usage.total}


def _of_turn(parts: tuple[Part | Mapping[str, object], ...]) -> Iterator[Part]:
    for part in parts:
        yield part if isinstance(part, str | Blob) else as_json(part)


def _of_message(message: Mapping[str, object]) -> Iterator[Part]:
    content = message.get("content")
    if isinstance(content, str):
        yield content
    for piece in rows(content):
        yield from _of_piece(piece)
    rest = {n: v for n, v in message.items() if n not in _NOT_COUNTED and n != "content" and v}
    if rest:
        yield as_json(rest)


def _of_piece(piece: Mapping[str, object]) -> Iterator[Part]:
    match piece.get("type"):
        case "text" | "refusal":
            said = piece.get("text") or piece.get("refusal")
            if isinstance(said, str):
                yield said
        case "image_url":
            yield _media(piece.get("image_url"), "url", "image/*")
        case "input_audio":
            yield _media(piece.get("input_audio"), "data", "audio/*")
        case "file":
            yield _media(piece.get("file"), "file_data", "application/pdf")
        case _:
            yield as_json({n: v for n, v in piece.items() if n not in _NOT_COUNTED})


def _media(holder: object, name: str, kind: str) -> Blob:
    """Only the size of the bytes matters; those behind a URL or an id have none here."""
    text = holder.get(name) if isinstance(holder, Mapping) else None
    if not isinstance(text, str):
        return Blob(kind, b"")
    found = _DATA_URL.match(text)
    if found is None and name == "url":
        return Blob(kind, b"")
    return Blob(found[1] if found else kind, bytes(len(text) * 3 // 4))
