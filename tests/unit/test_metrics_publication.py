"""Several workers behind one port: whichever is asked answers for all, and for those that were."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.metrics import attempt, fresh, values

from headgate.core.errors import ConfigurationError, StoreError
from headgate.telemetry.metrics import FOLDER_VARIABLE
from headgate.telemetry.metrics.books import Sheet
from headgate.telemetry.metrics.exposition import OPENMETRICS, PLAIN
from headgate.telemetry.metrics.metrics import Metrics
from headgate.telemetry.metrics.publication import Publication
from headgate.testing import VirtualClock
from headgate.wiring.gateway_metrics import GatewayMetrics

REFUSED = 'quota_exceeded_total{limit_type="rpm"}'
USED = 'headgate_quota_used{limit="rpm",model="m",provider="gemini",quota_domain="alpha"}'
IN_FLIGHT = 'headgate_in_flight{provider="gemini"}'
LEFT = "quota_rpm_remaining"


class State:
    """What a worker sees of the shared ledger, and has under way itself."""

    def __init__(self, used: float, under_way: float) -> None:
        self.used, self.under_way = used, under_way

    def read(self, sheet: Sheet) -> None:
        sheet.put("headgate_quota_used", self.used, "gemini", "alpha", "m", "rpm")
        sheet.put("quota_rpm_remaining", 12 - self.used)
        sheet.put("headgate_in_flight", self.under_way, "gemini")


class Worker:
    """Metrics of a worker and its part of the publication. `die` is what the system does for it."""

    def __init__(self, folder: Path, name: str, used: float = 0, under_way: float = 0) -> None:
        self.metrics, registry = fresh(VirtualClock())
        self.state = State(used, under_way)
        self.metrics.watch(self.state, State.read)
        self.publication = Publication(folder, name, registry)

    def scrape(self) -> dict[str, float]:
        text, kind = self.publication.exposition()
        assert kind == PLAIN
        return values(text.decode())

    def die(self) -> None:
        assert self.publication._alive is not None
        self.publication._alive.close()
        self.publication._alive = None


Crew = Callable[..., Worker]


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    """Makes workers that share a folder."""
    made: list[Worker] = []

    def make(name: str, used: float = 0, under_way: float = 0) -> Worker:
        made.append(Worker(tmp_path, name, used, under_way))
        return made[-1]

    yield make
    for worker in made:
        worker.publication.close()


def test_counters_are_summed_and_shared_gauges_are_not(crew: Crew) -> None:
    one, two = crew("one", 7, 2), crew("two", 8, 3)
    one.metrics.content.quota_exceeded("rpm")
    two.metrics.content.quota_exceeded("rpm")
    two.publication.publish()
    seen = one.scrape()
    assert seen[REFUSED] == 2
    assert seen[USED] == 8  # of one ledger, read at two moments
    assert seen[LEFT] == 4  # the fewest
    assert seen[IN_FLIGHT] == 5  # each has its own
    assert seen == two.scrape()


def test_a_worker_that_died_leaves_its_counters_and_nothing_else(crew: Crew) -> None:
    one, two = crew("one", 7, 2), crew("two", 9, 3)
    for worker in (one, two):
        worker.metrics.content.quota_exceeded("rpm")
        worker.metrics.content.quality("topic", 0.5)
        worker.publication.publish()
    two.metrics.content.quota_exceeded("rpm")  # after it wrote: lost, for it is killed
    two.die()
    seen = one.scrape()
    assert seen[REFUSED] == 2
    assert seen['content_quality_score_count{content_type="topic"}'] == 2
    assert seen[IN_FLIGHT] == 2
    assert seen[USED] == 7


def test_a_worker_that_ends_in_peace_loses_nothing(crew: Crew) -> None:
    one, two = crew("one"), crew("two", under_way=1)
    two.metrics.content.quota_exceeded("rpm")
    two.publication.close()
    two.publication.close()  # harmless
    two.metrics.content.quota_exceeded("rpm")
    two.publication.publish()  # too late: whoever counts it has it already
    seen = one.scrape()
    assert seen[REFUSED] == 1
    assert seen[IN_FLIGHT] == 0


def test_no_counter_ever_falls_whoever_is_asked(crew: Crew) -> None:
    """What was shown stands in a file, or the next worker that is asked would show less."""
    workers = [crew(f"w{number}") for number in range(3)]
    before = 0.0
    for step in range(30):
        workers[step * 7 % 3].metrics.content.quota_exceeded("rpm")
        now = workers[step % 3].scrape()[REFUSED]
        assert now >= before
        before = now
    for worker in workers:
        worker.publication.publish()
    assert workers[0].scrape()[REFUSED] == 30


def test_many_restarts_leave_one_file_and_every_count(crew: Crew, tmp_path: Path) -> None:
    for number in range(12):
        worker = crew(f"w{number}")
        worker.metrics.content.quota_exceeded("rpm")
        worker.publication.publish()
        worker.die()
    last = crew("last")
    assert last.scrape()[REFUSED] == 12
    assert sorted(path.name for path in tmp_path.glob("*.metrics")) == ["ended.metrics", "last.metrics"]
    assert sorted(path.name for path in tmp_path.glob("*.alive")) == ["last.alive"]


def test_whoever_is_killed_while_it_sums_the_gone_counts_nothing_twice(
    crew: Crew, tmp_path: Path
) -> None:
    """Between the sum and the end of the files that are in it."""
    gone = [crew("one"), crew("two")]
    for worker in gone:
        worker.metrics.content.quota_exceeded("rpm")
        worker.publication.publish()
    for worker in gone:
        worker.die()
    left = {path: path.read_bytes() for path in tmp_path.glob("*.metrics")}
    reader = crew("three")
    for path, written in left.items():
        path.write_bytes(written)  # as if it had not come to that
    assert reader.scrape()[REFUSED] == 2
    assert crew("four").scrape()[REFUSED] == 2
    assert not [path for path in left if path.exists()]


def test_a_file_that_is_no_snapshot_is_left_out(crew: Crew, tmp_path: Path) -> None:
    (tmp_path / "older.metrics").write_bytes(b"\xff of another version")
    worker = crew("one", 3)
    (tmp_path / "other.metrics").write_bytes(b"\xff of another version")
    assert worker.scrape()[USED] == 3


def test_exemplars_go_through_the_files(crew: Crew) -> None:
    one, two = crew("one"), crew("two")
    one.metrics.engine.attempt(attempt(request_id="of-one", ended=10.2))
    two.metrics.engine.attempt(attempt(request_id="of-two"))
    two.publication.publish()
    text, kind = one.publication.exposition("application/openmetrics-text")
    assert kind == OPENMETRICS
    assert b'# {request_id="of-one"}' in text
    assert b'# {request_id="of-two"}' in text


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Publication(tmp_path / "gone", "one", Metrics(VirtualClock()))


_PROCESS = """
import sys
from pathlib import Path
from tests.unit.test_metrics_publication import Worker

worker = Worker(Path(sys.argv[1]), sys.argv[2], used=float(sys.argv[3]), under_way=1)
for _ in range(int(sys.argv[4])):
    worker.metrics.content.quota_exceeded("rpm")
worker.publication.publish()
for line in sys.stdin:
    import json
    print(json.dumps(worker.scrape() if line.strip() == "scrape" else None), flush=True)
worker.publication.close()
"""


def test_three_processes_of_which_one_is_killed(tmp_path: Path) -> None:
    """Issue 6: no summed duplicates of shared gauges, dead workers gone."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _PROCESS, str(tmp_path), name, used, count],
            cwd=Path(__file__).parents[2], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for name, used, count in (("one", "5", "1"), ("two", "6", "10"), ("three", "9", "100"))
    ]  # fmt: skip

    def ask(number: int, word: str = "scrape") -> dict[str, float]:
        sending, reading = processes[number].stdin, processes[number].stdout
        assert sending is not None
        assert reading is not None
        sending.write(f"{word}\n")
        sending.flush()
        found: dict[str, float] = json.loads(reading.readline())
        return found

    try:
        for number in range(3):
            ask(number, "hello")  # it has published
        for number in range(3):
            seen = ask(number)
            assert (seen[REFUSED], seen[USED], seen[LEFT], seen[IN_FLIGHT]) == (111, 9, 3, 3)
        processes[2].kill()
        processes[2].wait()
        seen = ask(0)
        assert (seen[REFUSED], seen[USED], seen[LEFT], seen[IN_FLIGHT]) == (111, 6, 6, 2)
        assert seen == ask(1)
    finally:
        for process in processes:
            process.kill()
            process.communicate()


# ── in a gateway ────────────────────────────────────────────────────────────────────────────────


async def test_two_gateways_that_share_a_folder_answer_for_each_other(
    clock: VirtualClock, tmp_path: Path
) -> None:
    environ = {FOLDER_VARIABLE: str(tmp_path)}
    one, two = (GatewayMetrics.of_worker(clock, environ) for _ in range(2))
    one.metrics.content.quota_exceeded("rpm")
    tended = asyncio.ensure_future(one.tend())
    await clock.sleep(6)
    seen = values((await two.exposition())[0].decode())
    assert seen[REFUSED] == 1
    assert seen["headgate_workers"] == 2
    tended.cancel()
    one.close()
    seen = values((await two.exposition())[0].decode())
    assert (seen[REFUSED], seen["headgate_workers"]) == (1, 1)
    two.close()


async def test_a_folder_that_goes_away_stops_no_gateway(clock: VirtualClock, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    metrics = GatewayMetrics(clock, folder)
    tended = asyncio.ensure_future(metrics.tend())
    shutil.rmtree(folder)
    await clock.sleep(12)
    assert not tended.done()
    with pytest.raises(StoreError, match="cannot be gathered"):
        await metrics.exposition()
    tended.cancel()
    metrics.close()


async def test_a_folder_that_was_never_there_is_told_at_the_start(
    clock: VirtualClock, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="HEADGATE_METRICS_FOLDER"):
        GatewayMetrics(clock, tmp_path / "gone")
