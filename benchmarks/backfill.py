"""
How fast a backfill is on its own side: against a stand-in for S3 and SQS that answers at once, in another process.

    python -m benchmarks.backfill 100000

The stand-in lists keys that it makes up, a thousand a page, and takes every message.
"""

import json
import multiprocessing
import os
import resource
import sys
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from urllib.parse import parse_qs, urlsplit

from aggregator.aws import CommandClients
from aggregator.operations.replay.backfill import Choice, run
from aggregator.operations.replay.pages import current_objects
from aggregator.operations.replay.queues import Outbox

_PAGE = 1_000


def main(objects: int) -> None:
    """Announce so many objects, and print what it took."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, objects), daemon=True)
    server.start()
    endpoint = f"http://127.0.0.1:{ours.recv()}"
    os.environ |= {"AWS_ENDPOINT_URL": endpoint, "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ |= {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}
    clients, stop = CommandClients.build(18), threading.Event()
    outbox = Outbox(clients.sqs, f"{endpoint}/123456789012/queue", threads=16, stop=stop)
    began, cpu = time.perf_counter(), time.process_time()
    ending = run(
        partial(current_objects, clients.s3, "source", ""),
        Choice(),
        deliver=outbox.deliver,
        ledger=None,
        bookmark=None,
        stop=stop,
    )
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    outbox.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{ending.totals.sent:,} sent in {seconds:.1f} s: {ending.totals.sent / seconds * 60:,.0f} a minute,")
    print(f"{cpu / objects * 1e3:.3f} ms CPU an object in this process, {peak:,.0f} MiB at the peak")
    server.terminate()


def _serve(pipe: Connection, objects: int) -> None:
    """Answer ListObjectsV2 and SendMessageBatch."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            after = parse_qs(urlsplit(self.path).query).get("start-after", ["-1"])[0]
            first = int(after.removeprefix("orders/")) + 1
            last = min(first + _PAGE, objects)
            rows = "".join(_content(at) for at in range(first, last))
            more = "true" if last < objects else "false"
            self._answer(f"<ListBucketResult><IsTruncated>{more}</IsTruncated>{rows}</ListBucketResult>", "text/xml")

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            taken = [{"Id": entry["Id"], "MessageId": "m", "MD5OfMessageBody": ""} for entry in asked["Entries"]]
            self._answer(json.dumps({"Successful": taken}), "application/x-amz-json-1.0")

        def _answer(self, text: str, kind: str) -> None:
            body = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    pipe.send(server.server_address[1])
    server.serve_forever()


def _content(at: int) -> str:
    told = (
        "<LastModified>2026-11-22T01:02:03.000Z</LastModified><ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag>"
    )
    return f"<Contents><Key>orders/{at:09}</Key>{told}<Size>4096</Size><StorageClass>STANDARD</StorageClass></Contents>"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
