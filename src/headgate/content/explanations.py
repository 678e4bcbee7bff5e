"""Explanations of subtopics: one (S4-05), and many at once within bounds (S4-02, S4-17).

A presentation puts quota aside for all of its explanations that nobody has kept, or for none, before
any work. Each then goes on with its own part; what fails says so in its place.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct

from headgate.content.fields import PresentationOrder
from headgate.content.generator import json_in
from headgate.content.ports import Json
from headgate.content.problems import FAULT, VALIDATION_FAILED, PoorContentError, item_error
from headgate.content.prompts import explanation_prompt
from headgate.content.quota_config import Held, QuotaExceededError
from headgate.content.studio import Studio
from headgate.content.subtopics import readable_key
from headgate.core.call import Priority
from headgate.core.errors import HeadgateError
from headgate.core.request_ids import REQUEST_ID
from headgate.policy.content_quality import assess_explanation

__all__ = ["EXPLANATION_TOKENS", "Explanations", "Progress", "workers_for"]

EXPLANATION_TOKENS = 1500
"""Put aside for one (S4-05)."""

NAMESPACE = "explanations"

FUNCTION = "generate_single_explanation_google_ai"

MOST_WORKERS = 20

_log = logging.getLogger("headgate.content")

_TEXTS = ("explanation", "real_world_application", "youtube_search_query")


class Progress(Struct, frozen=True):
    """One item of a presentation is done.

    Attributes:
        index: its place among the subtopics that were asked for.
        done, total: how many are.
        item: as it stands in the reply.
    """

    index: int
    done: int
    total: int
    item: dict[str, Json]


Hear = Callable[[Progress], Awaitable[None]]


def workers_for(items: int) -> int:
    """How many are made at once (S4 §5.6)."""
    return max(2, min(items // 2 + 1, MOST_WORKERS))


class Plan(Struct):
    """A presentation whose quota is put aside.

    Attributes:
        kept: items that were kept already, by key.
        helds: what is put aside, by key; a key without waits for its quota in line.
        until: monotonic seconds at which nothing waits any longer.
    """

    order: PresentationOrder
    keys: list[str]
    kept: dict[str, dict[str, Json]]
    helds: dict[str, Held]
    until: float
    caller: str


class Explanations:
    """Makes them."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    # ── one ─────────────────────────────────────────────────────────────────────────────────────

    async def one(
        self,
        order: PresentationOrder,
        subtopic: str,
        *,
        held: Held | None = None,
        caller: str = "",
    ) -> dict[str, Json]:
        """One explanation, as an item of a presentation.

        Args:
            held: what is put aside for it; None: that is done here. Given back where it is not needed.

        Raises what the engine raises, `QuotaExceededError` and `PoorContentError`.
        """
        studio, model = self._studio, self._studio.settings.model
        unused = [] if held is None else [held]

        async def make() -> Json:
            mine = unused.pop() if unused else None
            if mine is None:
                (mine,) = await studio.put_aside(model, EXPLANATION_TOKENS)
            return await self._made(order, subtopic, mine, caller)

        try:
            kept = await studio.kept_or_made(NAMESPACE, self._key(order, subtopic), make)
        finally:
            left = list(unused)
            unused.clear()  # others may wait for the same one: `make` may still run, for them
            await studio.give_back(model, left)
        item: dict[str, Json] = kept.value
        return {**item, "subtopic": subtopic}

    async def _made(
        self, order: PresentationOrder, subtopic: str, held: Held, caller: str
    ) -> dict[str, Json]:
        studio, model = self._studio, self._studio.settings.model
        prompt = explanation_prompt(order, subtopic)
        made = await studio.generator.ask(FUNCTION, model, prompt, held, caller=caller)
        texts = _texts(json_in(made.text))
        found = assess_explanation(texts["explanation"], f"{order.topic} {subtopic}")
        studio.assessed("explanation", "explanation", found)
        if not found.valid:
            error = PoorContentError("The explanation is not good enough.", found.issues)
            raise error
        if studio.measures is not None:
            studio.measures.explanations()
        scores = {"error": None, "quality_score": found.score, "warnings": found.remarks}
        return {"subtopic": subtopic, **texts, **scores}

    def _key(self, order: PresentationOrder, subtopic: str) -> str:
        level, detail, style = order.education_level, order.detail, order.learning_style
        model = self._studio.settings.model
        return readable_key(order.topic, subtopic, level, detail, style, order.language, model)

    # ── many ────────────────────────────────────────────────────────────────────────────────────

    async def plan(self, order: PresentationOrder, *, wait: float = 0.0, caller: str = "") -> Plan:
        """Look what is kept, and put quota aside for the rest.

        Args:
            wait: seconds that work may wait for quota; 0: all of it has room now, or nothing begins.

        Raises:
            QuotaExceededError: there is no room; it says how many fit now.
        """
        studio, keys = self._studio, [self._key(order, subtopic) for subtopic in order.focus]
        began = studio.clock.monotonic()
        kept: dict[str, dict[str, Json]] = {}
        for key in dict.fromkeys(keys):
            found = await studio.layers.peek(NAMESPACE, key)
            if found is not None:
                kept[key] = found.value
        missing = [key for key in dict.fromkeys(keys) if key not in kept]
        helds: Sequence[Held] = ()
        if missing:
            helds = await self._put_aside(len(missing), wait)
        until = began + wait
        return Plan(order, keys, kept, dict(zip(missing, helds, strict=False)), until, caller)

    async def _put_aside(self, count: int, wait: float) -> tuple[Held, ...]:
        """For all; where that has no room and waiting is allowed, for as many as fit."""
        studio, model = self._studio, self._studio.settings.model
        try:
            return await studio.put_aside(model, EXPLANATION_TOKENS, count=count)
        except QuotaExceededError as error:
            if wait <= 0 or (error.retry_after is not None and error.retry_after > wait):
                raise
            if error.retry_after is None:
                raise
            fits = error.fits
        if not fits:
            return ()
        return await studio.put_aside(model, EXPLANATION_TOKENS, count=fits, wait=wait)

    async def present(self, plan: Plan, hear: Hear | None = None) -> dict[str, Json]:
        """The reply of `/api/create_presentation`. What was put aside and not used is given back."""
        places = asyncio.Semaphore(workers_for(len(plan.keys)))
        items: dict[str, dict[str, Json]] = {}
        done = 0

        async def work(key: str) -> None:
            nonlocal done
            async with places:
                items[key] = await self._item(plan, key)
            for index, other in enumerate(plan.keys):
                if other == key:
                    done += 1
                    item = {**items[key], "subtopic": plan.order.focus[index]}
                    if hear is not None:
                        await hear(Progress(index, done, len(plan.keys), item))

        try:
            async with asyncio.TaskGroup() as group:
                for key in dict.fromkeys(plan.keys):
                    group.create_task(work(key))
        finally:
            await self.give_up(plan)
        shown = [
            {**items[key], "subtopic": subtopic}
            for key, subtopic in zip(plan.keys, plan.order.focus, strict=True)
        ]
        failed = sum(item["error"] is not None for item in shown)
        return {
            "explanations": shown,
            "success_count": len(shown) - failed,
            "failed_count": failed,
        }

    async def give_up(self, plan: Plan) -> None:
        """A presentation that is not begun: what was put aside for it is given back."""
        helds, plan.helds = list(plan.helds.values()), {}
        await self._studio.give_back(self._studio.settings.model, helds)

    async def _item(self, plan: Plan, key: str) -> dict[str, Json]:
        if key in plan.kept:
            return plan.kept[key]
        subtopic = plan.order.focus[plan.keys.index(key)]
        try:
            held = plan.helds.pop(key, None)
            if held is None:
                held = await self._turn(plan.until - self._studio.clock.monotonic())
            return await self.one(plan.order, subtopic, held=held, caller=plan.caller)
        except PoorContentError as error:
            return _failed(subtopic, VALIDATION_FAILED, error.issues)
        except HeadgateError as error:
            if self._studio.measures is not None:
                self._studio.measures.error("create_presentation", error.kind)
            tracker = self._studio.tracker
            return _failed(subtopic, item_error(error, None if tracker is None else tracker.config))
        except Exception as error:  # noqa: BLE001 - of this one: the others are good, and paid for
            _log.exception("request=%s an explanation failed", REQUEST_ID.get(), exc_info=error)
            if self._studio.measures is not None:
                self._studio.measures.error("create_presentation", "fault")
            return _failed(subtopic, FAULT)

    async def _turn(self, seconds: float) -> Held | None:
        """Quota for one that did not fit, when its turn has come."""
        tracker = self._studio.tracker
        if tracker is None:
            return None
        book = self._studio.generator.book(self._studio.settings.model)
        return await tracker.aturn(
            Priority.NORMAL, "create_presentation", EXPLANATION_TOKENS, seconds, book
        )


def _texts(value: Json) -> dict[str, str]:
    """The three texts of an answer. Raises `PoorContentError`."""
    if not isinstance(value, dict) or not isinstance(value.get("explanation"), str):
        raise PoorContentError("The model's answer is no explanation.", ["no explanation"])
    return {name: text if isinstance(text := value.get(name), str) else "" for name in _TEXTS}


def _failed(subtopic: str, error: str, issues: Sequence[str] = ()) -> dict[str, Json]:
    nothing = dict.fromkeys(_TEXTS)
    scores = {"quality_score": None, "warnings": list(issues) or None}
    return {"subtopic": subtopic, **nothing, "error": error, **scores}
