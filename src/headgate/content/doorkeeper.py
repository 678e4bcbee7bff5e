"""Who may come in: callers by their keys, operators by theirs; without keys, this machine alone."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from headgate.content.problems import RefusedError
from headgate.core.call import Key
from headgate.policy.loopback import is_loopback

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["Access", "Doorkeeper"]

_CHALLENGE = {"www-authenticate": "Bearer"}


class Access(StrEnum):
    """Whom a route answers."""

    EVERYBODY = "everybody"  # probes of machines: health and readiness
    PAGE = "page"  # what a browser loads before it can send a key; of this machine, without keys
    CALLERS = "callers"
    OPERATORS = "operators"


class Doorkeeper:
    """Looks keys up by the hash of the whole of them: how long that takes tells nothing of any key.

    Args:
        callers: their keys and names; none: everybody on this machine may call.
        admin_key: of operators; None: where nobody has a key, operators need none either.
        open_routes: everybody may call, from anywhere.
    """

    def __init__(
        self, callers: Iterable[Key] = (), *, admin_key: str | None = None, open_routes: bool = False
    ) -> None:
        self._names = {_digest(key.value): key.name for key in callers}
        self._admin = None if admin_key is None else _digest(admin_key)
        self._open = open_routes

    @property
    def private(self) -> bool:
        """Whether callers have keys."""
        return bool(self._names)

    @property
    def local_only(self) -> bool:
        """Whether only this machine is answered."""
        return not self._names and not self._open

    def admit(self, request: Request, access: Access) -> str:
        """The caller's name; empty where nobody has one. Raises `RefusedError`: 401 or 403."""
        if access is Access.EVERYBODY:
            return ""
        if access is Access.OPERATORS:
            return self._operator(request)
        if self.local_only:
            self._check_local(request)
        if not self._names or access is Access.PAGE:
            return ""
        name = self._names.get(_digest(_credential(request)))
        if name is None:
            raise RefusedError(
                "Send a caller key of this service as `Authorization: Bearer …`.",
                status=401,
                headers=_CHALLENGE,
            )
        return name

    def _operator(self, request: Request) -> str:
        if self._admin is not None:
            if _digest(_credential(request)) != self._admin:
                raise RefusedError(
                    "Send the key of an operator as `Authorization: Bearer …`.",
                    status=401,
                    headers=_CHALLENGE,
                )
            return "operator"
        if not self.local_only:
            raise RefusedError("Set HEADGATE_ADMIN_KEY to use what is for operators.", status=403)
        self._check_local(request)
        return "operator"

    def _check_local(self, request: Request) -> None:
        """Refuse requests under another name, and pages from elsewhere: a browser on this machine can
        be made to send them."""
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if host and not is_loopback(_host(f"//{host}")):
            raise RefusedError(
                "Without HEADGATE_CALLER_KEYS this service answers 127.0.0.1 and localhost only.",
                status=403,
            )
        if origin is not None and not is_loopback(_host(origin)):
            raise RefusedError("This service takes no requests of other hosts' pages.", status=403)


def _credential(request: Request) -> str:
    for name in ("x-api-key", "x-goog-api-key"):
        if value := request.headers.get(name, "").strip():
            return value
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else ""


def _digest(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogateescape")).digest()


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
