"""How late the stand-in answers, how much a connection carries, whether over TLS, and what is counted of it."""

import time
import urllib.request
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import SSLError

from benchmarks import latency
from benchmarks.laps import Lap
from benchmarks.objects import BUCKET, Object
from benchmarks.standin import Standin, controlled

pytestmark = pytest.mark.once


def test_a_late_answer_is_no_earlier_than_asked() -> None:
    with Standin(latency_ms=50) as late:
        began = time.monotonic()
        late.stats()
        took = time.monotonic() - began

    assert took >= 0.05


def test_calls_are_late_as_s3_is_and_in_each_run_the_same() -> None:
    first, again = ([next(delays) for _ in range(10_000)] for delays in (latency.s3(), latency.s3()))

    ordered = sorted(first)
    assert first == again
    assert 0.014 < ordered[5_000] < 0.016
    assert 0.10 < ordered[9_900] < 0.14
    assert sum(late >= latency.SLOW for late in first) == 10


def test_over_tls_it_says_how_many_connections_were_made() -> None:
    with Standin(tls=True, latency_of_s3=True) as secure:
        client = _s3(secure)
        for number in range(3):
            client.get_object(Bucket=BUCKET, Key=Object(number, 256).key)["Body"].read()
        with pytest.raises(SSLError):
            _s3(secure, verify=True).get_object(Bucket=BUCKET, Key=Object(0, 256).key)
        counted = secure.stats()

    assert secure.endpoint_url.startswith("https://")
    assert (counted["calls"], counted["connections"], counted["most_at_once"]) == ({"GET": 3}, {"GET": 1}, 1)


def test_a_lap_counts_from_then_on_and_forgets_nothing_that_was_put() -> None:
    with Standin() as standin:
        s3 = _s3(standin)
        s3.put_object(Bucket="bundles", Key="lap", Body=b"kept")

        before = standin.stats()
        controlled(standin.settings, "POST", "lap")
        after, kept = standin.stats(), s3.get_object(Bucket="bundles", Key="lap")["Body"].read()

    assert (before["calls"], after["calls"], kept) == ({"PUT": 1}, {}, b"kept")


def test_of_gets_it_tells_apart_the_slow_ones_and_those_that_are_not() -> None:
    lap = Lap()

    lap.time_get(latency.SLOW)
    lap.time_get(0.01)
    lap.time_get(latency.SLOW)

    gets = lap.stats()["gets"]
    assert gets["slow"] == 2
    assert latency.SLOW <= gets["others_seconds"] < gets["all_seconds"]


def test_a_connection_carries_no_more_than_its_bandwidth() -> None:
    with Standin(bandwidth_mb=10) as narrow:
        began = time.monotonic()
        with urllib.request.urlopen(f"{narrow.endpoint_url}/{BUCKET}/{Object(0, 1_000_000).key}", timeout=10) as got:
            size = len(got.read())
        took = time.monotonic() - began

    assert size == 1_000_000
    assert took >= 0.07  # the last quarter of a MiB is paced after it was sent


def _s3(standin: Standin, *, verify: bool | str | None = None) -> Any:
    config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
    keys: Any = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}
    trusted = standin.settings.get("AWS_CA_BUNDLE")
    return boto3.client("s3", endpoint_url=standin.endpoint_url, config=config, verify=verify or trusted, **keys)
