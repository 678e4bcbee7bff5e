"""Many items at once: bounded workers, each item accounted for once, one failure that spoils nothing.

Items are taken from their source as workers become free, so a source of any length needs no memory of
its own. Waiting for the API's limit counts against no time-out.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sized,
)
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, computed_field

from headgate.codegen.errors import BulkOperationError, CodegenAPIError
from headgate.core.ports import Clock

__all__ = ["BulkOperationConfig", "BulkOperationResult", "BulkRun", "ProgressCallback"]

T = TypeVar("T")
R = TypeVar("R")

ProgressCallback = Callable[[int, int], Any]

_log = logging.getLogger("headgate.codegen")
_ERRORS_KEPT = 1_000  # where results are not kept: the rest is only counted


class BulkOperationConfig(BaseModel):
    """How a bulk operation goes. Times in seconds.

    Attributes:
        max_workers: items under way at once.
        batch_size: items taken from the source at once.
        max_retries, retry_delay: of each item.
        timeout_per_operation: for each attempt; waiting for the API's limit is not counted.
        fail_fast: the first failure cancels the rest and raises `BulkOperationError`.
        progress_callback: called with items completed and items in all, whatever became of them. A
            source without a length counts what was taken from it so far.
        keep_results: without it, results go to `on_result` only, and memory does not grow.
        on_result: called with index, item and result of each success.
    """

    model_config = ConfigDict(extra="forbid")

    max_workers: int = Field(default=5, ge=1)
    batch_size: int = Field(default=100, ge=1)
    max_retries: int = Field(default=3, ge=0)
    retry_delay: float = Field(default=1.0, gt=0)
    timeout_per_operation: float = Field(default=30.0, gt=0)
    fail_fast: bool = False
    progress_callback: ProgressCallback | None = None
    keep_results: bool = True
    on_result: Callable[[int, Any, Any], Any] | None = None


class BulkOperationResult(BaseModel, Generic[R]):
    """What became of the items.

    Attributes:
        results: of the successes, in the order of the input.
        errors: `error`, `error_type`, `item`, `index` and `success` (False) of each failure, in order.
    """

    total_items: int = 0
    successful_items: int = 0
    failed_items: int = 0
    results: list[R] = Field(default_factory=list)
    errors: list[dict[str, Any]] = Field(default_factory=list)
    duration_seconds: float = 0.0

    @computed_field  # type: ignore[prop-decorator] # as pydantic documents it
    @property
    def success_rate(self) -> float:
        """0 to 100; 0 for no items."""
        return 100 * self.successful_items / self.total_items if self.total_items else 0.0


class _FirstFailure(Exception):  # noqa: N818 - a signal within this module
    pass


class BulkRun(Generic[T, R]):
    """One bulk operation."""

    def __init__(self, config: BulkOperationConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._results: dict[int, R] = {}
        self._errors: dict[int, dict[str, Any]] = {}
        self._taken = self._succeeded = self._failed = 0
        self._expected: int | None = None

    async def over(
        self,
        items: Iterable[T] | AsyncIterable[T],
        operation: Callable[[int, T], Awaitable[R]],
    ) -> BulkOperationResult[R]:
        """Do it for each item. Raises `BulkOperationError` where `fail_fast` asks for it."""
        begun = self._clock.monotonic()
        self._expected = len(items) if isinstance(items, Sized) else None
        source = _Source(items, self._config.batch_size)
        stopped = False
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._workers()):
                    group.create_task(self._work(source, operation))
        except* _FirstFailure:
            stopped = True
        result = self._result(self._clock.monotonic() - begun)
        if stopped:
            first = result.errors[0]
            raise BulkOperationError(
                f"Item {first['index']} failed ({first['error_type']}: {first['error']}), and the rest "
                f"was cancelled: {result.successful_items} of {result.total_items} succeeded.",
                result.errors,
                result.successful_items > 0,
                result=result,
                at=self._clock.wall(),
            )
        return result

    def _workers(self) -> int:
        most = self._config.max_workers
        return most if self._expected is None else min(most, max(1, self._expected))

    async def _work(self, source: _Source[T], operation: Callable[[int, T], Awaitable[R]]) -> None:
        while (taken := await source.take()) is not None:
            index, item = taken
            self._taken += 1
            try:
                result = await operation(index, item)
            except Exception as error:  # noqa: BLE001 - one item's failure is its own
                self._note_failure(index, item, error)
                await self._progress()
                if self._config.fail_fast:
                    raise _FirstFailure from None
            else:
                await self._note_success(index, item, result)
                await self._progress()

    async def _note_success(self, index: int, item: T, result: R) -> None:
        self._succeeded += 1
        if self._config.keep_results:
            self._results[index] = result
        if self._config.on_result is not None:
            await _contained(self._config.on_result, index, item, result)

    def _note_failure(self, index: int, item: T, error: Exception) -> None:
        self._failed += 1
        if not self._config.keep_results and len(self._errors) >= _ERRORS_KEPT:
            return
        self._errors[index] = {
            "error": error.message if isinstance(error, CodegenAPIError) else str(error),
            "error_type": type(error).__name__,
            "item": item,
            "index": index,
            "success": False,
        }

    async def _progress(self) -> None:
        if self._config.progress_callback is not None:
            total = self._taken if self._expected is None else self._expected
            await _contained(self._config.progress_callback, self._succeeded + self._failed, total)

    def _result(self, seconds: float) -> BulkOperationResult[R]:
        done = self._succeeded + self._failed
        return BulkOperationResult(
            total_items=done if self._expected is None else self._expected,
            successful_items=self._succeeded,
            failed_items=self._failed,
            results=[self._results[index] for index in sorted(self._results)],
            errors=[self._errors[index] for index in sorted(self._errors)],
            duration_seconds=seconds,
        )


class _Source(Generic[T]):
    """Hands out items with their index, taken from where they come in batches."""

    def __init__(self, items: Iterable[T] | AsyncIterable[T], batch: int) -> None:
        self._later: AsyncIterator[T] | None = None
        self._now: Iterator[T] = iter(())
        if isinstance(items, AsyncIterable):
            self._later = aiter(items)
        else:
            self._now = iter(items)
        self._batch = batch
        self._buffer: list[T] = []
        self._index = -1
        self._lock = asyncio.Lock()

    async def take(self) -> tuple[int, T] | None:
        """The next item, or None."""
        async with self._lock:
            if not self._buffer:
                await self._fill()
            if not self._buffer:
                return None
            self._index += 1
            return self._index, self._buffer.pop()

    async def _fill(self) -> None:
        batch: list[T] = []
        while len(batch) < self._batch:
            try:
                batch.append(next(self._now) if self._later is None else await anext(self._later))
            except (StopIteration, StopAsyncIteration):
                break
        self._buffer = batch[::-1]


async def _contained(callback: Callable[..., Any], *arguments: Any) -> None:
    """Call what the user gave. Its failure is logged: it must not cost an item its result."""
    try:
        answer = callback(*arguments)
        if inspect.isawaitable(answer):
            await answer
    except Exception:  # noqa: BLE001 - whatever it was, it is the user's
        _log.exception("a callback of a bulk operation raised")
