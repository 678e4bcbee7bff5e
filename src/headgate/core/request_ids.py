"""Which request is being served here: an id that follows it through every task it starts."""

from __future__ import annotations

from contextvars import ContextVar, Token

__all__ = ["REQUEST_ID", "leave"]

REQUEST_ID: ContextVar[str | None] = ContextVar("headgate_request_id", default=None)
"""Of the call, or of the inbound request before there is one; None outside of any."""


def leave(token: Token[str | None]) -> None:
    """What was set is over. A coroutine that was dropped ends in another context than it began in:
    there nothing is to be put back."""
    try:  # noqa: SIM105 - on the path of every call
        REQUEST_ID.reset(token)
    except ValueError:
        pass
