"""Words of files that an upstream keeps for one project, for its calls to name."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from headgate.core.call import Raw, RawReply

__all__ = ["FileDesk", "FileState", "StoredFile"]


class FileState(StrEnum):
    """Whether calls may name a file."""

    PROCESSING = "processing"
    ACTIVE = "active"
    FAILED = "failed"


class StoredFile(Struct, frozen=True):
    """A file as the upstream tells of it.

    Attributes:
        name: what the upstream calls it; empty where the answer told of no file.
        uri: what calls name it by.
        expires: Unix time in seconds at which the upstream drops it; None: it did not say.
        message: why it failed, where it did.
    """

    name: str = ""
    uri: str = ""
    state: FileState = FileState.PROCESSING
    expires: float | None = None
    message: str = ""


class FileDesk(Protocol):
    """How a provider takes files and tells of them: the words of the wire, no sockets.

    A file is sent in pieces to a place that the answer to `begin` names. After a piece that failed,
    `ask` tells how much of it all arrived.
    """

    @property
    def largest(self) -> int:
        """Bytes of the largest file it takes."""

    @property
    def piece(self) -> int:
        """Bytes of each piece but the last."""

    @property
    def seconds_kept(self) -> float:
        """How long it keeps a file, where its answer does not say."""

    def name_for(self, digest: str) -> str:
        """The name under which a file of this digest is kept: equal files have equal names."""

    def begin(self, name: str, mime_type: str, size: int) -> Raw:
        """Announces a file. With an empty name the upstream makes one up."""

    def place(self, reply: RawReply) -> str:
        """Where the bytes of an announced file go; empty where the answer names no place."""

    def send(self, place: str, piece: bytes, offset: int, *, last: bool) -> Raw:
        """Brings a piece of it."""

    def ask(self, place: str) -> Raw:
        """Asks how much has arrived."""

    def arrived(self, reply: RawReply) -> int | None:
        """How many bytes have arrived, by the answer to `ask`; None: all of them."""

    def look(self, name: str) -> Raw:
        """Asks for what is known of a file."""

    def told(self, reply: RawReply) -> StoredFile:
        """What an answer to `look`, or to the last `send`, tells of the file."""
