"""`bundle://`: a path is a key and nothing else, and every member comes out as it is or not at all."""

import gc
import os
import pickle
import random
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import pytest
from fsspec.registry import _registry  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.bundles import filesystem
from aggregator.bundles.filesystem import BundleFileSystem
from aggregator.bundles.layout import BLOCK_SIZE
from aggregator.exceptions import BundleFormatError, OpeningError
from aggregator.reader import Bundle, Member
from tests.support import ROOT
from tests.support.bundles import write_bundle
from tests.support.world import World

MEMBERS = {
    "orders/08/1.json": b'{"n": 1}\n',
    "orders/08/2.json": b'{"n": 2}',
    "orders/09/1.json": b"",
    "data[1].json": b"one",
    "data1.json": b"another",
    "größe": b"42",
}
ODD = [
    "/abs",
    "//two",
    "a//b",
    "a/b",
    "a/",
    "a",
    "../up",
    "./here",
    "x/../y",
    "b::c",
    "*",
    "[!a]",
    "q?",
    " ",
    "x\ny",
    "%2F",
]

Open = Callable[..., BundleFileSystem]


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    """Register it, as the entry point does once the package is installed."""
    fsspec.register_implementation("bundle", BundleFileSystem, clobber=True)
    yield
    _registry.pop("bundle")


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """A file system over a bundle of these members, `bundle.gz`."""

    def opened(members: Mapping[str, bytes] = MEMBERS) -> BundleFileSystem:
        write_bundle(tmp_path / "bundle.gz", members)
        return fsspec.filesystem("bundle", fo=str(tmp_path / "bundle.gz"))  # type: ignore[no-any-return]

    return opened


def test_the_entry_point_names_the_file_system() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    (path,) = project["entry-points"]["fsspec.specs"].values()

    assert project["entry-points"]["fsspec.specs"] == {"bundle": "aggregator.bundles.filesystem:BundleFileSystem"}
    assert getattr(filesystem, path.partition(":")[2]) is BundleFileSystem


def test_a_member_is_opened_in_a_chain_over_a_file_and_over_another_file_system(opened: Open, tmp_path: Path) -> None:
    opened()
    fsspec.filesystem("memory").pipe("/hour/bundle.gz", (tmp_path / "bundle.gz").read_bytes())

    local = f"file://{tmp_path}/bundle.gz"
    for chained in (local, str(tmp_path / "bundle.gz"), "memory://hour/bundle.gz", f"simplecache::{local}"):
        with fsspec.open(f"bundle://orders/08/1.json::{chained}") as file:
            assert file.read() == MEMBERS["orders/08/1.json"]
        names = [one.path for one in fsspec.open_files(f"bundle://orders/*/1.json::{chained}")]
        assert names == ["orders/08/1.json", "orders/09/1.json"]


@pytest.mark.integration
def test_s3_without_options_is_read_as_bundle_open_does(
    opened: Open, tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Named(fsspec.AbstractFileSystem):  # type: ignore[misc]
        """fsspec looks for a file system of each protocol of a chain (s3fs); nothing is read with it."""

        protocol = "s3"

    opened()
    world.s3.put_object(Bucket=world.distribution, Key="h/b.gz", Body=(tmp_path / "bundle.gz").read_bytes())
    monkeypatch.setitem(_registry, "s3", Named)
    url = f"s3://{world.distribution}/h/b.gz"

    with world.watched() as calls, fsspec.open(f"bundle://größe::{url}") as file:
        body = file.read()

    assert (body, calls) == (b"42", ["GetObject"])
    assert fsspec.filesystem("bundle", fo=url).cat("größe") == b"42"


def test_members_are_listed_as_files_in_folders(opened: Open) -> None:
    system = opened()

    assert system.ls("", detail=False) == ["data1.json", "data[1].json", "größe", "orders"]
    assert system.ls("bundle://orders/", detail=False) == ["orders/08", "orders/09"]
    assert system.find("orders") == ["orders/08/1.json", "orders/08/2.json", "orders/09/1.json"]
    assert system.find("orders", maxdepth=1, withdirs=True) == ["orders", "orders/08", "orders/09"]
    assert system.glob("orders/**/1.json") == ["orders/08/1.json", "orders/09/1.json"]
    assert system.glob("orders/*/") == ["orders/08", "orders/09"]
    assert [(top, files) for top, _, files in system.walk("orders")] == [
        ("orders", []),
        ("orders/08", ["1.json", "2.json"]),
        ("orders/09", ["1.json"]),
    ]
    assert (system.isdir("orders"), system.isfile("orders/08/1.json"), system.exists("orders/10")) == (
        True,
        True,
        False,
    )


def test_a_file_is_as_large_as_the_member_in_the_text_and_as_old_as_the_bundle(opened: Open) -> None:
    system = opened()

    info = system.info("größe")

    assert (info["size"], info["type"], info["bucket"]) == (2, "file", "source")
    assert f"{system.modified('größe'):%Y-%m-%dT%H:%M}" == "2026-11-23T11:00"


def test_several_members_come_at_once(opened: Open) -> None:
    system = opened()

    assert system.cat("orders/08/*") == {key: MEMBERS[key] for key in ("orders/08/1.json", "orders/08/2.json")}
    assert system.cat("orders", recursive=True) == {key: body for key, body in MEMBERS.items() if key[:2] == "or"}
    assert system.cat_ranges(["größe", "größe", "data1.json"], [0, 1, -3], [1, 9, None]) == [b"4", b"2", b"her"]


def test_ranges_of_one_member_read_it_once(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    system = opened()
    read: list[str] = []
    monkeypatch.setattr(Bundle, "_chunks", _noting(Bundle._chunks, read))

    found = system.cat_ranges(["data1.json"] * 3 + ["größe"], [0, 1, 2, 1], [1, 2, 3, 2])

    assert (found, read) == ([b"a", b"n", b"o", b"2"], ["data1.json", "größe"])


def test_a_path_that_names_nothing_is_an_error_of_its_own(opened: Open) -> None:
    system = opened()

    found = system.cat(["größe", "missing"], on_error="return")

    assert (found["größe"], type(found["missing"])) == (b"42", FileNotFoundError)
    for read in (system.cat_file, system.info, system.open, system.ls):
        with pytest.raises(FileNotFoundError):
            read("/größe")
    with pytest.raises(IsADirectoryError):
        system.cat("orders")


def test_a_pattern_that_is_a_key_is_that_member(opened: Open, tmp_path: Path) -> None:
    system = opened()

    assert (system.cat("data[1].json"), system.glob("data[1].json")) == (b"one", ["data[1].json"])
    assert system.expand_path("data[1].json", recursive=True) == ["data[1].json"]
    (file,) = fsspec.open_files(f"bundle://data[1].json::file://{tmp_path}/bundle.gz")
    with file as one:
        assert one.read() == b"one"


def test_odd_keys_are_all_listed_and_each_gives_its_own_bytes(opened: Open) -> None:
    members = {key: str(number).encode() for number, key in enumerate(ODD)}

    system = opened(members)

    walked = [f"{top}/{name}" if top else name for top, _, files in system.walk("") for name in files]
    assert system.find("") == sorted(walked) == sorted(ODD)
    assert {key: system.cat_file(key) for key in ODD} == members
    assert {key: system.cat(key) for key in ODD} == members
    assert {key: system.open(key).read() for key in ODD} == members


@settings(max_examples=60)
@given(st.sets(st.text("/.a*[:", max_size=6), min_size=1, max_size=8), st.text("/.a*[:", max_size=6))
def test_no_path_gives_another_member(tmp_path_factory: pytest.TempPathFactory, keys: set[str], other: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.gz"
    write_bundle(path, {key: key.encode() for key in keys})

    system = BundleFileSystem(str(path))

    assert system.find("") == sorted(keys)
    assert {key: system.cat_file(f"bundle://{key}") for key in keys} == {key: key.encode() for key in keys}
    if other not in keys:
        with pytest.raises(OSError, match="director"):
            system.cat_file(other)


def test_a_key_that_fsspec_would_cut_is_an_error_and_never_the_other_member(opened: Open, tmp_path: Path) -> None:
    system = opened({"bundle://x": b"hidden", "x": b"1", "bundle://bundle://y": b"deeper", "y::x": b"2", "z": b"3"})

    for path in ("x", "bundle://x", "bundle://bundle://x", "y", "bundle://bundle://y"):
        with pytest.raises(OpeningError, match="has no path"):
            system.cat_file(path)
    for key in ("y::x", "y::x.json"):
        with pytest.raises(OpeningError, match="a key with :: has no path in a chain"):
            fsspec.open(f"bundle://{key}::file://{tmp_path}/bundle.gz")
    assert (system.cat_file("y::x"), system.cat_file("z")) == (b"2", b"3")


@pytest.mark.parametrize("key", ["../up", "/abs", "a/../../up", "a//b", "..\\up"])
def test_no_key_makes_a_file_outside_of_the_folder_that_it_is_copied_to(key: str, opened: Open, tmp_path: Path) -> None:
    system = opened({key: b"1"})
    before = set(tmp_path.rglob("*"))

    with pytest.raises((OpeningError, ValueError), match=r"use aggregator bundle extract|outside the destination"):
        system.get("", str(tmp_path / "out"), recursive=True)

    assert {path.name for path in set(tmp_path.rglob("*")) - before} <= {"out", "a"}
    with pytest.raises(OpeningError, match="use aggregator bundle extract"):
        system.get_file(key, str(tmp_path / "out" / key))


def test_members_are_copied_to_files(opened: Open, tmp_path: Path) -> None:
    opened().get("orders", str(tmp_path / "out"), recursive=True)

    files = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.glob("out/**/*.json")}
    assert files == {f"out/{key[7:]}": body for key, body in MEMBERS.items() if key.startswith("orders/")}


def test_a_bundle_is_read_only(opened: Open) -> None:
    system = opened()

    with pytest.raises(OSError, match="Read-only"):
        system.open("new", "wb")
    with pytest.raises(OSError, match="Read-only"):
        system.pipe("größe", b"43")


@pytest.fixture
def large(opened: Open, monkeypatch: pytest.MonkeyPatch) -> tuple[BundleFileSystem, bytes]:
    """A member that is handed out a block at a time, as one larger than the window is."""
    monkeypatch.setattr(filesystem, "WINDOW", 1_000)
    body = random.Random(5).randbytes(3 * BLOCK_SIZE)
    return opened({"before": b"1", "large": body, "after": b"2"}), body


def test_a_large_member_is_a_seekable_file(large: tuple[BundleFileSystem, bytes]) -> None:
    system, body = large

    with system.open("large") as file:
        assert (file.seek(-5, os.SEEK_END), file.read()) == (len(body) - 5, body[-5:])
        assert (file.seek(BLOCK_SIZE - 2), file.read(4), file.tell()) == (
            BLOCK_SIZE - 2,
            body[BLOCK_SIZE - 2 : BLOCK_SIZE + 2],
            BLOCK_SIZE + 2,
        )
        assert (file.seek(0), file.read()) == (0, body)
        assert file.read() == b""
        with pytest.raises(OSError, match="Invalid"):
            file.seek(-1)
    assert system.cat_file("large", 7, -7) == body[7:-7]
    assert system.cat_file("large", 9, 3) == b""


def test_a_range_of_a_large_member_reads_its_blocks_and_no_other_and_who_reads_on_reads_ahead(
    large: tuple[BundleFileSystem, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    system, body = large
    fetched: list[int] = []
    fetch = system.bundle._fetch._fetch

    def counted(at: int, length: int) -> bytes:
        fetched.append(length)
        return fetch(at, length)

    monkeypatch.setattr(system.bundle._fetch, "_fetch", counted)

    alone = system.cat_file("large", BLOCK_SIZE + 5, BLOCK_SIZE + 10)
    both = system.cat_file("large", 5, BLOCK_SIZE + 10)
    with system.open("large") as file:
        whole = file.read(10) + file.read()

    assert (alone, both, whole) == (body[BLOCK_SIZE + 5 : BLOCK_SIZE + 10], body[5 : BLOCK_SIZE + 10], body)
    assert [length // BLOCK_SIZE for length in fetched] == [1, 2, 1]  # of four, the last of which has two bytes


def test_damage_is_an_error_before_the_last_byte_of_a_file(
    large: tuple[BundleFileSystem, bytes], tmp_path: Path
) -> None:
    """Random bytes are stored as they are, so a changed bit inflates well: the CRC-32 alone finds it."""
    _, body = large
    damaged = bytearray((tmp_path / "bundle.gz").read_bytes())
    damaged[damaged.index(body[100:120])] ^= 1
    (tmp_path / "bundle.gz").write_bytes(damaged)
    system = BundleFileSystem(str(tmp_path / "bundle.gz"))

    with pytest.raises(BundleFormatError), system.open("large") as file:
        file.read()
    with pytest.raises(BundleFormatError):
        system.cat(["large", "after"])
    found: dict[str, Any] = system.cat(["large", "after"], on_error="return")
    assert (type(found["large"]), found["after"]) == (BundleFormatError, b"2")


def test_a_crafted_bundle_does_not_make_folders_without_end(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "MOST_FOLDERS", 300)
    system = opened({f"{number}/" + "a/" * 200: b"" for number in range(3)})

    assert len(system.find("")) == 3
    with pytest.raises(OpeningError, match="more folders than are listed"):
        system.find("", withdirs=True)


def test_a_file_system_goes_to_another_process_and_closes_its_bundle(opened: Open) -> None:
    """Warnings are errors: a file that is left open when it is forgotten would be one."""
    again = pickle.loads(pickle.dumps(opened()))
    bundle = again.bundle
    file = again.open("größe")

    del again
    gc.collect()

    assert (file.read(), bundle._fetch.closed) == (b"42", True)


def test_what_is_not_a_bundle_is_said(tmp_path: Path) -> None:
    (tmp_path / "no.gz").write_bytes(b"no")
    fsspec.filesystem("memory").pipe("/no.gz", b"no")

    for chained in (f"file://{tmp_path}/no.gz", "memory://no.gz"):
        with pytest.raises(BundleFormatError, match="not a bundle"):
            fsspec.open(f"bundle://a::{chained}").open()
    with pytest.raises(OpeningError, match="there is no such file"):
        fsspec.open("bundle://a::memory://missing.gz").open()


def _noting(chunks: Callable[..., Iterator[bytes]], read: list[str]) -> Callable[..., Iterator[bytes]]:
    def noting(bundle: Bundle, member: Member, until: int) -> Iterator[bytes]:
        read.append(member.key)
        return chunks(bundle, member, until)

    return noting
