"""Organisations: who may call the Anthropic surface, and how much."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from headgate.emulator.problems import check_key_names

__all__ = ["Organisation", "TokenLimits"]

KeyState: TypeAlias = Literal["ok", "invalid", "forbidden"]
Spend: TypeAlias = Literal["ok", "tier_cap", "own_limit", "unpaid", "no_credit"]


class TokenLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The token buckets of one model class in one organisation. `None` means no such limit.

    Attributes:
        rpm: requests a minute.
        itpm: input tokens a minute, those written to a cache among them, those read from one not.
        otpm: output tokens a minute; a request is let in while any are left, and pays afterwards.
    """

    rpm: int | None = None
    itpm: int | None = None
    otpm: int | None = None

    def __post_init__(self) -> None:
        for name in ("rpm", "itpm", "otpm"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"`{name}` is {value}; allowed: 0 or more, or leave it out")


class Organisation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An organisation: what Anthropic counts limits against. Its keys share them.

    Attributes:
        name: as it appears in the report.
        keys: key name to key value. Names appear in reports, values nowhere.
        limits: model class (`claude-opus-5`), model id, pattern or `*` to limits. Each class has
            its own buckets.
        key_states: key name to what is wrong with that key.
        denied: key name to the models that answer 403.
        spend: `tier_cap` refuses with a 429 without `retry-after`, `own_limit` with a 400 that names
            the first of next month, `unpaid` with a 402, `no_credit` with a 400.
        retry_after_share: share of good answers that carry `retry-after` all the same, as recorded
            ones do; whoever obeys it wastes its quota.
    """

    name: str
    keys: dict[str, str]
    limits: dict[str, TokenLimits] = {}
    key_states: dict[str, KeyState] = {}
    denied: dict[str, list[str]] = {}
    spend: Spend = "ok"
    retry_after_share: float = 0.06

    def __post_init__(self) -> None:
        check_key_names(self.keys, denied=self.denied, key_states=self.key_states)
        if not 0.0 <= self.retry_after_share <= 1.0:
            raise ValueError(f"`retry_after_share` is {self.retry_after_share}; allowed: 0 to 1")

    def __repr__(self) -> str:
        names = ", ".join(self.keys)
        return f"Organisation({self.name!r}, keys=[{names}], limits={self.limits!r})"
