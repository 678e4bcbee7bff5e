"""What is to stand in for an answer when every try has failed: the five strategies (S3-04f).

They are words only; `engine/stages/degrade.py` does what they say. Over JSON a strategy is an object
with its name under `strategy`: `{"strategy": "SwitchModel", "model": "…"}`.
"""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct

from headgate.core.errors import ConfigurationError

__all__ = [
    "DEFAULT",
    "INCOMPLETE",
    "NOT_SAID",
    "AnyFallback",
    "DefaultResponse",
    "FailFast",
    "FallbackStrategy",
    "PartialResponse",
    "SwitchModel",
    "UseCachedResponse",
]

INCOMPLETE = "INCOMPLETE"
"""Finish reason of an answer that broke off and was given all the same; a word of ours."""

DEFAULT = "DEFAULT_RESPONSE"
"""Finish reason of a text that no model wrote; a word of ours."""


class FallbackStrategy(Struct, frozen=True, tag_field="strategy", tag=True):
    """What to do when every try has failed. One of the five below, also found as its attributes:
    `FallbackStrategy.SwitchModel("gemini-…")`."""

    UseCachedResponse: ClassVar[type[UseCachedResponse]]
    SwitchModel: ClassVar[type[SwitchModel]]
    DefaultResponse: ClassVar[type[DefaultResponse]]
    PartialResponse: ClassVar[type[PartialResponse]]
    FailFast: ClassVar[type[FailFast]]

    @property
    def name(self) -> str:
        """Its word in records, messages and over JSON."""
        return type(self).__name__


class UseCachedResponse(FallbackStrategy, frozen=True, tag=True, forbid_unknown_fields=True):
    """Answer with an earlier reply to the same request that is too old to be given otherwise; marked
    with its age."""


class SwitchModel(FallbackStrategy, frozen=True, tag=True, forbid_unknown_fields=True):
    """Ask another model; the reply names the one that answered.

    Raises:
        ConfigurationError: the name is no text, or empty.
    """

    model: str

    def __post_init__(self) -> None:
        _is_text("the model of SwitchModel", self.model)
        if not self.model.strip():
            raise ConfigurationError("SwitchModel takes the name of a model.")


class DefaultResponse(FallbackStrategy, frozen=True, tag=True, forbid_unknown_fields=True):
    """Answer with this text.

    Raises:
        ConfigurationError: it is no text.
    """

    text: str

    def __post_init__(self) -> None:
        _is_text("the text of DefaultResponse", self.text)


class PartialResponse(FallbackStrategy, frozen=True, tag=True, forbid_unknown_fields=True):
    """Answer with what a stream had told before it broke; marked as such."""


class FailFast(FallbackStrategy, frozen=True, tag=True, forbid_unknown_fields=True):
    """Raise the error: what stands after it in a chain is not tried."""


FallbackStrategy.UseCachedResponse = UseCachedResponse
FallbackStrategy.SwitchModel = SwitchModel
FallbackStrategy.DefaultResponse = DefaultResponse
FallbackStrategy.PartialResponse = PartialResponse
FallbackStrategy.FailFast = FailFast

AnyFallback = UseCachedResponse | SwitchModel | DefaultResponse | PartialResponse | FailFast
"""The five strategies, for wire formats."""

NOT_SAID = frozenset({"DefaultResponse", "PartialResponse"})
"""Strategies whose answer no model gave as a whole: it is no turn of a conversation."""


def _is_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} takes a str; got {type(value).__name__}.")
