"""What a new list of keys takes over from the one before it: counts, refusals and cool-downs of keys
and domains that stand in both. Pure; the caller holds the locks of both rings."""

from __future__ import annotations

from headgate.policy.keyring import KeyRing

__all__ = ["alike", "inherit"]


def alike(old: KeyRing, new: KeyRing) -> bool:
    """Whether both have the same keys under the same rules."""
    return (
        [entry.key for entry in old._entries] == [entry.key for entry in new._entries]
        and old._choosable_keys == new._choosable_keys
        and old._fallback == new._fallback
    )


def inherit(old: KeyRing, new: KeyRing) -> None:
    """Let a ring that nobody has used yet know what another knows.

    A key is the same where its value and its domain are; what it is called may change. Counts are
    shared from then on, so that attempts under way with the old ring count in both.
    """
    known = {(entry.key.value, entry.key.domain): entry for entry in old._entries}
    for entry in new._entries:
        before = known.get((entry.key.value, entry.key.domain))
        if before is None:
            continue
        entry.stats = before.stats
        for model in before.denied:
            new._deny(entry, model)
        if before.disabled is not None:
            new.disable(entry.index, before.disabled)
    parks = {entry.key.domain: old._domains[entry.domain].parks for entry in old._entries}
    for entry in new._entries:
        held = parks.get(entry.key.domain)
        if held:
            new._domains[entry.domain].parks = dict(held)
            new._troubled.add(entry.domain)
