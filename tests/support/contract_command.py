"""Messages and calls for the tests of `aggregator contract`."""

import json
from collections.abc import Callable
from typing import Any

from typer.testing import Result

SECRET = "patients/jane-doe.json"

MINIMAL = {
    "Records": [
        {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": "source"}, "object": {"key": SECRET}},
        }
    ]
}

Run = Callable[..., Result]


def with_object(**fields: Any) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(json.dumps(MINIMAL))
    message["Records"][0]["s3"]["object"] |= fields
    return message
