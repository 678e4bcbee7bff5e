"""Routes for operators: cache, breakers, metrics; and what the service says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from headgate.content.answers import JsonAnswer
from headgate.content.doorkeeper import Access
from headgate.content.fields import MOST_BODY_BYTES, read_json
from headgate.content.problems import RefusedError
from headgate.content.routes import Row
from headgate.content.studio import Studio
from headgate.content.uploads import read_bounded
from headgate.engine.protection import Protection

if TYPE_CHECKING:
    from headgate.content.gauges import Gauges

__all__ = ["AdminHandlers"]

_LONGEST_PATTERN = 500


class AdminHandlers:
    """The routes that change or show what runs.

    Args:
        registry: a `prometheus_client` registry; None: no metrics are served.
    """

    def __init__(
        self,
        studio: Studio,
        protection: Protection,
        *,
        registry: Any = None,
        gauges: Gauges | None = None,
    ) -> None:
        self._studio = studio
        self._protection = protection
        self._registry = registry
        self._gauges = gauges
        self.document: dict[str, Any] = {}

    def rows(self) -> Sequence[Row]:
        """The table."""
        from headgate.content import schemas as say  # noqa: PLC0415 - only the table needs them

        operators, callers = Access.OPERATORS, Access.CALLERS
        breaker = "/api/circuit-breaker/{name}"
        rows = [
            Row("POST", "/api/cache/invalidate", "cache_invalidate", operators, self.invalidate,
                "Forget what is kept in a namespace, or under keys that match a glob.",
                say.INVALIDATION, say.REMOVED),
            Row("POST", "/api/cache/clear", "cache_clear", operators, self.clear,
                "Forget everything that is kept.", None, say.REMOVED),
            Row("GET", "/api/cache/stats", "cache_stats", operators, self.cache_stats,
                "What the cache holds and did.", None, say.CACHE_STATS),
            Row("GET", f"{breaker}/state", "breaker_state", operators, self.breaker_state,
                "What the breaker before a model does.", None, say.BREAKER),
            Row("POST", f"{breaker}/reset", "breaker_reset", operators, self.breaker_reset,
                "Close it, and forget what it saw.", None, say.BREAKER),
            Row("GET", "/api/stats", "stats", callers, self.stats,
                "Quota and cache in one.", None, say.STATS),
            Row("GET", "/api/docs", "docs", Access.PAGE, self.docs, "This, in OpenAPI 3.1."),
        ]  # fmt: skip
        if self._registry is not None:
            rows += [
                Row("GET", "/metrics", "metrics", callers, self.metrics, "For Prometheus."),
                Row("GET", "/api/metrics", "admin_metrics", operators, self.metrics_json,
                    "The same as JSON."),
            ]  # fmt: skip
        return rows

    # ── the cache ───────────────────────────────────────────────────────────────────────────────

    async def invalidate(self, request: Request) -> Response:
        """S4-13."""
        body = await read_bounded(request, MOST_BODY_BYTES)
        said = read_json(body, request.headers.get("content-type", ""))
        namespace, pattern = said.get("namespace"), said.get("pattern", "*")
        if not isinstance(namespace, str) or not namespace.strip():
            raise RefusedError("namespace takes a text.", validator="request", issue="missing")
        if not isinstance(pattern, str) or not 1 <= len(pattern) <= _LONGEST_PATTERN:
            sentence = f"pattern takes a glob of up to {_LONGEST_PATTERN} characters."
            raise RefusedError(sentence, validator="request", issue="malformed")
        return JsonAnswer({"removed": await self._studio.forget(namespace.strip(), pattern)})

    async def clear(self, request: Request) -> Response:
        """Forget everything."""
        del request
        return JsonAnswer({"removed": await self._studio.layers.clear()})

    async def cache_stats(self, request: Request) -> Response:
        """Counts and sizes."""
        del request
        return JsonAnswer(dict(self._studio.layers.stats()))

    # ── breakers ────────────────────────────────────────────────────────────────────────────────

    async def breaker_state(self, request: Request) -> Response:
        """Of one model, by the name on the wire or as it is configured."""
        name = self._model(request)
        return JsonAnswer({"name": name, "state": self._protection.state(name).value})

    async def breaker_reset(self, request: Request) -> Response:
        """Begin anew with a model."""
        name = self._model(request)
        self._protection.reset(name)
        return JsonAnswer({"name": name, "state": self._protection.state(name).value})

    def _model(self, request: Request) -> str:
        studio, given = self._studio, str(request.path_params["name"])
        configured = (studio.settings.model, studio.settings.image_model)
        wires = {model: studio.generator.on_the_wire(model) for model in configured}
        name = wires.get(given, given)
        if name not in {*wires.values(), *self._protection.states()}:
            known = ", ".join(sorted(wires))
            raise RefusedError(f"No breaker stands before such a model. Known are {known}.", status=404)
        return name

    # ── what is told ────────────────────────────────────────────────────────────────────────────

    async def stats(self, request: Request) -> Response:
        """Quota and cache together."""
        del request
        tracker = self._studio.tracker
        quota = None if tracker is None else await tracker.aget_stats()
        return JsonAnswer({"quota": quota, "cache": dict(self._studio.layers.stats())})

    async def docs(self, request: Request) -> Response:
        """The OpenAPI document."""
        del request
        return JsonAnswer(self.document)

    async def metrics(self, request: Request) -> Response:
        """As Prometheus reads them."""
        from headgate.telemetry.metrics.exposition import exposed  # noqa: PLC0415 - an extra

        if self._gauges is not None:
            await self._gauges.look()
        text, kind = exposed(self._registry, request.headers.get("accept", ""))
        return Response(text, headers={"content-type": kind})

    async def metrics_json(self, request: Request) -> Response:
        """Each family with its samples."""
        del request
        if self._gauges is not None:
            await self._gauges.look()
        shown = {
            family.name: {
                "type": family.type,
                "samples": [
                    {"name": sample.name, "labels": sample.labels, "value": sample.value}
                    for sample in family.samples
                ],
            }
            for family in self._registry.collect()
        }
        return JsonAnswer(shown)
