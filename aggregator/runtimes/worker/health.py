"""
Whether a process is well, told over HTTP: `GET /health` answers 200 or 503, and says why in JSON.

    with serve_health("127.0.0.1:8080", report) as address:
        ...
"""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aggregator.exceptions import AggregatorError

Report = Callable[[], dict[str, Any]]
"""Says how things are; `healthy` in it decides between 200 and 503."""


class HealthError(AggregatorError):
    """Health cannot be served there."""

    reason = "health"


@contextmanager
def serve_health(address: str, report: Report) -> Iterator[str]:
    """
    Answer at `address` (`host:port`, `[::]:port`; port 0 is any that is free) while the block lasts; the URL.

    Raises:
        HealthError: the address is not valid, or taken.
    """
    host, _, port = address.rpartition(":")
    in_brackets = host.startswith("[") and host.endswith("]")
    try:
        if ":" in host and not in_brackets:
            raise ValueError("an IPv6 address is written in brackets, [::]:8080")
        kind = _Server6 if in_brackets else _Server
        server = kind((host.strip("[]"), int(port)), type("Handler", (_Handler,), {"report": staticmethod(report)}))
    except (OSError, ValueError, OverflowError) as error:
        raise HealthError(f"cannot serve the health endpoint on {address}: {error}") from error
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


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    report: Report
    timeout = 5.0
    """Seconds after which a client that says nothing is left."""

    def do_GET(self) -> None:
        if self.path != "/health":
            self.send_error(404)
            return
        report = type(self).report()
        body = json.dumps(report, indent=2).encode() + b"\n"
        self.send_response(200 if report["healthy"] else 503)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Say nothing: a probe every few seconds is not worth a line."""
