"""How large an ask may be: what of a call's expected costs a ledger is asked for.

An ask larger than every domain's limit is never granted. That is right for what a call surely needs,
and wrong for what it only might: an answer may stay far below its bound, a prompt may come from a cache
that is not counted. Of such costs at most the largest limit is asked for; what is used beyond it is
charged when the call ends. Of prompt and answer together the prompt is sure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from headgate.core.quota import Costs, Counts, Limit, Penalty

__all__ = ["Sizes"]

_INPUT, _TOTAL = Counts.INPUT, Counts.TOTAL  # a member of an enum costs as much as a call to look up
_ALWAYS = frozenset({Counts.REQUESTS, _INPUT})


class Sizes:
    """The limits of a group's domains, as far as they bound a single ask.

    Args:
        domains: the limits of each domain, in the order of their handles.
    """

    def __init__(self, domains: Sequence[Sequence[Limit]]) -> None:
        self._domains = [{limit.name: limit for limit in limits} for limits in domains]
        self._most = self._measured()

    def learn(self, told: Iterable[Penalty]) -> None:
        """What a provider said of domains: limits among it count from now on."""
        for penalty in told:
            limit = penalty.limit
            if limit is not None and penalty.domain < len(self._domains):
                self._domains[penalty.domain][limit.name] = limit
                self._most = self._measured()

    def costs(self, expected: Costs, elastic: Collection[Counts]) -> Costs:
        """What to ask for: without what no domain limits, and elastic costs up to the largest limit.

        Requests and input are always named: another process may have learned a limit of theirs.
        """
        asked: dict[Counts, int] = {}
        for counts, cost in expected.items():  # plain: it is on the path of every call
            if counts not in self._most and counts not in _ALWAYS:
                continue
            asked[counts] = cost
            most = self._most.get(counts)
            if most is None or counts not in elastic:
                continue
            sure = counts is _TOTAL and _INPUT not in elastic
            least = expected.get(_INPUT, 0) if sure else 0
            asked[counts] = max(min(cost, most), least)
        return asked

    def _measured(self) -> dict[Counts, int | None]:
        """By what is counted, the most a single ask can get of any domain; None: any amount."""
        found: dict[Counts, int | None] = {}
        for counts in {limit.counts for limits in self._domains for limit in limits.values()}:
            rows = [
                [limit.amount for limit in limits.values() if limit.counts is counts]
                for limits in self._domains
            ]
            found[counts] = max(min(row) for row in rows) if all(rows) else None
        return found
