"""What a surface is: a wire protocol that the gateway speaks.

A surface knows paths, shapes and words of one API. It reads a request as far as policy needs, says what
is to be sent upstream, and writes refusals as clients of that API expect them. It knows no sockets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct

from headgate.core.call import Operation, Raw
from headgate.gateway.incoming import Incoming
from headgate.gateway.problems import Headers, Problem

__all__ = ["Asked", "Framing", "Route", "Surface"]


class Route(Struct, frozen=True):
    """What a path stands for.

    Attributes:
        method: the one it takes.
        path: of the upstream, with the query it gets.
        operation: what is asked there; None where the body says whether to generate or to stream.
        model: as the path names it; empty where the body does.
        listed: whether errors stand in a list of one, and a stream in a list.
        resource: the file or cache that the path names: only keys of its project may be used.
        makes: `files` or `cachedContents`, where one is made there.
        pages: the name of the list, where there is one for each project.
        ticket: of an upload whose bytes these are.
        is_json: whether a body there is JSON.
    """

    method: str
    path: str
    operation: Operation | None = None
    model: str = ""
    listed: bool = False
    resource: str = ""
    makes: str = ""
    pages: str = ""
    ticket: str = ""
    is_json: bool = True

    @property
    def is_kept(self) -> bool:
        """Whether it is about what a project keeps."""
        return bool(self.resource or self.makes or self.pages or self.ticket)


class Asked(Struct, frozen=True):
    """A request in the engine's words.

    Attributes:
        names: what is kept by one project and the request needs.
    """

    operation: Operation
    model: str
    raw: Raw
    names: tuple[str, ...] = ()


class Framing(Protocol):
    """How a stream is written."""

    @property
    def content_type(self) -> bytes: ...  # noqa: D102 - of the whole

    def piece(self, raw: bytes) -> bytes:
        """The bytes of one event, as they came from the upstream, as they go to the client."""

    def end(self) -> bytes:
        """What stands after the last piece."""

    def broken(self, problem: Problem) -> bytes:
        """What ends a stream that broke off, so that the client's SDK raises."""


class Surface(Protocol):
    """One API."""

    @property
    def name(self) -> str:
        """Of the surface, its prefix and its provider."""

    @property
    def passed_back(self) -> Mapping[str, bytes]:
        """Headers of the upstream's answer that clients get, by their name there."""

    def route(self, incoming: Incoming) -> Route | None:
        """What a path stands for; None: nothing."""

    def owns(self, incoming: Incoming) -> bool:
        """Whether a request without a prefix is meant for this API, beyond doubt."""

    def ask(self, route: Route, incoming: Incoming, body: bytes) -> Asked:
        """What a request asks. Raises `InvalidCallError`."""

    def framing(self, route: Route) -> Framing:
        """How the answer streams."""

    def passed_refusal(self, route: Route, body: bytes) -> bytes:
        """The upstream's own refusal as the clients of this API can read it: mostly as it came."""

    def refusal(self, problem: Problem) -> tuple[Headers, bytes]:
        """An error as this API writes it: its headers beside the usual ones, and its body."""
