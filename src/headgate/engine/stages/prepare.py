"""Prepare: says which model a name means today, and writes the wire form once for all attempts.

A call that brings a `Preparation` is screened between the two, and its reply on the way up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from headgate.core.call import Preparation
from headgate.core.errors import ModelRetiredError
from headgate.core.ports import Clock, Provider
from headgate.engine.passage import Answer, Onward, Passage
from headgate.engine.screening import Screening
from headgate.policy.models import ModelPolicy, Registry, Resolution

__all__ = ["Prepare"]

_SAMPLING = ("temperature", "top_p", "top_k")

_MOST_NAMES = 1000  # callers name models: a bound for what is remembered of them


class Prepare:
    """Resolves the model and writes the request.

    Args:
        warn: hears each warning once.
        screening: prepares the calls that ask for it; without one none may.
    """

    def __init__(
        self,
        provider: Provider,
        registry: Registry,
        policy: ModelPolicy,
        clock: Clock,
        warn: Callable[[str], None],
        screening: Screening | None = None,
    ) -> None:
        self._provider = provider
        self._registry = registry
        self._policy = policy
        self._clock = clock
        self._warn = warn
        self._screening = screening
        self._said: set[str] = set()
        self._day = -1
        self._resolved: dict[str, Resolution] = {}

    async def __call__(self, passage: Passage, onward: Onward) -> Answer:
        """Raises `InvalidCallError`, `ModelRetiredError`."""
        call = passage.call
        resolution = self._resolve(call.model)
        if resolution.warning is not None:
            if not resolution.allowed:
                raise ModelRetiredError(
                    f"{resolution.warning} Name another model, or set HEADGATE_MODEL_POLICY=successor.",
                    request_id=call.request_id,
                )
            self._say(resolution.warning)
        model = resolution.model
        coarse = not model.sampling and call.preparation is None  # screening looks at each of them
        if coarse and any(name in call.options for name in _SAMPLING):
            self._say(f"Model {model.id} takes no {', '.join(_SAMPLING)}: left out of the request.")
            kept = {name: value for name, value in call.options.items() if name not in _SAMPLING}
            call = passage.call = replace(call, options=kept)
        passage.model = model.id
        if call.preparation is not None:
            return await self._screened(passage, call.preparation, onward)
        passage.request = self._provider.write(call, model.id)
        return await onward(passage)

    async def _screened(self, passage: Passage, how: Preparation, onward: Onward) -> Answer:
        if self._screening is None:
            raise AssertionError("this engine was built without what prepares calls")
        return await self._screening(passage, how, onward)

    def _resolve(self, name: str) -> Resolution:
        """What the registry says, asked once a day for each name: it is on the path of every call."""
        day = int(self._clock.wall() // 86_400)
        if day != self._day or len(self._resolved) > _MOST_NAMES:
            self._day = day
            self._resolved.clear()
        resolution = self._resolved.get(name)
        if resolution is None:
            today = datetime.fromtimestamp(self._clock.wall(), UTC).date()
            resolution = self._registry.resolve(name, today, self._policy)
            self._resolved[name] = resolution
        return resolution

    def _say(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            self._warn(sentence)
