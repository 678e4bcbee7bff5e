"""`headgate serve --workers N`: the process that keeps several workers, and what they share."""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from headgate.cli import screen
from headgate.cli.doors import stop
from headgate.cli.exits import ExitCode
from headgate.core.errors import ConfigurationError
from headgate.policy.restarts import Restarts

if TYPE_CHECKING:
    from headgate.core.ports import Clock
    from headgate.gateway.workers import Workers
    from headgate.stores.held_folder import HeldFolder
    from headgate.stores.private_valkey import PrivateValkey
    from headgate.wiring.gateway_settings import GatewaySettings

__all__ = ["oversee"]

_SPARE_SECONDS = 8.0
"""That a worker may take beyond lingering and draining before it is killed: to cut streams, write its
books, and start, if it had just begun to."""

_HOPELESS = (ExitCode.USAGE, ExitCode.CONFIGURATION)
_CODES = frozenset(int(code) for code in ExitCode)


def oversee(settings: GatewaySettings, host: str, port: int, count: int, *, verbose: bool) -> None:
    """Keep workers until a signal ends them. Raises `ConfigurationError`; ends with another code than 0
    where a worker was given up."""
    code = asyncio.run(_oversee(settings, host, port, count, verbose=verbose))
    screen.end_line()
    if code:
        stop(ExitCode(code) if code in _CODES else ExitCode.FAILURE)


async def _oversee(
    settings: GatewaySettings, host: str, port: int, count: int, *, verbose: bool
) -> int:
    from headgate.gateway.listening import listen_for  # noqa: PLC0415 - what follows is an extra
    from headgate.gateway.worker_process import Launcher  # noqa: PLC0415
    from headgate.gateway.workers import Workers  # noqa: PLC0415
    from headgate.wiring.clock import SystemClock  # noqa: PLC0415

    clock = SystemClock()
    sockets = listen_for(host, port, count)
    command = [sys.executable, "-m", "headgate", "serve", "--host", host, "--port", str(port)]
    command += [*(["--verbose"] if verbose else []), "--as-worker"]

    def close() -> None:
        for listening in sockets:
            listening.close()

    try:
        async with _shared(clock) as (environ, folder):
            workers = Workers(
                Launcher(command, sockets, environ, (folder.holder,)), count, clock,
                seal=secrets.token_urlsafe(32),
                end_seconds=settings.linger_seconds + settings.drain_seconds + _SPARE_SECONDS,
                hopeless=_HOPELESS,
                say=screen.note,
                on_end=close,
            )  # fmt: skip
            _obey(workers)
            return await workers.run()
    finally:
        close()


def _obey(workers: Workers) -> None:
    """Hand on what signals say: each ends its calls, or reads its settings anew, by itself."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, workers.stop, number)
    loop.add_signal_handler(signal.SIGHUP, workers.forward, signal.SIGHUP)


@asynccontextmanager
async def _shared(clock: Clock) -> AsyncIterator[tuple[dict[str, str], HeldFolder]]:
    """What workers share while the context lasts: the environment that tells them of it, and the folder
    where it is. Where the settings name no store, one of their own is among it."""
    from headgate.stores.held_folder import HeldFolder  # noqa: PLC0415 - with the rest
    from headgate.telemetry.metrics import FOLDER_VARIABLE  # noqa: PLC0415
    from headgate.wiring.settings import process_environment  # noqa: PLC0415
    from headgate.wiring.workers import shared_store  # noqa: PLC0415

    store = shared_store()
    environ = dict(process_environment(None))
    folder = HeldFolder()
    try:
        await folder.open()
        metrics = folder.path / "metrics"
        metrics.mkdir(mode=0o700)
        environ[FOLDER_VARIABLE] = str(metrics)
        if store is not None:
            yield environ, folder
            return
        async with _private_store(folder, clock) as url:
            yield {**environ, "HEADGATE_STORE": url}, folder
    finally:
        await folder.aclose()


@asynccontextmanager
async def _private_store(folder: HeldFolder, clock: Clock) -> AsyncIterator[str]:
    """A store for these workers alone: its URL. It ends with the folder."""
    from headgate.stores.private_valkey import PrivateValkey  # noqa: PLC0415 - seldom needed

    private = PrivateValkey(folder, clock)
    await private.start()
    async with asyncio.TaskGroup() as group:
        kept = group.create_task(_keep(private, clock))
        yield private.url
        kept.cancel()


async def _keep(private: PrivateValkey, clock: Clock) -> None:
    """Start the store again when it ends. Meanwhile each worker goes on with its share, and tells a
    store that comes back empty what was used."""
    from headgate.gateway.workers import manner  # noqa: PLC0415 - with the rest

    restarts = Restarts()
    since = clock.monotonic()
    while True:
        how = manner(await private.ended())
        pause = restarts.ended(clock.monotonic() - since)
        if pause is None:
            screen.note(
                f"The workers' own store {how}, again soon after its start. They go on without it, "
                "each with its share of the quotas."
            )
            return
        screen.note(f"The workers' own store {how}. It is started again.")
        await clock.sleep(pause)
        since = clock.monotonic()
        with suppress(ConfigurationError):  # it did not start: that is its next end
            await private.start()
