"""
How a process is, over HTTP: `GET /health` answers 200 or 503 and says why in JSON, `GET /metrics` has its figures.

    with serve_health("127.0.0.1:8080", report, page) as address:
        ...

Anybody who reaches the port may ask, so a client can take little: at most `MOST_CONNECTIONS` are served at once, each
for `SECONDS` from its first byte to its last. One more connection is closed at once.
"""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aggregator.exceptions import AggregatorError

MOST_CONNECTIONS = 16

SECONDS = 5.0
"""Seconds that a connection may take as a whole; a time-out for each byte would never end for a slow client."""

Report = Callable[[], dict[str, Any]]
"""Says how things are; `healthy` in it decides between 200 and 503."""

Page = Callable[[str], tuple[str, bytes]]
"""The content type and the text of the metrics for an Accept header."""


class HealthError(AggregatorError):
    """Health cannot be served there."""

    reason = "health"


@contextmanager
def serve_health(address: str, report: Report, page: Page | None = None) -> Iterator[str]:
    """
    Answer at `address` (`host:port`, `[::]:port`; port 0 is any that is free) while the block lasts; the URL.

    Raises:
        HealthError: the address is not valid, or taken.
    """
    host, _, port = address.rpartition(":")
    in_brackets = host.startswith("[") and host.endswith("]")
    try:
        if ":" in host and not in_brackets:
            raise ValueError(address)
        kind = _Server6 if in_brackets else _Server
        members: dict[str, Any] = {"report": staticmethod(report), "page": page and staticmethod(page)}
        server = kind((host.strip("[]"), int(port)), type("Handler", (_Handler,), members))
    except OSError as error:
        raise HealthError(f"cannot serve the health endpoint on {address}: {error}") from error
    except (ValueError, OverflowError):
        raise HealthError(
            f"cannot serve the health endpoint on {address}: write HOST:PORT, such as 127.0.0.1:8080; "
            "an IPv6 address is written in brackets, [::]:8080"
        ) from None
    thread = threading.Thread(target=server.serve_forever, name="health", daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}/health"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = MOST_CONNECTIONS

    def __init__(self, *arguments: Any) -> None:
        self._free = threading.BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own, if there is one free."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection, and close it when its time is over, whatever the client does."""
        deadline = threading.Timer(SECONDS, _cut, [request])
        deadline.daemon = True
        try:
            deadline.start()
            super().process_request_thread(request, client_address)
        finally:
            deadline.cancel()
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that went away is no fault of ours."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    report: Report
    page: Page | None
    timeout = SECONDS

    def do_GET(self) -> None:
        path, kind = self.path.partition("?")[0], type(self)
        if path == "/health":
            report = kind.report()
            body = json.dumps(report, indent=2).encode() + b"\n"
            self._answer(200 if report["healthy"] else 503, "application/json", body)
        elif path == "/metrics" and kind.page:
            try:
                answer = 200, *kind.page(self.headers.get("Accept", ""))
            except Exception:
                self.send_error(500, "the metrics cannot be made")
                return
            self._answer(*answer)
        else:
            self.send_error(404)

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        """Name no version: it tells a stranger which faults to try."""
        return "aggregator"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Say nothing: a probe every few seconds is not worth a line."""


def _cut(connection: socket.socket) -> None:
    """End a connection under whoever reads or writes it."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
