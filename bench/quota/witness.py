"""An emulator that also tells which of its refusals a client could have foreseen.

A refusal is foreseeable where the declared limit and the client's own past sends predict it: in the
60 s before, the upstream had admitted as many requests of that project as its limit allows in a minute.
Whoever counts like that is never refused by windows, whatever their phase, nor by a sliding log. The
emulator's report has no times, hence this look at its books.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from headgate.core.ports import Clock
from headgate.emulator import Emulator, EmulatorConfig

__all__ = ["Witness"]

_WINDOW = 60.0


class Witness(Emulator):
    """Counts in `foreseeable`."""

    def __init__(self, config: EmulatorConfig, *, clock: Clock) -> None:
        super().__init__(config, clock=clock)
        self.foreseeable = 0
        self._admitted: dict[str, deque[float]] = {}
        self._admit = self._books.admit
        self._books.admit = self._seen  # type: ignore[method-assign]

    def _seen(self, account: Any, model: Any, now: float, requests: int, tokens: int) -> Any:
        short = self._admit(account, model, now, requests, tokens)
        log = self._admitted.setdefault(account.project.name, deque())
        while log and log[0] <= now - _WINDOW:
            log.popleft()
        if not short:
            log.append(now)
        elif any(shortage.quota == "rpm" and len(log) >= shortage.limit for shortage in short):
            self.foreseeable += 1
        return short
