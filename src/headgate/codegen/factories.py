"""Clients for a purpose, in one call. Any texts will do for token and organisation: they are checked
when they are used."""

from __future__ import annotations

from typing import Any

from headgate.codegen.client import AsyncCodegenClient
from headgate.codegen.config import ClientConfig, ConfigPresets
from headgate.codegen.operations import Id
from headgate.wiring.codegen_options import preset_for

__all__ = [
    "create_client_from_env",
    "create_development_client",
    "create_high_performance_client",
    "create_production_client",
]


def create_production_client(
    api_token: str | None = None, org_id: Id | None = None, **parts: Any
) -> AsyncCodegenClient:
    """A client of the production preset. `parts`: `transport`, `clock` … of the client."""
    return AsyncCodegenClient(ConfigPresets.production(), api_token, org_id, **parts)


def create_development_client(
    api_token: str | None = None, org_id: Id | None = None, **parts: Any
) -> AsyncCodegenClient:
    """A client of the development preset: talks a lot, keeps nothing."""
    return AsyncCodegenClient(ConfigPresets.development(), api_token, org_id, **parts)


def create_high_performance_client(
    api_token: str | None = None, org_id: Id | None = None, **parts: Any
) -> AsyncCodegenClient:
    """A client of the high-performance preset: more at once, kept longer."""
    return AsyncCodegenClient(ConfigPresets.high_performance(), api_token, org_id, **parts)


def create_client_from_env(**parts: Any) -> AsyncCodegenClient:
    """A client of the environment's settings.

    `ENVIRONMENT` names a preset: production, development, testing or high_performance. Where it is
    unset, the documented defaults hold, which are production's. Raises
    `headgate.core.errors.ConfigurationError` for a setting that is wrong.
    """
    return AsyncCodegenClient(ClientConfig(preset=preset_for()), **parts)
