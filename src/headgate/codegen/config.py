"""`ClientConfig` and `ConfigPresets`: what a client is told, checked whenever it is set.

    config = ClientConfig(api_token="…", org_id="1", timeout=10)
    config = ConfigPresets.development(); config.api_token = "…"

A value that is given beats a variable that is set, that beats `[codegen]` in headgate.toml, that a
preset, and that the default. The options and their variables are in `wiring/codegen_options.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, cast

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from headgate.core.errors import ConfigurationError
from headgate.policy.redaction import mask
from headgate.wiring.codegen import CodegenSettings, Retrying
from headgate.wiring.codegen_options import CODEGEN_OPTIONS, SECRETS, parsed, resolve_codegen

__all__ = ["ClientConfig", "ConfigPresets", "RetryConfig"]

_SECRET_HEADERS = ("auth", "token", "key", "secret", "cookie")


class RetryConfig(BaseModel):
    """How calls are tried again; times in seconds.

    Attributes:
        max_attempts: all tries of a call, the first among them.
        jitter: full jitter: each delay is anywhere between 0 and its bound.
        retryable: statuses after which a call that may be repeated is.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_attempts: int = Field(default=3, ge=1)
    base_delay: float = Field(default=1.0, gt=0)
    max_delay: float = Field(default=60.0, gt=0)
    backoff_factor: float = Field(default=2.0, ge=1)
    jitter: bool = True
    retryable: frozenset[int] = frozenset({429, 500, 502, 503, 504})

    def retrying(self) -> Retrying:
        """The same in the engine's words."""
        return Retrying(
            self.max_attempts, self.base_delay, self.max_delay, self.backoff_factor, self.jitter,
            self.retryable,
        )  # fmt: skip


class ClientConfig(BaseModel):
    """The settings of a client. Times in seconds.

    Building one never does I/O beyond `headgate.toml` and files that `…_FILE` variables name, and any
    token will do: it is checked when the first request is made.

    Raises:
        headgate.core.errors.ConfigurationError: a setting is unknown or wrong, here, on assignment and
            in `update`. Names the setting, what it takes, and never a secret.
    """

    model_config = ConfigDict(extra="forbid", validate_default=False, protected_namespaces=())

    api_token: str = Field(default="", repr=False)
    org_id: str = ""
    base_url: str = ""
    timeout: float = 0.0
    max_retries: int = 0
    retry_delay: float = 0.0
    retry_backoff_factor: float = 0.0
    retry_jitter: bool = True
    agent_run_timeout: float = 0.0
    rate_limit_requests_per_period: int = 0
    rate_limit_period_seconds: float = 0.0
    rate_limit_buffer: float = 0.0
    enable_caching: bool = True
    cache_ttl_seconds: float = 0.0
    cache_max_size: int = 0
    enable_webhooks: bool = True
    enable_bulk_operations: bool = True
    enable_streaming: bool = True
    enable_metrics: bool = True
    bulk_max_workers: int = 0
    bulk_batch_size: int = 0
    webhook_secret: str = Field(default="", repr=False)
    webhook_timeout: float = 0.0
    log_level: str = ""
    log_requests: bool = True
    log_responses: bool = False
    log_sensitive_data: bool = False
    debug_mode: bool = False
    mock_responses: bool = False
    custom_headers: dict[str, str] = Field(default_factory=dict, repr=False)

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)
    _version: int = PrivateAttr(default=0)

    def __init__(
        self,
        *,
        preset: str | None = None,
        environ: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        resolved = resolve_codegen(settings, preset, environ)
        super().__init__(**{name: item.value for name, item in resolved.items()})
        self._origins = {name: item.origin for name, item in resolved.items()}

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            if name not in type(self).model_fields:
                known = ", ".join(type(self).model_fields)
                raise ConfigurationError(f"There is no setting {name!r} of the client; known: {known}.")
            value = parsed(name, f"setting {name}", value)
            self._origins[name] = f"setting {name}"
            self._version += 1
        super().__setattr__(name, value)

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        return [*self.to_dict().items()]

    def origin(self, name: str) -> str:
        """Where a setting's value came from: an argument, a variable, a preset, the default …"""
        return self._origins[name]

    @property
    def version(self) -> int:
        """Grows with each setting that is set: whoever built on these settings sees the change."""
        return self._version

    def to_dict(self) -> dict[str, Any]:
        """Every setting; token and secret masked, and headers that look like credentials."""
        values = self.model_dump()
        for name in SECRETS:
            values[name] = mask(values[name]) if values[name] else ""
        values["custom_headers"] = {
            name: mask(text) if any(word in name.lower() for word in _SECRET_HEADERS) else text
            for name, text in self.custom_headers.items()
        }
        return values

    def update(self, **settings: Any) -> Self:
        """Set several at once: all of them, or none if one is wrong. Returns itself."""
        values = {}
        for name, value in settings.items():
            if name not in type(self).model_fields:
                known = ", ".join(type(self).model_fields)
                raise ConfigurationError(f"There is no setting {name!r} of the client; known: {known}.")
            values[name] = parsed(name, f"setting {name}", value)
        for name, value in values.items():
            setattr(self, name, value)
        return self

    def copy(self, **settings: Any) -> Self:  # the accepted name
        """A copy of its own, with these settings changed."""
        made = self.model_copy(deep=True)
        made._origins = dict(self._origins)
        return made.update(**settings)

    # ── files ───────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_file(cls, path: str | Path, **settings: Any) -> Self:
        """Read settings from a .json, .yaml or .yml file; what is given here comes first.

        Raises `ConfigurationError` if it cannot be read or a setting is wrong.
        """
        file = Path(path)
        try:
            text = file.read_text(encoding="utf-8")
            values = json.loads(text) if file.suffix == ".json" else _yaml(file).safe_load(text)
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{file}: cannot be read ({type(error).__name__}).") from None
        except Exception as error:
            if type(error).__module__.partition(".")[0] != "yaml":
                raise
            raise ConfigurationError(f"{file} is not valid YAML.") from None
        if not isinstance(values, dict):
            raise ConfigurationError(f"{file} must hold one mapping of settings to values.")
        return cls(**{**values, **settings})

    def save_to_file(self, path: str | Path) -> None:
        """Write the settings to a .json, .yaml or .yml file, without token, secret and headers."""
        file = Path(path)
        values = {
            name: value
            for name, value in self.model_dump().items()
            if name not in SECRETS and name != "custom_headers"
        }
        if file.suffix == ".json":
            text = json.dumps(values, indent=2) + "\n"
        else:
            text = cast("str", _yaml(file).safe_dump(values, sort_keys=False))
        file.write_text(text, encoding="utf-8")

    # ── for the engine ──────────────────────────────────────────────────────────────────────────

    def retry_config(self) -> RetryConfig:
        """How this configuration tries again."""
        return RetryConfig(
            max_attempts=self.max_retries + 1,
            base_delay=self.retry_delay,
            max_delay=max(60.0, self.retry_delay),
            backoff_factor=self.retry_backoff_factor,
            jitter=self.retry_jitter,
        )

    def settings(self, retry: RetryConfig | None = None) -> CodegenSettings:
        """What the path of a client is built from."""
        origin = self._origins.get("cache_ttl_seconds", "default")
        return CodegenSettings(
            token=self.api_token,
            base_url=self.base_url,
            headers=dict(self.custom_headers),
            timeout=self.timeout,
            retrying=(retry or self.retry_config()).retrying(),
            requests=self.rate_limit_requests_per_period,
            period=self.rate_limit_period_seconds,
            buffer=self.rate_limit_buffer,
            ttl=self.cache_ttl_seconds if self.enable_caching else None,
            ttl_for_all=origin != "default" and not origin.startswith("preset"),
            cache_size=self.cache_max_size,
        )


class ConfigPresets:
    """Configurations for a purpose. They change what is set nowhere else, and can be changed after."""

    names: ClassVar[tuple[str, ...]] = ("production", "development", "high_performance", "testing")

    @staticmethod
    def production(**settings: Any) -> ClientConfig:
        """The documented defaults."""
        return ClientConfig(preset="production", **settings)

    @staticmethod
    def development(**settings: Any) -> ClientConfig:
        """Talks a lot, waits long, keeps nothing."""
        return ClientConfig(preset="development", **settings)

    @staticmethod
    def high_performance(**settings: Any) -> ClientConfig:
        """Keeps long, sends more at once, talks little."""
        return ClientConfig(preset="high_performance", **settings)

    @staticmethod
    def testing(**settings: Any) -> ClientConfig:
        """Answers from the emulator, without a network and without retries."""
        return ClientConfig(preset="testing", **settings)


def _yaml(file: Path) -> Any:
    if file.suffix not in (".yaml", ".yml"):
        raise ConfigurationError(f"{file}: settings are read and written as .json, .yaml or .yml.")
    try:
        import yaml  # noqa: PLC0415 - an extra, and only for this
    except ImportError:
        raise ConfigurationError(
            "Settings in YAML need the package PyYAML: pip install 'headgate[codegen]'."
        ) from None
    return yaml


assert {option.name for option in CODEGEN_OPTIONS} == set(ClientConfig.model_fields)  # noqa: S101 - one table
