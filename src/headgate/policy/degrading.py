"""Which failures something else may stand in for, and the words in which that is told. Pure.

Asked is the kind of an error as callers see it. What is nobody's fault and may pass degrades; what says
that the call, the key or this machine is wrong does not: an answer from elsewhere would hide it, and
the next call would fail alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["DEGRADES", "degrades", "nothing_helped"]

DEGRADES: Mapping[str, bool] = {
    # out of quota: other models have other quotas
    "quota": True,
    # the upstream: overloaded, failing, too slow, out of reach; or a breaker that is open
    "unavailable": True,
    "server": True,
    "network": True,
    "timeout": True,
    "protocol": True,
    # this process, or the store it shares: too busy
    "busy": True,
    "store": True,
    # the keys may not use this model: they may use another
    "no_access": True,
    # somebody must act: set a key right, a clock, a certificate, a region, a resource
    "auth": False,
    "tls": False,
    "egress": False,
    "resource": False,
    "storage_quota": False,
    "configuration": False,
    "key_format": False,
    "no_keys": False,
    # the call itself: no model will take it, or should
    "invalid": False,
    "unsupported": False,
    "too_large": False,
    "model_retired": False,
    "blocked": False,
    "schema": False,
    # nobody waits for an answer
    "cancelled": False,
    # errors of doors, and such as say nothing
    "error": False,
    "upstream": False,
}
"""By kind, whether a fallback may answer. A kind that is not here does not degrade."""


def degrades(kind: str) -> bool:
    """Whether a fallback may answer a call that failed with an error of this kind."""
    return DEGRADES.get(kind, False)


def nothing_helped(message: str, tried: Sequence[str]) -> str:
    """The sentence of the first failure, with what was tried after it."""
    if not tried:
        return message
    return f"{message} No fallback helped: {'; '.join(tried)}."
