"""The feed of the content service's metrics: one call for each thing that happened.

    with measures.http.visit("POST", "create_subtopics") as visit:
        ...
        visit.status = 200
    measures.gemini_call("create_subtopics", model, "success", seconds=1.4, tokens=1500)

Words that are not in the catalogue are counted as `other`; nothing here raises for them.
"""

from __future__ import annotations

from threading import Lock
from typing import Literal

from headgate.core.ports import Clock
from headgate.telemetry.call_traces import TRACES
from headgate.telemetry.metrics.books import Shelf, mark_of
from headgate.telemetry.metrics.http_measures import HttpMeasures, HttpVisit

__all__ = ["ContentMeasures"]

_VALID = {
    "get": ("hit", "miss", "failure"),
    "set": ("success", "failure"),
    "delete": ("success", "failure"),
}


class ContentMeasures:
    """Counts what the content service does. Threads and event loops may share it.

    Attributes:
        http: its requests.
    """

    def __init__(self, shelf: Shelf, clock: Clock, lock: Lock, http: HttpMeasures) -> None:
        self.http = http
        self._shelf = shelf
        self._lock = lock
        self._ahead = clock.wall() - clock.monotonic()
        self._clock = clock

    def http_request(self, method: str, endpoint: str) -> HttpVisit:
        """A request begins, to be left as a context; set its `status` before that.

        Args:
            endpoint: name of the handler (`content_families.ENDPOINTS`).
        """
        return self.http.visit(method, endpoint)

    def cache_operation(
        self,
        operation: Literal["get", "set", "delete"],
        result: Literal["hit", "miss", "success", "failure"],
        *,
        layer: Literal["memory", "redis"] | None = None,
    ) -> None:
        """One operation of the layered cache as a whole.

        Args:
            result: of `get`: hit, miss or failure; of the others: success or failure.
            layer: that had it, of a hit; a miss was one of every layer.

        Raises:
            ValueError: the operation has no such result.
        """
        if result not in _VALID[operation]:
            raise ValueError(f"{operation} is {', '.join(_VALID[operation])}; got {result!r}")
        self._add("cache_operations_total", 1, operation, result)
        if operation == "get" and result in ("hit", "miss"):
            self._add("headgate_cache_requests_total", 1, layer or "memory", result)

    def gemini_call(
        self,
        function: str,
        model: str,
        status: Literal["success", "failure", "quota_exceeded"],
        *,
        seconds: float,
        tokens: int = 0,
        request_id: str = "",
    ) -> None:
        """One call of Gemini, all its tries included.

        Args:
            function: that called (`content_families.FUNCTIONS`).
            model: the one that answered; of a call that failed, that was asked.
            tokens: billable, in and out.
        """
        self._add("gemini_api_calls_total", 1, function, model, status)
        if tokens:
            self._add("gemini_api_tokens_total", tokens, function, model)
        spread = self._shelf.spread("gemini_api_duration_seconds", function, model)
        at = self._ahead + self._clock.monotonic()
        mark = mark_of(TRACES.kept_ids(request_id), request_id, seconds, at)
        with self._lock:
            spread.see(seconds, mark)

    def subtopics(self, number: int) -> None:
        """So many subtopics were made."""
        self._add("subtopics_generated_total", number)

    def explanations(self, number: int = 1) -> None:
        """So many explanations were made."""
        self._add("explanations_generated_total", number)

    def image(self, source: Literal["gemini", "dalle", "imagen", "upload"]) -> None:
        """An image was made, or taken in."""
        self._add("images_generated_total", 1, source)

    def quality(self, content_type: Literal["subtopic", "explanation", "topic"], score: float) -> None:
        """What was made has this quality, from 0 to 1."""
        spread = self._shelf.spread("content_quality_score", content_type)
        with self._lock:
            spread.see(score)

    def validation_failure(self, validator: str, issue: str) -> None:
        """A validator found something wrong (`content_families.VALIDATORS`, `ISSUES`)."""
        self._add("validation_failures_total", 1, validator, issue)

    def quota_exceeded(self, limit: Literal["rpm", "rpd", "tpm", "tpd"]) -> None:
        """A request was refused for this limit."""
        self._add("quota_exceeded_total", 1, limit)

    def error(self, endpoint: str, kind: str) -> None:
        """A request failed; `kind` is that of the error (`HeadgateError.kind`), or `fault`."""
        self._add("application_errors_total", 1, endpoint, kind)

    def _add(self, name: str, amount: float, *labels: str) -> None:
        cell = self._shelf.cell(name, *labels)
        with self._lock:
            cell.value += amount
