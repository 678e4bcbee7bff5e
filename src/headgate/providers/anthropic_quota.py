"""What Anthropic's limits count: which models together, and what of a call.

Limits belong to an organisation and a *class* of models, with one bucket each for requests, input
tokens and output tokens. Of classes it is known that all versions of Opus 4 share one, and those of
Sonnet 4 (vendor's page of rate limits in a copy of late 2025, one row "Opus 4.x"; third-party readings
of 2026); what later generations do was not found. Counting together what is counted apart costs
throughput, the other way round it draws refusals: so a generation always counts as one here. Models
named in the old form (`claude-3-7-sonnet-…`) had buckets of their own.

Input tokens are counted without those read from a cache (models before generation 4 counted them too).
Output is counted as it comes out; the same page said earlier that `max_tokens` is counted at the start
and corrected at the end. Reserving `max_tokens` until the call has ended covers both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from headgate.core.call import Blob, Call, Part, Usage
from headgate.core.quota import Costs, Counts
from headgate.providers.prompt_parts import as_json, rows

__all__ = ["AnthropicTariff", "class_of"]

_GENERATION = re.compile(r"(claude-[a-z]+-\d+)(?:-\d{1,2})?(?:-\d{8}|-latest)?")
_DATED = re.compile(r"(.+?)(?:-\d{8}|-latest)")

_NOT_COUNTED = ("signature", "cache_control", "citations", "id", "tool_use_id", "is_error", "type")


@lru_cache(maxsize=1000)
def class_of(model: str) -> str:
    """The class a model is counted in: `claude-opus-4` for `claude-opus-4-5-20251101`.

    A class is its own class; a name of another form stands for itself, without its date.
    """
    if found := _GENERATION.fullmatch(model):
        return found[1]
    dated = _DATED.fullmatch(model)
    return model if dated is None else dated[1]


class AnthropicTariff:
    """What Anthropic's limits count of a call. See `headgate.core.ports.Tariff`."""

    def prompt(self, call: Call) -> tuple[Part, ...]:
        """See `Tariff.prompt`: system, tools and every block of the messages."""
        found = list(call.parts)
        found += _parts(call.options.get("system"))
        for tool in rows(call.options.get("tools")):
            found.append(as_json(tool))
        for message in call.messages:
            found += _parts(message.get("content"))
        return tuple(found)

    def cached(self, call: Call) -> bool:
        """See `Tariff.cached`."""
        if call.options.get("cache_control") is not None:
            return True
        blocks = [*rows(call.options.get("system")), *rows(call.options.get("tools"))]
        for message in call.messages:
            blocks += rows(message.get("content"))
        return any("cache_control" in block for block in blocks)

    def requests(self, call: Call) -> int:
        """See `Tariff.requests`."""
        return call.requests

    def most_output(self, call: Call) -> int | None:
        """See `Tariff.most_output`."""
        given = call.options.get("max_tokens")
        return given if isinstance(given, int) and given > 0 else None

    def prepaid_output(self, call: Call) -> int:  # noqa: ARG002 - part of the port
        """See `Tariff.prepaid_output`."""
        return 0

    def counted(self, usage: Usage) -> Costs:
        """See `Tariff.counted`."""
        fresh = usage.prompt - usage.cached
        spent = usage.output + usage.thoughts
        return {Counts.INPUT: fresh, Counts.OUTPUT: spent, Counts.TOTAL: fresh + spent}


def _parts(content: object) -> Iterator[Part]:
    if isinstance(content, str):
        yield content
    for block in rows(content):
        yield from _block(block)


def _block(block: Mapping[str, object]) -> Iterator[Part]:
    source = block.get("source")
    if block.get("type") == "text" and isinstance(text := block.get("text"), str):
        yield text
    elif isinstance(source, Mapping):
        data, kind = source.get("data"), source.get("media_type")
        if source.get("type") == "text" and isinstance(data, str):
            yield data
        else:  # only the size of the bytes matters; those behind a URL have none here
            size = len(data) * 3 // 4 if isinstance(data, str) else 0
            yield Blob(kind if isinstance(kind, str) else f"{block.get('type')}/*", bytes(size))
    elif block.get("type") == "tool_result":
        yield from _parts(block.get("content"))
    else:
        yield as_json({name: value for name, value in block.items() if name not in _NOT_COUNTED})
