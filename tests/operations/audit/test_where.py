"""Where an object is: every state that it can be in, and that looking changes nothing."""

import json
import time
from typing import Any, get_args

import pytest
from typer.testing import CliRunner

from aggregator.commands.main import app
from aggregator.operations.audit.locating import MEANING, Located, Locations, Object, State, locate
from aggregator.pipeline.core import FetchedObject, empty_bundle
from aggregator.schemas import ObjectRef
from tests.support.faults import LOST, Killed, answered, faults
from tests.support.world import Meanwhile, World, environment

pytestmark = pytest.mark.integration


def test_an_object_that_is_in_a_bundle_is_told_with_when_and_by_which_request(world: World) -> None:
    world.put_all({"a": b"1\n", "b": b"22\n"})
    world.deliver("ab")
    (bundle,) = world.bundles()

    (found,) = _locate(world, "b")

    index, entry = bundle.index, next(entry for entry in bundle if entry.key == "b")
    assert found == Located(
        f"s3://{world.source}/b",
        None,
        "bundled",
        {
            "bundle": f"s3://{world.distribution}/{index.bundle}",
            "created": index.created,
            "request_id": index.request_id,
            "size": 3,
            "etag": entry.etag,
            "start": entry.start,
            "length": 3,
            "deleted": False,
            "settled": True,
            "source": "same",
        },
    )


def test_a_bundle_that_is_not_settled_or_deleted_still_holds_its_members(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put("a", b"1")
    with faults(monkeypatch, lambda call: Killed() if call.is_after("PutObject") else None), pytest.raises(Killed):
        world.deliver("a")
    (bundle,) = world.bundles()
    world.s3.delete_object(Bucket=world.distribution, Key=bundle.index.bundle)

    (found,) = _locate(world, "a")

    assert (found.state, found.facts["settled"], found.facts["deleted"]) == ("bundled", False, True)


def test_an_object_given_back_while_it_is_looked_for_is_not_told_by_the_claim_that_was_read_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put("a", b"1")
    with faults(monkeypatch, lambda call: Killed() if call.is_before("PutObject") else None), pytest.raises(Killed):
        world.deliver("a")
    reader = Meanwhile(world.reader("key", time.time()), world.gives_back("a"))
    places = Locations(world.s3, world.distribution, None, reader)

    (found,) = locate(Object(world.source, "a"), places, now=time.time())

    assert found.state == "released"


def test_a_key_that_was_overwritten_after_it_was_bundled_is_not_bundled(world: World) -> None:
    bundle = _bundled(world)
    new = world.s3.put_object(Bucket=world.source, Key="a", Body=b"other")["ETag"].strip('"')

    (found,) = _locate(world, "a")
    ran = CliRunner().invoke(app, ["where", f"s3://{world.source}/a"])

    assert found.state == "overwritten"
    assert found.facts["bundle"] == f"s3://{world.distribution}/{bundle}"
    assert (found.facts["source_etag"], found.facts["source_size"]) == (new, 5)
    assert (ran.exit_code, ran.stderr.splitlines()) == (
        1,
        ["its bundle holds an earlier content: no bundle holds what is in the source now"],
    )


def test_a_key_that_was_put_again_with_the_same_content_is_still_bundled(world: World) -> None:
    _bundled(world)
    world.put("a", b"1")

    (found,) = _locate(world, "a")

    assert (found.state, found.facts["source"], found.is_proven) == ("bundled", "same", True)


def test_a_bundled_object_that_is_gone_from_the_source_is_said_to_be_gone(world: World) -> None:
    _bundled(world)
    world.s3.delete_object(Bucket=world.source, Key="a")

    ran = CliRunner().invoke(app, ["where", f"s3://{world.source}/a"])

    assert (ran.exit_code, ran.stderr) == (0, "a bundle holds it; it is gone from the source\n")
    assert "state       bundled" in ran.stdout.splitlines()


def test_an_object_that_cannot_be_compared_with_the_source_proves_nothing(world: World) -> None:
    _bundled(world)

    def forbid(model: Any, **_: Any) -> None:
        if model.name == "HeadObject":
            raise answered(403, "403")

    with world.hooked(forbid):
        ran = CliRunner().invoke(app, ["where", f"s3://{world.source}/a"])

    lines = ran.stdout.splitlines()
    assert ran.exit_code == 1
    assert {"state       bundled", "source      not compared", "fault       403"} <= set(lines)
    assert "allow s3:GetObject on the source" in ran.stderr


def test_a_replaced_content_that_another_bundle_holds_is_found_by_searching(world: World) -> None:
    _bundled(world)
    etag = world.s3.put_object(Bucket=world.source, Key="a", Body=b"new")["ETag"].strip('"')
    hour = time.strftime("%Y/%m/%d/%H", time.gmtime())
    world.plant(f"{hour}/bundle-planted.gz", [FetchedObject(ObjectRef(world.source, "a"), 3, etag)])

    found = _locate(world, "a", since=time.time() - 3_600)
    ran = CliRunner().invoke(app, ["where", f"s3://{world.source}/a", "--since", "1h"])

    assert [one.state for one in found] == ["overwritten", "bundled"]
    assert ran.exit_code == 0


def test_with_the_scope_version_a_version_that_no_bundle_holds_is_a_finding(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.s3.put_bucket_versioning(Bucket=world.source, VersioningConfiguration={"Status": "Enabled"})
    ids = [world.s3.put_object(Bucket=world.source, Key="a", Body=body)["VersionId"] for body in (b"1", b"2")]
    with environment(monkeypatch, IDEMPOTENCY_SCOPE="version"):
        world.deliver_bodies({ids[0]: world.body("a", versionId=ids[0])})
        call = ["where", f"s3://{world.source}/a"]
        both, first = (CliRunner().invoke(app, [*call, *more]) for more in ([], ["--version-id", ids[0]]))

    assert (both.exit_code, first.exit_code) == (1, 0)


def test_a_key_as_it_stands_in_a_message_is_found_and_the_literal_key_first(world: World) -> None:
    world.put_all({"007 größe": b"1", "a+b": b"2", "a b": b"3"})
    world.deliver(["007 größe", "a+b", "a b"])

    encoded, literal, unknown = (
        CliRunner().invoke(app, ["where", f"s3://{world.source}/{key}"])
        for key in ("007+gr%C3%B6%C3%9Fe", "a+b", "x+y")
    )

    assert (encoded.exit_code, literal.exit_code, unknown.exit_code) == (0, 0, 1)
    assert encoded.stdout.splitlines()[0] == f"object      s3://{world.source}/007 größe"
    said = "nothing is known of '007+gr%C3%B6%C3%9Fe': this is the key that it encodes in a message"
    assert encoded.stderr.splitlines()[0] == said
    assert literal.stdout.splitlines()[0] == f"object      s3://{world.source}/a+b"
    assert unknown.stdout.splitlines()[0] == f"object      s3://{world.source}/x+y"


def test_a_bundle_that_is_left_in_the_archive_only_is_found_there(world: World) -> None:
    _bundled(world)
    archive = world.replicate()
    world.remove_bundles()

    (found,) = _locate(world, "a", archive=archive)

    assert (found.state, found.facts["bundle"].split("/")[2]) == ("bundled", archive)


def test_a_claim_tells_when_it_lapses_and_then_that_it_is_undecided(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put("a", b"1")
    with faults(monkeypatch, lambda call: Killed() if call.is_before("PutObject") else None), pytest.raises(Killed):
        world.deliver("a", seconds=60)

    (claimed,), (in_doubt,) = _locate(world, "a"), _locate(world, "a", later=100)

    (claim,) = world.records()
    lapses = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(claim["in_progress_expiration"]) / 1000))
    facts = {"attempt": json.loads(claim["data"])["bundle"], "lapses": lapses}
    assert (claimed.state, claimed.facts) == ("claimed", facts)
    assert (in_doubt.state, in_doubt.facts) == ("in doubt", facts)


def test_an_object_whose_bundle_was_closed_is_free(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.put("a", b"1")
    with faults(monkeypatch, lambda call: LOST if call.is_before("PutObject") else None):
        world.deliver("a")
    bundle = json.loads(world.records()[0]["data"])["bundle"]
    world.s3.put_object(Bucket=world.distribution, Key=bundle, Body=empty_bundle(bundle, 0, "r"))

    (found,) = _locate(world, "a")

    assert (found.state, found.facts) == ("free", {"attempt": bundle})


def test_an_object_that_was_given_back_is_released(world: World) -> None:
    assert world.deliver(["missing"]) == {"missing"}

    (found,) = _locate(world, "missing", rejections=False)

    (claim,) = (record for record in world.records() if "released" in record["data"])
    assert (found.state, found.facts) == ("released", {"attempt": json.loads(claim["data"])["released"]})


def test_an_object_that_was_refused_is_told_with_the_reason(world: World) -> None:
    world.put("broken.gz", b"\x1f\x8b\x08 no gzip")
    world.deliver(["broken.gz"])

    (found,) = _locate(world, "broken.gz")

    assert found.state == "rejected"
    assert (found.facts["reason"], found.facts["message_id"]) == ("corrupt_member", "broken.gz")
    assert found.facts["message"].startswith("object is not gzip to its end")


def test_a_settled_bundle_that_is_in_neither_bucket_is_gone(world: World) -> None:
    bundle = _bundled(world)
    world.remove_bundles()

    (found,) = _locate(world, "a")

    assert (found.state, found.facts["bundle"], found.facts["members"]) == ("gone", bundle, 1)


def test_a_settled_bundle_that_does_not_hold_its_member_has_lost_it(world: World) -> None:
    bundle = _bundled(world)
    world.remove_bundles()
    world.plant(bundle, [FetchedObject(ObjectRef(world.source, "another"), 1, "e")])

    (found,) = _locate(world, "a")

    assert (found.state, found.facts["bundle"]) == ("lost", bundle)


def test_an_object_that_nobody_announced_was_never_seen(world: World) -> None:
    world.put("a", b"1")

    assert _locate(world, "a") == [Located(f"s3://{world.source}/a", None, "never seen", {})]


def test_what_the_ledger_has_forgotten_is_found_by_searching_the_bundles(world: World) -> None:
    _bundled(world)
    for record in world.records():
        world.dynamodb.delete_item(TableName=world.table, Key={"id": {"S": record["id"]}})

    (unknown,), (found,) = _locate(world, "a"), _locate(world, "a", since=time.time() - 3_600)

    assert (unknown.state, found.state) == ("never seen", "bundled")


def test_with_the_scope_version_each_version_is_told_of(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.s3.put_bucket_versioning(Bucket=world.source, VersioningConfiguration={"Status": "Enabled"})
    ids = [world.s3.put_object(Bucket=world.source, Key="a", Body=body)["VersionId"] for body in (b"1", b"2", b"3")]
    with environment(monkeypatch, IDEMPOTENCY_SCOPE="version"):
        world.deliver_bodies({id_: world.body("a", versionId=id_) for id_ in ids[:2]})

    found = {one.version_id: one.state for one in _locate(world, "a", scope="version")}
    (chosen,) = _locate(world, "a", scope="version", version_id=ids[1])

    assert found == {ids[0]: "bundled", ids[1]: "bundled", ids[2]: "never seen"}
    assert (chosen.version_id, chosen.state, chosen.facts["size"]) == (ids[1], "bundled", 1)


def test_looking_changes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.put_all({"a": b"1", "b": b"2"})
    with faults(monkeypatch, lambda call: Killed() if call.is_before("PutObject") else None), pytest.raises(Killed):
        world.deliver("a")
    world.deliver(["missing"])
    world.lapse()
    before = sorted(map(str, world.records()))

    with world.watched() as calls:
        states = [_locate(world, key, since=0)[0].state for key in ("a", "b", "missing")]

    assert states == ["in doubt", "never seen", "rejected"]
    assert set(calls) == {"BatchGetItem", "ListObjectVersions", "Scan"}
    assert sorted(map(str, world.records())) == before
    assert list(world.bundles()) == []


def test_every_state_is_explained() -> None:
    assert set(MEANING) == set(get_args(State))


def test_the_command_answers_for_an_address_and_for_a_key_alone(world: World) -> None:
    bundle = _bundled(world)

    by_url, by_key = (CliRunner().invoke(app, ["where", asked]) for asked in (f"s3://{world.source}/a", "a"))

    lines = by_url.stdout.splitlines()
    assert (by_url.exit_code, by_key.exit_code, by_key.stdout) == (0, 0, by_url.stdout)
    assert lines[:3] == [
        f"object      s3://{world.source}/a",
        "state       bundled",
        f"bundle      s3://{world.distribution}/{bundle}",
    ]
    assert by_url.stderr == "a bundle holds it, as it is in the source\n"


def test_the_command_ends_with_one_for_an_object_in_no_bundle(world: World) -> None:
    ran = CliRunner().invoke(app, ["where", f"s3://{world.source}/a", "--json"])

    assert (ran.exit_code, json.loads(ran.stdout)) == (
        1,
        [{"object": f"s3://{world.source}/a", "version_id": None, "state": "never seen"}],
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["key"], "aggregator: no bundle names a source bucket: give the bucket, as s3://bucket/key (key='key')"),
        (["s3://b/k", "--table", "no-such-table"], "aggregator: the ledger cannot be read"),
        (["s3://b/k", "--scope", "version"], "aggregator: a bucket's versions cannot be listed"),
        (["s3://b/k", "--scope", "day"], "'day' is not one of"),
        (["s3://b/k", "--since", "tomorrow"], "'tomorrow' is not a time"),
    ],
)
def test_a_wrong_call_is_told_in_words(world: World, options: list[str], said: str) -> None:
    ran = CliRunner().invoke(app, ["where", *options])

    assert (ran.exit_code, ran.stdout) == (2, "")
    assert said in " ".join(ran.stderr.split())


@pytest.mark.parametrize("missing", ["distribution", "source"])
def test_a_bucket_that_does_not_exist_is_said_and_not_that_no_message_came(world: World, missing: str) -> None:
    options = ["--distribution", f"{world.name}-not"] if missing == "distribution" else []
    bucket = f"{world.name}-not" if missing == "source" else world.source

    ran = CliRunner().invoke(app, ["where", f"s3://{bucket}/a", *options])

    assert (ran.exit_code, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"aggregator: there is no such bucket (bucket='{world.name}-not'): check the name")


def test_a_key_commands_no_terminal_and_stays_on_its_line(world: World) -> None:
    ran = CliRunner().invoke(app, ["where", f"s3://{world.source}/a\x1b[31m\nb"])

    assert ran.exit_code == 1
    assert ran.stdout.splitlines()[0] == f"object      s3://{world.source}/a\\x1b[31m\\nb"


def test_a_table_that_cannot_be_asked_is_named_with_what_to_do(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")

    ran = CliRunner().invoke(app, ["where", f"s3://{world.source}/a"])

    assert (ran.exit_code, ran.stdout, ran.stderr) == (
        2,
        "",
        (
            f"aggregator: the ledger cannot be read (table='{world.table}'): "
            "no connection to http://127.0.0.1:9/: check the network, AWS_DEFAULT_REGION and AWS_ENDPOINT_URL\n"
        ),
    )


def test_an_object_whose_versions_are_gone_needs_its_version_named(world: World) -> None:
    ran = CliRunner().invoke(app, ["where", f"s3://{world.source}/a", "--scope", "version"])

    assert ran.exit_code == 2
    assert ran.stderr.startswith("aggregator: object is gone from the source: name its version")


def _bundled(world: World) -> str:
    """The key of the bundle that holds the object a."""
    world.put("a", b"1")
    assert world.deliver("a") == set()
    (bundle,) = world.bundles()
    return bundle.index.bundle


def _locate(
    world: World, key: str, *, version_id: str | None = None, archive: str | None = None, later: float = 0, **given: Any
) -> list[Located]:
    now = time.time() + later
    places = Locations(world.s3, world.distribution, archive, world.reader(given.pop("scope", "key"), now))
    return locate(Object(world.source, key, version_id), places, now=now, **given)
