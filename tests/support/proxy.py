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

Mode = Literal["kill before", "kill after", "lose the answer", "answer 503", "hang", "answer 503 all the same"]

MODES: tuple[Mode, ...] = ("kill before", "kill after", "lose the answer", "answer 503", "hang")
"""Those of the kill matrix; the last of all is a 503 for what took effect."""

Answer = tuple[int, list[tuple[str, str]], bytes]
"""Status, headers and body."""

_SLOW_DOWN: Answer = (503, [("Content-Type", "application/xml")], b"<Error><Code>SlowDown</Code></Error>")

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "expect"})


class Strike(NamedTuple):
    """What happens to which call; the first is 0."""

    number: int
    mode: Mode


class Call(NamedTuple):
    """A call on its way: its `number`, from 0 on, its operation, and how many of that operation came before it."""

    number: int
    name: str
    earlier: int
    path: str
    body: bytes


class Proxy:
    """Hands every call on to the AWS behind it, and counts calls and bytes; each invocation has a proxy of its own."""

    def __init__(self, endpoint_url: str, *, trickles: str = "") -> None:
        """`trickles` is in the path of whatever is to arrive a hundred bytes at a time, ten times a second."""
        self.trickles = trickles
        address = urlsplit(endpoint_url)
        self.upstream = (str(address.hostname), int(address.port or 80))
        self.calls: list[str] = []
        self.paths: list[str] = []
        self.bodies: list[bytes] = []
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

    def counted(self, name: str, path: str, body: bytes) -> Call:
        """Count a call."""
        with self._lock:
            call = Call(len(self.calls), name, self.calls.count(name), path, body)
            self.calls.append(name)
            self.paths.append(path)
            self.bodies.append(body)
        return call

    def mode_of(self, call: Call) -> Mode | None:
        """How a call is struck, if it is."""
        return self._strike.mode if self._strike and self._strike.number == call.number else None

    def before(self, call: Call) -> None:
        """Told of each call before anything happens to it; whoever is told may hold it (`gated.py`)."""

    def after(self, call: Call) -> None:
        """Told of each call that took effect, or was refused here, before it is answered."""

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
        call = self.proxy.counted(_named(self.command, self.path, self.headers), self.path, body)
        self.proxy.before(call)
        mode = self.proxy.mode_of(call)
        if mode == "kill before":
            self.proxy.kill()
        elif mode == "hang":
            self.proxy.over.wait()
        else:
            answer = _SLOW_DOWN if mode == "answer 503" else self._forward(body)
            self.proxy.after(call)
            if mode == "kill after":
                self.proxy.kill()
            elif mode != "lose the answer":
                self._answer(*(_SLOW_DOWN if mode == "answer 503 all the same" else answer))
                return
        self.close_connection = True

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return b"".join(iter(self._chunk, b""))
        if self.command in {"PUT", "POST"} and "Content-Length" not in self.headers:
            raise ConnectionError("the request is cut off before its length")
        return self._read(int(self.headers.get("Content-Length", 0)))

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline().split(b";")[0], 16)
        data = self._read(size)
        self.rfile.readline()
        return data

    def _read(self, size: int) -> bytes:
        """So many bytes; a request that is cut off, because its process was killed, is no call."""
        data = self.rfile.read(size)
        if len(data) < size:
            raise ConnectionError("the request is cut off")
        return data

    def _forward(self, body: bytes) -> Answer:
        connection = http.client.HTTPConnection(*self.proxy.upstream, timeout=30)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        try:
            connection.request(
                self.command, self.path, body=body, headers={**headers, "Content-Length": str(len(body))}
            )
            answer = connection.getresponse()
            kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP]
            content = answer.read()
            self.proxy.answered.append(len(content))
            return answer.status, kept, content
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        slowly = bool(self.proxy.trickles) and self.proxy.trickles in self.path
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
