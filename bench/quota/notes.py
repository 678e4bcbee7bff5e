"""What a reader of the results must know; a note a paragraph."""

from __future__ import annotations

__all__ = ["ALWAYS", "REAL", "VIRTUAL"]


def _notes(text: str) -> list[str]:
    return [" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n")]


ALWAYS = _notes("""
Utilisation: what the upstream admitted while calls arrived ÷ the sum of limits over that time. A
bucket that starts full and windows that the run cuts in two give more than that, so over 100 % is
no mistake.

429s: every one the upstream sent, those hidden by retries included. Avoidable 429s: those that the
declared limit and the contender's own past sends predicted: in the 60 s before, the upstream had
admitted as many requests of that project as the limit allows.

Avoidable failures: how many calls fewer were answered than by a client that sees every counter of the
upstream, has no delay, takes any key with room and lets each call wait 30 s, first come, first
served. Contenders that do not queue lose calls here by design, in overload above all.

Arrivals have their own source of chance: every contender of a load gets the same list. They are a
Poisson process, so a minute can bring more than its share.

Below a tenth of a second waits say nothing: contenders, upstreams and bench share the machine.

The burst: the upstream counts tokens and refuses none, so what was admitted is what the contender
let through. Headgate reserves an estimate of each prompt, so it can stay below the limit.

Nobody is told how the upstream counts, only how much it allows; `Headgate, told nothing` and `round
robin` are not even told that. Headgate's log lines are off; everything else about it is default.
""")

REAL = _notes("""
One process: state in memory. `Valkey`, three processes: calls go to them in turn, and they share one
server of their own, which no other contender touches: Headgate its ledgers, LiteLLM's Router whatever
it keeps in Redis. `least-busy` counts open calls, no quota, so it has no such row.

LiteLLM's Router: `rpm` or `tpm` set on every deployment, three retries by the Router, none within a
deployment, its default cool-downs. `enforce` is its default strategy with
`optional_pre_call_checks=["enforce_model_rate_limits"]`. Off: its price list from the internet. It
counts output tokens towards `tpm` too; the limit here is on input.

LiteLLM counts full minutes of the machine's clock. `fixed` enforces exactly that; the other upstreams
do not, and there is no setting to tell it. That is also why a minute here takes a minute: windows
could be shorter for everybody but for it.

Calls begin 0.5 s after a full minute where windows are fixed, 20.5 s after one elsewhere. Bursts come
one after the other, each within a minute.

A row is not to be trusted where the bench itself was late: one call in a hundred by more than 0.1 s, or
any by more than 1 s; nor is a wave in which the processors were in use over 90 % of the time. A board
is not blessed where other programs used more than a tenth of a processor.
""")

VIRTUAL = ["LiteLLM is left out: it reads the machine's clock.", "One process a contender, no Valkey."]
