"""An object is deleted only if its bytes are in a bundle that stays: whatever happens, and whenever it happens."""

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from aggregator.bundles.bundle import Bundle
from aggregator.commands.main import app
from aggregator.exceptions import BundleFormatError, StoreUnavailableError
from aggregator.operations.holdings import Locations, Scope
from aggregator.operations.reclaiming import Judged, ReclaimError, reclaim
from aggregator.pipeline.core import FetchedObject
from aggregator.pipeline.planning import bundle_key
from aggregator.schemas import ObjectRef
from tests.support import ROOT
from tests.support.faults import LOST, Killed, answered
from tests.support.reclaiming import Reclaiming, other_client
from tests.support.world import World

pytestmark = [pytest.mark.integration, pytest.mark.once]

OBJECTS = {f"in/{at}": f"content of {at}\n".encode() for at in range(4)}


@pytest.fixture
def reclaiming(world: World) -> Reclaiming:
    return Reclaiming(world)


def verdicts(judged: list[Judged]) -> dict[str, str]:
    return {one.key: one.verdict for one in judged}


def test_what_a_replicated_bundle_holds_is_deleted_and_what_none_holds_stays(reclaiming: Reclaiming) -> None:
    reclaiming.bundle(OBJECTS)
    reclaiming.world.put("in/new", b"not announced yet")

    judged = reclaiming.run()

    (bundle,) = reclaiming.world.bundles()
    address = f"s3://{reclaiming.archive}/{bundle.index.bundle}"
    assert verdicts(judged) == {**dict.fromkeys(OBJECTS, "safe"), "in/new": "unbundled"}
    assert {(one.bundle, one.why) for one in judged} == {(address, None), (None, "no index names its key")}
    assert reclaiming.left() == {"in/new": [b"not announced yet"]}


def test_without_delete_nothing_changes_and_the_same_is_said(reclaiming: Reclaiming) -> None:
    reclaiming.bundle(OBJECTS)

    assert verdicts(reclaiming.run(delete=False)) == dict.fromkeys(OBJECTS, "safe")
    assert reclaiming.left() == {key: [body] for key, body in OBJECTS.items()}


def test_a_prefix_and_an_age_say_which_objects_are_meant(reclaiming: Reclaiming) -> None:
    reclaiming.bundle({**OBJECTS, "out/1": b"1"})

    assert verdicts(reclaiming.run(prefix="in/", young=60)) == dict.fromkeys(OBJECTS, "young")
    assert verdicts(reclaiming.run(prefix="out/")) == {"out/1": "safe"}
    assert set(reclaiming.left()) == set(OBJECTS)


def test_an_object_that_was_overwritten_since_stays(reclaiming: Reclaiming) -> None:
    reclaiming.bundle(OBJECTS)
    reclaiming.world.put("in/1", b"something else")

    (judged,) = [one for one in reclaiming.run() if one.key == "in/1"]

    (bundle,) = reclaiming.world.bundles()
    etag = next(member.etag for member in bundle if member.key == "in/1")
    assert judged.verdict == "overwritten"
    assert judged.bundle == f"s3://{reclaiming.archive}/{bundle.index.bundle}"
    assert judged.why == f"it has eTag {etag}, size {len(OBJECTS['in/1'])}"
    assert reclaiming.left() == {"in/1": [b"something else"]}


@pytest.mark.parametrize("content", [b"replaced meanwhile", None], ids=["replaced", "deleted"])
def test_an_object_that_changes_right_before_it_is_deleted_is_not_deleted(
    reclaiming: Reclaiming, content: bytes | None
) -> None:
    reclaiming.bundle({"a": b"content of a\n"})
    source = reclaiming.world.source

    def change(params: Any, **_: Any) -> None:
        if not params["url"].endswith("/a"):  # the question whether conditions are known
            return
        if content:
            client.put_object(Bucket=source, Key="a", Body=content)
        else:
            client.delete_object(Bucket=source, Key="a")

    client, reclaims = other_client(reclaiming.world), other_client(reclaiming.world)
    reclaims.meta.events.register("before-call.s3.DeleteObject", change)

    (judged,) = reclaiming.run(s3=reclaims)

    assert judged.verdict == "changed"
    assert reclaiming.left() == ({"a": [content]} if content else {})


def test_a_bundle_without_a_complete_copy_in_the_archive_frees_nothing(reclaiming: Reclaiming) -> None:
    reclaiming.s3.delete_bucket_replication(Bucket=reclaiming.world.distribution)
    reclaiming.bundle({"a": b"1"})
    (bundle,) = reclaiming.world.bundles()
    key = bundle.index.bundle
    assert verdicts(reclaiming.run()) == {"a": "unbundled"}  # the archive knows of nothing

    reclaiming.s3.copy_object(
        Bucket=reclaiming.archive, Key=key, CopySource={"Bucket": reclaiming.world.distribution, "Key": key}
    )

    (judged,) = reclaiming.run()
    assert (judged.verdict, judged.why) == ("unkept", "replication NONE")
    assert verdicts(reclaiming.run(archive=False)) == {"a": "safe"}


def test_a_copy_that_was_deleted_or_replaced_in_the_archive_frees_nothing(reclaiming: Reclaiming) -> None:
    reclaiming.bundle({"a": b"1"})
    (bundle,) = reclaiming.world.bundles()
    reclaiming.s3.delete_object(Bucket=reclaiming.archive, Key=bundle.index.bundle)

    assert verdicts(reclaiming.run()) == {"a": "unkept"}

    reclaiming.s3.put_object(Bucket=reclaiming.archive, Key=bundle.index.bundle, Body=b"another")
    assert reclaiming.run()[0].verdict in {"unkept", "unproven"}
    assert reclaiming.left() == {"a": [b"1"]}


def test_a_bundle_that_a_consumer_has_deleted_counts_by_its_copy(reclaiming: Reclaiming) -> None:
    reclaiming.bundle({"a": b"1"})
    reclaiming.world.remove_bundles()

    assert verdicts(reclaiming.run()) == {"a": "safe"}


def test_without_an_archive_a_bundle_that_was_deleted_frees_nothing(reclaiming: Reclaiming) -> None:
    reclaiming.s3.delete_bucket_replication(Bucket=reclaiming.world.distribution)
    reclaiming.bundle({"a": b"1"})
    (bundle,) = reclaiming.world.bundles()
    reclaiming.s3.delete_object(Bucket=reclaiming.world.distribution, Key=bundle.index.bundle)

    assert verdicts(reclaiming.run(archive=False)) == {"a": "unkept"}


def test_a_damaged_member_stays_and_those_beside_it_go(reclaiming: Reclaiming, monkeypatch: pytest.MonkeyPatch) -> None:
    reclaiming.bundle(OBJECTS)
    walk = Bundle.walk

    def damaged(self: Bundle, members: Any = None) -> Iterator[Any]:
        for member, chunks in walk(self, members):
            yield member, fail() if member.key == "in/2" else chunks

    def fail() -> Iterator[bytes]:
        raise BundleFormatError("a member does not have the CRC that the index names")
        yield b""

    monkeypatch.setattr(Bundle, "walk", damaged)

    judged = {one.key: one for one in reclaiming.run()}

    assert (judged["in/2"].verdict, judged["in/2"].why) == (
        "unproven",
        "a member does not have the CRC that the index names",
    )
    assert set(reclaiming.left()) == {"in/2"}


def test_a_member_whose_etag_is_the_md5_of_other_bytes_stays(reclaiming: Reclaiming) -> None:
    """A bundle that names the right eTag, size and CRC-32, and holds other bytes: made by somebody else than us."""
    body = b"the bytes of the object"
    reclaiming.world.put("a", body)
    etag = reclaiming.s3.head_object(Bucket=reclaiming.world.source, Key="a")["ETag"].strip('"')
    key = bundle_key(time.time(), "planted", "planted")
    reclaiming.world.plant(key, [FetchedObject(ObjectRef(reclaiming.world.source, "a"), len(body), etag)])

    (judged,) = reclaiming.run()

    assert judged.verdict == "unproven"
    assert reclaiming.left() == {"a": [body]}


def test_a_member_is_read_back_whose_etag_and_size_are_those_of_the_object(reclaiming: Reclaiming) -> None:
    """An index that names one version twice: as the object is, and with another eTag, which proves nothing."""
    reclaiming.keep_versions()
    reclaiming.world.put("a", b"the bytes of the object")
    head = reclaiming.s3.head_object(Bucket=reclaiming.world.source, Key="a")
    ref, etag = ObjectRef(reclaiming.world.source, "a"), head["ETag"].strip('"')
    members = [
        FetchedObject(ref, head["ContentLength"], etag, head["VersionId"]),
        FetchedObject(ref, 0, "not-an-md5", head["VersionId"]),
    ]
    reclaiming.world.plant(bundle_key(time.time(), "planted", "planted"), members)

    assert verdicts(reclaiming.run()) == {"a": "unproven"}
    assert reclaiming.left() == {"a": [b"the bytes of the object"]}


class TestVersions:
    @pytest.fixture
    def reclaiming(self, reclaiming: Reclaiming, monkeypatch: pytest.MonkeyPatch) -> Reclaiming:
        monkeypatch.setenv("IDEMPOTENCY_SCOPE", "version")
        reclaiming.keep_versions()
        return reclaiming

    def test_versions_are_deleted_by_their_ids_and_leave_no_markers(self, reclaiming: Reclaiming) -> None:
        reclaiming.bundle({"a": b"1", "b": b"1"})
        reclaiming.bundle({"a": b"2"})

        assert sorted((one.key, one.verdict) for one in reclaiming.run()) == [
            ("a", "safe"),
            ("a", "safe"),
            ("b", "safe"),
        ]

        answer = reclaiming.s3.list_object_versions(Bucket=reclaiming.world.source)
        assert ("Versions" in answer, "DeleteMarkers" in answer) == (False, False)

    def test_a_version_stays_if_an_older_one_would_be_the_current_one_again(self, reclaiming: Reclaiming) -> None:
        reclaiming.world.put("a", b"never announced")
        reclaiming.bundle({"a": b"2"})

        assert sorted(one.verdict for one in reclaiming.run()) == ["covered", "overwritten"]
        assert reclaiming.left() == {"a": [b"2", b"never announced"]}

    def test_an_older_version_goes_and_a_newer_one_that_no_bundle_holds_stays(self, reclaiming: Reclaiming) -> None:
        reclaiming.bundle({"a": b"1"})
        reclaiming.world.put("a", b"2")

        reclaiming.run()

        assert reclaiming.left() == {"a": [b"2"]}

    def test_an_object_from_before_there_were_versions_stays(self, reclaiming: Reclaiming) -> None:
        reclaiming.keep_versions("Suspended")
        reclaiming.bundle({"a": b"1"})

        assert verdicts(reclaiming.run()) == {"a": "unversioned"}
        assert reclaiming.left() == {"a": [b"1"]}


@pytest.mark.parametrize(
    ("when", "error", "versioned"),
    [
        pytest.param("before", Killed(), False, marks=pytest.mark.chaos),
        ("after", Killed(), False),
        pytest.param("after", Killed(), True, marks=pytest.mark.chaos),
        pytest.param("after", LOST, False, marks=pytest.mark.chaos),
        pytest.param("before", answered(403, "AccessDenied"), False, marks=pytest.mark.chaos),
    ],
    ids=["killed-before", "killed-after", "killed-after-with-versions", "answer-lost", "denied"],
)
def test_whatever_ends_any_call_an_object_is_deleted_only_if_its_bytes_are_in_a_bundle(
    reclaiming: Reclaiming, when: str, error: BaseException, versioned: bool
) -> None:
    if versioned:
        reclaiming.keep_versions()
    for struck in itertools.count():
        objects = {f"{struck}/{key}": body for key, body in OBJECTS.items()}
        reclaiming.bundle(objects)
        reclaiming.world.put(f"{struck}/alone", b"in no bundle")

        made = _reclaim_with_a_fault(reclaiming, when, error, at=struck, prefix=f"{struck}/")

        left = reclaiming.left()
        published = reclaiming.world.published()
        assert left[f"{struck}/alone"] == [b"in no bundle"]
        assert all(body in published[key] for key, body in objects.items() if key not in left)
        reclaiming.run()
        assert set(reclaiming.left()) == {f"{at}/alone" for at in range(struck + 1)}
        reclaiming.empty(reclaiming.archive)  # else each run would make more calls than the one before
        if struck >= made:
            break
    assert made >= len(OBJECTS) + 3


def _reclaim_with_a_fault(reclaiming: Reclaiming, when: str, error: BaseException, *, at: int, prefix: str) -> int:
    """Reclaim, while the call of that number ends with the error; how many calls there were."""
    client, numbers = other_client(reclaiming.world), itertools.count()

    def strike(**_: Any) -> None:
        if next(numbers) == at:
            raise error

    client.meta.events.register(f"{when}-call.s3", strike)
    with contextlib.suppress(Killed, StoreUnavailableError):
        reclaiming.run(s3=client, prefix=prefix)
    return next(numbers)


def test_a_store_that_ignores_conditions_is_refused_before_anything_is_deleted(reclaiming: Reclaiming) -> None:
    reclaiming.bundle(OBJECTS)
    client = other_client(reclaiming.world)

    def without_condition(params: Any, **_: Any) -> None:
        params["headers"].pop("If-Match", None)

    client.meta.events.register("before-call.s3.DeleteObject", without_condition)

    with pytest.raises(ReclaimError, match="ignores If-Match"):
        reclaiming.run(s3=client)
    assert set(reclaiming.left()) == set(OBJECTS)


def test_the_bucket_that_consumers_delete_from_is_refused_as_the_archive(reclaiming: Reclaiming) -> None:
    reclaiming.bundle(OBJECTS)
    bucket = reclaiming.world.distribution

    with pytest.raises(ReclaimError, match="not an archive"):
        list(reclaim(Scope(reclaiming.world.source, "", 0, 0), Locations(reclaiming.s3, bucket, bucket), delete=True))


def test_what_was_deleted_is_reported_before_an_error_ends_it(reclaiming: Reclaiming) -> None:
    reclaiming.bundle(OBJECTS)
    client, judged = other_client(reclaiming.world), list[Judged]()

    def end(params: Any, **_: Any) -> None:
        if params["url"].endswith("/in/1"):
            raise LOST

    client.meta.events.register("before-call.s3.DeleteObject", end)
    now = time.time() + 2
    places = Locations(client, reclaiming.world.distribution, reclaiming.archive)

    with pytest.raises(StoreUnavailableError):
        judged.extend(reclaim(Scope(reclaiming.world.source, "", now, now), places, delete=True))

    assert set(reclaiming.left()) == set(OBJECTS) - {one.key for one in judged if one.verdict == "safe"}


def test_a_bucket_of_bundles_is_refused(reclaiming: Reclaiming) -> None:
    for bucket in (reclaiming.world.distribution, reclaiming.archive):
        places = Locations(reclaiming.s3, reclaiming.world.distribution, reclaiming.archive)
        with pytest.raises(ReclaimError, match="bundles are not deleted"):
            list(reclaim(Scope(bucket, "", time.time(), time.time()), places, delete=True))


def test_a_stop_ends_it_before_the_next_object_and_the_next_run_goes_on(reclaiming: Reclaiming) -> None:
    reclaiming.bundle(OBJECTS)
    stop, client, deleted = threading.Event(), other_client(reclaiming.world), itertools.count()

    def end(**_: Any) -> None:
        if next(deleted) == 1:  # the first one only asks whether conditions are known
            stop.set()

    client.meta.events.register("after-call.s3.DeleteObject", end)

    judged = reclaiming.run(s3=client, stop=stop, rate=5)

    assert 0 < len(judged) < len(OBJECTS)
    assert set(reclaiming.left()) == set(OBJECTS) - {one.key for one in judged}
    assert len(reclaiming.run()) == len(OBJECTS) - len(judged)


def test_what_is_not_a_bundle_among_bundles_is_said_and_ends_nothing(reclaiming: Reclaiming) -> None:
    reclaiming.bundle(OBJECTS)
    (bundle,) = reclaiming.world.bundles()
    stray = bundle.index.bundle.replace("bundle-", "note-")
    reclaiming.s3.put_object(Bucket=reclaiming.archive, Key=stray, Body=b"not a bundle")
    said: list[str] = []

    assert set(verdicts(reclaiming.run(say=said.append)).values()) == {"safe"}
    assert [line.split(":")[1] for line in said] == [f"//{reclaiming.archive}/{stray}"]


class TestCommand:
    def test_it_deletes_nothing_unless_it_is_told_and_writes_a_line_for_each_object(
        self, reclaiming: Reclaiming, tmp_path: Path
    ) -> None:
        reclaiming.bundle(OBJECTS)
        reclaiming.world.put("in/new", b"not announced yet")
        time.sleep(1.1)

        code, output = self.call(reclaiming, "--report", str(tmp_path / "report"))

        assert (code, output["safe"]["objects"], output["unbundled"]["objects"]) == (0, len(OBJECTS), 1)
        assert len(reclaiming.left()) == len(OBJECTS) + 1

        code, output = self.call(reclaiming, "--report", str(tmp_path / "report"), "--delete")

        lines = [json.loads(line) for line in (tmp_path / "report").read_text().splitlines()]
        assert (code, output["deleted"]) == (0, {"objects": len(OBJECTS), "bytes": sum(map(len, OBJECTS.values()))})
        assert {line["key"]: line["verdict"] for line in lines} == {
            **dict.fromkeys(OBJECTS, "deleted"),
            "in/new": "unbundled",
        }
        assert list(reclaiming.left()) == ["in/new"]

        self.call(reclaiming, "--report", str(tmp_path / "report"), "--delete")

        assert (tmp_path / "report").read_text().count('"deleted"') == len(OBJECTS)

    @pytest.mark.parametrize("given", [[], ["--archive", "a", "--without-archive"]], ids=["neither", "both"])
    def test_where_bundles_stay_must_be_said(self, given: list[str]) -> None:
        call = ["reclaim", "s3://source/", "--older-than", "7d", "--distribution", "d", *given]
        ended = CliRunner().invoke(app, call, env={"ARCHIVE_BUCKET_NAME": ""})

        assert ended.exit_code == 2
        assert "--without-archive" in ended.output

    def call(self, reclaiming: Reclaiming, *options: str) -> tuple[int, Any]:
        fixed = ["--older-than", "0m", "--distribution", reclaiming.world.distribution]
        fixed += ["--archive", reclaiming.archive, "--json"]
        ended = CliRunner().invoke(app, ["reclaim", f"s3://{reclaiming.world.source}/", *fixed, *options])
        return ended.exit_code, json.loads(ended.stdout)


ACTIONS = {
    "GetBucketVersioning": {"s3:GetBucketVersioning"},
    "ListObjectsV2": {"s3:ListBucket"},
    "ListObjectVersions": {"s3:ListBucketVersions"},
    "GetObject": {"s3:GetObject", "s3:GetObjectVersion"},
    "HeadObject": {"s3:GetObject", "s3:GetObjectVersion"},
    "DeleteObject": {"s3:DeleteObject", "s3:DeleteObjectVersion"},
}
"""Service authorization reference, "Actions, resources, and condition keys for Amazon S3"."""


def test_the_policy_for_who_reclaims_allows_what_the_command_calls_and_no_more(reclaiming: Reclaiming) -> None:
    policy = json.loads((ROOT / "deploy" / "permissions.json").read_text(encoding="utf-8"))["reclaimer"]
    client, called = other_client(reclaiming.world), set[str]()
    client.meta.events.register("before-call.s3", lambda model, **_: called.add(model.name))

    reclaiming.bundle(OBJECTS)
    reclaiming.run(s3=client)
    reclaiming.keep_versions()
    reclaiming.bundle(OBJECTS)
    reclaiming.run(s3=client)

    allowed = {action for statement in policy["Statement"] for action in statement["Action"]}
    assert {action for operation in called for action in ACTIONS[operation]} == allowed
