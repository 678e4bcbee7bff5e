"""A gateway with its management API, over a scripted transport in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.gateway import ENVIRON, Client, Got

from headgate.core.call import Key
from headgate.core.replies import ReplyCache
from headgate.gateway import Gateway
from headgate.gateway.desk import CallerDesk
from headgate.gateway.manage.ears import Ears
from headgate.gateway.manage.entrance import Management
from headgate.gateway.manage.house import House
from headgate.gateway.manage.opening import open_application
from headgate.gateway.manage.orders import Relay
from headgate.gateway.reloading import Reloading
from headgate.testing import Answer, Broken, ScriptedTransport, Sent, VirtualClock
from headgate.wiring.gateway import Upstream, open_cache, open_upstreams
from headgate.wiring.gateway_settings import GatewaySettings, load_gateway
from headgate.wiring.gateway_usage import open_usage
from headgate.wiring.observers import Observers

ADMIN_KEY = "CANARY-admin-key-0123456789abcdef"
ADMIN = Key("admin", ADMIN_KEY, "key:admin")
BEARER = {"authorization": f"Bearer {ADMIN_KEY}"}

Script = Iterable[Answer | Broken] | Callable[[Sent], Answer | Broken]


class Managed:
    """A gateway that is managed, and what stands behind it. Built as `headgate serve` builds it.

    Args:
        folder: where the ledger and `headgate.toml` are; None: neither is.
        toml: content of the latter.
    """

    def __init__(
        self,
        script: Script,
        clock: VirtualClock,
        *,
        settings: GatewaySettings | None = None,
        environ: Mapping[str, str] | None = None,
        folder: Path | None = None,
        toml: str = "",
        relay: Relay | None = None,
        desk: CallerDesk | None = None,
    ) -> None:
        self.clock = clock
        self.transport = ScriptedTransport(script, clock)
        self.environ = dict(ENVIRON if environ is None else environ)
        self.file = None if folder is None else folder / "headgate.toml"
        if self.file is not None and folder is not None:
            self.file.write_text(toml, encoding="utf-8")
            self.environ["HEADGATE_CONFIG"] = str(self.file)
            self.environ["HEADGATE_USAGE"] = str(folder / "usage.sqlite3")
        else:
            self.environ["HEADGATE_USAGE"] = "off"
        if settings is None:
            self.environ["HEADGATE_ADMIN_KEY"] = ADMIN_KEY
            settings = load_gateway(self.environ)
        self.ears = Ears()
        self.usage = open_usage(clock, kept_days=90, environ=self.environ)
        books = () if self.usage is None else (self.usage.observer,)
        self.observer = Observers(*books, *(() if desk is None else (desk,)), self.ears)
        cache = open_cache(settings, clock, self.environ)
        self.gateway = Gateway(settings, self._opening(settings, cache, ()), clock, cache, desk=desk)
        self.reloading = Reloading(self.gateway, self._opening, clock, environ=self.environ)
        self.gateway.reloading = self.reloading
        self.management = Management(lambda: open_application(
            self.gateway, clock, ears=self.ears, usage=self.usage, reloading=self.reloading,
            relay=relay, transport=self.transport, environ=self.environ,
        ))  # fmt: skip
        self.gateway.management = self.management

    def _opening(
        self, settings: GatewaySettings, cache: ReplyCache | None, before: Any
    ) -> tuple[Upstream, ...]:
        return open_upstreams(
            clock=self.clock,
            cache=cache,
            observer=self.observer,
            warn=lambda _: None,
            environ=self.environ,
            transport=self.transport,
            sending=settings.transport,
            before=before,
        )

    @property
    def house(self) -> House:
        return self.management.application.house

    def client(
        self, method: str, path: str, body: Any = b"", headers: Mapping[str, str] | None = None
    ) -> Client:
        path = path if path.startswith(("/docs", "/openapi")) else f"/manage/v1{path}"
        given = {**BEARER, **(headers or {})}
        if method in ("PUT", "PATCH", "DELETE"):
            import json

            written = body if isinstance(body, bytes) else json.dumps(body).encode()
            given.setdefault("content-length", str(len(written)))
            if written:
                given.setdefault("content-type", "application/json")
        return Client(self.gateway, method, path, body, given)

    async def ask(self, method: str, path: str, body: Any = b"", **headers: str) -> Got:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client(method, path, body, named).run()

    async def get(self, path: str, **headers: str) -> Any:
        got = await self.ask("GET", path, **headers)
        assert got.status == 200, got.body
        return got.json

    async def aclose(self) -> None:
        await self.gateway.aclose()
        if self.usage is not None:
            self.usage.close(5.0)
