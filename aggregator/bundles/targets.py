"""
The bundles that a command is called with: a file, a folder, an object or a prefix in S3, a URL, or standard input.

    with bundle_at("s3://distribution/2026/11/23/14/bundle-….gz") as bundle:
        ...
"""

import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from aggregator.bundles.bundle import Bundle
from aggregator.bundles.layout import HEADER, may_be_bundle
from aggregator.bundles.opening import Location, check_scheme, s3_client
from aggregator.exceptions import OpeningError

_COPIED = 1024 * 1024

_IN_MEMORY = 64 * 1024 * 1024

_MOST_COPIED = 16 * 1024**3
"""Most bytes of standard input that are kept; S3 takes 5 GiB in one put."""


def standard_input() -> BinaryIO:
    """
    The bytes that come in on standard input.

    Raises:
        OpeningError: standard input is closed, as under `<&-`.
    """
    if sys.stdin is None:
        raise OpeningError("there is no standard input")
    return sys.stdin.buffer


def bundle_at(target: str) -> Bundle:
    """
    The bundle that `target` names: a path, a URL, or `-` for standard input, which is kept until the bundle is closed.

    Raises:
        BundleFormatError: the bytes are not a bundle, or not a whole one.
        BundleVersionError: the bundle is of a later version than this reader knows.
        OpeningError: the target cannot be opened.
        OSError: the file cannot be read.
    """
    if target != "-":
        return Bundle.open(target)
    stream = standard_input()
    is_bundle = stream.peek(len(HEADER))[: len(HEADER)] == HEADER if isinstance(stream, io.BufferedReader) else True
    spool = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - closed by the bundle, or right below
    try:
        while data := stream.read(_COPIED):
            spool.write(data)
            _check_size(spool.tell(), is_bundle=is_bundle)

        def fetch(offset: int, length: int) -> bytes:
            spool.seek(offset)
            return spool.read(length)

        return Bundle(fetch, spool.tell(), close=spool.close)
    except BaseException:
        spool.close()
        raise


def _check_size(size: int, *, is_bundle: bool) -> None:
    """
    Return, if so many bytes of standard input may be kept.

    Raises:
        OpeningError: they begin as no bundle does, are more than any bundle has, or fill the disk.
    """
    if size > (_MOST_COPIED if is_bundle else _IN_MEMORY):
        raise OpeningError("standard input is not a bundle, or larger than any is", bytes=size)
    if size > _IN_MEMORY and shutil.disk_usage(tempfile.gettempdir()).free < _IN_MEMORY:
        raise OpeningError("the disk has no room for standard input: save the bundle to a file first", bytes=size)


class Found(NamedTuple):
    """A bundle that was found, and the bytes that it has where it is listed; None, where that was not said."""

    target: str
    size: int | None


def expanded(targets: Iterable[str]) -> Iterator[str]:
    """
    The bundles that `targets` name: below a folder, or an S3 prefix that ends in a slash, every `.gz`, in their order.

    Raises:
        OpeningError: a folder or prefix holds none, or cannot be listed.
        OSError: a folder cannot be listed.
    """
    return (found.target for found in found_at(targets))


def found_at(targets: Iterable[str]) -> Iterator[Found]:
    """
    The bundles of `expanded`, and what is known of them without a look at them.

    Raises:
        OpeningError: a folder or prefix holds none, or cannot be listed.
        OSError: a folder cannot be listed.
    """
    for target in targets:
        check_scheme(target)
        if not is_folder(target):
            yield Found(target, None)
            continue
        found = _listed(Location.parsed(target)) if target.startswith("s3://") else _files(Path(target))
        first = next(found, None)
        if first is None:
            raise OpeningError("no .gz file found", target=target)
        yield first
        yield from found


def is_folder(target: str) -> bool:
    """
    Whether a target is a folder, or an S3 prefix that ends in a slash: there may be many bundles below it.

    Raises:
        OpeningError: it begins with `s3://` and names no bucket.
    """
    if target.startswith("s3://"):
        return Location.parsed(target).key[-1:] in {"", "/"}
    return "://" not in target and Path(target).is_dir()


def files_below(folder: Path) -> list[str]:
    """
    The files below `folder` that may be bundles by their names, in their order.

    Raises:
        OSError: it, or a folder in it, cannot be listed.
    """

    def fail(error: OSError) -> None:
        raise error

    paths = (Path(parent, name) for parent, _, names in os.walk(folder, onerror=fail) for name in names)
    return [str(path) for path in sorted(paths) if may_be_bundle(path.as_posix()) and path.is_file()]


def buckets_of(targets: Iterable[str]) -> set[str]:
    """The buckets of those targets that are in S3."""
    return {Location.parsed(target).bucket for target in targets if target.startswith("s3://")}


def _files(folder: Path) -> Iterator[Found]:
    return (Found(path, Path(path).stat().st_size) for path in files_below(folder))


def _listed(location: Location) -> Iterator[Found]:
    from aggregator.aws import translated  # noqa: PLC0415 - brings boto3

    client = s3_client()
    try:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=location.bucket, Prefix=location.key)
        with translated(target=f"s3://{location.bucket}/{location.key}"):
            for page in pages:
                for found in page.get("Contents", []):
                    if may_be_bundle(found["Key"]):
                        yield Found(f"s3://{location.bucket}/{found['Key']}", found["Size"])
    finally:
        client.close()
