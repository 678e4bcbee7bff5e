"""What a reader of the results must know; a note a paragraph."""

from __future__ import annotations

__all__ = ["ALWAYS", "REAL", "VIRTUAL"]


def _notes(text: str) -> list[str]:
    return [" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n")]


ALWAYS = _notes("""
Utilisation: what the upstream admitted while calls arrived ÷ the sum of limits over that time. A
bucket that starts full and windows that the run cuts in two give more than that, so over 100 % is
no mistake.

Avoidable: how many calls fewer were answered than by a client that sees every counter of the
upstream, has no delay, takes any key with room and lets each call wait 30 s, first come, first
served. Contenders that do not queue lose calls here by design, in overload above all.

Arrivals have their own source of chance: every contender of a load gets the same list. They are a
Poisson process, so a minute can bring more than its share.

Below a tenth of a second waits say nothing: contenders, upstreams and bench share the machine.

One process a contender, no Redis: nothing here is about several replicas.

The burst: the upstream counts tokens and refuses none, so what was admitted is what the contender
let through. Headgate reserves an estimate of each prompt, so it can stay below the limit.

Nobody is told how the upstream counts, only how much it allows; `Headgate, reactive` and `round
robin` are not even told that. Headgate's log lines are off; everything else about it is default.
""")

REAL = _notes("""
LiteLLM's Router: `rpm` or `tpm` set on every deployment, three retries by the Router, none within a
deployment, its default cool-downs. Off: its price list from the internet, Redis, optional pre-call
checks. It counts output tokens towards `tpm` too; the limit here is on input.

LiteLLM counts full minutes of the machine's clock. `fixed` enforces exactly that; `phased`,
`sliding` and `bucket` do not, and there is no setting to tell it.

Calls begin 0.5 s after a full minute where windows are fixed, 20.5 s after one elsewhere.
""")

VIRTUAL = ["LiteLLM is left out: it reads the machine's clock."]
