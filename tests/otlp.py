"""A collector: takes spans as OTLP over HTTP and shows them decoded, as what came over the wire."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

__all__ = ["Node", "OtlpReceiver", "Received", "tree"]


@dataclass(frozen=True)
class Received:
    """A span as it came. Ids are hexadecimal; `kind` and `status` are the numbers of the protocol."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    start: int
    end: int
    status: int
    facts: Mapping[str, Any]
    events: tuple[str, ...]
    resource: Mapping[str, Any] = field(repr=False)


class OtlpReceiver:
    """Serves on loopback while the context lasts.

    Attributes:
        endpoint: as `OTEL_EXPORTER_OTLP_ENDPOINT` takes it.
        heads: paths and headers (names in lower case) of what was sent.
    """

    def __init__(self) -> None:
        self._server = _Server(("127.0.0.1", 0), _Taking)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> OtlpReceiver:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def heads(self) -> list[tuple[str, Mapping[str, str]]]:
        return [(path, headers) for path, headers, _ in self._server.taken]

    @property
    def spans(self) -> list[Received]:
        """All that came, by when they began."""
        found = [
            _read(span, resource.resource.attributes)
            for _, _, request in list(self._server.taken)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        return sorted(found, key=lambda span: span.start)

    @property
    def raw(self) -> bytes:
        """Every byte that came: what must not be in it is looked for here."""
        return b"".join(request.SerializeToString() for _, _, request in list(self._server.taken))


Node = tuple[str, list["Node"]]


def tree(spans: Iterable[Received]) -> list[Node]:
    """Names of spans with those of their children; roots are those whose parent did not come."""
    ordered = list(spans)
    known = {span.span_id for span in ordered}

    def below(parent: str) -> list[Node]:
        return [(one.name, below(one.span_id)) for one in ordered if one.parent_id == parent]

    roots = [one for one in ordered if one.parent_id not in known]
    return [(root.name, below(root.span_id)) for root in roots]


class _Server(ThreadingHTTPServer):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.taken: list[tuple[str, Mapping[str, str], ExportTraceServiceRequest]] = []


class _Taking(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        request = ExportTraceServiceRequest.FromString(body)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.taken.append((self.path, headers, request))
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


def _read(span: Any, resource: Any) -> Received:
    return Received(
        span.name,
        span.kind,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.status.code,
        {one.key: _value(one.value) for one in span.attributes},
        tuple(event.name for event in span.events),
        {one.key: _value(one.value) for one in resource},
    )


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind)
