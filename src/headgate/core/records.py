"""Facts the engine reports: one record per attempt, per wait and per call. No prompts, no keys."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from headgate.core.call import Operation, Usage
from headgate.core.outcome import Outcome

__all__ = ["AttemptRecord", "CallRecord", "Findings", "WaitFor", "WaitRecord"]


class WaitFor(StrEnum):
    """Why a call waits."""

    KEY = "key"
    RETRY = "retry"


class AttemptRecord(Struct, frozen=True):
    """One attempt: which key, how long, with what result. Times are monotonic seconds.

    `caller`, `operation` and `provider` are those of its call. `estimate` is what it is taken to have
    used where the upstream did not tell, or not all of it: a caller went away, an answer was cut.
    `first_piece` is when the first piece of a stream was read.
    """

    request_id: str
    number: int
    key_name: str
    domain: str
    model: str
    started: float
    ended: float
    outcome: Outcome
    operation: Operation = Operation.GENERATE
    caller: str = ""
    provider: str = ""
    estimate: Usage | None = None
    first_piece: float | None = None


class WaitRecord(Struct, frozen=True):
    """A wait that begins: why and for how many seconds."""

    request_id: str
    reason: WaitFor
    seconds: float


class Findings(Struct, frozen=True):
    """What preparing a call found and did. Counts and names only: nothing of what was said.

    Attributes:
        redactions: pieces of personal data that were taken out, by the word of their marker.
        hidden_characters: invisible characters that were removed.
        injection_score: 0.0 to 1.0; a signal, no verdict.
        injection_signs: which signs were seen.
        tokens: of the whole prompt, as estimated or counted; 0 where nobody asked.
        counted: whether the upstream counted them.
        dropped_turns: turns of the conversation that were left out, the oldest.
        cut_characters: characters that were cut from the end of the prompt.
        warnings: sentences for a person: options left out, texts shortened.
    """

    redactions: Mapping[str, int] = {}
    hidden_characters: int = 0
    injection_score: float = 0.0
    injection_signs: tuple[str, ...] = ()
    tokens: int = 0
    counted: bool = False
    dropped_turns: int = 0
    cut_characters: int = 0
    warnings: tuple[str, ...] = ()


class CallRecord(Struct, frozen=True):
    """A finished call. Times are monotonic seconds; `key_name` is the key that answered.

    `error` is None for a success, else the kind of the error the caller got; `fault` for one of ours.
    `findings` is None where the call was not prepared. `cached`: a kept answer was given, which uses
    nothing; `saved` is what it used when it was new. `looked_up`: kept answers were looked through.
    `fallback` is the word of what stood in for an answer of the model that was asked for, if anything
    did.
    """

    request_id: str
    operation: Operation
    model: str
    started: float
    ended: float
    attempts: int
    rotations: int
    retries: int
    waited: float
    key_name: str | None
    usage: Usage
    error: str | None
    findings: Findings | None = None
    caller: str = ""
    provider: str = ""
    cached: bool = False
    saved: Usage = Usage()
    fallback: str | None = None
    looked_up: bool = False
