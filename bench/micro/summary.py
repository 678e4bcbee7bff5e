"""The table in `bench/README.md`: the figures a reader asks for first, out of the results."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bench.micro import (
    admission,
    bridge,
    cache,
    choice,
    decisions,
    imports,
    overhead,
    stages,
    transport,
    usage,
)
from bench.micro.figures import Figure, environment

__all__ = ["ROWS", "with_summary"]

_TO_FEW = ": 100,000 to 10"
_ONE, _MANY = (
    f"{overhead.OVER_HTTP}, 1 at a time",
    f"{overhead.OVER_HTTP}, {overhead.AT_ONCE} at a time",
)

_STAGES = stages.GROUP
_STAGES_MANY = f"{_STAGES}, {stages.AT_ONCE} at a time"

ROWS: dict[str, list[tuple[str, str]]] = {
    "a lease with its settlement, 10 keys": [(choice.GROUP, "all ready, 10 keys")],
    "100,000 keys to 10: all ready · all but one cooling · half cooling · one project": [
        (choice.GROUP, f"{name}{_TO_FEW}") for name in choice.SITUATIONS
    ],
    "our ledger · our token bucket · `limits` moving window, in memory, CPU a decision": [
        (decisions.IN_MEMORY, f"{name}, CPU")
        for name in ("headgate ledger", "headgate token bucket", "limits, moving window")
    ],
    "the same on Valkey, 32 at a time": [
        (f"{decisions.ON_STORE}, {decisions.AT_ONCE} at a time", f"{name}, CPU")
        for name in (
            "headgate ledger, ValkeyStore",
            "headgate token bucket, Redis",
            "limits, moving window, Redis",
        )
    ],
    "30,000 tokens cost as one: our ledger, in memory · on Valkey · `limits` moving window": [
        (decisions.LARGE, name)
        for name in ("headgate ledger", "headgate ledger, ValkeyStore", "limits, moving window")
    ],
    "an admission with 10,000 domains to one with 10: memory · Redis · Valkey": [
        (admission.MEMORY, "10,000 to 10 domains, one at a time"),
        (admission.SERVER["Redis"], "10,000 to 10 domains, batches of 1"),
        (admission.SERVER["Valkey"], "10,000 to 10 domains, batches of 1"),
    ],
    "in batches of 32, with 10,000 to one with 1,000: Redis · Valkey": [
        (admission.SERVER["Redis"], "10,000 to 1,000 domains, batches of 32"),
        (admission.SERVER["Valkey"], "10,000 to 1,000 domains, batches of 32"),
    ],
    "round trips an admission, 1 · 8 · 64 coroutines": [
        (admission.TRIPS, f"round trips an admission, {many} coroutines") for many in admission.AT_ONCE
    ],
    "server time an admission, 1 · 8 · 64 coroutines": [
        (admission.TRIPS, f"server time an admission, {many} coroutines") for many in admission.AT_ONCE
    ],
    "what the client adds to a call, without a socket, CPU": [(overhead.IN_PROCESS, "added, CPU")],
    "what every stage adds to a call, 1 · 32 at a time; with declared quotas, 32 at a time, CPU": [
        (f"{_STAGES}, 1 at a time", f"added by {stages.STAGES}, CPU"),
        (_STAGES_MANY, f"added by {stages.STAGES}, CPU"),
        (_STAGES_MANY, f"added by {stages.STAGES}, {stages.WITH_QUOTAS}, CPU"),
    ],
    "what a kept answer adds to a call, 32 at a time, CPU": [
        (_STAGES_MANY, f"added by {stages.HIT}, CPU")
    ],
    "what it adds over loopback, 1 · 32 at a time, CPU": [(_ONE, "added, CPU"), (_MANY, "added, CPU")],
    "client to bare aiohttp over loopback, 1 · 32 at a time": [
        (_ONE, "client to aiohttp"),
        (_MANY, "client to aiohttp"),
    ],
    "the first piece of a stream comes later by": [(overhead.STREAM, "added, wall time")],
    "a stream of 20 pieces costs more by, CPU": [(overhead.STREAM, "added, CPU")],
    "a request over a bare transport, 1 KB, 32 at a time: aiohttp · lean, on asyncio; on uvloop": [
        (f"{transport.WHOLE}, 32 at a time", f"{name}, {loop}, CPU")
        for loop in ("asyncio", "uvloop")
        for name in ("aiohttp", "lean")
    ],
    "usage of a call: noted on the path · priced and counted beside it, CPU": [
        (usage.GROUP, usage.OBSERVED),
        (usage.GROUP, usage.COUNTED),
    ],
    "of a kept reply of 1 KB, CPU: the key · found in memory · put there": [
        (cache.KEYS, "a prompt of 1,000 characters"),
        (cache.HIT, "found in memory, CPU"),
        (cache.HIT, "put into memory, CPU"),
    ],
    "a hop through the blocking bridge": [(bridge.GROUP, "a hop, wall time")],
    "fresh interpreter: bare · asyncio · headgate.gemini": [
        (imports.GROUP, name) for name in ("bare interpreter", "asyncio", "headgate.gemini")
    ],
    "`import headgate.gemini` above the bare interpreter, best of all": [
        (imports.GROUP, "headgate.gemini above the bare interpreter, best of all")
    ],
}
"""What a row shows, and the figures (group, name) it shows."""

_PLACE = re.compile(r"(<!-- results -->\n).*?(<!-- end -->)", re.DOTALL)


def with_summary(readme: str, figures: Sequence[Figure]) -> str:
    """The page with its table and the line above it written anew."""
    found = {(figure.group, figure.name): figure for figure in figures}
    facts = environment()
    lines = [
        f"{facts['date']}, {facts['cpu']}, {facts['cores']} cores, {facts['python']}. Medians.",
        "",
        "| figure | |",
        "|---|--:|",
    ]
    for name, shown in ROWS.items():
        if any(figure not in found for figure in shown):  # rivals that are not installed
            continue
        chosen = [found[figure] for figure in shown]
        digits = 2 if chosen[0].unit in ("×", "") else 1 if chosen[0].median < 10 else 0
        values = " · ".join(f"{figure.median:.{digits}f}" for figure in chosen)
        lines.append(f"| {name} | {values} {chosen[0].unit}".rstrip() + " |")
    table = "\n".join(lines)
    return _PLACE.sub(lambda place: f"{place[1]}\n{table}\n\n{place[2]}", readme)
