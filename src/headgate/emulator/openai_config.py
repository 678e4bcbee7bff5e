"""Organisations: who may call the OpenAI surface, and how much."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from headgate.emulator.problems import check_key_names

__all__ = ["OpenAILimits", "OpenAIOrganisation"]

KeyState: TypeAlias = Literal["ok", "invalid", "deactivated"]
Credit: TypeAlias = Literal["ok", "used_up", "hard_limit"]
Counting: TypeAlias = Literal["requested", "used"]
Deviation: TypeAlias = Literal[
    "list_errors", "string_errors", "no_usage", "no_done", "no_limit_headers", "float_vectors"
]


class OpenAILimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The buckets of one model in one organisation. `None` means no such limit.

    Attributes:
        rpm: requests a minute.
        tpm: tokens a minute, of prompt and answer together.
        rpd: requests a day; a bucket too, so it refills evenly.
    """

    rpm: int | None = None
    tpm: int | None = None
    rpd: int | None = None

    def __post_init__(self) -> None:
        for name in ("rpm", "tpm", "rpd"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` is {value}; allowed: 1 or more, or leave it out")


class OpenAIOrganisation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An organisation: what OpenAI counts limits against. Its keys share them.

    Attributes:
        name: as it appears in the report.
        keys: key name to key value. Names appear in reports, values nowhere.
        limits: model, pattern or `*` to limits. A dated version is counted with its model.
        key_states: key name to what is wrong with that key.
        denied: key name to the models that answer 403 "does not have access to model".
        credit: `used_up` refuses with 429 insufficient_quota, `hard_limit` with 400
            billing_hard_limit_reached.
        counting: `requested` takes a call's bound of the answer when it arrives, and nothing for one
            without a bound; `used` takes what came out when it has.
        deviations: what compatible upstreams do otherwise: errors in a list, or as a bare text; no
            usage; no `[DONE]`; no limit headers; vectors as numbers whatever is asked for.
        models: names beyond those shipped with the package that answer here, as chat models.
    """

    name: str
    keys: dict[str, str]
    limits: dict[str, OpenAILimits] = {}
    key_states: dict[str, KeyState] = {}
    denied: dict[str, list[str]] = {}
    credit: Credit = "ok"
    counting: Counting = "requested"
    deviations: list[Deviation] = []
    models: list[str] = []

    def __post_init__(self) -> None:
        check_key_names(self.keys, denied=self.denied, key_states=self.key_states)

    def __repr__(self) -> str:
        names = ", ".join(self.keys)
        return f"OpenAIOrganisation({self.name!r}, keys=[{names}], limits={self.limits!r})"
