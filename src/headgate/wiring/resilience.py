"""What an engine does beyond choosing keys and trying again; all of it is off unless asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

from headgate.core.files import FileDesk
from headgate.core.replies import ReplyCache
from headgate.engine.places import Places
from headgate.engine.protection import ProtectionRules

__all__ = ["PLAIN", "Resilience"]


@dataclass(frozen=True, slots=True)
class Resilience:
    """Which of the path's optional stages an engine has.

    Attributes:
        cache: where answers are kept; None: the path has no recall.
        fallbacks: whether calls may bring strategies for when every try has failed: the path has
            degrade.
        protection: breakers, limits of calls at once, budgets of retries, second attempts.
        places: of calls that go upstream; None: the path has no admit.
        files: the upstream's words for files; None: no call may bring media to upload.
    """

    cache: ReplyCache | None = None
    fallbacks: bool = False
    protection: ProtectionRules = field(default_factory=ProtectionRules)
    places: Places | None = None
    files: FileDesk | None = None


PLAIN = Resilience()
"""None of it."""
