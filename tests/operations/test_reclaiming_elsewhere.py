"""An object that several bundles hold goes by the one that proves it; a bundle that cannot be read frees nothing."""

from collections.abc import Iterator
from typing import Any

import pytest

from aggregator.bundles.bundle import Bundle
from aggregator.exceptions import BundleFormatError
from tests.support.faults import answered
from tests.support.reclaiming import Reclaiming, other_client
from tests.support.world import World

pytestmark = [pytest.mark.integration, pytest.mark.once]


@pytest.fixture
def reclaiming(world: World) -> Reclaiming:
    return Reclaiming(world)


@pytest.mark.parametrize("missing", [0, 1])
def test_of_two_bundles_that_hold_an_object_the_one_that_stays_counts(reclaiming: Reclaiming, missing: int) -> None:
    bundles = reclaiming.bundle_twice({"a": b"1"})
    reclaiming.s3.delete_object(Bucket=reclaiming.archive, Key=bundles[missing])

    (judged,) = reclaiming.run()

    assert (judged.verdict, judged.bundle) == ("safe", f"s3://{reclaiming.archive}/{bundles[1 - missing]}")
    assert reclaiming.left() == {}


def test_where_no_bundle_proves_an_object_it_stays_and_the_damaged_bundle_is_named(
    reclaiming: Reclaiming, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged, missing = reclaiming.bundle_twice({"a": b"1"})
    reclaiming.s3.delete_object(Bucket=reclaiming.archive, Key=missing)
    walk = Bundle.walk

    def fail() -> Iterator[bytes]:
        raise BundleFormatError("a member does not have the CRC that the index names")
        yield b""

    monkeypatch.setattr(Bundle, "walk", lambda *given: ((member, fail()) for member, _ in walk(*given)))

    (judged,) = reclaiming.run()

    assert (judged.verdict, judged.bundle) == ("unproven", f"s3://{reclaiming.archive}/{damaged}")
    assert reclaiming.left() == {"a": [b"1"]}


@pytest.mark.parametrize(
    ("frozen", "verdict", "lines"),
    [
        ("archive", "unrestored", []),
        ("both", "unbundled", ["bundles that have to be restored before they can be read: 1; their objects stay"]),
    ],
)
def test_an_object_whose_bundle_has_to_be_restored_stays_and_the_others_go(
    reclaiming: Reclaiming, frozen: str, verdict: str, lines: list[str]
) -> None:
    reclaiming.bundle({"cold": b"1"})
    (cold,) = (bundle.index.bundle for bundle in reclaiming.world.bundles())
    reclaiming.bundle({"warm": b"1"})
    client, said = other_client(reclaiming.world), list[str]()

    def reject(params: Any, **_: Any) -> None:
        if cold in params["url"] and (reclaiming.archive in params["url"] or frozen == "both"):
            raise answered(403, "InvalidObjectState")

    client.meta.events.register("before-call.s3.GetObject", reject)

    judged = reclaiming.run(s3=client, say=said.append)

    assert {one.key: one.verdict for one in judged} == {"cold": verdict, "warm": "safe"}
    assert said == lines
    assert reclaiming.left() == {"cold": [b"1"]}
