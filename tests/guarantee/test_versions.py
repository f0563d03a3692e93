"""With the scope `version`, a version is bundled once, however it is announced: S3's answer identifies it."""

from collections.abc import Iterator
from itertools import permutations
from typing import Any

import pytest

from tests.support.world import World

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _scope(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDEMPOTENCY_SCOPE", "version")


def _announced(world: World, put: Any) -> Iterator[str]:
    """A version with all that S3 says about it, with its entity tag only, and with neither."""
    etag, version_id = put["ETag"].strip('"'), put.get("VersionId")
    for fields in ({"eTag": etag, "versionId": version_id}, {"eTag": etag}, {}):
        yield world.body("a", **{"eTag": None, "versionId": None, **fields})


@pytest.mark.parametrize("versioning", ["Enabled", "Suspended", None])
@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("together", [True, False], ids=["one batch", "three batches"])
def test_a_version_announced_in_three_ways_is_bundled_once(
    world: World, versioning: Any, order: tuple[int, ...], *, together: bool
) -> None:
    if versioning:
        world.s3.put_bucket_versioning(Bucket=world.source, VersioningConfiguration={"Status": versioning})
    ways = list(_announced(world, world.s3.put_object(Bucket=world.source, Key="a", Body=b"1")))
    bodies = {f"m{at}": ways[at] for at in order}

    batches = [bodies] if together else [{name: body} for name, body in bodies.items()]
    stayed = [world.deliver_bodies(batch) for batch in batches]

    assert stayed == [set()] * len(batches)
    assert world.published() == {"a": [b"1"]}


@pytest.mark.parametrize("versioning", ["Enabled", None])
def test_two_versions_that_are_announced_by_key_alone_are_two_members(world: World, versioning: Any) -> None:
    if versioning:
        world.s3.put_bucket_versioning(Bucket=world.source, VersioningConfiguration={"Status": versioning})
    for body in (b"1", b"2"):
        *_, by_key_alone = _announced(world, world.s3.put_object(Bucket=world.source, Key="a", Body=body))
        assert world.deliver_bodies({"m": by_key_alone}) == set()
        assert world.deliver_bodies({"again": by_key_alone}) == set()

    assert sorted(world.published()["a"]) == [b"1", b"2"]


def test_one_message_may_announce_two_versions_of_a_key(world: World) -> None:
    world.s3.put_bucket_versioning(Bucket=world.source, VersioningConfiguration={"Status": "Enabled"})
    puts = [world.s3.put_object(Bucket=world.source, Key="a", Body=body) for body in (b"1", b"2")]
    bodies = {f"m{at}": next(_announced(world, put)) for at, put in enumerate(puts)}

    assert world.deliver_bodies(bodies) == set()
    assert sorted(world.published()["a"]) == [b"1", b"2"]


def test_the_announcement_with_less_waits_for_the_one_with_more(world: World) -> None:
    """What fails for the version fails for each message that announces it."""
    world.s3.put_bucket_versioning(Bucket=world.source, VersioningConfiguration={"Status": "Enabled"})
    put = world.s3.put_object(Bucket=world.source, Key="a", Body=b"1")
    world.s3.put_object(Bucket=world.source, Key="b", Body=b"2")
    bodies = {f"m{at}": body for at, body in enumerate(_announced(world, put))}
    bodies["other"] = world.body("b")

    assert world.deliver_bodies(bodies, seconds=1) == set(bodies)  # no time for anything
    assert world.deliver_bodies(bodies) == set()
    assert world.published() == {"a": [b"1"], "b": [b"2"]}
