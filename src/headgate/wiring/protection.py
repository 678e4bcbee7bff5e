"""Which stages keep an engine's calls from a model that fails, and what they remember."""

from __future__ import annotations

from typing import NamedTuple

from headgate.core.ports import Clock
from headgate.engine.hedging import Hedge
from headgate.engine.protection import Protection, ProtectionRules
from headgate.engine.stages.protect import Protect, Watch

__all__ = ["Guards", "guards"]


class Guards(NamedTuple):
    """What protects the calls of an engine. A stage that is None has no place in its path."""

    protection: Protection
    hedge: Hedge | None
    protect: Protect | None
    watch: Watch | None


def guards(rules: ProtectionRules, clock: Clock, before: Protection | None) -> Guards:
    """The stages of an engine.

    Args:
        before: what the generation before this one knows. It goes on where the rules are the same: a
            change of something else must not send calls to a model that is left alone.
    """
    protection = Protection(rules, clock)
    if before is not None and before.rules == rules:
        protection = before
    hedge = None if rules.hedge_after is None else Hedge(protection, rules.hedge_after)
    if not rules.guards:
        return Guards(protection, None, None, None)
    return Guards(protection, hedge, Protect(protection), Watch(protection))
