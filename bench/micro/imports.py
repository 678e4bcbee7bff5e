"""What importing the client costs, in fresh interpreters with byte code present."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial

from bench.micro.figures import Figure, Scale, in_turn

__all__ = ["GROUP", "dominating", "measure"]

GROUP = "Import, in a fresh interpreter"
STATEMENTS = {
    "bare interpreter": "pass",
    "asyncio": "import asyncio",
    "headgate.gemini": "import headgate.gemini",
    "headgate.gemini and a client": (
        "import headgate.gemini as g; g.ResilientGeminiClient(keys='bench-key-number-one')"
    ),
    "headgate.emulator": "import headgate.emulator",
}


def measure(scale: Scale) -> list[Figure]:
    repeats = 1 if scale.repeats == 1 else scale.repeats * 2
    for statement in STATEMENTS.values() if repeats > 1 else ():
        _milliseconds(statement)  # writes byte code where there is none
    values = in_turn(repeats, [partial(_milliseconds, statement) for statement in STATEMENTS.values()])
    rows = [Figure(GROUP, n, "ms", v) for n, v in zip(STATEMENTS, values, strict=True)]
    best = min(rows[2].values) - min(rows[0].values)
    return [
        *rows,
        Figure(GROUP, "headgate.gemini above the bare interpreter, best of all", "ms", (best,)),
    ]


def _milliseconds(statement: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-c", statement], check=True)
    return (time.perf_counter() - began) * 1e3


def dominating(count: int = 14) -> list[str]:
    """What costs most by its own time, as `-X importtime` has it: our modules, and others' packages."""
    done = subprocess.run(
        [sys.executable, "-I", "-X", "importtime", "-c", STATEMENTS["headgate.gemini"]],
        check=True,
        capture_output=True,
        text=True,
    )
    own: dict[str, int] = {}
    for line in done.stderr.splitlines():
        cells = line.removeprefix("import time:").split("|")
        if len(cells) == 3 and cells[0].strip().isdigit():
            module = cells[2].strip()
            package = module if module.startswith("headgate") else module.partition(".")[0]
            own[package] = own.get(package, 0) + int(cells[0])
    largest = sorted(own.items(), key=lambda item: -item[1])[:count]
    ours = sum(microseconds for name, microseconds in own.items() if name.startswith("headgate"))
    return [
        f"{microseconds / 1000:7.1f} ms  {name}"
        for name, microseconds in [("all modules of headgate", ours), *largest]
    ]
