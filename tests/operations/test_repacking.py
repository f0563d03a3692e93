"""Many bundles become one: the same members, byte for byte, and nobody can take it for what it is not."""

import hashlib
import io
import itertools
import json
import random
import threading
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path

import jsonschema
import pytest

from aggregator import aws
from aggregator.bundles.destination import ExtractionError
from aggregator.bundles.index import Member
from aggregator.bundles.layout import BLOCK_SIZE
from aggregator.exceptions import AggregatorError, BundleFormatError
from aggregator.operations.repacking import RepackingError, plan_repack, store_repacked, write_repacked
from aggregator.pipeline.core import FetchedObject, Packer, compressor, empty_bundle
from aggregator.pipeline.planning import Plan
from aggregator.reader import Bundle
from aggregator.schemas import ObjectRef
from tests.support.world import World

ONE, TWO, THREE = "2026/11/23/02/bundle-a-1.gz", "2026/11/23/02/bundle-b-2.gz", "2026/11/23/03/bundle-c-3.gz"


@pytest.fixture
def quiet(tmp_path: Path, executor: Executor) -> list[str]:
    """Three bundles of a quiet hour, and an empty one."""
    randoms = random.Random(20_261_123)
    large = randoms.randbytes(3 * BLOCK_SIZE)
    members: dict[str, list[tuple[str, bytes, str | None]]] = {
        ONE: [("a", b"1\n", "v1"), ("größe + maße", b"two", None)],
        TWO: [("large", large, None), ("empty", b"", None)],
        THREE: [("a", b"1 changed", "v2")],
    }
    paths = [_write(tmp_path, key, rows, executor) for key, rows in members.items()]
    (tmp_path / "empty.gz").write_bytes(empty_bundle("2026/11/23/02/bundle-d-4.gz", 0, "d"))
    return [*paths, str(tmp_path / "empty.gz")]


def test_every_member_is_kept_with_all_that_is_known_of_it(quiet: list[str]) -> None:
    before = [(entry, body) for path in quiet for entry, body in _members(path)]

    after = Bundle.open(io.BytesIO(_repacked(quiet)))

    after.verify()
    assert [(_known(entry), after.read(entry)) for entry in after] == [(_known(entry), body) for entry, body in before]


def test_the_new_bundle_says_where_each_member_comes_from(quiet: list[str]) -> None:
    after = Bundle.open(io.BytesIO(_repacked(quiet)))

    assert after.provenance() == [ONE, ONE, TWO, TWO, THREE]
    assert [(one.bundle, one.request_id, one.members) for one in after.origins] == [
        (ONE, "a", 2),
        (TWO, "b", 2),
        (THREE, "c", 1),
    ]
    assert [one.sha256 for one in after.origins] == [_sha256(path) for path in quiet[:3]]


def test_a_repacked_index_is_valid_under_the_published_contract(quiet: list[str]) -> None:
    contract = json.loads(Path("contracts/bundle-index/v1/consumer.schema.json").read_text(encoding="utf-8"))
    index = write_repacked(plan_repack(quiet), io.BytesIO(), level=6).index.model_dump(mode="json")

    jsonschema.validate(index, contract)

    assert [one["members"] for one in index["repacked"]] == [2, 2, 1]


def test_whatever_the_order_equal_bundles_give_equal_bytes(quiet: list[str]) -> None:
    assert len({_repacked(order) for order in itertools.permutations(quiet)}) == 1


def test_however_many_cores_equal_bundles_give_equal_bytes(quiet: list[str]) -> None:
    made = []
    for cores in (1, 2, 16):
        spool = io.BytesIO()
        write_repacked(plan_repack(quiet), spool, level=1, cores=cores)
        made.append(spool.getvalue())

    assert made[0] == made[1] == made[2]


def test_bundles_are_read_at_the_same_time_and_no_more_of_them_than_there_are_readers(
    tmp_path: Path, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"2026/11/23/02/bundle-{number:02}-1.gz" for number in range(20)]
    plan = plan_repack([_write(tmp_path, name, [(name, b"text", None)], executor) for name in names])
    both, opened, most = threading.Barrier(2, timeout=30), set[int](), 0

    def watched(target: str) -> Bundle:
        nonlocal most
        bundle = Bundle.open(target)
        if target.endswith(("bundle-00-1.gz", "bundle-01-1.gz")):
            both.wait()  # fails if the second is opened only after the first is read
        opened.add(id(bundle))
        most = max(most, len(opened))

        def close() -> None:
            opened.discard(id(bundle))
            Bundle.close(bundle)

        bundle.close = close  # type: ignore[method-assign]
        return bundle

    monkeypatch.setattr("aggregator.operations.indexes.bundle_at", watched)
    write_repacked(plan, io.BytesIO(), level=1, cores=2)

    assert not both.broken
    assert most <= 8


def test_a_large_member_does_not_wait_for_the_blocks_of_the_one_before(
    tmp_path: Path, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = random.Random(7).randbytes(BLOCK_SIZE * 3 // 2 - 1) + b"\n"
    plan = plan_repack([_write(tmp_path, ONE, [(f"{number}", text, None) for number in range(4)], executor)])
    all_blocks, deflate = threading.Barrier(6, timeout=30), compressor(1)

    def compress(block: bytes) -> bytes:
        all_blocks.wait()  # fails if one of them is to be written before the last is there
        return deflate(block)

    monkeypatch.setattr("aggregator.pipeline.core.compressor", lambda _: compress)
    write_repacked(plan, io.BytesIO(), level=1, cores=6)

    assert not all_blocks.broken


def test_a_bundle_repacked_twice_still_leads_to_the_first_ones(quiet: list[str], tmp_path: Path) -> None:
    (tmp_path / "first.gz").write_bytes(_repacked(quiet[:2]))

    after = Bundle.open(io.BytesIO(_repacked([str(tmp_path / "first.gz"), quiet[2]])))

    assert after.provenance() == [ONE, ONE, TWO, TWO, THREE]


def test_the_name_says_the_hour_and_what_it_is_made_of(quiet: list[str]) -> None:
    digest = hashlib.sha256("".join(map(_sha256, quiet[:3])).encode()).hexdigest()[:32]

    assert plan_repack(quiet).bundle == f"2026/11/23/03/repacked-{digest}.gz"


def test_the_same_bundle_named_twice_is_taken_once(quiet: list[str]) -> None:
    plan = plan_repack([*quiet, *quiet])

    assert (len(plan.inputs), plan.duplicates) == (3, ())


def test_a_member_that_lies_in_two_bundles_is_taken_once_and_told(
    quiet: list[str], tmp_path: Path, executor: Executor
) -> None:
    again = _write(tmp_path, "2026/11/23/04/bundle-e-5.gz", [("new", b"n", None), ("a", b"1\n", "v1")], executor)

    plan = plan_repack([*quiet, again])
    after = Bundle.open(io.BytesIO(_repacked([*quiet, again])))

    assert [entry.key for entry in plan.duplicates] == ["a"]
    assert [(entry.key, entry.version_id) for entry in after].count(("a", "v1")) == 1
    assert [one.members for one in after.origins] == [2, 2, 1, 1]
    after.verify()


def test_one_object_with_different_bytes_is_refused(quiet: list[str], tmp_path: Path, executor: Executor) -> None:
    etag = hashlib.md5(b"1\n").hexdigest()
    other = _write(tmp_path, "2026/11/23/04/bundle-e-5.gz", [("a", b"2\n", "v1")], executor, etags=[etag])

    with pytest.raises(RepackingError) as caught:
        plan_repack([quiet[0], other])

    assert str(caught.value) == "the bundles hold one object with different bytes (bucket='source', key='a')"


def test_bundles_framed_in_different_ways_are_refused(quiet: list[str]) -> None:
    with pytest.raises(RepackingError, match="framed in different ways"):
        plan_repack([quiet[0], "fixtures/bundles/v1-none.gz"])


def test_bundles_without_members_are_nothing_to_repack(quiet: list[str]) -> None:
    with pytest.raises(RepackingError, match="there are no members to repack"):
        plan_repack(quiet[3:])


def test_a_damaged_member_ends_it_and_leaves_nothing(quiet: list[str], tmp_path: Path) -> None:
    damaged = bytearray(Path(quiet[1]).read_bytes())
    damaged[1_000] ^= 1
    Path(quiet[1]).write_bytes(damaged)

    with pytest.raises(BundleFormatError):
        store_repacked(plan_repack(quiet), str(tmp_path / "out.gz"), level=6, published=[])

    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(Path(path).name for path in quiet)


def test_a_bundle_that_is_replaced_meanwhile_ends_it(quiet: list[str]) -> None:
    plan = plan_repack(quiet)
    Path(quiet[0]).write_bytes(Path(quiet[1]).read_bytes())

    with pytest.raises(RepackingError, match="the bundle was replaced while it was read"):
        write_repacked(plan, io.BytesIO(), level=6)


def test_a_file_that_is_there_is_not_overwritten(quiet: list[str], tmp_path: Path) -> None:
    (tmp_path / "out.gz").write_bytes(b"mine")

    with pytest.raises(ExtractionError):
        store_repacked(plan_repack(quiet), str(tmp_path / "out.gz"), level=6, published=[])

    assert (tmp_path / "out.gz").read_bytes() == b"mine"


def test_more_bytes_than_are_allowed_are_not_written(quiet: list[str], tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())

    for out in (str(tmp_path / "out.gz"), "s3://elsewhere/out.gz"):
        with pytest.raises(ExtractionError, match="than --max-bytes allows"):
            store_repacked(plan_repack(quiet), out, level=6, published=[], max_bytes=1)

    assert sorted(tmp_path.iterdir()) == before


def test_a_bundle_that_no_reader_would_open_is_not_written(
    quiet: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_repack(quiet)
    largest = max(Path(target).stat().st_size for target in quiet)
    monkeypatch.setattr("aggregator.bundles.footer.most_index_values", lambda size: 0 if size > largest else 10**6)

    with pytest.raises(RepackingError, match="repack fewer: the index claims more"):
        store_repacked(plan, str(tmp_path / "out.gz"), level=6, published=[])

    assert not (tmp_path / "out.gz").exists()


def test_a_folder_leaves_the_name_open(quiet: list[str], tmp_path: Path) -> None:
    plan = plan_repack(quiet)

    place, _ = store_repacked(plan, str(tmp_path), level=6, published=[])

    assert place == str(tmp_path / Path(plan.bundle).name)


@pytest.mark.parametrize(
    ("out", "fault"),
    [
        ("s3://source/x.gz", "the members come from that bucket"),
        ("s3://distribution/x.gz", "bundles are published in that bucket"),
        ("s3://other/2026/11/23/02/bundle-a-9.gz", "the pipeline gives its bundles such names"),
        ("s3://other/archive/2026/11/23/02/bundle-a-9.gz", "the pipeline gives its bundles such names"),
    ],
)
def test_it_is_not_put_where_it_would_be_taken_for_another(out: str, fault: str, quiet: list[str]) -> None:
    with pytest.raises(RepackingError, match=fault):
        store_repacked(plan_repack(quiet), out, level=6, published=["distribution"])


@pytest.mark.integration
def test_it_is_put_once_under_the_name_it_says(world: World, quiet: list[str]) -> None:
    place, packed = store_repacked(
        plan_repack(quiet), f"s3://{world.source}/repacked/", level=6, published=[world.distribution]
    )

    with pytest.raises(RepackingError, match="the name is taken already"):
        store_repacked(plan_repack(quiet), f"s3://{world.source}/repacked/", level=6, published=[world.distribution])
    with Bundle.open(place) as bundle:
        proof = bundle.verify()
    assert (place, proof.sha256) == (f"s3://{world.source}/{packed.index.bundle}", packed.sha256.hex())


@pytest.mark.integration
def test_bundles_in_s3_are_read_by_one_client(world: World, quiet: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for path in quiet[:3]:
        world.s3.put_object(Bucket=world.distribution, Key=Path(path).name, Body=Path(path).read_bytes())
    plan = plan_repack([f"s3://{world.distribution}/{Path(path).name}" for path in quiet[:3]])
    made, make = list[object](), aws.s3_client

    def counted() -> object:
        made.append(make())
        return made[-1]

    monkeypatch.setattr(aws, "s3_client", counted)
    spool = io.BytesIO()
    write_repacked(plan, spool, level=6)

    assert (spool.getvalue(), len(made)) == (_repacked(quiet[:3]), 1)


@pytest.mark.integration
def test_a_bucket_that_is_not_there_is_one_sentence(world: World, quiet: list[str]) -> None:
    with pytest.raises(AggregatorError, match="S3 rejects the bundle"):
        store_repacked(plan_repack(quiet), f"s3://not-there-{world.name}/", level=6, published=[])


def _repacked(targets: Sequence[str]) -> bytes:
    spool = io.BytesIO()
    write_repacked(plan_repack(targets), spool, level=6)
    return spool.getvalue()


def _sha256(path: str) -> str:
    with Bundle.open(path) as bundle:
        return bundle.sha256


def _members(path: str) -> list[tuple[Member, bytes]]:
    with Bundle.open(path) as bundle:
        return [(entry, bundle.read(entry)) for entry in bundle]


def _known(entry: Member) -> tuple[object, ...]:
    """All but where it lies."""
    return (*entry[:6], entry.length, entry.crc32)


def _write(
    folder: Path,
    key: str,
    rows: Sequence[tuple[str, bytes, str | None]],
    executor: Executor,
    *,
    etags: Sequence[str | None] = (),
) -> str:
    path = folder / Path(key).name
    tags = [*etags, *(hashlib.md5(body).hexdigest() for _, body, _ in rows[len(etags) :])]
    with path.open("w+b") as spool:
        packer = Packer(spool, limit=10**9, level=1, framing="lines", executor=executor)
        for (name, body, version), etag in zip(rows, tags, strict=True):
            gzipped = name == "empty"
            source = FetchedObject(
                ObjectRef("source", name), len(body) + gzipped, etag, version, encoding="gzip" if gzipped else None
            )
            packer.add(source, [body])
        hour = key.split("/")[3]
        packer.finish(Plan(key, f"2026-11-23T{hour}:54:56Z", key.split("-")[1], ()))
    return str(path)
