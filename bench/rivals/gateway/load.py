"""wrk: calls as fast as they are answered, over so many connections; and what it says of them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Answered", "drive"]

_SCRIPT = """
local file = io.open(os.getenv("BENCH_BODY"), "rb")
wrk.method, wrk.body = "POST", file:read("*a")
for name, value in os.getenv("BENCH_HEADERS"):gmatch("([^\\n:]+): ([^\\n]+)") do
  wrk.headers[name] = value
end
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("\\nBENCH %d %d %d %d %d %d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
end
"""
_SAID = re.compile(r"^BENCH (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of a run.

    Attributes:
        requests: that were answered.
        seconds: it took.
        p50: milliseconds from a request to its answer's end.
        p99: the same, of the slowest hundredth.
        refused: answers that were not 2xx or 3xx.
        broken: connections that failed, or calls that took longer than 20 s.
    """

    requests: int
    seconds: float
    p50: float
    p99: float
    refused: int
    broken: int

    @property
    def sound(self) -> bool:
        """Whether every call was answered well: errors are fast, and a row with any is void."""
        return self.requests > 0 and self.refused == self.broken == 0


def drive(
    core: int,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    connections: int,
    seconds: float,
    folder: Path,
) -> Answered:
    """Call a URL for so long. Raises `RuntimeError` where wrk failed."""
    script, file = folder / "load.lua", folder / "body.json"
    script.write_text(_SCRIPT, encoding="ascii")
    file.write_bytes(body)
    said = "\n".join(f"{name}: {value}" for name, value in headers.items())
    command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s"]
    done = subprocess.run(
        [*command, "--timeout", "20s", "-s", str(script), url],
        env={"PATH": "/usr/bin:/bin", "BENCH_BODY": str(file), "BENCH_HEADERS": said},
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + 40,
    )
    found = _SAID.search(done.stdout)
    if found is None:
        raise RuntimeError(f"wrk said: {done.stdout[-300:]}{done.stderr[-300:]}")
    requests, microseconds, p50, p99, refused, broken = map(int, found.groups())
    return Answered(requests, microseconds / 1e6, p50 / 1e3, p99 / 1e3, refused, broken)
