"""Each process of a worker sends its own traces, with links to those of the producers."""

from typing import Any

import pytest

from tests.support.collector import Collector
from tests.support.workers import Queue, Running, until
from tests.support.world import World

pytestmark = [pytest.mark.once, pytest.mark.integration]

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_a_process_of_a_worker_sends_a_trace_with_a_link_to_the_producer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    queue = Queue(world)
    world.put("a", b"1")
    traceparent: Any = {"DataType": "String", "StringValue": f"00-{TRACE}-{SPAN}-01"}
    queue.sqs.send_message(
        QueueUrl=queue.url, MessageBody=world.body("a"), MessageAttributes={"traceparent": traceparent}
    )

    try:
        with Running(queue, "--processes", "1") as running:
            until(lambda: any(span.name.startswith("process") for span in collector.spans))
            assert running.ends() == 0
    finally:
        collector.stop()

    (root,) = [span for span in collector.spans if span.name.startswith("process")]
    assert (root.name, root.links) == (f"process {world.name}", [(TRACE, SPAN)])
    assert {span.name for span in collector.spans} == {root.name, "gather", "close", "put", "settle"}
    assert "aws.lambda.invoked_arn" not in root.attributes
