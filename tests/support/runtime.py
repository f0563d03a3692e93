"""
Lambda on this machine: a package under AWS's own runtime client, behind a Runtime API of ours.

    with Function(root, python, environment) as function:
        answer = function.invoke(event, seconds=60)

The client is awslambdaric, in an environment of Python that holds nothing else, so that what a package lacks is missed.
As in Lambda, there is one invocation at a time, a process that dies or exceeds its time is replaced by a cold start,
and an answer over 6 MB is refused (Lambda developer guide, "Using the Lambda runtime API"). Memory and disk are not
limited, and the process is not frozen between invocations.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import uuid
import venv
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, NamedTuple, Self

CLIENT = Path(__file__).parent / "awslambdaric.txt"
"""The lock of the runtime client."""

MOST_ANSWER = 6 * 1024 * 1024
_STARTED_WITHIN = 60.0
_TICK = 0.05
_PATH = "/2018-06-01/runtime/"


class FunctionError(Exception):
    """The function raised, died, could not be imported, took too long or answered too much."""


class _Work(NamedTuple):
    request_id: str
    event: bytes
    deadline_ms: int


def client(folder: Path) -> Path:
    """The interpreter of a new environment in `folder` that holds awslambdaric and nothing else."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--require-hashes", "--only-binary", ":all:", "-r", str(CLIENT)]
    subprocess.run(command, check=True, stderr=subprocess.PIPE)
    return python


class Function:
    """One execution environment of a function; `init_seconds` is what its last cold start took."""

    def __init__(
        self,
        root: Path,
        python: Path,
        environment: Callable[[], Mapping[str, str]],
        *,
        handler: str = "aggregator.app.handler",
        log: Callable[[str], object] = lambda _: None,
    ) -> None:
        """`environment` is asked at each cold start; `log` is given each line that the function writes."""
        self._root, self._python, self._environment, self._handler, self._log = root, python, environment, handler, log
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        self._answers: SimpleQueue[tuple[str, bytes]] = SimpleQueue()
        self._ready = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"function": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self.cold_starts = 0
        self.init_seconds = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def invoke(self, event: Any, *, seconds: float = 60) -> Any:
        """
        Invoke the function, after a cold start if there is no process, and kill it when its `seconds` are over.

        Raises:
            FunctionError: it did not answer, or with an error.
        """
        if self._process is None or self._process.poll() is not None:
            self._start()
        body = json.dumps(event).encode()
        self._work.put(_Work(str(uuid.uuid4()), body, int((time.time() + seconds) * 1000)))
        kind, answer = self._answer(seconds)
        if kind == "response":
            return json.loads(answer)
        if kind != "error":
            self._end()
        raise FunctionError(f"{kind}: {answer.decode(errors='replace')}")

    def _answer(self, seconds: float) -> tuple[str, bytes]:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            dead = self._process is None or self._process.poll() is not None
            with contextlib.suppress(Empty):
                return self._answers.get(timeout=_TICK)
            if dead:
                return "died", b""
        return "timed out", f"after {seconds} seconds".encode()

    def _start(self) -> None:
        self._end()
        self.cold_starts += 1
        self._ready.clear()
        began = time.monotonic()
        self._process = subprocess.Popen(
            [str(self._python), "-m", "awslambdaric", self._handler],
            cwd=self._root,
            env=self._variables(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=self._forward, args=(self._process,), daemon=True).start()
        while not self._ready.wait(_TICK):
            if self._process.poll() is not None or time.monotonic() > began + _STARTED_WITHIN:
                _, why = self._answers.get() if not self._answers.empty() else ("", b"")
                self._end()
                raise FunctionError("init: " + why.decode(errors="replace"))
        self.init_seconds = time.monotonic() - began

    def _variables(self) -> dict[str, str]:
        host, port = self._server.server_address[:2]
        return {
            **self._environment(),
            "PATH": os.defpath,
            "LANG": "en_US.UTF-8",
            "TZ": ":UTC",
            "_HANDLER": self._handler,
            "AWS_LAMBDA_RUNTIME_API": f"{host!s}:{port}",
            "AWS_LAMBDA_FUNCTION_NAME": "aggregator",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "LAMBDA_TASK_ROOT": str(self._root),
        }

    def _forward(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self._log(line.rstrip("\n"))

    def _end(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None
        self._work.put(None)  # wakes the request that waits for work on behalf of the dead
        self._work, self._answers = SimpleQueue(), SimpleQueue()

    def next(self) -> _Work | None:
        """The next invocation, as soon as there is one; None, if there will not be any."""
        work = self._work
        self._ready.set()
        return work.get()

    def answered(self, kind: str, body: bytes) -> None:
        """Take an answer: `response`, `error` or `init`."""
        self._answers.put((kind, body))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing is amiss when a process that was killed does not hear us out."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """The four calls of the Runtime API."""

    function: Function
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        work = self.function.next() if self.path == _PATH + "invocation/next" else None
        if work is None:  # who asked is dead
            self.close_connection = True
            return
        arn = "arn:aws:lambda:us-east-1:123456789012:function:aggregator"
        self._reply(
            200,
            work.event,
            **{
                "Lambda-Runtime-Aws-Request-Id": work.request_id,
                "Lambda-Runtime-Deadline-Ms": str(work.deadline_ms),
                "Lambda-Runtime-Invoked-Function-Arn": arn,
                "Lambda-Runtime-Trace-Id": "Root=1-00000000-000000000000000000000000;Sampled=0",
            },
        )

    def do_POST(self) -> None:
        body = self._body()
        kind = "init" if self.path == _PATH + "init/error" else self.path.rpartition("/")[2]
        if kind == "response" and len(body) > MOST_ANSWER:
            self._reply(413, b'{"errorType": "RequestEntityTooLarge"}')
            self.function.answered("too large", str(len(body)).encode())
            return
        self.function.answered(kind, body)
        self._reply(202, b'{"status": "OK"}')

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Say nothing."""
