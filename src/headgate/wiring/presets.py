"""Dated data that ships with the package, read into the words of `policy/`."""

from __future__ import annotations

import tomllib
from datetime import date
from functools import cache
from importlib.resources import files

import msgspec

from headgate.policy.models import Model, Registry

__all__ = ["gemini_registry"]


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


@cache
def gemini_registry() -> Registry:
    """What the shipped data says about Gemini models."""
    text = files("headgate.wiring").joinpath("data/gemini-models.toml").read_text(encoding="utf-8")
    content = msgspec.convert(tomllib.loads(text), _File)
    models = (
        Model(name, row.retiring, row.shutdown, row.successor, row.sampling, row.note)
        for name, row in content.models.items()
    )
    return Registry(models, content.aliases)
