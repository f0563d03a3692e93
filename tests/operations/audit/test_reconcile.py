"""The auditor finds each fault that is planted, and nothing else; and what is no fault it does not report."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from aggregator.commands.main import app
from aggregator.exceptions import LedgerUnavailableError, StoreUnavailableError
from aggregator.operations.audit.reconciliation import AuditScope, Locations, reconcile
from aggregator.operations.ledger_reader import LedgerReader
from aggregator.pipeline.core import FetchedObject, empty_bundle
from aggregator.pipeline.planning import bundle_key
from aggregator.schemas import ObjectRef
from tests.support.faults import Killed, faults
from tests.support.world import Meanwhile, World, environment

pytestmark = pytest.mark.integration

OBJECTS = {f"in/{at}": f"content of {at}\n".encode() for at in range(5)}
SOUND = {"objects": 5, "once": 5, "bundles": 1}

Plant = Callable[[World], Any]


def test_of_a_sound_system_nothing_is_reported(world: World) -> None:
    _delivered(world)

    assert world.verdict(archive=world.replicate()) == (SOUND, [])


def test_an_object_that_no_bundle_holds_is_missing(world: World) -> None:
    bundle = _delivered(world)
    _edit(world, lambda sources: sources[1:])

    assert world.verdict(archive=world.replicate()) == (
        {**SOUND, "once": 4, "missing": 1},
        [
            {
                "finding": "missing",
                "object": _url(world, "in/0"),
                "bundle": _published(world, bundle),
                "why": "its bundle does not hold it",
            }
        ],
    )


def test_an_object_given_back_while_the_audit_runs_is_not_judged_by_the_claim_that_was_read_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put("a", b"1")
    with faults(monkeypatch, lambda call: Killed() if call.is_before("PutObject") else None), pytest.raises(Killed):
        world.deliver("a")
    reader = Meanwhile(world.reader("key", time.time()), world.gives_back("a"))
    monkeypatch.setattr(world, "reader", lambda *_: reader)

    totals, findings = world.verdict(grace=600)

    assert (totals["in_flight"], findings) == (1, [])


def test_an_object_that_two_bundles_hold_is_there_twice(world: World) -> None:
    bundle = _delivered(world)
    again = bundle_key(time.time(), "zzz", "again")
    world.plant(again, [_sources(world)[3]])

    assert world.verdict(archive=world.replicate()) == (
        {**SOUND, "once": 4, "twice": 1, "bundles": 2},
        [
            {
                "finding": "twice",
                "object": _url(world, "in/3"),
                "bundle": _published(world, bundle),
                "other_bundle": f"s3://{world.distribution}/{again}",
                "why": "in 2 places",
            }
        ],
    )


def test_an_object_that_one_bundle_holds_twice_is_there_twice_although_its_source_is_gone(world: World) -> None:
    bundle = _delivered(world)
    _edit(world, lambda sources: [sources[0], *sources])
    world.s3.delete_object(Bucket=world.source, Key="in/0")

    totals, (finding,) = world.verdict()

    assert totals == {"objects": 4, "once": 4, "twice": 1, "other_members": 2, "bundles": 1}
    assert (finding["object"], finding["bundle"]) == (_url(world, "in/0"), _published(world, bundle))


@pytest.mark.parametrize("field", [{"etag": "0" * 32}, {"size": 3}], ids=["entity tag", "size"])
def test_an_object_that_is_not_what_its_index_says_is_altered(world: World, field: dict[str, Any]) -> None:
    bundle = _delivered(world)
    _edit(world, lambda sources: [sources[0]._replace(**field), *sources[1:]])

    assert world.verdict(archive=world.replicate()) == (
        {**SOUND, "once": 4, "altered": 1},
        [
            {
                "finding": "altered",
                "object": _url(world, "in/0"),
                "bundle": _published(world, bundle),
                "why": "entity tag or size is not the one that the index names",
            }
        ],
    )


def test_an_object_is_altered_also_where_its_notification_had_no_entity_tag_and_only_time_tells(world: World) -> None:
    bundle = _delivered(world, tagged=False)
    _edit(world, lambda sources: [sources[0]._replace(etag="0" * 32), *sources[1:]], created=time.time() + 60)

    totals, (finding,) = world.verdict(later=100)

    assert totals == {**SOUND, "once": 4, "altered": 1}
    assert (finding["object"], finding["bundle"]) == (_url(world, "in/0"), _published(world, bundle))


def test_a_bundle_that_is_not_in_the_archive_is_unreplicated(world: World) -> None:
    _delivered(world)
    archive = world.replicate()
    late = bundle_key(time.time(), "late", "late")
    world.plant(late, [FetchedObject(ObjectRef("elsewhere", "x"), 1, "e")])
    url = _published(world, late)

    assert world.verdict(archive=archive) == (
        {**SOUND, "bundles": 2, "unreplicated": 1},
        [{"finding": "unreplicated", "bundle": url, "why": "not in the archive"}],
    )
    world.s3.put_object(Bucket=archive, Key=late, Body=b"cut off")
    assert world.verdict(archive=archive)[1] == [
        {"finding": "unreplicated", "bundle": url, "why": "the copy in the archive has another size"}
    ]
    assert world.verdict(archive=archive, grace=60) == ({**SOUND, "bundles": 2}, [])


def test_an_object_that_the_ledger_forgot_would_come_twice_and_is_reported(world: World) -> None:
    bundle = _delivered(world)
    id_ = world.reader("key", 0).id(world.source, "in/2", None, None)
    world.dynamodb.delete_item(TableName=world.table, Key={"id": {"S": id_}})

    assert world.verdict() == (
        {**SOUND, "once": 4, "unrecorded": 1},
        [
            {
                "finding": "unrecorded",
                "object": _url(world, "in/2"),
                "bundle": _published(world, bundle),
                "why": "the ledger has no claim on it",
            }
        ],
    )


def test_what_lies_among_bundles_and_is_none_is_unreadable(world: World) -> None:
    _delivered(world)
    world.s3.put_object(Bucket=world.distribution, Key=bundle_key(time.time(), "r", "s"), Body=b"no bundle at all")

    totals, (finding,) = world.verdict()

    assert totals == {**SOUND, "unreadable": 1}
    assert (finding["finding"], finding["why"]) == (
        "unreadable",
        "not a bundle: header and footer are missing (size=16)",
    )


def test_all_faults_at_once_are_each_found_once(world: World) -> None:
    _delivered(world)
    _edit(world, lambda sources: [sources[0]._replace(etag="0" * 32), *sources[2:]])
    archive = world.replicate()
    world.plant(bundle_key(time.time(), "again", "again"), [_sources(world)[-1]])

    totals, findings = world.verdict(archive=archive)

    assert totals == {
        "objects": 5, "once": 2, "missing": 1, "twice": 1, "altered": 1, "bundles": 2, "unreplicated": 1
    }  # fmt: skip
    assert [finding["finding"] for finding in findings] == ["altered", "missing", "twice", "unreplicated"]


def test_what_was_just_created_or_is_being_bundled_is_in_flight(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.put_all({"young": b"1", "claimed": b"2", "folder/": b""})
    with faults(monkeypatch, lambda call: Killed() if call.is_before("PutObject") else None), pytest.raises(Killed):
        world.deliver(["claimed"])

    assert world.verdict(grace=60) == ({"objects": 2, "in_flight": 2}, [])
    totals, (finding,) = world.verdict()
    assert totals == {"objects": 2, "in_flight": 1, "missing": 1}
    assert finding == {"finding": "missing", "object": _url(world, "young"), "why": "never claimed"}


def test_a_lapsed_claim_tells_why_its_object_is_missing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.put("a", b"1")
    with faults(monkeypatch, lambda call: Killed() if call.is_before("PutObject") else None), pytest.raises(Killed):
        world.deliver("a")
    world.lapse()

    (finding,) = world.verdict()[1]

    assert finding["why"] == "its claim has lapsed and is in doubt"
    key = finding["bundle"].removeprefix(_published(world, ""))
    world.s3.put_object(Bucket=world.distribution, Key=key, Body=empty_bundle(key, 0, "r"))
    assert [one["why"] for one in world.verdict()[1]] == ["its bundle was never published"]


def test_a_bundle_that_is_settled_and_in_neither_bucket_is_gone(world: World) -> None:
    _delivered(world)
    world.remove_bundles()

    totals, findings = world.verdict(archive=None)

    assert totals == {"objects": 5, "missing": 5}
    assert {finding["why"] for finding in findings} == {"its bundle is gone"}


def test_an_object_that_was_refused_is_reported_with_its_reason(world: World) -> None:
    world.put("broken.gz", b"\x1f\x8b\x08 no gzip")
    assert world.deliver(["broken.gz"]) == {"broken.gz"}

    totals, (finding,) = world.verdict()

    assert totals == {"objects": 1, "rejected": 1}
    assert finding["why"].startswith("object is not gzip to its end")
    assert [one["why"] for one in world.verdict(rejections=False)[1]] == ["given back"]


@pytest.mark.parametrize("tagged", [True, False], ids=["tag announced", "no tag announced"])
def test_an_object_that_was_overwritten_since_is_no_fault(world: World, *, tagged: bool) -> None:
    _delivered(world, tagged=tagged)
    world.put("in/1", b"newer")

    assert world.verdict() == ({**SOUND, "once": 4, "overwritten": 1}, [])


def test_the_tag_that_was_announced_tells_that_an_object_was_overwritten_whatever_the_clocks_say(world: World) -> None:
    _delivered(world)
    _edit(world, lambda sources: sources, created=time.time() + 60)
    world.put("in/1", b"newer")

    assert world.verdict(later=100) == ({**SOUND, "once": 4, "overwritten": 1}, [])


def test_a_bundle_that_its_consumer_deleted_still_counts(world: World) -> None:
    bundle = _delivered(world)
    world.s3.delete_object(Bucket=world.distribution, Key=bundle)

    assert world.verdict() == (SOUND, [])


def test_a_bundle_that_is_left_only_in_the_archive_still_counts(world: World) -> None:
    _delivered(world)
    archive = world.replicate()
    world.remove_bundles()

    assert world.verdict(archive=archive) == (SOUND, [])


def test_an_object_bundled_before_the_time_that_is_audited_is_found_by_its_claim(world: World) -> None:
    world.put("old", b"overwritten within the window")
    bundle = bundle_key(0, "old", "old")
    world.plant(bundle, [FetchedObject(ObjectRef(world.source, "old"), 3, "then")], created=0)
    _claim(world, "old", bundle, etag="then")

    assert world.verdict() == ({"objects": 1, "overwritten": 1, "bundles": 1}, [])


def test_an_object_bundled_again_after_the_ledger_forgot_it_is_not_twice(world: World) -> None:
    bundle = _delivered(world)
    (source, *_) = _sources(world)
    world.plant(bundle_key(time.time(), "r", "before"), [source], created=time.time() - 40 * 86_400)

    assert world.verdict(ttl=30 * 86_400) == ({**SOUND, "bundles": 2}, [])
    assert world.verdict(ttl=50 * 86_400)[0] == {**SOUND, "once": 4, "twice": 1, "bundles": 2}
    assert bundle


def test_with_the_scope_version_each_version_is_audited(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.s3.put_bucket_versioning(Bucket=world.source, VersioningConfiguration={"Status": "Enabled"})
    ids = [world.s3.put_object(Bucket=world.source, Key="a", Body=body)["VersionId"] for body in (b"1", b"2", b"3")]
    with environment(monkeypatch, IDEMPOTENCY_SCOPE="version"):
        world.deliver_bodies({id_: world.body("a", versionId=id_) for id_ in ids[:2]})

    totals, (finding,) = world.verdict(scope="version")

    assert totals == {"objects": 3, "once": 2, "missing": 1, "bundles": 1}
    assert (finding["object"], finding["version_id"]) == (_url(world, "a"), ids[2])


@pytest.mark.parametrize("told", [{"eTag": True}, {}], ids=["entity tag", "nothing"])
def test_with_the_scope_version_an_object_may_have_been_announced_without_its_version(
    world: World, monkeypatch: pytest.MonkeyPatch, told: dict[str, bool]
) -> None:
    world.s3.put_bucket_versioning(Bucket=world.source, VersioningConfiguration={"Status": "Enabled"})
    etag = world.s3.put_object(Bucket=world.source, Key="a", Body=b"1")["ETag"].strip('"')
    with environment(monkeypatch, IDEMPOTENCY_SCOPE="version"):
        world.deliver_bodies({"a": world.body("a", **dict.fromkeys(told, etag))})

    assert world.verdict(scope="version") == ({"objects": 1, "once": 1, "bundles": 1}, [])


def test_only_what_was_modified_in_the_time_and_lies_under_the_prefix_is_audited(world: World) -> None:
    world.put_all({"in/a": b"1", "out/a": b"2"})
    now = time.time()
    places = Locations(world.s3, world.distribution)

    def audited(prefix: str, since: float, until: float) -> int:
        with reconcile(AuditScope(world.source, prefix, "key", now + since, now + until, now), places) as audit:
            return audit.totals["objects"]

    assert audited("in/", -60, 60) == 1
    assert audited("", -60, 60) == 2
    assert audited("", 60, 120) == 0
    assert audited("", -120, -60) == 0


def test_keys_that_are_hard_to_write_are_audited_under_their_exact_names(world: World) -> None:
    objects = dict.fromkeys(("a b", 'q"u\\ote', "tab\tnew\nline", "é😀", "a//b", "{json}", "'; DROP TABLE"), b"x\n")
    world.put_all({**objects, "missing\n'\"": b"y"})
    world.deliver(objects)

    totals, (finding,) = world.verdict()

    assert totals == {"objects": 8, "once": 7, "missing": 1, "bundles": 1}
    assert finding["object"] == _url(world, "missing\n'\"")


def test_an_audit_that_cannot_see_does_not_say_that_all_is_well(world: World) -> None:
    now = time.time()
    subject = AuditScope(world.source, "", "key", now - 60, now + 60, now)
    ledger = LedgerReader(world.dynamodb, table="no-such-table", distribution="x", scope="key", now=now)
    world.put("a", b"1")

    with pytest.raises(StoreUnavailableError, match="NoSuchBucket"):
        reconcile(subject, Locations(world.s3, "no-such-bucket"))
    with pytest.raises(LedgerUnavailableError, match="ResourceNotFoundException"):
        reconcile(subject, Locations(world.s3, world.distribution, None, ledger))


def test_the_evidence_is_deleted_when_the_audit_is_over(world: World, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    world.put("a", b"1")

    with world.audit() as audit:
        kept = list(tmp_path.iterdir())

    assert (audit.wrong, len(kept)) == (1, 1)
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_totals_then_findings_and_ends_with_one(world: World) -> None:
    _delivered(world)
    world.put("in/new", b"1")
    call = ["reconcile", "--source", f"s3://{world.source}/in/", "--since", "1h", "--grace", "0m"]

    ran, as_json = (CliRunner().invoke(app, [*call, *more]) for more in ([], ["--json"]))

    finding = {"finding": "missing", "object": _url(world, "in/new"), "why": "never claimed"}
    lines = ran.stdout.splitlines()
    assert (ran.exit_code, as_json.exit_code) == (1, 1)
    assert lines[:2] == ["objects         6", "once            5"]
    assert lines[-1].split("\t") == ["missing", "never claimed", "", "", finding["object"]]
    assert ran.stderr == "6 objects: 5 once, 1 missing; 1 finding\n"
    assert json.loads(as_json.stdout.splitlines()[0]) == finding
    assert json.loads(as_json.stdout.splitlines()[-1])["totals"]["missing"] == 1


def test_any_total_names_what_it_counts(world: World) -> None:
    bundle = _delivered(world)
    world.put("in/0", b"another")
    world.put("in/new", b"1")
    with world.audit() as audit:
        counted = {kind: len(list(audit.findings([kind]))) for kind in audit.totals}
        (overwritten,) = audit.findings(["overwritten"])

        assert counted == audit.totals
        assert (overwritten["object"], overwritten["bundle"]) == (_url(world, "in/0"), _published(world, bundle))
        assert {one["object"] for one in audit.findings(["once", "in_flight", "missing"])} == {
            _url(world, key) for key in {*OBJECTS, "in/new"} - {"in/0"}
        }


def test_the_command_shows_the_total_that_is_asked_for(world: World) -> None:
    _delivered(world)
    world.put("in/0", b"another")
    call = ["reconcile", "--source", f"s3://{world.source}", "--since", "1h", "--show"]

    ran, typo = (CliRunner().invoke(app, [*call, kind]) for kind in ("overwritten", "overwriten"))

    assert ran.exit_code == 0
    assert ran.stdout.splitlines()[-1].split("\t")[-1] == _url(world, "in/0")
    assert typo.exit_code == 2
    assert "'overwriten' is not a total: write objects, once, in-flight, overwritten" in " ".join(typo.stderr.split())


def test_the_command_ends_with_nought_when_all_is_well(world: World) -> None:
    _delivered(world)

    ran = CliRunner().invoke(app, ["reconcile", "--source", f"s3://{world.source}", "--since", "1h"])

    assert (ran.exit_code, "{" in ran.stdout) == (0, False)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--since", "yesterday"], "'yesterday' is not a time"),
        (["--since", "1h", "--until", "2h"], "--since: it is not before --until"),
        (["--since", "1h", "--grace", "soon"], "--grace: 'soon' is not a duration"),
        (["--since", "1h", "--source", "bucket"], "'bucket' is not s3://bucket/"),
        (["--since", "1h", "--distribution", "no-such-bucket"], "aggregator: a bucket's versions cannot be"),
        (["--since", "1h", "--table", "no-such-table"], "aggregator: the ledger cannot be read"),
    ],
)
def test_a_wrong_call_is_told_in_words(world: World, options: list[str], said: str) -> None:
    world.put("a", b"1")

    ran = CliRunner().invoke(app, ["reconcile", "--source", f"s3://{world.source}", *options])

    assert (ran.exit_code, ran.stdout) == (2, "")
    assert said in " ".join(ran.stderr.split())
    assert "Traceback" not in ran.stderr


def _delivered(world: World, *, tagged: bool = True) -> str:
    """All objects in one bundle; its key."""
    bodies = {}
    for key, body in OBJECTS.items():
        etag = world.s3.put_object(Bucket=world.source, Key=key, Body=body)["ETag"].strip('"')
        bodies[key] = world.body(key, eTag=etag if tagged else None)
    assert world.deliver_bodies(bodies) == set()
    (bundle,) = world.bundles()
    return bundle.index.bundle


def _sources(world: World) -> list[FetchedObject]:
    """What the one bundle says that it holds."""
    (bundle,) = world.bundles()
    return sorted(FetchedObject(ObjectRef(one.bucket, one.key), one.size, one.etag, one.version_id) for one in bundle)


def _edit(
    world: World, edit: Callable[[list[FetchedObject]], list[FetchedObject]], *, created: float | None = None
) -> None:
    """Put another bundle in the place of the one that is there, as if it had always been there."""
    (bundle,), sources = world.bundles(), edit(_sources(world))
    world.remove_bundles()
    world.plant(bundle.index.bundle, sources, created=created)


def _claim(world: World, key: str, bundle: str, *, etag: str) -> None:
    id_ = world.reader("key", 0).id(world.source, key, None, None)
    item = {
        "id": {"S": id_},
        "data": {"S": json.dumps({"bundle": bundle, "etag": etag})},
        "expiration": {"N": str(int(time.time()) + 600)},
        "in_progress_expiration": {"N": "1"},
        "status": {"S": "INPROGRESS"},
    }
    world.dynamodb.put_item(TableName=world.table, Item=item)


def _published(world: World, bundle: str) -> str:
    return f"s3://{world.distribution}/{bundle}"


def _url(world: World, key: str) -> str:
    return f"s3://{world.source}/{key}"
