"""
Many small bundles become one, with the same members.

Every member keeps its bucket, key, version, eTag, size and encoding, and its bytes, proven on the way by its CRC-32.
The index says besides, in `repacked`, which bundles there were and how many members of each follow one after the other.
The order in which they are named does not matter: they are taken by time and name, so equal bundles give equal bytes.

    inputs, some at a time ──inflated by one pool──▶ the packer, in order ──deflated by another──▶ spool ──▶ file or put

Bundles are read as streams, and only the new one is stored on the disk. Into S3 it goes by one put: the put is
conditional, S3 compares the SHA-256 of the whole, and a reader opens the bundle first. A multipart upload would need no
disk, but S3 has no SHA-256 of the whole for it, and the parts of a run that is killed stay in the bucket, and cost.

A repacked bundle is not a bundle of the pipeline: no claim names it, and the ledger never learns of it. So it is never
written to where bundles are published or sources are read (docs/decisions/0011).
"""

import re
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from hashlib import sha256
from itertools import groupby
from operator import itemgetter
from os import cpu_count
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import IO, TYPE_CHECKING, NamedTuple, cast

from aggregator.aws import s3_client
from aggregator.bundles.bundle import Bundle
from aggregator.bundles.destination import MOST_EXTRACTED, check_room, new_file
from aggregator.bundles.index import BundleIndex, Member, Origin
from aggregator.bundles.opening import Location
from aggregator.bundles.targets import is_folder
from aggregator.exceptions import AggregatorError, AmbiguousPutError, BundleFormatError, UnpublishedError
from aggregator.operations.indexes import opener, read_targets
from aggregator.pipeline.core import FetchedObject, Packed, Packer
from aggregator.pipeline.decoding import Chunk
from aggregator.pipeline.distribution import CONDITION_FAILED, DistributionBucket
from aggregator.pipeline.planning import Plan
from aggregator.schemas import ObjectRef

if TYPE_CHECKING:
    from aggregator.pipeline.decoding import Encoding

MOST_BYTES = 5 * 1024**3
"""Most bytes of one PutObject (S3 user guide, "Uploading objects")."""

_RUN = 1024 * 1024
"""Bytes of text that are inflated at once, and wait for the packer."""

_FEWEST_READERS = 8
"""Bundles read at one time on few cores, because S3 takes some 30 ms for each of the three requests of a small one."""

Run = list[tuple[Member, bytes]]
"""Members and their bytes, piece by piece; the first piece of each is empty."""


class RepackingError(AggregatorError):
    """The bundles cannot become one."""

    reason = "repacking"


class Input(NamedTuple):
    """A bundle that is to be repacked: where it is, what is known of it, and which of its members are taken."""

    target: str
    listing: BundleIndex
    sha256: str
    origins: tuple[Origin, ...]
    entries: tuple[Member, ...]


class Repack(NamedTuple):
    """What is to become one bundle: the inputs in their order, and the members that are in several of them."""

    bundle: str
    created: str
    inputs: tuple[Input, ...]
    duplicates: tuple[Member, ...]


class RepackedIndex(BundleIndex):
    """The index of a repacked bundle: any reader of version 1 takes it, and ignores what it does not know."""

    repacked: list[Origin]


def plan_repack(targets: Iterable[str], *, bundle: str | None = None) -> Repack:
    """
    Read the indexes of the bundles that `targets` name: files, folders, URLs, prefixes in S3.

    The new one is called `bundle`, or by what it is made of.

    A bundle without members is left out. A member that is listed several times, with the same version, eTag and bytes,
    is taken once.

    Raises:
        RepackingError: there is nothing to repack, it comes on standard input, framings differ, or one object lies
            there with different bytes.
        BundleFormatError: a target is not a bundle, or a damaged one.
        OpeningError: a target cannot be opened.
        OSError: a file cannot be read.
    """
    targets = list(targets)
    if "-" in targets:
        raise RepackingError(
            "repack reads every bundle twice, so it cannot read from standard input: save the bundle to a file first"
        )
    read = {found.sha256: found for found in _inputs(targets) if found.entries}
    inputs = sorted(read.values(), key=lambda found: (found.listing.created, found.listing.bundle, found.sha256))
    if not inputs:
        raise RepackingError("there are no members to repack")
    framings = {found.listing.framing for found in inputs}
    if len(framings) > 1:
        raise RepackingError("bundles are framed in different ways: repack those with `lines` and `none` apart")
    seen, duplicates, kept = dict[tuple[object, ...], Member](), list[Member](), list[Input]()
    for found in inputs:
        entries = [member for member in found.entries if not _is_repeated(member, seen, duplicates)]
        kept.append(_taking(found, entries))
    created = inputs[-1].listing.created
    return Repack(bundle or _name(inputs, created), created, tuple(kept), tuple(duplicates))


def write_repacked(
    repack: Repack,
    spool: IO[bytes],
    *,
    level: int,
    report: Callable[[int], object] = lambda _: None,
    cores: int = cpu_count() or 1,
) -> Packed:
    """
    Write the bundle to `spool`, a file open for reading and writing; `report` gets the length of each run of bytes.

    Blocks are inflated and deflated on so many `cores`; the bytes of the bundle do not depend on it.

    Raises:
        RepackingError: a bundle is another than it was, or there are more members than a reader takes.
        BundleFormatError: a bundle is damaged.
        OpeningError: a bundle cannot be read.
        OSError: a file cannot be read or written.
    """
    framing = repack.inputs[0].listing.framing
    with ThreadPoolExecutor(cores, thread_name_prefix="deflate") as executor:
        packer = _Packer(spool, limit=sys.maxsize, level=level, framing=framing, executor=executor)
        packer.most_pending = 4 * cores
        packer.origins.extend(origin for found in repack.inputs for origin in found.origins)
        with closing(_read_ahead(repack.inputs, max(cores, _FEWEST_READERS))) as pieces:
            for member, chunks in groupby(pieces, key=itemgetter(0)):
                packer.add(_source(member), _reported((chunk for _, chunk in chunks), report))
        packed = packer.finish(Plan(repack.bundle, repack.created, _request_id(repack), ()))
    _check_readable(spool)
    return packed


def store_repacked(
    repack: Repack,
    out: str,
    *,
    level: int,
    published: Iterable[str],
    targets: Iterable[str] = (),
    max_bytes: int = MOST_EXTRACTED,
    report: Callable[[int], object] = lambda _: None,
) -> tuple[str, Packed]:
    """
    Write the bundle to a file or an object that is not there yet; says where, which a folder or prefix leaves open.

    A folder is made if it is not there.

    Bundles are published in the buckets `published`; `targets` are what was repacked.

    Raises:
        ExtractionError: there is a file of that name, or the members have more bytes than `max_bytes` or the disk.
        RepackingError: there is an object of that name, or the bundle must not be put there.
        AggregatorError: as `repacked` does, and what S3 answers.
        OSError: a file cannot be read or written.
    """
    if out == "-":
        raise RepackingError("a bundle is not written to standard output: name a file")
    needed = sum(member.length for found in repack.inputs for member in found.entries)
    if out.startswith("s3://"):
        check_room(Path(gettempdir()), needed, max_bytes=max_bytes)
        location = Location.parsed(out)
        key = location.key + repack.bundle if location.key[-1:] in {"", "/"} else location.key
        _check(repack, location.bucket, key, published)
        with TemporaryFile() as spool:
            packed = write_repacked(repack._replace(bundle=key), spool, level=level, report=report)
            _put(location.bucket, key, spool, packed)
        return f"s3://{location.bucket}/{key}", packed
    path = Path(out)
    if out.endswith("/") or path.is_dir():
        path /= Path(repack.bundle).name
    _check_folder(path, targets)
    if out.endswith("/"):
        path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as file:
        check_room(path.parent, needed, max_bytes=max_bytes)
        return str(path), write_repacked(repack, file, level=level, report=report)


def _put(bucket: str, key: str, spool: IO[bytes], packed: Packed) -> None:
    if packed.size > MOST_BYTES:
        raise RepackingError("the bundle is larger than one put takes: repack fewer", size=packed.size)
    with closing(s3_client(attempts=1)) as s3:
        try:
            DistributionBucket(s3, bucket).put(key, spool, size=packed.size, sha256=packed.sha256)
        except (UnpublishedError, AmbiguousPutError) as error:
            if error.facts["fault"] in CONDITION_FAILED:
                raise RepackingError("the name is taken already", bucket=bucket, key=key) from error
            raise


def _check(repack: Repack, bucket: str, key: str, published: Iterable[str]) -> None:
    """
    Refuse to put the bundle where it would be taken for what it is not.

    Raises:
        RepackingError: consumers, the ledger or the aggregator itself would take it for another object.
    """
    if bucket in {name for found in repack.inputs for name in found.listing.buckets}:
        raise RepackingError("the members come from that bucket: the aggregator would bundle the bundle", bucket=bucket)
    if bucket in set(published):
        raise RepackingError(
            "bundles are published in that bucket: its readers would get every member twice", bucket=bucket
        )
    if re.fullmatch(r"(.*/)?\d{4}/\d\d/\d\d/\d\d/bundle-[^/]*", key):
        raise RepackingError("the pipeline gives its bundles such names: the ledger could take it for one", key=key)


def _check_folder(path: Path, targets: Iterable[str]) -> None:
    """
    Return, if a file is below none of the folders that were repacked.

    Raises:
        RepackingError: it would be among the bundles that are read.
    """
    folders = [Path(target) for target in targets if not target.startswith("s3://") and is_folder(target)]
    for folder in folders:
        if path.suffix == ".gz" and path.resolve().is_relative_to(folder.resolve()):
            raise RepackingError(
                "bundles are read from that folder: its readers would get every member twice", folder=str(folder)
            )


def _check_readable(spool: IO[bytes]) -> None:
    """
    Return, if the bundle is one that readers open: they bound what an index may claim.

    Raises:
        RepackingError: it is not.
    """
    at = spool.tell()
    try:
        Bundle.open(spool)
    except BundleFormatError as error:
        raise RepackingError(f"no reader would open the bundle, so repack fewer: {error.args[0]}") from error
    finally:
        spool.seek(at)


class _Packer(Packer):
    """A packer whose index says where the members come from."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self.origins: list[Origin] = []

    def _append_or_cut_back(self, source: FetchedObject, chunks: Iterable[Chunk]) -> None:
        self._append(source, chunks)  # a member that fails ends it all

    def _index(self, plan: Plan) -> BundleIndex:
        return RepackedIndex(**super()._index(plan).model_dump(), repacked=self.origins)


def _read_ahead(inputs: Sequence[Input], readers: int) -> Generator[tuple[Member, bytes], None, None]:
    """The pieces of all members in their order; so many inputs are read at one time, each a run ahead of the packer."""
    rest, ahead = iter(inputs), deque[tuple[Iterator[Run], Future[Run | None]]]()
    with opener(found.target for found in inputs) as opened:
        pool = ThreadPoolExecutor(readers, thread_name_prefix="inflate")
        try:
            while True:
                while len(ahead) < readers and (found := next(rest, None)):
                    runs = _runs(found, opened)
                    ahead.append((runs, pool.submit(next, runs, None)))
                if not ahead:
                    return
                runs, future = ahead.popleft()
                while run := future.result():
                    future = pool.submit(next, runs, None)
                    yield from run
        finally:
            pool.shutdown(cancel_futures=True)


def _runs(found: Input, opened: Callable[[str], Bundle]) -> Iterator[Run]:
    """
    The members of an input that are taken, in their order, and their bytes, proven by their CRC.

    Raises:
        RepackingError: the bundle is another than it was.
        BundleFormatError: it is damaged.
        OpeningError: it cannot be read.
        OSError: the file cannot be read.
    """
    run, size = Run(), 0
    with _named(found.target), closing(opened(found.target)) as bundle:
        if bundle.sha256 != found.sha256:
            raise RepackingError("the bundle was replaced while it was read", target=found.target)
        for member, chunks in bundle.walk(found.entries):
            run.append((member, b""))
            for chunk in chunks:
                run.append((member, chunk))
                size += len(chunk)
                if size >= _RUN:
                    yield run
                    run, size = Run(), 0
    if run:
        yield run


def _inputs(targets: Iterable[str]) -> Iterator[Input]:
    for target, found in read_targets(targets, _input):
        if isinstance(found, Exception):
            with _named(target):
                raise found
        yield found._replace(target=target)


def _input(bundle: Bundle) -> Input:
    index, members = bundle.index, bundle.entries
    itself = Origin(
        bundle=index.bundle,
        created=index.created,
        request_id=index.request_id,
        sha256=bundle.sha256,
        members=len(members),
    )
    return Input("", index, bundle.sha256, tuple(bundle.origins) or (itself,), tuple(members))


@contextmanager
def _named(target: str) -> Iterator[None]:
    """What is wrong with a bundle, and with which."""
    try:
        yield
    except BundleFormatError as error:
        raise BundleFormatError(str(error.args[0]), target=target, **error.facts) from error


def _is_repeated(member: Member, seen: dict[tuple[object, ...], Member], duplicates: list[Member]) -> bool:
    """
    Whether a member was met before, to the byte.

    Raises:
        RepackingError: the same version or eTag was met with other bytes.
    """
    identity: tuple[object, ...] = (member.bucket, member.key, member.version_id, member.etag)
    bytes_ = (member.size, member.encoding, member.length, member.crc32)
    if member.version_id is None and member.etag is None:
        identity = (*identity, *bytes_)
    before = seen.setdefault(identity, member)
    if before is member:
        return False
    if (before.size, before.encoding, before.length, before.crc32) != bytes_:
        raise RepackingError("the bundles hold one object with different bytes", bucket=member.bucket, key=member.key)
    duplicates.append(member)
    return True


def _taking(found: Input, entries: Sequence[Member]) -> Input:
    """The input without the members that another one has, and its origins counted again."""
    taken = {id(member) for member in entries}
    rest, origins = iter(found.entries), []
    for origin in found.origins:
        members = sum(id(next(rest)) in taken for _ in range(origin.members))
        origins.append(origin.model_copy(update={"members": members}))
    return found._replace(entries=tuple(entries), origins=tuple(origins))


def _name(inputs: Sequence[Input], created: str) -> str:
    """A key by which it is known what the bundle is made of: equal inputs, equal name."""
    digest = sha256("".join(found.sha256 for found in inputs).encode()).hexdigest()
    year, month, day, hour = re.split(r"[-T:]", created)[:4]
    return f"{year}/{month}/{day}/{hour}/repacked-{digest[:32]}.gz"


def _request_id(repack: Repack) -> str:
    """No invocation made this bundle; of one made of bundles of one invocation, that one still is the answer."""
    ids = {origin.request_id for found in repack.inputs for origin in found.origins}
    return ids.pop() if len(ids) == 1 else "repacked"


def _source(member: Member) -> FetchedObject:
    ref = ObjectRef(member.bucket, member.key, member.size, member.etag, member.version_id)
    return FetchedObject(
        ref, member.size, member.etag, member.version_id, encoding=cast("Encoding | None", member.encoding)
    )


def _reported(chunks: Iterator[bytes], report: Callable[[int], object]) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        report(len(chunk))
