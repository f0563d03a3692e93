"""
What no aggregator can pass on this machine: reading and throwing away, compressing what is in memory, the bare sockets.
"""

import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import obstore
from obstore.store import S3Store

from aggregator.bundles.layout import BLOCK_SIZE
from aggregator.pipeline.core import compressor
from benchmarks.events import announced
from benchmarks.objects import BUCKET, TEXT_SIZE, Object, text

_SOCKETS = 16


def obstore_handler(event: dict[str, Any], _context: Any) -> Any:
    """Read every object with obstore and throw it away, in as many threads as the workload says."""
    trusted = os.environ.get("AWS_CA_BUNDLE")
    certificate: Any = {"root_certificate": Path(trusted).read_bytes()} if trusted else {}
    options: Any = {"allow_http": True, **certificate}
    store = S3Store(BUCKET, endpoint=os.environ["AWS_ENDPOINT_URL"], client_options=options)

    def read(each: Object) -> int:
        return sum(len(chunk) for chunk in obstore.get(store, each.key).stream(min_chunk_size=BLOCK_SIZE))

    with ThreadPoolExecutor(int(os.environ["BENCHMARK_READERS"])) as threads:
        objects = announced(event)
        taken = sum(threads.map(read, objects))
    if taken != sum(each.size for each in objects):
        raise RuntimeError("an object was cut off")
    return {"batchItemFailures": []}


def isal_handler(event: dict[str, Any], _context: Any) -> Any:
    """Compress as many bytes as the objects have, from memory, in blocks as a bundle's, on every core."""
    size = sum(each.size for each in announced(event))
    whole, compress = memoryview(text()), compressor(1)
    starts = [at % TEXT_SIZE for at in range(0, size, BLOCK_SIZE)]
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        list(threads.map(lambda at: len(compress(bytes(whole[at : at + BLOCK_SIZE]))), starts))
    return {"batchItemFailures": []}


def gets_per_second(endpoint_url: str, *, seconds: float) -> float:
    """How many GETs of 4 KiB an S3 answers to bare sockets, which send the same bytes and count what comes back."""
    address, key = urlsplit(endpoint_url), Object(0, 4096).key
    request = f"GET /{BUCKET}/{key} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode()
    sockets = [socket.create_connection((str(address.hostname), int(address.port or 80))) for _ in range(_SOCKETS)]
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        for each in sockets:
            each.sendall(request)
        for each in sockets:
            _skip_answer(each)
        done += len(sockets)
    took = time.perf_counter() - began
    for each in sockets:
        each.close()
    return done / took


def _skip_answer(connection: socket.socket) -> None:
    """Take one answer of 4 KiB off a connection."""
    got = connection.recv(65_536)
    missing = got.index(b"\r\n\r\n") + 4 + 4096 - len(got)
    while missing > 0:
        missing -= len(connection.recv(missing))
