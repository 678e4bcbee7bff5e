"""The families of keys: one set for each provider, so that one registry takes a client of each.

They were there first, and their names are in many alert rules; `headgate_provider_keys` is the one
family over all of them.
"""

from __future__ import annotations

from headgate.telemetry.metrics.family import Category, Family, Feeder, Label, Merge, Shape

__all__ = ["KEYS", "key_families"]

_KEY = Label("key", most=1000)
_STATES = ("active", "exhausted", "disabled")
_Keys = Category.KEYS
_Engine = Feeder.ENGINE


def key_families(prefix: str, group: str) -> tuple[Family, ...]:
    """The families of one provider's keys.

    Args:
        prefix: what their names begin with.
        group: what the provider counts quota against: a label.
    """
    both = (_KEY, Label(group, most=1000))
    return (
        Family(
            f"{prefix}_key_requests_total", Shape.COUNTER,
            "Attempts sent with a key, by what became of them.", _Keys, _Engine,
            (_KEY, Label("outcome", values=("success", "quota_error", "other_error"))),
        ),
        Family(
            f"{prefix}_key_active", Shape.GAUGE, "1 while the key may be used.", _Keys, _Engine,
            both, merge=Merge.MIN,
        ),
        Family(
            f"{prefix}_key_disabled", Shape.GAUGE, "1 once the upstream refused the key itself.",
            _Keys, _Engine, both, merge=Merge.MAX,
        ),
        Family(
            f"{prefix}_key_recovers_seconds", Shape.GAUGE,
            "Seconds until the key is wholly active again; 0 if it is.", _Keys, _Engine, both,
            "seconds", merge=Merge.MAX,
        ),
        Family(
            f"{prefix}_keys", Shape.GAUGE, "Number of keys in a state.", _Keys, _Engine,
            (Label("state", values=_STATES),), merge=Merge.MAX,
        ),
    )  # fmt: skip


KEYS: tuple[Family, ...] = (
    *key_families("headgate", "project"),
    *key_families("headgate_claude", "organisation"),
    *key_families("headgate_openai", "organisation"),
)
