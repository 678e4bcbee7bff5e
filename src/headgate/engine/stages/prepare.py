"""Prepare: says which model a name means today, and writes the wire form once for all attempts.

A call that brings a `Preparation` is screened between the two, and its reply on the way up.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec import structs

from headgate.core.call import Preparation
from headgate.core.errors import ModelRetiredError
from headgate.core.ports import Clock, Provider
from headgate.engine.passage import Answer, Onward, Passage
from headgate.engine.writing import written
from headgate.policy.models import ModelPolicy, Registry, Resolution

if TYPE_CHECKING:
    from headgate.engine.screening import Screening

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
        self._settle_on_model(passage)
        call = passage.call
        if call.preparation is not None:
            return await self._screened(passage, call.preparation, onward)
        passage.request = await written(self._provider, call, passage.model)
        return await onward(passage)

    async def moved(self, passage: Passage, model: str) -> None:
        """Make a call that was prepared for one model ready for another, in a passage of its own. Asks
        nobody. What the first model did not take is there again for this one.

        Raises `InvalidCallError`, `ModelRetiredError`: the call cannot go there, and why.
        """
        call = passage.call
        options = {**call.options, **passage.left_out}
        passage.call, passage.left_out = structs.replace(call, model=model, options=options), {}
        self._settle_on_model(passage)
        if call.preparation is not None and self._screening is not None:
            await self._screening.moved(passage, call.preparation)
        else:
            passage.request = await written(self._provider, passage.call, passage.model)

    def _settle_on_model(self, passage: Passage) -> None:
        """Which model the call's name means today, and without the options it does not take."""
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
        passage.model = model.id
        coarse = not model.sampling and call.preparation is None  # screening looks at each of them
        if coarse and any(name in call.options for name in _SAMPLING):
            self._say(f"Model {model.id} takes no {', '.join(_SAMPLING)}: left out of the request.")
            kept = {name: value for name, value in call.options.items() if name not in _SAMPLING}
            passage.left_out = {name: call.options[name] for name in _SAMPLING if name in call.options}
            passage.call = structs.replace(call, options=kept)

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
