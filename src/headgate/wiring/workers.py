"""What several workers of a gateway share: where their quotas are counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, cast

from headgate.core.errors import ConfigurationError, NoKeysError
from headgate.stores.urls import StoreUrl
from headgate.wiring.claude import load_claude
from headgate.wiring.openai import load_openai
from headgate.wiring.settings import load_gemini, resolve_alone
from headgate.wiring.stores import check_store

__all__ = ["shared_store"]


_OF_THEIR_OWN = StoreUrl.read("unix:///store.sock")
"""What their own will be like: it needs the same packages as any other."""


class _Counted(Protocol):
    @property
    def store(self) -> StoreUrl: ...


def shared_store(environ: Mapping[str, str] | None = None) -> StoreUrl | None:
    """The store that workers with these settings share; None: they need one of their own, for each
    would count for itself.

    Raises:
        ConfigurationError: a setting is wrong, a package is missing that any shared store needs, or
            quotas of one provider are counted in a store and those of another in memory.
    """
    loaders: tuple[Callable[..., _Counted], ...] = (load_gemini, load_claude, load_openai)
    found = [cast("StoreUrl", resolve_alone("store", environ=environ).value)]
    for load in loaders:
        try:
            found.append(load(environ=environ).store)
        except NoKeysError:
            continue
    shared = [url for url in found if not url.memory]
    if not shared:
        check_store(_OF_THEIR_OWN)
        return None
    if len(shared) < len(found):
        raise ConfigurationError(
            f"Several workers share {shared[0]} for one provider and nothing for another. Set "
            "HEADGATE_STORE, which is for all of them, or `store` in each table of headgate.toml."
        )
    for url in shared:
        check_store(url)
    return shared[0]
