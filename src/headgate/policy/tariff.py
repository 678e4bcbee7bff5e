"""What quotas count of a call where a provider says nothing of its own: all input, as Gemini does."""

from __future__ import annotations

from headgate.core.call import Blob, Call, Part, Usage
from headgate.core.quota import Costs, Counts

__all__ = ["WholePrompt"]

_INPUT, _OUTPUT, _TOTAL = Counts.INPUT, Counts.OUTPUT, Counts.TOTAL  # a member is a call to look up


class WholePrompt:
    """Every token of the prompt counts, read from a cache or not. See `headgate.core.ports.Tariff`."""

    def prompt(self, call: Call) -> tuple[Part, ...]:
        """See `Tariff.prompt`: of a conversation all of it, for each call sends it again."""
        if call.inputs:
            return tuple(part for parts in call.inputs for part in parts)
        if not call.turns:
            return call.parts
        said = [part for turn in call.turns for part in turn.parts if isinstance(part, str | Blob)]
        return (*said, *call.parts)

    def cached(self, call: Call) -> bool:  # noqa: ARG002 - part of the port
        """See `Tariff.cached`."""
        return False

    def requests(self, call: Call) -> int:
        """See `Tariff.requests`."""
        return call.requests

    def most_output(self, call: Call) -> int | None:
        """See `Tariff.most_output`."""
        given = call.options.get("max_output_tokens")
        return given if isinstance(given, int) and given > 0 else None

    def prepaid_output(self, call: Call) -> int:  # noqa: ARG002 - part of the port
        """See `Tariff.prepaid_output`."""
        return 0

    def counted(self, usage: Usage) -> Costs:
        """See `Tariff.counted`."""
        spent = usage.output + usage.thoughts
        return {_INPUT: usage.prompt, _OUTPUT: spent, _TOTAL: usage.total}
