"""The content service: quota-guarded endpoints for topics, explanations and images, on the engine.

    app = headgate.content.app()        # an ASGI application, by the environment
    headgate content serve              # the same, on port 5000

The reference is docs/reference/content.md. Names are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headgate.content.application import ContentApp
    from headgate.content.cache import LayeredCache
    from headgate.content.cache_settings import CacheSettings
    from headgate.content.cached_function import get_multi_cache, multi_layer_cached
    from headgate.content.explaining import generate_single_explanation_google_ai
    from headgate.content.opening import Outside
    from headgate.content.quota_config import (
        Held,
        QuotaConfig,
        QuotaExceededError,
        RequestPriority,
    )
    from headgate.content.quota_guard import get_quota_tracker, with_quota_check
    from headgate.content.settings import ContentSettings, load_content
    from headgate.content.tracker import QuotaTracker

    MultiLayerCache = LayeredCache
    RedisConfig = CacheSettings
    quota_tracker: QuotaTracker
    multi_cache: LayeredCache

_ROOMS = {
    "application": ("ContentApp",),
    "cached_function": ("get_multi_cache", "multi_layer_cached"),
    "explaining": ("generate_single_explanation_google_ai",),
    "opening": ("Outside",),
    "quota_config": ("Held", "QuotaConfig", "QuotaExceededError", "RequestPriority"),
    "quota_guard": ("get_quota_tracker", "with_quota_check"),
    "tracker": ("QuotaTracker",),
    "settings": ("ContentSettings", "load_content"),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}
_OTHERWISE = {
    "MultiLayerCache": ("cache", "LayeredCache"),
    "RedisConfig": ("cache_settings", "CacheSettings"),
}
_OF_PROCESS = {
    "quota_tracker": ("quota_guard", "get_quota_tracker"),
    "multi_cache": ("cached_function", "get_multi_cache"),
}
"""What a process has one of, by the function that gives it."""

__all__ = [
    "ContentApp",
    "ContentSettings",
    "Held",
    "MultiLayerCache",
    "Outside",
    "QuotaConfig",
    "QuotaExceededError",
    "QuotaTracker",
    "RedisConfig",
    "RequestPriority",
    "app",
    "generate_single_explanation_google_ai",
    "get_multi_cache",
    "get_quota_tracker",
    "load_content",
    "multi_cache",
    "multi_layer_cached",
    "quota_tracker",
    "with_quota_check",
]


def app(settings: ContentSettings | None = None, outside: Outside | None = None) -> ContentApp:
    """The content service as an ASGI application, to be served or mounted under any other.

    Args:
        settings: None: those of environment and file.
        outside: what it is given instead of what its settings name.

    Raises:
        headgate.core.errors.ConfigurationError: a setting is wrong, a package is missing, or no key
            is there.
    """
    from headgate.content.opening import open_content  # noqa: PLC0415 - slow to import

    return open_content(settings, outside)


def __getattr__(name: str) -> Any:
    if name in _OF_PROCESS:  # asked for anew each time: a service may have brought its own
        room, function = _OF_PROCESS[name]
        return getattr(import_module(f"{__name__}.{room}"), function)()
    room, name_there = _OTHERWISE.get(name, (_ROOM_OF.get(name, ""), name))
    if not room:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{room}"), name_there)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
