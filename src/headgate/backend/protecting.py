"""The configuration of protection in the engine's words."""

from __future__ import annotations

from headgate.backend.settings import BackendConfig
from headgate.engine.protection import ProtectionRules
from headgate.policy.breaker import BreakerRules
from headgate.policy.concurrency import ConcurrencyRules
from headgate.policy.retry_budget import BudgetRules

__all__ = ["protection_of"]


def protection_of(config: BackendConfig) -> ProtectionRules:
    """What keeps calls from a model that fails: S3-04d, S3-04e."""
    limits = config.circuit_breaker
    breaker = BreakerRules(
        failures=limits.failure_threshold,
        open_seconds=limits.timeout_seconds,
        successes=limits.success_threshold,
        probes=limits.half_open_max_requests,
        probe_seconds=limits.timeout_seconds,
    )
    return ProtectionRules(
        breaker=breaker if config.circuit_breaker_enabled else None,
        concurrency=ConcurrencyRules() if config.adaptive_concurrency else None,
        retries=BudgetRules(share=config.retry_budget),
        hedge_after=config.hedge_after_seconds,
        most_waiting=max(1, config.max_queued_requests),
    )
