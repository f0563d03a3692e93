"""
An S3, a DynamoDB and an SQS on the loopback, in a process of their own, fast enough not to be what is measured.

    python -m benchmarks.standin --latency-ms 20 --bandwidth-mb 90

Plain asyncio, and HTTP/1.1 parsed by hand: some 50 microseconds of CPU a request, where moto takes 2,400. Every call is
answered `latency` late, each connection carries at most `bandwidth`; what is written is forgotten when it ends.
`GET /_standin/stats` tells the calls of each kind, the capacity units that DynamoDB would have charged and the CPU
seconds spent; `POST /_standin/reset` forgets.
"""

import argparse
import asyncio
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self, cast

from benchmarks.buckets import Answer, Buckets, Request, answer
from benchmarks.objects import text
from benchmarks.queues import Queues
from benchmarks.refusals import RefusedError
from benchmarks.tables import Tables

if TYPE_CHECKING:
    from collections.abc import Iterator

_IN_MEMORY = 16 * 1024 * 1024
"""Bytes of a request's body that are kept in memory; a larger one goes to a file."""

_WRITE_AHEAD = 1024 * 1024
"""Bytes handed to a connection and not yet taken by it."""


class Service:
    """What answers: one S3, one DynamoDB and one SQS."""

    def __init__(self) -> None:
        self._buckets, self._tables, self._queues = Buckets(), Tables(), Queues()
        self._calls: Counter[str] = Counter()

    def answer(self, request: Request) -> Answer:
        """Answer one request, whatever service it is for."""
        target = request.headers.get("x-amz-target")
        if target is not None:
            service, _, operation = target.partition(".")
            self._calls[operation] += 1
            tables_or_queues = self._queues if service == "AmazonSQS" else self._tables
            return _json_answer(tables_or_queues, operation, json.load(request.body))
        if request.target.startswith("/_standin/"):
            return self._control(request)
        self._calls[request.method] += 1
        return self._buckets.answer(request)

    def _control(self, request: Request) -> Answer:
        if request.method == "POST":
            self._buckets, self._tables, self._queues = Buckets(), Tables(), Queues()
            self._calls = Counter()
        stats = {"calls": dict(self._calls), "cpu_seconds": time.process_time(), "units": self._tables.units}
        return answer(200, "Content-Type: application/json", body=json.dumps(stats).encode())


def _json_answer(service: Tables | Queues, operation: str, request: dict[str, Any]) -> Answer:
    kind = "Content-Type: application/x-amz-json-1.0"
    try:
        return answer(200, kind, body=json.dumps(service.call(operation, request)).encode())
    except RefusedError as refused:
        return answer(400, kind, body=json.dumps(refused.answer).encode())


class _Connection(asyncio.Protocol):
    """One connection: takes request after request, and writes the answer to each before it looks at the next."""

    def __init__(self, service: Service, latency: float, bandwidth: float) -> None:
        self._service, self._latency, self._bandwidth = service, latency, bandwidth
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._head: tuple[str, str, dict[str, str]] | None = None
        self._body: IO[bytes] = io.BytesIO()
        self._missing = 0
        self._pieces: Iterator[bytes | memoryview] | None = None
        self._busy = self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_WRITE_AHEAD)

    def data_received(self, data: bytes) -> None:
        if self._missing and not self._received:
            self._take(data)
        else:
            self._received += data
        self._advance()

    def connection_lost(self, _error: Exception | None) -> None:
        self._pieces, self._busy = None, True  # nobody waits for the rest

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._pieces is not None and not self._bandwidth:
            self._pump()

    def _advance(self) -> None:
        """Answer the next request, if it is there as a whole."""
        if self._busy:
            return
        if self._head is None and not self._parse():
            return
        if self._received and self._missing:
            rest = bytes(self._received[: self._missing])
            del self._received[: self._missing]
            self._take(rest)
        if self._missing == 0:
            self._busy = True
            if self._latency:
                self._loop.call_later(self._latency, self._answer)
            else:
                self._answer()

    def _parse(self) -> bool:
        """Take a head off what was received; whether there was one."""
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return False
        first, *lines = self._received[:end].decode("latin-1").split("\r\n")
        del self._received[: end + 4]
        method, target, _ = first.split(" ")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        self._missing = int(headers.get("content-length", 0))
        self._body = io.BytesIO() if self._missing <= _IN_MEMORY else tempfile.TemporaryFile()  # noqa: SIM115 - kept
        self._head = (method, target, headers)
        if "expect" in headers:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _take(self, data: bytes) -> None:
        self._body.write(data)
        self._missing -= len(data)

    def _answer(self) -> None:
        assert self._head is not None
        self._body.seek(0)
        method, target, headers = self._head
        made = self._service.answer(Request(method, target, headers, self._body))
        self._head = None
        self._pieces = iter(() if method == "HEAD" else made.pieces)
        self._write(made.head + next(self._pieces, b""))

    def _write(self, data: bytes | memoryview) -> None:
        """Write `data`; then the next piece, as soon as the connection takes it."""
        self._transport.write(data)
        if self._bandwidth:
            self._loop.call_later(len(data) / self._bandwidth, self._pump)
        else:
            self._pump()

    def _pump(self) -> None:
        while self._pieces is not None and not self._paused and not self._transport.is_closing():
            piece = next(self._pieces, None)
            if piece is None:
                self._pieces, self._busy = None, False
                self._advance()
            elif self._bandwidth:
                self._write(piece)
                return
            else:
                self._transport.write(piece)


async def _serve(port: int, latency: float, bandwidth: float, *, child: bool) -> None:
    service = Service()
    text()
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    if child:
        loop.add_reader(sys.stdin, ended.set)  # nothing is ever written there: who started us is gone
    server = await loop.create_server(lambda: _Connection(service, latency, bandwidth), "127.0.0.1", port, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await ended.wait()


class Standin:
    """A context in which a stand-in answers, in a process of its own."""

    def __init__(self, *, latency_ms: float = 0, bandwidth_mb: float = 0) -> None:
        """`latency_ms` is added to every call; a connection carries at most `bandwidth_mb` a second, 0 is no bound."""
        self._arguments = ["--latency-ms", str(latency_ms), "--bandwidth-mb", str(bandwidth_mb)]
        self.endpoint_url = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.standin", "--child", *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        port = self._process.stdout.readline().strip()
        if not port:
            raise RuntimeError("the stand-in did not start")
        self.endpoint_url = f"http://127.0.0.1:{port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def stats(self) -> dict[str, Any]:
        """Calls by kind, DynamoDB's units by kind, and CPU seconds since it was started."""
        return stats(self.endpoint_url)

    def reset(self) -> None:
        """Forget what was written."""
        _controlled(self.endpoint_url, "POST", "reset")


def stats(endpoint_url: str) -> dict[str, Any]:
    """What the stand-in at `endpoint_url` has counted."""
    return _controlled(endpoint_url, "GET", "stats")


def _controlled(endpoint_url: str, method: str, verb: str) -> dict[str, Any]:
    request = urllib.request.Request(f"{endpoint_url}/_standin/{verb}", method=method)
    with urllib.request.urlopen(request, timeout=10) as got:
        return dict(json.load(got))


def main() -> None:
    """Serve until killed; the port is the first line of the output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="0 for any that is free")
    parser.add_argument("--latency-ms", type=float, default=0, help="added to every call")
    parser.add_argument("--bandwidth-mb", type=float, default=0, help="MB a second on one connection; 0: no bound")
    parser.add_argument("--child", action="store_true", help="end when standard input does")
    given = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        latency, bandwidth = given.latency_ms / 1000, given.bandwidth_mb * 1_000_000
        asyncio.run(_serve(given.port, latency, bandwidth, child=given.child))


if __name__ == "__main__":
    main()
