"""How the client's methods reach the path: settings as they stand, models out of answers, the door's
errors out of the engine's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from secrets import token_hex
from typing import Any, TypeVar

import msgspec
import pydantic

from headgate.codegen.config import ClientConfig, RetryConfig
from headgate.codegen.errors import (
    AuthenticationError,
    FeatureDisabledError,
    ServerError,
    ValidationError,
    translated,
)
from headgate.codegen.logs import Talk
from headgate.codegen.measures import Measures
from headgate.codegen.mock import mock_transport
from headgate.core.errors import InvalidCallError
from headgate.core.ports import Clock, Transport
from headgate.core.resource import ResourceCall, ResourceFailed
from headgate.engine.resource_path import ResourcePath
from headgate.providers.codegen import CODEGEN_ENDPOINTS
from headgate.wiring.clock import SystemClock
from headgate.wiring.codegen import CHANCE, CodegenSettings, build_codegen, codegen_transport

__all__ = ["Caller"]

M = TypeVar("M", bound=pydantic.BaseModel)

_MOCK_TOKEN = "mock-token"  # noqa: S105 - only the emulator in this process knows it


class Caller:
    """One client's way to the API. No I/O and no event loop until the first call."""

    def __init__(
        self,
        config: ClientConfig,
        *,
        retry: RetryConfig | None = None,
        transport: Transport | None = None,
        clock: Clock | None = None,
        chance: Callable[[], float] = CHANCE,
    ) -> None:
        self.config = config
        self.clock: Clock = clock or SystemClock()
        self.chance = chance
        self.measures = Measures(self.clock.monotonic, self.clock.wall)
        self._retry = retry
        self._given = transport
        self._own: Transport | None = None
        self._mock: Transport | None = None
        self._built: tuple[CodegenSettings, ResourcePath] | None = None
        self._version = -1
        self._lock = threading.Lock()

    # ── calls ───────────────────────────────────────────────────────────────────────────────────

    async def ask(
        self,
        model: type[M],
        name: str,
        *,
        owner: object = "",
        values: Mapping[str, int | str] | None = None,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
        **options: Any,
    ) -> M:
        """The model of an operation's answer.

        Args:
            options: `fresh`, `retries`, `timeout`, `on_send` of `ResourceCall`.

        Raises:
            CodegenAPIError: one of its subclasses.
        """
        data = await self.ask_json(name, owner=owner, values=values, query=query, body=body, **options)
        try:
            return model.model_validate(data)
        except pydantic.ValidationError as error:
            places = [".".join(str(part) for part in problem["loc"]) for problem in error.errors()]
        wrong = ", ".join(dict.fromkeys(places)) or "the whole"
        raise ServerError(
            f"{name}: the answer is not what the API promises: see {wrong}.",
            200,
            endpoint=name,
            kind="protocol",
            sent=True,
            at=self.clock.wall(),
        )

    async def ask_json(
        self,
        name: str,
        *,
        owner: object = "",
        values: Mapping[str, int | str] | None = None,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
        **options: Any,
    ) -> Any:
        """An operation's answer as JSON values. Raises as `ask`."""
        call = ResourceCall(
            CODEGEN_ENDPOINTS[name],
            owner=str(owner),
            values=values or {},
            query=query or {},
            body=body,
            request_id=token_hex(8),
            **options,
        )
        path = self.path()
        try:
            reply = await path.call(call)
            return msgspec.json.decode(reply.body) if reply.body else None  # 204
        except ResourceFailed as caught:
            failed = caught
        except InvalidCallError as caught:
            said = caught.message
            raise ValidationError(
                said, {"request": [said]}, endpoint=name, at=self.clock.wall()
            ) from None
        # Raised outside of the handler: what a user sees must not drag our signals along.
        raise translated(failed, self.clock.wall())

    def path(self) -> ResourcePath:
        """The path that the settings ask for, as they stand. Raises `AuthenticationError`."""
        with self._lock:
            if self._built is not None and self._version == self.config.version:
                return self._built[1]
            mocked = self.config.mock_responses
            if not mocked:
                self._check_token(self.config.api_token)
            settings = self.config.settings(self._retry)
            if mocked and not settings.token:
                settings = replace(settings, token=_MOCK_TOKEN)
            path = build_codegen(
                settings,
                transport=self._transport(settings),
                clock=self.clock,
                observer=Talk(self.config, self.measures),
                chance=self.chance,
                before=self._built,
            )
            self._built, self._version = (settings, path), self.config.version
            return path

    def _check_token(self, token: str) -> None:
        said = ""
        if not token:
            said = "There is no API token. Set CODEGEN_API_TOKEN, or pass api_token."
        elif " " in token or not (token.isascii() and token.isprintable()):
            said = "The API token holds a blank or a character no header can carry. Copy it again."
        if said:
            raise AuthenticationError(said, at=self.clock.wall())

    def path_if_any(self) -> ResourcePath | None:
        """The same, or None where there is no usable token: for those who only look."""
        try:
            return self.path()
        except AuthenticationError:
            return None

    def require(self, feature: str) -> None:
        """Raises `FeatureDisabledError` unless `enable_<feature>` is on."""
        if not getattr(self.config, f"enable_{feature}"):
            words = feature.replace("_", " ")
            raise FeatureDisabledError(
                f"The configuration switches {words} off: set enable_{feature}=True, or "
                f"CODEGEN_ENABLE_{feature.upper()}=true.",
                at=self.clock.wall(),
            )

    async def aclose(self) -> None:
        """Close the connections of the running event loop. A later call opens others."""
        for transport in (self._own, self._mock):
            if transport is not None:
                await transport.aclose()

    def _transport(self, settings: CodegenSettings) -> Transport:
        if self._given is not None:
            return self._given
        if self.config.mock_responses:
            self._mock = self._mock or mock_transport(self.clock)
            return self._mock
        self._own = self._own or codegen_transport(settings, self.clock)
        return self._own
