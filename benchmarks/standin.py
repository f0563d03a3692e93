"""
An S3, a DynamoDB and an SQS on the loopback, in a process of their own, fast enough not to be what is measured.

    python -m benchmarks.standin --latency-ms 20 --bandwidth-mb 90
    python -m benchmarks.standin --latency-of-s3

Plain asyncio, and HTTP/1.1 parsed by hand: some 50 microseconds of CPU a request, where moto takes 2,400. Every call is
answered late by as much as `latency.py` says, each connection carries at most `bandwidth`; what is written is forgotten
when it ends. `GET /_standin/stats` shows what was counted since the last `POST /_standin/lap` (`laps.py`), the capacity
units that DynamoDB would have charged, and the CPU seconds spent; `POST /_standin/reset` forgets everything.
"""

import argparse
import asyncio
import contextlib
import io
import json
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

from benchmarks import latency
from benchmarks.buckets import Answer, Buckets, Request, answer
from benchmarks.certificate import write_certificate
from benchmarks.laps import Lap
from benchmarks.objects import text
from benchmarks.queues import Queues
from benchmarks.refusals import RefusedError
from benchmarks.tables import Tables

_IN_MEMORY = 16 * 1024 * 1024
"""Bytes of a request's body that are kept in memory; a larger one goes to a file."""

_WRITE_AHEAD = 1024 * 1024
"""Bytes handed to a connection and not yet taken by it."""


class Service:
    """What answers: one S3, one DynamoDB and one SQS."""

    def __init__(self, delays: Callable[[], Iterator[float]]) -> None:
        self._buckets, self._tables, self._queues = Buckets(), Tables(), Queues()
        self._all_delays, self.delays, self.lap = delays, delays(), Lap()

    def answer(self, request: Request) -> Answer:
        """Answer one request, whatever service it is for."""
        target = request.headers.get("x-amz-target")
        if target is not None:
            service, _, operation = target.partition(".")
            self.lap.calls[operation] += 1
            tables_or_queues = self._queues if service == "AmazonSQS" else self._tables
            return _json_answer(tables_or_queues, operation, json.load(request.body))
        if _is_control(request.target):
            return self._control(request)
        self.lap.calls[request.method] += 1
        return self._buckets.answer(request)

    def _control(self, request: Request) -> Answer:
        if request.target.endswith("/reset"):
            self._buckets, self._tables, self._queues = Buckets(), Tables(), Queues()
        if request.method == "POST":
            self.lap, self.delays = Lap(), self._all_delays()  # each lap meets the same ones
        stats = {**self.lap.stats(), "cpu_seconds": time.process_time(), "units": self._tables.units}
        return answer(200, "Content-Type: application/json", body=json.dumps(stats).encode())


def _is_control(target: str) -> bool:
    return target.startswith("/_standin/")


def _json_answer(service: Tables | Queues, operation: str, request: dict[str, Any]) -> Answer:
    kind = "Content-Type: application/x-amz-json-1.0"
    try:
        return answer(200, kind, body=json.dumps(service.call(operation, request)).encode())
    except RefusedError as refused:
        return answer(400, kind, body=json.dumps(refused.answer).encode())


class _Connection(asyncio.Protocol):
    """One connection: takes request after request, and writes the answer to each before it looks at the next."""

    def __init__(self, service: Service, bandwidth: float) -> None:
        self._service, self._bandwidth = service, bandwidth
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._head: tuple[str, str, dict[str, str]] | None = None
        self._body: IO[bytes] = io.BytesIO()
        self._missing = 0
        self._pieces: Iterator[bytes | memoryview] | None = None
        self._busy = self._paused = self._known = False
        self._late, self._lap = 0.0, service.lap

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
        if self._head:
            self._lap.end()
        self._head, self._pieces, self._busy = None, None, True  # nobody waits for the rest

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
            self._begin()
            if self._late:
                self._loop.call_later(self._late, self._answer)
            else:
                self._answer()

    def _begin(self) -> None:
        """Count the call, and learn how late its answer is to be."""
        assert self._head is not None
        method, target, _ = self._head
        self._late, self._lap = next(self._service.delays), Lap() if _is_control(target) else self._service.lap
        self._lap.begin()
        if not self._known:
            self._known = True
            self._lap.connections[method] += 1

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
        if self._head is None:
            return  # the connection was lost meanwhile
        self._body.seek(0)
        method, target, headers = self._head
        made = self._service.answer(Request(method, target, headers, self._body))
        self._lap.end()
        if method == "GET":
            self._lap.time_get(self._late)
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


async def _serve(given: argparse.Namespace) -> None:
    service = Service(latency.s3 if given.latency_of_s3 else partial(latency.even, given.latency_ms))
    bandwidth = given.bandwidth_mb * 1_000_000
    secure = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if given.certificate else None
    if secure:
        secure.load_cert_chain(*given.certificate)
    text()
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    if given.child:
        loop.add_reader(sys.stdin, ended.set)  # nothing is ever written there: who started us is gone
    connect = partial(_Connection, service, bandwidth)
    server = await loop.create_server(connect, "127.0.0.1", given.port, backlog=1024, ssl=secure)
    print(server.sockets[0].getsockname()[1], flush=True)
    await ended.wait()


class Standin:
    """A context in which a stand-in answers, in a process of its own."""

    def __init__(
        self, *, latency_ms: float = 0, latency_of_s3: bool = False, bandwidth_mb: float = 0, tls: bool = False
    ) -> None:
        """
        `latency_ms` is added to every call, if the latency is not that of S3.

        A connection carries at most `bandwidth_mb` a second, 0 is no bound. For `tls`, a certificate is made.
        """
        self._arguments = ["--latency-ms", str(latency_ms), "--bandwidth-mb", str(bandwidth_mb)]
        self._arguments += ["--latency-of-s3"] * latency_of_s3
        self._tls = tls
        self.endpoint_url = ""

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        self._certificate, key = Path(self._folder.name, "certificate.pem"), Path(self._folder.name, "key.pem")
        if self._tls:
            write_certificate(self._certificate, key)
            self._arguments += ["--certificate", str(self._certificate), str(key)]
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
        self.endpoint_url = f"http{'s' * self._tls}://127.0.0.1:{port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    @property
    def settings(self) -> dict[str, str]:
        """The variables of a process that takes the stand-in for AWS."""
        trusted = {"AWS_CA_BUNDLE": str(self._certificate)} if self._tls else {}
        return {"AWS_ENDPOINT_URL": self.endpoint_url, **trusted}

    def stats(self) -> dict[str, Any]:
        """What was counted since the last lap, DynamoDB's units, and CPU seconds since the start."""
        return controlled(self.settings, "GET", "stats")

    def reset(self) -> None:
        """Forget what was written."""
        controlled(self.settings, "POST", "reset")


def controlled(settings: Mapping[str, str], method: str, verb: str) -> dict[str, Any]:
    """What the stand-in that the variables name answers to one of its own calls."""
    trusted = settings.get("AWS_CA_BUNDLE")
    secure = ssl.create_default_context(cafile=trusted) if trusted else None
    request = urllib.request.Request(f"{settings['AWS_ENDPOINT_URL']}/_standin/{verb}", method=method)
    with urllib.request.urlopen(request, timeout=10, context=secure) as got:
        return dict(json.load(got))


def main() -> None:
    """Serve until killed; the port is the first line of the output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="0 for any that is free")
    parser.add_argument("--latency-ms", type=float, default=0, help="added to every call")
    parser.add_argument("--latency-of-s3", action="store_true", help="late as S3 is, by a distribution")
    parser.add_argument("--bandwidth-mb", type=float, default=0, help="MB a second on one connection; 0: no bound")
    parser.add_argument("--certificate", nargs=2, metavar=("CERTIFICATE", "KEY"), help="files of PEM: speak TLS")
    parser.add_argument("--child", action="store_true", help="end when standard input does")
    given = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(given))


if __name__ == "__main__":
    main()
