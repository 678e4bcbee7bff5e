"""The scope class of an identifier: what may stand in a metric's label instead of the identifier."""

from __future__ import annotations

from collections.abc import Callable, Collection

__all__ = ["SCOPES", "Scopes"]

SCOPES = frozenset({"user", "ip", "token", "global"})


class Scopes:
    """Sorts identifiers into a bounded set of classes.

    Args:
        allowed: further classes: whole identifiers, or what stands before their first colon.
        model: the bounded name of a Claude model, such as `other` for an unknown one.
    """

    def __init__(self, allowed: Collection[str], model: Callable[[str], str]) -> None:
        self._allowed = frozenset(allowed)
        self._model = model

    def of(self, identifier: str) -> str:
        """`user`, `ip`, `token`, `global`, `claude:<model>`, an allowed one, or `other`."""
        if identifier in self._allowed:
            return identifier
        head, _, rest = identifier.partition(":")
        if head in SCOPES or head in self._allowed:
            return head
        return f"claude:{self._model(rest)}" if head == "claude" and rest else "other"
