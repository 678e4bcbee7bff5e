"""Images: the topic of one that is shown (S4-03, S4-18), and one that is made (S4-04, S4-19)."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from hashlib import sha256
from typing import Protocol

from headgate.content.generator import Generated, Generator, json_in
from headgate.content.pictures import as_png, check_kind, prepared
from headgate.content.ports import Json
from headgate.content.problems import PoorContentError, RefusedError
from headgate.content.prompts import Prompt, topic_prompt
from headgate.content.quota_config import Held
from headgate.content.studio import MadeOnce, Studio
from headgate.policy.content_quality import assess_topic

__all__ = ["IMAGE_TOKENS", "TOPIC_TOKENS", "GeminiImages", "ImageMaker", "Images"]

TOPIC_TOKENS = 2000
"""Put aside for reading an image (S4-03)."""

IMAGE_TOKENS = 500
"""Put aside, and booked, for making one (S4-04); what it really used is in metrics and usage rows."""

MOST_DECODED = 2
"""Pictures that are decoded at a time: each may take 300 MB, and all of a core."""

TOPICS, IMAGES = "image_topics", "images"
"""Namespaces of what is kept."""


class ImageMaker(Protocol):
    """What makes images: another model or service is another class."""

    async def make(self, prompt: str, model: str, held: Held, *, caller: str) -> bytes:
        """A picture's bytes. Uses what is put aside, or gives it back. Raises `HeadgateError`."""


class GeminiImages:
    """Image-capable Gemini models. A model that was shut down goes to its successor, Imagen's too."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    async def make(self, prompt: str, model: str, held: Held, *, caller: str) -> bytes:
        """See `ImageMaker.make`."""
        asked = Prompt(prompt, {"response_modalities": ["TEXT", "IMAGE"]})
        made: Generated = await self._generator.ask(
            "generate_image", model, asked, held, caller=caller, fixed=True
        )
        for blob in made.blobs:
            if blob.mime_type.startswith("image/"):
                return blob.data
        raise PoorContentError("The model made no image of this. Try another prompt.", ["no image"])


class Images:
    """Reads and makes images."""

    def __init__(self, studio: Studio, maker: ImageMaker) -> None:
        self._studio = studio
        self._maker = maker
        self._decoding = asyncio.Semaphore(MOST_DECODED)

    async def topic_of(self, data: bytes, *, caller: str = "") -> dict[str, Json]:
        """The reply of `/api/image2topic`. The same bytes have the same topic, whatever their name.

        Raises:
            RefusedError: it is no picture that is taken.
            QuotaExceededError: no quota, and nothing that may stand in.
        """
        studio, model = self._studio, self._studio.settings.model
        check_kind(data)

        async def make() -> Json:
            return await self._read(data, model, caller)

        key = f"{sha256(data).hexdigest()} {model}"
        kept = await studio.kept_or_made(TOPICS, key, make)
        return dict(kept.value)

    async def _read(self, data: bytes, model: str, caller: str) -> Json:
        studio = self._studio
        (held,) = await studio.put_aside(model, TOPIC_TOKENS)
        picture = await self._prepared(data, held)
        if studio.measures is not None:
            studio.measures.image("upload")
        made = await studio.generator.ask(
            "image2topic", model, topic_prompt(), held, picture=picture, caller=caller
        )
        said = json_in(made.text)
        given = said.get("topic") if isinstance(said, dict) else said
        topic = " ".join(given.split()) if isinstance(given, str) else ""
        found = assess_topic(topic)
        studio.assessed("topic", "topic", found)
        if not topic:
            raise PoorContentError("The model named no topic.", found.issues)
        value = {
            "generated_topic": topic,
            "quality_score": found.score,
            "warnings": found.remarks,
        }
        if not found.valid:
            raise MadeOnce(value)
        return value

    async def _prepared(self, data: bytes, held: Held) -> bytes:
        """The picture as the model gets it; what is put aside is given back where there is none."""
        try:
            async with self._decoding:
                return await asyncio.to_thread(prepared, data)
        except BaseException:
            await self._studio.give_back(self._studio.settings.model, [held])
            raise

    async def made_of(self, prompt: str, *, caller: str = "") -> dict[str, Json]:
        """The reply of `/api/generate_image`.

        Raises:
            QuotaExceededError: no quota, and nothing that may stand in.
            PoorContentError: the model made no image.
        """
        studio, model = self._studio, self._studio.settings.image_model

        async def make() -> Json:
            (held,) = await studio.put_aside(model, IMAGE_TOKENS)
            data = await self._maker.make(prompt, model, held, caller=caller)
            try:
                async with self._decoding:
                    png = await asyncio.to_thread(as_png, data)
            except RefusedError:
                raise PoorContentError("The model's image is broken.", ["broken image"]) from None
            if studio.measures is not None:
                studio.measures.image("gemini")
            return {"image": b64encode(png).decode(), "format": "base64_png"}

        said = json.dumps([prompt, model, "base64_png"])  # all of it: small letters are another image
        digest = sha256(said.encode()).hexdigest()
        kept = await studio.kept_or_made(IMAGES, digest, make)
        return dict(kept.value)
