"""One contender through its scenes."""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.rivals.gateway.bodies import LARGE_REQUEST, streamed
from bench.rivals.gateway.contenders import Contender, Place, free_port
from bench.rivals.gateway.load import drive
from bench.rivals.gateway.streams import first_bytes
from bench.rivals.gateway.tree import Tree, core_busy, started

__all__ = ["Row", "Seconds", "measure"]

HERE, THERE = 0, 1
"""The core of the contender, and that of everything else."""

EVENTS = 100
_FIRST_ANSWER_LIMIT = 90.0
_FOREIGN = 0.10  # of the contender's core: what `speed.md` flags a row at


@dataclass(frozen=True, slots=True)
class Seconds:
    """How long each part lasts.

    Attributes:
        warm: before anything is counted.
        each: of a row.
        rounds: of 50 streams at once.
    """

    warm: float = 2.0
    each: float = 5.0
    rounds: int = 3


@dataclass(frozen=True, slots=True)
class Row:
    """One figure set: a contender in a scene.

    Attributes:
        contender: its name.
        scene: what was done.
        requests: answered in a second.
        cpu: microseconds of the contender's processor time, a request or an event.
        p50: milliseconds.
        p99: milliseconds.
        memory: megabytes at the end.
        first: seconds from the start to the first answer.
        note: what speaks against the row; nothing, if nothing does.
    """

    contender: str
    scene: str
    requests: float
    cpu: float
    p50: float
    p99: float
    memory: float
    first: float
    note: str = ""

    @property
    def per_core(self) -> float:
        """Requests, or events, a second that a whole core would do."""
        return 1e6 / self.cpu if self.cpu else 0.0


@dataclass(frozen=True, slots=True)
class _Up:
    one: Contender
    tree: Tree
    url: str
    headers: dict[str, str]
    first: float


def measure(
    one: Contender, upstreams: dict[str, int], folder: Path, seconds: Seconds, trusts: Path
) -> list[Row]:
    """All scenes of a contender.

    Args:
        upstreams: ports: of the one that answers at once, after 50 ms, in streams, and behind TLS.
        trusts: the certificate of the last.
    """
    rows = []
    with _up(one, upstreams["at once"], folder) as up:
        drive(THERE, up.url + one.path, up.headers, one.body, 16, seconds.warm, folder)
        rows += [
            _loaded(up, f"{c} connections", one.path, one.body, c, seconds, folder) for c in (1, 32)
        ]
        if one.path.endswith("generateContent"):
            rows.append(_loaded(up, "100 KB requests", one.path, LARGE_REQUEST, 32, seconds, folder))
    with _up(one, upstreams["50 ms"], folder) as up:
        rows.append(_loaded(up, "upstream of 50 ms", one.path, one.body, 500, seconds, folder))
    if one.stream:
        with _up(one, upstreams["streams"], folder, streaming=True) as up:
            rows += _streamed(up, seconds, folder)
    if one.secure:
        with _up(one, upstreams["TLS"], folder, trusts=trusts) as up:
            drive(THERE, up.url + one.path, up.headers, one.body, 16, seconds.warm, folder)
            rows.append(_loaded(up, "upstream behind TLS", one.path, one.body, 32, seconds, folder))
    return rows


@contextmanager
def _up(
    one: Contender,
    upstream: int,
    folder: Path,
    *,
    streaming: bool = False,
    trusts: Path | None = None,
) -> Iterator[_Up]:
    port = free_port()
    running = one.run(Place(port, upstream, folder, trusts))
    headers = {name: value.format(upstream=upstream) for name, value in one.headers.items()}
    body = streamed(one.body) if streaming and b'"messages"' in one.body else one.body
    begun = time.monotonic()
    with started(running.command, HERE, folder, "contender", running.variables) as tree:
        url = _told(tree, begun) if one.telling else f"http://127.0.0.1:{port}"
        _await(url + (one.stream if streaming else one.path), headers, body, tree, begun)
        yield _Up(one, tree, url, headers, time.monotonic() - begun)


def _told(tree: Tree, begun: float) -> str:
    while time.monotonic() - begun < _FIRST_ANSWER_LIMIT:
        found = re.search(r"^AT (http\S+?)/v1/?$", tree.log.read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return found[1]
        time.sleep(0.01)
    raise RuntimeError(f"it did not say where it listens: {_last_words(tree)}")


def _await(url: str, headers: dict[str, str], body: bytes, tree: Tree, begun: float) -> None:
    """Until it answers as the upstream does. Raises `RuntimeError` where it does not."""
    said = "nothing yet"
    while time.monotonic() - begun < _FIRST_ANSWER_LIMIT and tree.alive():
        try:
            said = _answer(url, headers, body)
        except OSError as error:
            said = repr(error)
        else:
            if said == "":
                return
        time.sleep(0.01)
    raise RuntimeError(f"it did not answer: {said}; {_last_words(tree)}")


def _answer(url: str, headers: dict[str, str], body: bytes) -> str:
    """Nothing, if the answer has the upstream's words and its usage; else what it was."""
    target = urlsplit(url)
    connection = http.client.HTTPConnection(str(target.netloc), timeout=20)
    try:
        connection.request(
            "POST", target.path + (f"?{target.query}" if target.query else ""), body, headers
        )
        answer = connection.getresponse()
        text = answer.read()
    except http.client.HTTPException as error:
        return repr(error)
    finally:
        connection.close()
    good = answer.status == 200 and b" keys" in text and (b"sage" in text or b"[DONE]" in text)
    return "" if good else f"{answer.status} {text[:300]!r}"


def _loaded(
    up: _Up, scene: str, path: str, body: bytes, connections: int, seconds: Seconds, folder: Path
) -> Row:
    cpu, busy, begun = up.tree.cpu(), core_busy(HERE), time.monotonic()
    got = drive(THERE, up.url + path, up.headers, body, connections, seconds.each, folder)
    took, used = time.monotonic() - begun, up.tree.cpu() - cpu
    foreign = (core_busy(HERE) - busy - used) / took
    note = "" if got.sound else f"void: {got.refused} refused, {got.broken} broken"
    if foreign > _FOREIGN:
        note = note or f"others used {foreign:.0%} of its core"
    requests = max(1, got.requests)
    return Row(
        up.one.name,
        scene,
        got.requests / got.seconds,
        used / requests * 1e6,
        got.p50,
        got.p99,
        up.tree.memory(),
        up.first,
        note,
    )


def _streamed(up: _Up, seconds: Seconds, folder: Path) -> list[Row]:
    one = up.one
    body = streamed(one.body) if b'"messages"' in one.body else one.body
    opened = first_bytes(up.url + one.stream, up.headers, body, 50, seconds.rounds)
    lost = "" if opened.events >= EVENTS else f"void: a stream of {opened.events} events"
    memory = up.tree.memory()
    rows = [
        Row(one.name, "50 streams, first byte", 0, 0, opened.p50, opened.p99, memory, up.first, lost)
    ]
    many = _loaded(up, "400 streams", one.stream, body, 400, seconds, folder)
    # wrk does not count the streams it cuts off at the end: what was under way follows from how long
    # one takes.
    events = 400 * EVENTS / (many.p50 / 1e3) * seconds.each if many.p50 else 0.0
    counted = many.requests * seconds.each
    cpu = many.cpu * counted / events if events else 0.0
    rows.append(Row(one.name, "400 streams, an event", events / seconds.each, cpu, many.p50, many.p99,
                    many.memory, up.first, many.note))  # fmt: skip
    return rows


def _last_words(tree: Tree) -> str:
    return tree.log.read_text(encoding="utf-8", errors="replace")[-400:]
