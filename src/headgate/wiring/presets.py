"""Dated data that ships with the package, read into the words of `policy/`."""

from __future__ import annotations

import tomllib
from datetime import date
from functools import cache
from importlib.resources import files

import msgspec

from headgate.policy.models import Model, Registry

__all__ = ["anthropic_default_model", "anthropic_registry", "gemini_registry"]


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    retiring: date | None = None
    shutdown: date | None = None
    successor: str | None = None
    sampling: bool = True
    note: str = ""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    date: date
    models: dict[str, _Row]
    aliases: dict[str, str] = {}
    default: str = ""


@cache
def gemini_registry() -> Registry:
    """What the shipped data says about Gemini models."""
    return _registry("gemini-models.toml")


@cache
def anthropic_registry() -> Registry:
    """What the shipped data says about Claude models."""
    return _registry("anthropic-models.toml")


def anthropic_default_model() -> str:
    """The Claude model of a call that names none."""
    return _content("anthropic-models.toml").default


@cache
def _content(name: str) -> _File:
    text = files("headgate.wiring").joinpath("data", name).read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), _File)


def _registry(name: str) -> Registry:
    content = _content(name)
    models = (
        Model(name, row.retiring, row.shutdown, row.successor, row.sampling, row.note)
        for name, row in content.models.items()
    )
    return Registry(models, content.aliases)
