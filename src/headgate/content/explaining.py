"""`generate_single_explanation_google_ai`: one explanation for code that serves nothing (S4-05)."""

from __future__ import annotations

from typing import Any

from headgate.content.explanations import Explanations
from headgate.content.fields import presentation_of
from headgate.content.of_process import explanations_of_process
from headgate.content.opening import open_content
from headgate.content.quota_config import Held

__all__ = ["generate_single_explanation_google_ai"]


async def generate_single_explanation_google_ai(
    topic: str,
    subtopic: str,
    education_level: str = "General",
    level_of_detail: str = "mediumDetail",
    learning_style: str = "General",
    language: str = "en",
    *,
    reservation: Held | None = None,
) -> dict[str, Any]:
    """One explanation, as an item of `/api/create_presentation`; kept under all of its arguments.

    Args:
        reservation: what `QuotaTracker.reserve` put aside for it; None: that is done here.

    Raises:
        QuotaExceededError: no quota, and nothing that may stand in.
        headgate.core.errors.HeadgateError: an argument is wrong, or the model gave nothing good.
    """
    order = presentation_of(
        {
            "topic": topic,
            "focus": [subtopic],
            "educationLevel": education_level,
            "levelOfDetail": level_of_detail,
            "learningStyle": learning_style,
            "language": language,
        },
        "",
    )
    return await _of_process().one(order, order.focus[0], held=reservation)


def _of_process() -> Explanations:
    made = explanations_of_process()
    if made is None:
        open_content()  # by the environment
        made = explanations_of_process()
    assert made is not None  # noqa: S101 - opening a service brings it
    return made
