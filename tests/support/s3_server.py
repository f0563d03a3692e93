"""A small server that plays S3 and answers what a test says."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Serve = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """One request to a server of which each test says what it answers."""

    protocol_version = "HTTP/1.1"
    serve: Serve
    seen: list[str]
    etag: str | None = '"tag"'

    def do_GET(self) -> None:
        """Answer."""
        self.seen.append(self.path)
        type(self).serve(self)

    def do_HEAD(self) -> None:
        """Answer a question about the bucket, which has no body."""
        type(self).serve(self)

    def answer(self, body: bytes, *, status: int = 200, **headers: Any) -> None:
        """Answer like S3."""
        self.send_response(status)
        given = {"ETag": self.etag, "Last-Modified": "Mon, 23 Nov 2026 14:00:00 GMT", "Content-Length": str(len(body))}
        for name, value in {**given, **{name.replace("_", "-"): value for name, value in headers.items()}}.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_range(self, body: bytes) -> None:
        """Answer with what was asked for, all of it or a range."""
        wanted = self.headers.get("Range")
        if not wanted:
            self.answer(body)
            return
        first, last = (int(bound) for bound in wanted.removeprefix("bytes=").split("-"))
        part = body[first : last + 1]
        self.answer(part, status=206, Content_Range=f"bytes {first}-{first + len(part) - 1}/{len(body)}")

    def fail(self, status: int, code: str) -> None:
        """Answer with an error like S3."""
        self.answer(f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode(), status=status)

    def log_message(self, *_: Any) -> None:
        """Be quiet."""


class Server:
    """S3, as far as a test needs it."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.handler: Any = type("Handler", (Request,), {"seen": self.seen})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def serve(self, serve: Serve) -> None:
        """Answer every request with `serve`."""
        self.handler.serve = staticmethod(serve)

    def serve_in(self, region: str) -> list[str]:
        """Be a bucket in `region`, which says so to whoever asks elsewhere; the methods of all requests."""
        asked: list[str] = []

        def serve(request: Request) -> None:
            asked.append(request.command)
            if f"/{region}/s3/" in request.headers["Authorization"]:
                request.answer(b"there", x_amz_bucket_region=region)
            else:
                error = b"<Error><Code>PermanentRedirect</Code></Error>"
                request.answer(error, status=301, x_amz_bucket_region=region)

        self.serve(serve)
        return asked

    def stop(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
