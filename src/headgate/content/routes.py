"""What the service serves: one table, which the application runs and OpenAPI is made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from headgate.content.answers import Events, JsonAnswer
from headgate.content.doorkeeper import Access
from headgate.content.explanations import Explanations, Progress
from headgate.content.fields import (
    MOST_BODY_BYTES,
    PresentationOrder,
    image_prompt_of,
    presentation_of,
    read_json,
    topic_of,
)
from headgate.content.images import Images
from headgate.content.problems import RefusedError
from headgate.content.prompts import TEMPLATES
from headgate.content.studio import Studio
from headgate.content.subtopics import Subtopics
from headgate.content.uploads import UploadRoom, image_in, read_bounded

if TYPE_CHECKING:
    from headgate.content.health import Health

__all__ = ["ContentHandlers", "Handler", "Row"]

Handler = Callable[[Request], Awaitable[Response]]

LONGEST_WAIT = 30.0
"""Seconds that a request may wait for quota, where its client says so (C15)."""


@dataclass(frozen=True, slots=True)
class Row:
    """A route.

    Attributes:
        name: of the handler, for metrics.
        summary: a sentence for people.
        takes: JSON schema of the body; None: there is none.
        gives: JSON schema of the reply.
        fetchable: a reply can be fetched again by its content.
        multipart: the body is a form with a file.
    """

    method: str
    path: str
    name: str
    access: Access
    handler: Handler
    summary: str
    takes: Mapping[str, Any] | None = None
    gives: Mapping[str, Any] | None = None
    fetchable: bool = False
    multipart: bool = False


class ContentHandlers:
    """The routes that make content, and those that tell of it."""

    def __init__(
        self,
        studio: Studio,
        subtopics: Subtopics,
        explanations: Explanations,
        images: Images,
        health: Health,
    ) -> None:
        self._studio = studio
        self._subtopics = subtopics
        self._explanations = explanations
        self._images = images
        self._health = health
        self._uploads = UploadRoom()

    def rows(self) -> Sequence[Row]:
        """The table."""
        from headgate.content import schemas as say  # noqa: PLC0415 - only the table needs them

        open_to_all, callers = Access.EVERYBODY, Access.CALLERS
        return (
            Row("POST", "/api/create_subtopics", "create_subtopics", callers, self.create_subtopics,
                "Fifteen subtopics of a topic.", say.TOPIC, say.SUBTOPICS, fetchable=True),
            Row("POST", "/api/create_presentation", "create_presentation", callers,
                self.create_presentation,
                "Explanations of up to twenty subtopics; as events where the client accepts them.",
                say.PRESENTATION, say.EXPLANATIONS, fetchable=True),
            Row("POST", "/api/image2topic", "image2topic", callers, self.image2topic,
                "The topic of an image.", say.IMAGE_UPLOAD, say.IMAGE_TOPIC, fetchable=True,
                multipart=True),
            Row("POST", "/api/generate_image", "generate_image", callers, self.generate_image,
                "An image of what a prompt says.", say.IMAGE_PROMPT, say.IMAGE, fetchable=True),
            Row("GET", "/api/quota/stats", "quota_stats", callers, self.quota_stats,
                "How much of the quota is used, and what is left.", None, say.QUOTA_STATS),
            Row("GET", "/api/health", "health", open_to_all, self.health,
                "Whether the service and its parts are well.", None, say.HEALTH),
            Row("GET", "/health", "health", open_to_all, self.health, "The same.", None, say.HEALTH),
            Row("GET", "/api/ready", "ready", open_to_all, self.ready,
                "Whether work should come here.", None, say.READY),
            Row("GET", "/ready", "ready", open_to_all, self.ready, "The same.", None, say.READY),
            Row("GET", "/livez", "health", open_to_all, self.live, "Whether the process answers."),
            Row("GET", "/readyz", "ready", open_to_all, self.ready, "The same.", None, say.READY),
            Row("GET", "/api/prompts", "prompts", callers, self.prompts,
                "What the model is asked.", None, say.PROMPTS),
        )  # fmt: skip

    # ── content ─────────────────────────────────────────────────────────────────────────────────

    async def create_subtopics(self, request: Request) -> Response:
        """S4-16."""
        topic = topic_of(await _json(request))
        return JsonAnswer(await self._subtopics.of(topic, caller=request.state.caller))

    async def create_presentation(self, request: Request) -> Response:
        """S4-17. `Prefer: wait=N` lets work wait for quota, `Accept: text/event-stream` tells of it."""
        body = await _json(request)
        order: PresentationOrder = presentation_of(body, request.headers.get("accept-language", ""))
        wait = _wait(request.headers.get("prefer", ""))
        plan = await self._explanations.plan(order, wait=wait, caller=request.state.caller)
        if "text/event-stream" not in request.headers.get("accept", ""):
            return JsonAnswer(await self._explanations.present(plan))
        tracker = self._studio.tracker
        return Events(
            lambda hear: self._explanations.present(plan, _shown_to(hear)),
            request.state.request_id,
            self._studio.clock,
            None if tracker is None else tracker.config,
            lambda: self._explanations.give_up(plan),
        )

    async def image2topic(self, request: Request) -> Response:
        """S4-18."""
        with self._uploads.place(request):
            data = await image_in(request)
            return JsonAnswer(await self._images.topic_of(data, caller=request.state.caller))

    async def generate_image(self, request: Request) -> Response:
        """S4-19."""
        prompt = image_prompt_of(await _json(request))
        return JsonAnswer(await self._images.made_of(prompt, caller=request.state.caller))

    # ── what is told ────────────────────────────────────────────────────────────────────────────

    async def quota_stats(self, request: Request) -> Response:
        """S4-20; 501 where no quota is tracked."""
        del request
        if self._studio.tracker is None:
            raise RefusedError("No quota is tracked here: HEADGATE_CONTENT_QUOTA is off.", status=501)
        return JsonAnswer(await self._studio.tracker.aget_stats())

    async def health(self, request: Request) -> Response:
        """See `Health.health`."""
        del request
        status, body = await self._health.health()
        return JsonAnswer(body, status)

    async def ready(self, request: Request) -> Response:
        """See `Health.ready`."""
        del request
        status, body = await self._health.ready()
        return JsonAnswer(body, status)

    async def live(self, request: Request) -> Response:
        """The process answers: that alone."""
        del request
        return JsonAnswer({"status": "live"})

    async def prompts(self, request: Request) -> Response:
        """The templates."""
        del request
        return JsonAnswer({"prompts": dict(TEMPLATES)})


def _shown_to(hear: Callable[[Any], Awaitable[None]]) -> Callable[[Progress], Awaitable[None]]:
    async def told(progress: Progress) -> None:
        await hear(progress)

    return told


async def _json(request: Request) -> dict[str, Any]:
    body = await read_bounded(request, MOST_BODY_BYTES)
    return read_json(body, request.headers.get("content-type", ""))


def _wait(prefer: str) -> float:
    """Seconds of `wait=` in a `Prefer` header (RFC 7240), thirty at the most; 0 without one."""
    for item in prefer.replace(";", ",").split(","):
        name, _, value = item.strip().partition("=")
        if name.strip().lower() == "wait" and value.strip().isdecimal():
            return min(float(value.strip()), LONGEST_WAIT)
    return 0.0
