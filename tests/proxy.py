"""
A counting proxy in front of an AWS: at one chosen call it strikes the process that made it.

    with Proxy(endpoint_url) as proxy:
        proxy.strike(Strike(3, "kill after"), pid)
"""

import contextlib
import http.client
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

Mode = Literal["kill before", "kill after", "lose the answer", "answer 503", "hang"]

MODES: tuple[Mode, ...] = ("kill before", "kill after", "lose the answer", "answer 503", "hang")

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "expect"})


class Strike(NamedTuple):
    """What happens to which call; the first is 0."""

    number: int
    mode: Mode


class Proxy:
    """Hands every call on to the AWS behind it, and counts calls and bytes; each invocation has a proxy of its own."""

    def __init__(self, endpoint_url: str, *, trickles: str = "") -> None:
        """`trickles` is in the path of whatever is to arrive a hundred bytes at a time, ten times a second."""
        self.trickles = trickles
        address = urlsplit(endpoint_url)
        self.upstream = (str(address.hostname), int(address.port or 80))
        self.calls: list[str] = []
        self.paths: list[str] = []
        self.answered: list[int] = []
        self.over = threading.Event()
        self._strike: Strike | None = None
        self._kill: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def strike(self, strike: Strike | None, pid: int) -> None:
        """Strike the process `pid` so from now on."""
        self._strike, self._kill = strike, lambda: os.kill(pid, signal.SIGKILL)

    def mode_of(self, call: str, path: str) -> Mode | None:
        """Count a call; how it is struck, if it is."""
        with self._lock:
            self.calls.append(call)
            self.paths.append(path)
            struck = self._strike is not None and self._strike.number == len(self.calls) - 1
        return self._strike.mode if self._strike and struck else None

    def kill(self) -> None:
        """Kill the process; it may be dead already."""
        with contextlib.suppress(ProcessLookupError):
            self._kill()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Say nothing: whoever was killed has left the connection, which is what this proxy is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def _serve(self) -> None:
        body = self._body()
        mode = self.proxy.mode_of(_named(self.command, self.path, self.headers), self.path)
        if mode == "kill before":
            self.proxy.kill()
        elif mode == "hang":
            self.proxy.over.wait()
        elif mode == "answer 503":
            self._answer(503, [("Content-Type", "application/xml")], b"<Error><Code>SlowDown</Code></Error>")
            return
        else:
            status, headers, answer = self._forward(body)
            self.proxy.answered.append(len(answer))
            if mode == "kill after":
                self.proxy.kill()
            elif mode is None:
                slowly = bool(self.proxy.trickles) and self.proxy.trickles in self.path
                self._answer(status, headers, answer, slowly=slowly)
                return
        self.close_connection = True

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return b"".join(iter(self._chunk, b""))
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline().split(b";")[0], 16)
        data = self.rfile.read(size)
        self.rfile.readline()
        return data

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(*self.proxy.upstream, timeout=30)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        try:
            connection.request(
                self.command, self.path, body=body, headers={**headers, "Content-Length": str(len(body))}
            )
            answer = connection.getresponse()
            kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP]
            return answer.status, kept, answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, *, slowly: bool = False) -> None:
        with contextlib.suppress(OSError):  # whoever asked has given up
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            for at in range(0, len(body), 100) if slowly else ():
                self.wfile.write(body[at : at + 100])
                self.proxy.over.wait(0.1)
            if not slowly and self.command != "HEAD":
                self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Be quiet."""


def _named(method: str, path: str, headers: Any) -> str:
    target = headers.get("X-Amz-Target")
    if target:
        return str(target).rpartition(".")[2]
    query = urlsplit(path).query
    if method == "GET":
        return "ListObjectVersions" if "versions" in query.split("&") else "GetObject"
    return f"{method.capitalize()}Object"
