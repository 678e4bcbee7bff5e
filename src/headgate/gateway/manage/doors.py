"""Who may manage: whoever has the admin key; without one, programs on this machine, where everybody
who reaches the gateway may use all keys anyway (ADR 0073)."""

from __future__ import annotations

from enum import StrEnum
from hashlib import sha256
from hmac import compare_digest

from headgate.core.call import Key
from headgate.gateway.incoming import Incoming
from headgate.gateway.local import check_local
from headgate.gateway.manage.trouble import TroubleError
from headgate.gateway.problems import RequestRefusedError

__all__ = ["Doors", "Openness"]


class Openness(StrEnum):
    """Whom the management API answers."""

    ADMIN = "admin"  # whoever has the admin key
    LOCAL = "local"  # whoever is on this machine
    OFF = "off"  # nobody


class Doors:
    """Lets in who may manage. Keeps a hash of the key only.

    Args:
        admin: the admin key, or None.
        callers: whether the gateway's callers need keys: then it serves others than its own machine,
            perhaps through a proxy that makes every request look local, and nobody manages without a
            key.
    """

    def __init__(self, admin: Key | None, *, callers: bool) -> None:
        self._digest = None if admin is None else sha256(admin.value.encode()).digest()
        self.openness = Openness.ADMIN if admin else Openness.OFF if callers else Openness.LOCAL

    def check(self, incoming: Incoming) -> None:
        """Raises `TroubleError` for a request that may not come in. Reads nothing but its head."""
        if self.openness is Openness.OFF:
            raise TroubleError("management-off", "This gateway has callers, but no admin key.")
        if self._digest is None:
            self._check_local(incoming)
            return
        scheme, _, value = incoming.headers.get(b"authorization", b"").partition(b" ")
        given = sha256(value.strip()).digest()
        if scheme.lower() != b"bearer" or not compare_digest(given, self._digest):
            raise TroubleError("unauthorized", "The management API takes the admin key and no other.")

    @staticmethod
    def _check_local(incoming: Incoming) -> None:
        """No page of a browser that happens to run here, and no name that was made to point here."""
        try:
            check_local(incoming)
        except RequestRefusedError as error:
            raise TroubleError("not-local", error.message) from None
        if incoming.text(b"sec-fetch-site") in ("cross-site", "same-site"):
            raise TroubleError("not-local", "Pages of other sites may not manage this gateway.")
