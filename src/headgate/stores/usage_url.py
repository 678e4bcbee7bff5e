"""Where the usage ledger is, as people write it.

auto                                       a SQLite file where this system keeps the state of programs
off                                        nowhere: only what fits into memory, for this process
/var/lib/headgate/usage.sqlite3            a SQLite file; sqlite:///… means the same
postgresql://user:password@host/database   a Postgres database; postgres:// means the same
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["AUTO", "UsageUrl", "UsageWhere"]

_ENDINGS = (".db", ".sqlite", ".sqlite3")
"""Of a file in the working folder; anywhere else a file may be called anything."""

_ALLOWED = (
    "auto, off, the path of a file such as usage.db or /var/lib/usage, or postgresql:// and where the "
    "database is, such as "
    "postgresql://user@host/database"
)


class UsageWhere(StrEnum):
    """The kinds of places."""

    AUTO = "auto"
    OFF = "off"
    SQLITE = "sqlite"
    POSTGRES = "postgres"


@dataclass(frozen=True, slots=True)
class UsageUrl:
    """The place of the usage ledger. Its text and its `repr` show no password.

    Attributes:
        where: what kind of place it is.
        written: the path of the file, or the URL as it was given; empty for `auto` and `off`.
        shown: for people, with user, password and options masked.
    """

    where: UsageWhere
    written: str = field(repr=False)
    shown: str

    def __str__(self) -> str:
        return self.shown

    @classmethod
    def read(cls, value: object) -> UsageUrl:
        """The place in a text. Raises `ValueError` with what is allowed, never with the text itself."""
        text = str(value).strip()
        if text.lower() in (UsageWhere.AUTO, UsageWhere.OFF):
            return cls(UsageWhere(text.lower()), "", text.lower())
        scheme, found, rest = text.partition("://")
        if not found:
            return cls._file(text)
        if scheme.lower() == "sqlite":
            # sqlite:///var/x and sqlite:////var/x both mean /var/x; sqlite://x is in this folder.
            return cls._file(f"/{rest.lstrip('/')}" if rest.startswith("/") else rest)
        if scheme.lower() not in ("postgres", "postgresql"):
            raise ValueError(_ALLOWED)
        try:
            parts = urlsplit(text)
            _ = parts.port
        except ValueError:
            raise ValueError(_ALLOWED) from None
        if not parts.path.strip("/") or parts.fragment or "@" in parts.path:
            raise ValueError(_ALLOWED)
        user, at, host = parts.netloc.rpartition("@")
        masked = ("***@" if at and user else "") + host + parts.path + ("?…" if parts.query else "")
        return cls(UsageWhere.POSTGRES, text, f"postgresql://{masked}")

    @classmethod
    def _file(cls, path: str) -> UsageUrl:
        named = any(mark in path for mark in "/\\") or path.endswith(_ENDINGS)
        if not named or "\0" in path or path.endswith(("/", "\\")):
            raise ValueError(_ALLOWED)  # `on` is no file that anybody means
        whole = str(Path(path).expanduser())
        return cls(UsageWhere.SQLITE, whole, whole)


AUTO = UsageUrl(UsageWhere.AUTO, "", "auto")
"""Where it is unless somebody says."""
