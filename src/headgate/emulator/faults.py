"""Which fault a request meets: first what was scripted, in order, then what chance brings."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from headgate.emulator.chance import Chance
from headgate.emulator.config import Fault
from headgate.emulator.vocabulary import (
    ALIASES,
    ANSWER_BEHAVIOURS,
    BEHAVIOURS,
    CLAUDE_ALIASES,
    CLAUDE_ERROR_IDS,
    CLAUDE_METHODS,
    CODEGEN_FAULTS,
    CODEGEN_METHODS,
    ERROR_IDS,
    GEMINI_BEHAVIOURS,
    OPENAI_ALIASES,
    OPENAI_ERROR_IDS,
    OPENAI_METHODS,
    STREAM_BEHAVIOURS,
)

__all__ = ["FaultPlan", "Visit"]

_STREAMS = ("streamGenerateContent", "messages_stream", "chat.completions_stream")
_GENERATES = ("generateContent", "messages", "chat.completions", *_STREAMS)
_CANDIDATE_KINDS = ("blocked", "safety", "safety_no_content", "safety_no_parts", "finish")


@dataclass(frozen=True)
class Visit:
    """What a fault may be aimed at."""

    project: str | None
    key: str | None
    model: str | None
    method: str
    at: float  # seconds of the emulator's life


@dataclass
class _Queued:
    fault: Fault
    left: int
    skip: int


class FaultPlan:
    """Decides, for each request once, which fault it meets."""

    def __init__(self, configured: list[Fault], chance: Chance) -> None:
        self._configured = [_Queued(fault, -1, fault.skip) for fault in configured]
        self._scripted: list[_Queued] = []
        self._chance = chance

    def script(self, fault: Fault, times: int) -> None:
        """Let the next `times` matching requests meet this fault, after those scripted before."""
        self._scripted.append(_Queued(fault, times, fault.skip))

    def clear(self) -> None:
        """Forget what is scripted and has not happened yet."""
        self._scripted.clear()

    def pick(self, visit: Visit) -> Fault | None:
        """The fault this request meets, if any; a scripted one is used up."""
        for queued in self._scripted:
            if self._happens(queued, visit):
                queued.left -= 1
                if queued.left == 0:
                    self._scripted.remove(queued)
                return queued.fault
        return next((q.fault for q in self._configured if self._happens(q, visit)), None)

    def give_back(self, fault: Fault) -> None:
        """A fault of the answer met a request that got none: keep it for the next one."""
        for queued in self._scripted:
            if queued.fault is fault:
                queued.left += 1
                return
        self._scripted.insert(0, _Queued(fault, 1, 0))

    def is_configured(self, fault: Fault) -> bool:
        """Whether it came by chance and need not be given back."""
        return any(queued.fault is fault for queued in self._configured)

    def _happens(self, queued: _Queued, visit: Visit) -> bool:
        if not _matches(queued.fault, visit):
            return False
        if queued.skip > 0:
            queued.skip -= 1
            return False
        probability = queued.fault.probability
        return probability >= 1.0 or self._chance.random() < probability


def _matches(fault: Fault, visit: Visit) -> bool:
    if visit.at < fault.start or (fault.end is not None and visit.at >= fault.end):
        return False
    if not _is_of_wire(fault.kind, visit.method):
        return False
    if fault.kind in STREAM_BEHAVIOURS and visit.method not in _STREAMS:
        return False
    if fault.kind in _CANDIDATE_KINDS and visit.method not in _GENERATES:
        return False
    if fault.model is not None and not fnmatchcase(visit.model or "", fault.model):
        return False
    wanted = ((fault.project, visit.project), (fault.key, visit.key), (fault.method, visit.method))
    return all(expected is None or expected == actual for expected, actual in wanted)


def _is_of_wire(kind: str, method: str) -> bool:
    """Whether the surface that is asked has such a fault."""
    if method in CODEGEN_METHODS:
        return kind in CODEGEN_FAULTS or (kind in BEHAVIOURS and kind not in _CANDIDATE_KINDS)
    claude, openai = method in CLAUDE_METHODS, method in OPENAI_METHODS
    if kind in BEHAVIOURS:
        return not (claude or openai) or kind not in GEMINI_BEHAVIOURS
    if openai:
        return kind in (*OPENAI_ALIASES, *OPENAI_ERROR_IDS)
    return kind in ((*CLAUDE_ALIASES, *CLAUDE_ERROR_IDS) if claude else (*ALIASES, *ERROR_IDS))


def touches_answer(fault: Fault) -> bool:
    """Whether it needs an answer to happen to."""
    return fault.kind in ANSWER_BEHAVIOURS or fault.kind in STREAM_BEHAVIOURS
