"""Commands for many at once (S3-02k): requests with bounded concurrency, texts to embed in shared ones.

Each has its own outcome, in its own place; what fails takes nothing away from the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from headgate.backend.embeddings import Embedder, Embedding
from headgate.backend.errors import GeminiError, gemini_errors
from headgate.backend.execute import Executor
from headgate.backend.outcomes import each_in_order, outcome_of
from headgate.backend.reading import read_request
from headgate.backend.settings import BackendConfig
from headgate.backend.structures import GeminiRequest, GeminiResponse
from headgate.core.errors import InvalidCallError
from headgate.core.ports import Clock

__all__ = ["BatchCommands", "Batches"]


class Batches:
    """Executes lists of requests.

    Args:
        config: the configuration of the moment.
    """

    def __init__(self, executor: Executor, config: Callable[[], BackendConfig], clock: Clock) -> None:
        self._executor = executor
        self._config = config
        self._clock = clock

    async def process(
        self, requests: object, *, api_key: str | None, concurrency: object
    ) -> list[GeminiResponse | GeminiError]:
        """An outcome for each request. Raises `GeminiError` for what is no list of requests."""
        with gemini_errors(self._clock.wall):
            if isinstance(requests, str | bytes) or not isinstance(requests, Sequence):
                raise InvalidCallError(
                    f"requests takes a list of GeminiRequest; got {type(requests).__name__}."
                )
            at_once = self._config().max_concurrent_requests if concurrency is None else concurrency
            if isinstance(at_once, bool) or not isinstance(at_once, int) or at_once < 1:
                raise InvalidCallError(f"concurrency takes a whole number, 1 or more; got {at_once!r}.")

        async def one(request: object) -> GeminiResponse | GeminiError:
            return await outcome_of(self._one(request, api_key), self._clock.wall)

        return await each_in_order(requests, one, at_once)

    async def _one(self, request: object, api_key: str | None) -> GeminiResponse:
        with gemini_errors(self._clock.wall):
            read = read_request(request)
            if read.stream:
                raise InvalidCallError("A batch gives whole answers: leave out stream=True.")
        return cast("GeminiResponse", await self._executor.execute(read, api_key=api_key))


class BatchCommands:
    """What a backend offers for many at once."""

    _batches: Batches
    _embedder: Embedder

    async def process_gemini_batch(
        self,
        requests: Sequence[GeminiRequest],
        *,
        api_key: str | None = None,
        concurrency: int | None = None,
    ) -> list[GeminiResponse | GeminiError]:
        """S3-02k: an outcome for each request, in their order: its response, or the error, which is
        given and not raised. Cancelling it gives everything back. Ours.

        Args:
            api_key: asks with this key alone.
            concurrency: requests under way at once; None: `max_concurrent_requests`.

        Raises:
            GeminiError: `requests` or `concurrency` is nothing of the kind.
        """
        return await self._batches.process(requests, api_key=api_key, concurrency=concurrency)

    async def embed_gemini(
        self,
        texts: Sequence[str],
        model: str,
        *,
        task_type: str | None = None,
        title: str | None = None,
        output_dimensionality: int | None = None,
        priority: str | None = None,
        caller: str | None = None,
        timeout_seconds: float | None = None,
        api_key: str | None = None,
        use_cache: bool = True,
    ) -> list[Embedding | GeminiError]:
        """S3-03f: an embedding for each text, in their order, or the error, which is given and not
        raised. Texts of all who ask for the same at about the same time share requests of up to
        `batch_size`; who asks while no other request is under way goes at once. Ours.

        Args:
            task_type, title, output_dimensionality: as the API takes them.
            priority: a `Priority` or its name in any case; CRITICAL waits for no company.
            caller: whose texts they are; texts of two callers share no request.
            timeout_seconds: longest time until the answer.
            api_key: asks with this key alone.
            use_cache: False neither looks for remembered embeddings nor remembers any.

        Raises:
            GeminiError: an argument is wrong.
        """
        options = {
            "task_type": task_type,
            "title": title,
            "output_dimensionality": output_dimensionality,
        }
        frame = {"priority": priority, "caller": caller, "timeout": timeout_seconds}
        return await self._embedder.embed(texts, model, options, frame, api_key, use_cache=use_cache)
