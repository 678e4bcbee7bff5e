"""One run of the demo: emulator, client, workers, and a stage that shows them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

from msgspec import structs
from rich.console import RenderableType
from rich.live import Live

from headgate.cli import screen
from headgate.cli.demo import view, world
from headgate.cli.demo.books import Books, compare
from headgate.cli.demo.watch import Watch
from headgate.core.errors import HeadgateError
from headgate.core.ports import Clock
from headgate.emulator import Emulator
from headgate.gemini import ResilientGeminiClient
from headgate.wiring.clock import SystemClock

__all__ = ["Result", "perform"]

# Retries are what a call may spend on waiting for quota: enough for every short minute of the run.
_RETRIES, _MAX_WAIT = 12, 30.0
_FRAME_SECONDS, _LINE_SECONDS = 0.125, 2.0
_SHOWN = 44  # characters of a prompt, so that some of the answer fits beside it


@dataclass(frozen=True, slots=True)
class Result:
    """What a run came to."""

    total: int
    elapsed: float
    watch: Watch
    metrics: dict[str, Any]
    status: str
    books: Books

    @property
    def good(self) -> bool:
        """Every prompt answered, and the books agree."""
        return not self.complaints()

    def complaints(self) -> list[str]:
        """What is not as it should be."""
        missing = self.total - self.watch.answered
        said = [f"{missing} of {self.total} prompts were not answered"] if missing else []
        return said if self.books.agree else [*said, "the client's and the emulator's books differ"]

    def ending(self) -> list[RenderableType]:
        """For the screen."""
        return view.ending(self.watch, self.total, self.elapsed, self.status, self.books)

    def to_dict(self) -> dict[str, object]:
        """For `--json`."""
        watch = self.watch
        return {
            "prompts": self.total,
            "answered": watch.answered,
            "elapsed": round(self.elapsed, 3),
            "minute_seconds": world.MINUTE,
            "requests": watch.attempts,
            "rotations": watch.rotations,
            "retries": watch.retries,
            "waits": watch.waits,
            "waited": round(watch.waited, 3),
            "usage": {**structs.asdict(watch.usage), "total": watch.usage.total},
            "books": self.books.to_dict(),
            "happenings": [asdict(one) for one in watch.happenings],
            "keys": self.metrics["keys"],
        }


async def perform(size: int, concurrency: int, *, moving: bool) -> Result:
    """Send the first `size` prompts. `moving` allows a live picture where there is a terminal."""
    clock = SystemClock()
    configured = world.config(clock.wall())
    prompts = world.prompts()[:size]
    async with Emulator(configured, clock=clock) as upstream:
        world.arrange(upstream)
        watch = Watch(clock, clock.monotonic())
        # Nothing is read from the environment or a file: the settings of whoever tries this, right or
        # wrong, do not matter.
        client = ResilientGeminiClient(
            rotation_enabled=True,
            backoff_seconds=60,
            max_retries=_RETRIES,
            keys=world.key_list(configured),
            max_wait_seconds=_MAX_WAIT,
            base_url=upstream.base_url,
            observers=[watch],
            # Learned limits hold for a minute of sixty seconds; the demo's minutes are shorter.
            environ={"HEADGATE_CONFIG": os.devnull, "HEADGATE_QUOTA_LEARNING": "off"},
        )
        async with client:
            with _Stage(watch, client, len(prompts), moving=moving) as stage:
                await _send_all(client, prompts, world.model(clock.wall()), concurrency, stage, clock)
            elapsed = watch.elapsed()
        report = await _settled(upstream, clock)
        metrics = client.get_key_metrics()
        return Result(
            len(prompts), elapsed, watch, metrics, client.get_status_summary(), compare(metrics, report)
        )


async def _send_all(
    client: ResilientGeminiClient,
    prompts: list[str],
    model: str,
    concurrency: int,
    stage: _Stage,
    clock: Clock,
) -> None:
    queue = iter(prompts)
    async with asyncio.TaskGroup() as group:
        painter = group.create_task(stage.keep_painting(clock))
        async with asyncio.TaskGroup() as workers:
            for _ in range(concurrency):
                workers.create_task(_work(client, queue, model, stage.watch))
        painter.cancel()


async def _work(client: ResilientGeminiClient, queue: Iterator[str], model: str, watch: Watch) -> None:
    for prompt in queue:
        try:
            answer = await client.generate_content(prompt, model)
        except HeadgateError:
            continue  # counted and told by the watch
        asked = prompt if len(prompt) <= _SHOWN else prompt[: _SHOWN - 1] + "…"
        watch.latest = f"“{asked}” → {' '.join(answer.split())}"


async def _settled(upstream: Emulator, clock: Clock) -> Any:
    """The emulator's report, once it has closed its own books on the last answer."""
    for _ in range(100):
        report = upstream.report()
        if not report.totals.open:
            return report
        await clock.sleep(0.01)
    return upstream.report()


class _Stage:
    """Shows a run on stderr: a picture that moves on a terminal, else a line now and then."""

    def __init__(
        self, watch: Watch, client: ResilientGeminiClient, total: int, *, moving: bool
    ) -> None:
        self.watch = watch
        self._client = client
        self._total = total
        self._told = 0
        self._live: Live | None = None
        self._open = ExitStack()
        if moving and screen.is_terminal(sys.stderr):
            self._live = Live(
                console=screen.talk_console(), auto_refresh=False, transient=True, redirect_stdout=False
            )

    def __enter__(self) -> Self:
        metrics = self._client.get_key_metrics()
        projects = {key["project"] for key in metrics["keys"]}
        screen.note(view.heading(self._total, len(metrics["keys"]), len(projects)) + "\n")
        if self._live is not None:
            self._open.enter_context(self._live)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._paint()
        self._open.close()

    async def keep_painting(self, clock: Clock) -> None:
        """Until cancelled."""
        while True:
            self._paint()
            await clock.sleep(_LINE_SECONDS if self._live is None else _FRAME_SECONDS)

    def _paint(self) -> None:
        if self._live is not None:
            metrics, width = self._client.get_key_metrics(), self._live.console.width
            picture = view.frame(self.watch, metrics, self._total, width)
            self._live.update(picture, refresh=True)
            return
        for happening in self.watch.happenings[self._told :]:
            screen.note(view.line_of(happening))
        self._told = len(self.watch.happenings)
        screen.note(view.progress_line(self.watch, self._total))
