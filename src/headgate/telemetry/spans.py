"""Spans around one's own code: a decorator and a context manager (S2-20, S2-21)."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

from headgate.policy.privacy.markers import take_out
from headgate.policy.redaction import Redactor
from headgate.telemetry.switch import SWITCH

if TYPE_CHECKING:
    from opentelemetry.trace import Span
    from opentelemetry.util.types import AttributeValue

__all__ = ["NoSpan", "trace_operation", "trace_span"]

_MOST_MESSAGE, _MOST_TRACE = 500, 8_000  # characters
_redacted = Redactor()

F = TypeVar("F", bound=Callable[..., Any])


class _NoContext:
    """Of no trace."""

    trace_id = 0
    span_id = 0
    is_valid = False
    is_remote = False


class NoSpan:
    """A span that records nothing, where telemetry is off. Needs no package."""

    def is_recording(self) -> bool:
        """No."""
        return False

    def get_span_context(self) -> _NoContext:
        """An invalid one."""
        return _NoContext()

    def set_attribute(self, key: str, value: object) -> None:
        """Nothing."""

    def set_attributes(self, attributes: Mapping[str, object]) -> None:
        """Nothing."""

    def add_event(self, name: str, attributes: object = None, timestamp: int | None = None) -> None:
        """Nothing."""

    def add_link(self, context: object, attributes: object = None) -> None:
        """Nothing."""

    def update_name(self, name: str) -> None:
        """Nothing."""

    def set_status(self, status: object, description: str | None = None) -> None:
        """Nothing."""

    def record_exception(
        self,
        exception: BaseException,
        attributes: object = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Nothing."""

    def end(self, end_time: int | None = None) -> None:
        """Nothing."""


_NO_SPAN = NoSpan()


class _Operation:
    """One span, begun; nothing where telemetry is off."""

    __slots__ = ("_ended", "_span")

    def __init__(self, name: str, attributes: Mapping[str, AttributeValue] | None) -> None:
        setup = SWITCH.setup
        self._ended = False
        self._span = None if setup is None else setup.tracer.start_span(name, attributes=attributes)

    @property
    def span(self) -> Span:
        return cast("Span", _NO_SPAN) if self._span is None else self._span

    def current(self) -> AbstractContextManager[object]:
        """It is the current span within."""
        if self._span is None:
            return nullcontext()
        from opentelemetry.trace import use_span  # noqa: PLC0415 - an extra, and it is on

        return use_span(self._span, record_exception=False, set_status_on_exception=False)

    def end(self, error: BaseException | None = None) -> None:
        """Once; what failed is recorded without keys and personal data."""
        if self._span is None or self._ended:
            return
        from opentelemetry.trace import StatusCode  # noqa: PLC0415

        self._ended = True
        if error is None:
            self._span.set_status(StatusCode.OK)
        elif self._span.is_recording():
            message = _safe(str(error), _MOST_MESSAGE)
            facts = {
                "exception.type": f"{type(error).__module__}.{type(error).__qualname__}",
                "exception.message": message,
                "exception.stacktrace": _safe("".join(traceback.format_exception(error)), _MOST_TRACE),
            }
            self._span.add_event("exception", facts)
            self._span.set_attribute("error.type", facts["exception.type"])
            self._span.set_status(StatusCode.ERROR, f"{type(error).__name__}: {message}")
        self._span.end()


def _safe(text: str, most: int) -> str:
    """The end of a text, which of a traceback is what matters, without keys and personal data."""
    return take_out(_redacted(text)).text[-most:]


@contextmanager
def trace_span(name: str, attributes: Mapping[str, AttributeValue] | None = None) -> Iterator[Span]:
    """A span around a block, the current one while it runs.

    An exception is recorded in it, once, and raised on. Where telemetry is off, the span records
    nothing and may be used all the same.

    Args:
        attributes: to begin with.
    """
    operation = _Operation(name, attributes)
    try:
        with operation.current():
            yield operation.span
    except BaseException as error:
        operation.end(None if isinstance(error, GeneratorExit) else error)
        raise
    operation.end()


def trace_operation(name: str) -> Callable[[F], F]:
    """A decorator: a span around each call of a function, with `function.name` and `function.module`.

    Takes plain functions, coroutine functions, generators and asynchronous generators; the span of a
    generator lasts until it ends or is closed, and is the current one only while it runs. What the
    function raises is recorded, once, and raised on. Where telemetry is off the function is called as
    it is.

    Args:
        name: of the spans.
    """

    def decorate(function: F) -> F:
        facts = {"function.name": function.__qualname__, "function.module": function.__module__}
        if inspect.isasyncgenfunction(function):
            return cast("F", _async_generator(function, name, facts))
        if inspect.isgeneratorfunction(function):
            return cast("F", _generator(function, name, facts))
        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def traced(*args: Any, **kwargs: Any) -> Any:
                with trace_span(name, facts):
                    return await function(*args, **kwargs)

            return cast("F", traced)

        @wraps(function)
        def traced_plainly(*args: Any, **kwargs: Any) -> Any:
            with trace_span(name, facts):
                return function(*args, **kwargs)

        return cast("F", traced_plainly)

    return decorate


def _generator(
    function: Callable[..., Generator[Any, Any, Any]], name: str, facts: Mapping[str, str]
) -> Callable[..., Any]:
    @wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        inner, operation = function(*args, **kwargs), _Operation(name, facts)
        step: Callable[[Any], Any] = inner.send
        given: Any = None
        try:
            while True:
                with operation.current():
                    value = step(given)
                try:
                    step, given = inner.send, (yield value)
                except GeneratorExit:
                    with operation.current():
                        inner.close()
                    raise
                except BaseException as thrown:  # noqa: BLE001 - the generator decides about it
                    step, given = inner.throw, thrown
        except StopIteration as over:
            return over.value
        except GeneratorExit:
            raise
        except BaseException as error:
            operation.end(error)
            raise
        finally:
            operation.end()

    return traced


def _async_generator(
    function: Callable[..., AsyncGenerator[Any, Any]], name: str, facts: Mapping[str, str]
) -> Callable[..., Any]:
    @wraps(function)
    async def traced(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        inner, operation = function(*args, **kwargs), _Operation(name, facts)
        step: Callable[[Any], Any] = inner.asend
        given: Any = None
        try:
            while True:
                with operation.current():
                    value = await step(given)
                try:
                    step, given = inner.asend, (yield value)
                except GeneratorExit:
                    with operation.current():
                        await inner.aclose()
                    raise
                except BaseException as thrown:  # noqa: BLE001 - the generator decides about it
                    step, given = inner.athrow, thrown
        except StopAsyncIteration:
            return
        except GeneratorExit:
            raise
        except BaseException as error:
            operation.end(error)
            raise
        finally:
            operation.end()

    return traced
