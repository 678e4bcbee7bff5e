"""What an endpoint of the management API is: data, from which routing, checks and OpenAPI are made."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from msgspec import Struct

if TYPE_CHECKING:
    from headgate.gateway.manage.house import House

__all__ = ["PREFIX", "Ask", "Endpoint", "Found", "NoQuery", "Stream", "Table", "endpoint"]

PREFIX = "/manage/v1"

Q = TypeVar("Q", bound=Struct)
B = TypeVar("B")
A = TypeVar("A")

_PARAMETER = re.compile(r"\{(\w+)\}")


_CHOSEN = frozenset({"name", "domain", "model", "model_id", "caller", "session_id"})


def _shape(parameter: str) -> str:
    return ".+" if parameter in _CHOSEN else "[^/]+"


class NoQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters."""


class Ask(Struct, Generic[Q, B], frozen=True):
    """A request that was understood.

    Attributes:
        path: the parameters in the path, by name.
        query: those behind the question mark.
        body: what it holds; None where the endpoint takes none.
        last_event_id: of a listener that comes back.
    """

    path: Mapping[str, str]
    query: Q
    body: B
    last_event_id: str = ""


class Stream(Struct, frozen=True):
    """An answer that is sent piece by piece, as server-sent events.

    Attributes:
        pieces: of the body; whoever sends it closes it.
    """

    pieces: AsyncGenerator[bytes]


class Endpoint(Struct, frozen=True, kw_only=True, dict=True):
    """One endpoint.

    Attributes:
        name: of the operation, unique.
        tag: of the subject.
        query, body, answer: types; `body` and `answer` None where there is none.
        status: of an answer that succeeded.
        problems: kinds of problems it may answer with, beyond those that any may.
        path_examples, query_example, body_example, answer_example: shown, and checked by a test.
        shown_once: its answer holds a secret, and is never kept for a repeated request.
        streams: answers with server-sent events, always; `may_stream`: where the body asks for it.
        changes: whether it changes anything; those that do not may be called as often as one likes.
    """

    method: str
    path: str
    name: str
    tag: str
    summary: str
    handle: Callable[[House, Any], Awaitable[Any]]
    description: str = ""
    query: type[Struct] = NoQuery
    body: Any = None
    answer: Any = None
    status: int = 200
    problems: tuple[str, ...] = ()
    path_examples: Mapping[str, str] = {}
    query_example: Mapping[str, Any] = {}
    body_example: Any = None
    answer_example: Any = None
    shown_once: bool = False
    streams: bool = False
    may_stream: bool = False

    @property
    def changes(self) -> bool:
        """Whether it changes anything."""
        return self.method != "GET"

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters in the path."""
        return tuple(_PARAMETER.findall(self.path))

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What a path of it looks like. A parameter is one segment that is not empty; names that people
        or providers choose may have slashes in them."""
        parts = _PARAMETER.split(self.path)
        text = "".join(
            f"(?P<{part}>{_shape(part)})" if odd % 2 else re.escape(part)
            for odd, part in enumerate(parts)
        )
        return re.compile(text)


def endpoint(
    method: str,
    path: str,
    handle: Callable[[House, Ask[Q, B]], Awaitable[A]],
    *,
    query: type[Q],
    body: type[B],
    answer: Any,
    summary: str,
    tag: str,
    **rest: Any,
) -> Endpoint:
    """An endpoint whose parts fit each other: types are checked here, once, by the type checker.

    Args:
        path: below `/manage/v1`, parameters in braces.
        body: `type(None)` where it takes none.
        rest: the other attributes of `Endpoint`.
    """
    return Endpoint(
        method=method,
        path=PREFIX + path,
        name=handle.__name__,
        tag=tag,
        summary=summary,
        handle=handle,
        query=query,
        body=None if body is type(None) else body,
        answer=answer,
        **rest,
    )


class Found(Struct, frozen=True):
    """What a path leads to.

    Attributes:
        endpoint: None where the path has endpoints, but none of this method.
        allowed: the methods of the path.
    """

    endpoint: Endpoint | None
    path: Mapping[str, str]
    allowed: tuple[str, ...]


class Table:
    """All endpoints."""

    def __init__(self, endpoints: tuple[Endpoint, ...]) -> None:
        self.endpoints = endpoints

    def find(self, method: str, path: str) -> Found | None:
        """What a request is for; None where nothing is at its path. HEAD is GET without a body."""
        wanted = "GET" if method == "HEAD" else method
        matching = [one for one in self.endpoints if one.pattern.fullmatch(path)]
        if not matching:
            return None
        # A name may have slashes in it: of two paths that fit, the one that says more is meant.
        nearest = max((one.path for one in matching), key=lambda path: len(_PARAMETER.sub("", path)))
        here = {one.method: one for one in matching if one.path == nearest}
        allowed = (*here, "HEAD") if "GET" in here else tuple(here)
        match = next(iter(here.values())).pattern.fullmatch(path)
        values = {} if match is None else match.groupdict()
        return Found(here.get(wanted), values, allowed)
