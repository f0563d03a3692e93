"""A collector for traces: an HTTP server that decodes what OTLP exporters send, or misbehaves."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Received(NamedTuple):
    """A span as it was sent."""

    name: str
    id: bytes
    parent: bytes
    trace: bytes
    began: int
    ended: int
    attributes: dict[str, Any]
    links: list[tuple[str, str]]
    failed: bool
    service: str


class Collector:
    """Takes spans; answers with `status`, or not before `released` is set."""

    def __init__(self, status: int = 200, *, silent: bool = False) -> None:
        self.spans: list[Received] = []
        self.requests = 0
        self.released = threading.Event()
        if not silent:
            self.released.set()
        self._status = status
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}).start()

    def stop(self) -> None:
        """End the server."""
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.requests += 1
                collector.released.wait(60)
                if collector._status == 200:
                    collector.spans += _decoded(body)
                self.send_response(collector._status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        return Handler


def _decoded(body: bytes) -> list[Received]:
    request = ExportTraceServiceRequest.FromString(body)
    return [
        Received(
            span.name,
            span.span_id,
            span.parent_span_id,
            span.trace_id,
            span.start_time_unix_nano,
            span.end_time_unix_nano,
            _values(span.attributes),
            [(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
            span.status.code == 2,
            _values(resource.resource.attributes)["service.name"],
        )
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
