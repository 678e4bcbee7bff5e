"""Functions whose results are kept: `multi_layer_cached`, for coroutines and for plain functions."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from functools import partial, wraps
from hashlib import sha256
from threading import Lock
from typing import Any, ParamSpec, TypeVar, cast

from headgate.content.cache import LayeredCache, Right, open_cache
from headgate.content.cache_forms import decoded, readable
from headgate.content.cache_settings import load_cache_settings
from headgate.content.ports import Json, NoLayers

__all__ = ["get_multi_cache", "multi_layer_cached"]

P = ParamSpec("P")
R = TypeVar("R")

_LOCK = Lock()
_OF_PROCESS: list[LayeredCache] = []


def get_multi_cache() -> LayeredCache:
    """The layered cache of this process, as the environment says; opened at the first call.

    Raises:
        ConfigurationError: a setting is wrong, or the store needs a package that is not installed.
    """
    with _LOCK:
        if not _OF_PROCESS:
            _OF_PROCESS.append(open_cache(load_cache_settings()))
        return _OF_PROCESS[0]


def multi_layer_cached(
    multi_cache: LayeredCache | NoLayers,
    namespace: str = "default",
    ttl: float | None = None,
    *,
    key: Callable[..., str] | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Keep what a function returns, under the arguments it was called with.

    Any JSON value is kept, falsy ones and None too. What it raises is not, and reaches whoever called.
    Of several calls at once with equal arguments one runs the function; the others get its result.
    A result comes back as JSON has it, the first time as ever after: a tuple as a list, for instance.

    Args:
        namespace: to invalidate by.
        ttl: seconds a result is good; None: as the cache is set.
        key: makes the readable key of the arguments; needed where JSON cannot hold them, as the `self`
            of a method. Without it the key is the function's name and its arguments by name, defaults
            filled in, so that it does not matter how they are given.

    Raises:
        TypeError: the function is a generator; in a call: an argument that JSON cannot hold.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{function.__qualname__} yields its results: there is no one to keep.")
        named = key or _key_by_arguments(function)
        if inspect.iscoroutinefunction(function):
            whole = _of_coroutine(function, multi_cache, namespace, ttl, named)
        else:
            whole = _of_function(function, multi_cache, namespace, ttl, named)
        return cast("Callable[P, R]", wraps(function)(whole))

    return decorate


def _of_coroutine(
    function: Callable[..., Any],
    cache: LayeredCache | NoLayers,
    namespace: str,
    ttl: float | None,
    named: Callable[..., str],
) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Json:
        make = partial(function, *args, **kwargs)
        seconds = ttl if ttl is not None else getattr(cache, "ttl", 0.0)
        return (await cache.get_or_make(namespace, named(*args, **kwargs), seconds, make)).value

    return call


def _of_function(
    function: Callable[..., Any],
    cache: LayeredCache | NoLayers,
    namespace: str,
    ttl: float | None,
    named: Callable[..., str],
) -> Callable[..., Any]:
    """The function runs in the thread that calls it: it may depend on what belongs to that thread."""

    def call(*args: Any, **kwargs: Any) -> Json:
        if not isinstance(cache, LayeredCache):
            return function(*args, **kwargs)
        run, name = cache.bridge.run, readable(named(*args, **kwargs))
        kept = run(cache.get(namespace, name))
        if kept is not None:
            return kept.value
        turn = run(cache.turn(namespace, name))
        if not isinstance(turn, Right):
            return decoded(cast("bytes", turn.data))
        try:
            value = function(*args, **kwargs)
        except BaseException:
            run(cache.give_up(turn))
            raise
        data = run(cache.finish(turn, value, ttl))
        return value if data is None else decoded(data)

    return call


def _key_by_arguments(function: Callable[..., Any]) -> Callable[..., str]:
    signature = inspect.signature(function)
    name = f"{function.__module__}.{function.__qualname__}"

    def key(*args: Any, **kwargs: Any) -> str:
        bound = signature.bind(
            *args, **kwargs
        )  # TypeError of a wrong call, before anything is looked up
        bound.apply_defaults()
        shown = (f"{parameter}={_shown(name, value)}" for parameter, value in bound.arguments.items())
        return f"{name}({', '.join(shown)})"

    return key


def _shown(name: str, value: object) -> str:
    try:
        return json.dumps(
            value, ensure_ascii=False, allow_nan=False, sort_keys=True, default=_shown_bytes
        )  # fmt: skip
    except (TypeError, ValueError, RecursionError):
        raise TypeError(
            f"{name} got a {type(value).__name__}, of which no readable key can be made. Give "
            "multi_layer_cached a key=, a function of the same arguments that returns a text."
        ) from None


def _shown_bytes(value: object) -> dict[str, str]:
    if isinstance(value, bytes):
        return {"sha256": sha256(value).hexdigest()}
    raise TypeError
