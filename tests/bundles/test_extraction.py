"""Whatever keys say, members are written below the folder, each under a name of its own, byte for byte."""

import errno
import io
import os
import random
import shutil
import unicodedata
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.bundles.destination import Destination, ExtractionError, new_file
from aggregator.bundles.extraction import MOST_BYTES, Extracted, extract_members, safe_names
from aggregator.bundles.layout import BLOCK_SIZE
from aggregator.pipeline.core import FetchedObject, Packer
from aggregator.pipeline.planning import Plan
from aggregator.reader import Bundle
from aggregator.schemas import ObjectRef

HOSTILE = [
    "../../etc/passwd",
    "/etc/passwd",
    "//etc//passwd",
    "a/../../b",
    ".",
    "..",
    "",
    "/",
    "folder/",
    "\\\\server\\share",
    "..\\..\\windows",
    "nul\x00byte",
    "line\nfeed\x1b[2J",
    "CON",
    "con.txt",
    "x/NUL",
    "Lpt1.tar.gz",
    "com\u00b9",
    "aux .x",
    "dots...",
    "space ",
    "é/" + "é" * 500,
    "x" * 1_000 + ".json",
    "x" * 1_001 + ".json",
    "/".join("a" * 512),
    "Same",
    "same",
    "SAME",
    "Stra\u00dfe",
    "STRASSE",
    "caf\u00e9",
    "cafe\u0301",
    "file",
    "file/inside",
    "file/inside/deeper",
    "inside/file",
    "INSIDE",
    "same~2",
    ".hidden",
]

KEYS = st.lists(
    st.one_of(st.sampled_from(HOSTILE), st.text("aA./\\é\u0301~2\x00: ", max_size=12), st.text(max_size=40)),
    max_size=12,
)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("in/2026/a b+c=é.json", "in/2026/a b+c=é.json"),
        ("2026-11-23T14:00:00Z.json", "2026-11-23T14:00:00Z.json"),
        (".hidden/..data", "_.hidden/_..data"),
        (".git/config", "_.git/config"),
        ("a/.GIT/hooks", "a/_.GIT/hooks"),
        ("GIT~1/config", "_GIT~1/config"),
        (".g\u200cit/config", "_.g_it/config"),
        ("\uff0egit/config", "_\uff0egit/config"),
        ("-rf", "_-rf"),
        ("--checkpoint-action=exec=sh x", "_--checkpoint-action=exec=sh x"),
        ("a\u202egpj.exe", "a_gpj.exe"),
        ("a\ufeffb\u2066c\u2028d\u009be\u3164f", "a_b_c_d_e_f"),
        ("\uff23\uff2f\uff2e", "_\uff23\uff2f\uff2e"),
        ("../a", "__/a"),
        ("/a", "_/a"),
        ("a//b/", "a/_/b/_"),
        ("a/./b", "a/_/b"),
        ("", "_"),
        ("con", "_con"),
        ("aux.h", "_aux.h"),
        ("console", "console"),
        ("com10", "com10"),
        ("a.", "a_"),
        ("a. ", "a__"),
        ("a\x00b\nc\\d", "a_b_c_d"),
    ],
)
def test_a_key_becomes_a_safe_name_and_a_safe_one_is_kept(key: str, name: str) -> None:
    assert ["/".join(parts) for parts in safe_names([key], windows=False)] == [name]


def test_what_windows_refuses_is_changed_there() -> None:
    assert safe_names(['C:a<b>"|?*'], windows=True) == [("C_a_b_____",)]


def test_keys_that_would_meet_are_told_apart_in_their_order() -> None:
    keys = ["a.json", "A.json", "a.json", "b", "b/c", "B", "é", "e\u0301", "a~2.json"]

    names = ["/".join(parts) for parts in safe_names(keys)]

    assert names == ["a~3.json", "A~2.json", "a.json", "b", "b~2/c", "B~3", "é", "e\u0301~2", "a~2~2.json"]


def test_of_versions_of_one_key_the_last_has_the_plain_name_as_the_reader_has_it(
    tmp_path: Path, executor: Executor
) -> None:
    bundle = _bundle(["a", "b", "a", "a"], [b"1", b"other", b"2", b"3"], executor)

    done = {one.path.name: one.path.read_bytes() for one in extract_members(bundle, bundle, tmp_path)}

    assert done == {"a": b"3", "a~2": b"1", "a~3": b"2", "b": b"other"}
    assert bundle["a"] == done["a"]


def test_a_name_is_kept_that_only_looks_strange() -> None:
    keys = ["a.b", "a-b", "~a", "digit~1", "é😀", "日本語", "$(x)"]

    assert safe_names(keys, windows=False) == [(key,) for key in keys]


def test_more_bytes_than_are_allowed_or_than_the_disk_has_are_not_begun(
    tmp_path: Path, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = _bundle(["a", "b"], [b"12", b"34"], executor)

    with pytest.raises(ExtractionError, match="than --max-bytes allows"):
        list(extract_members(bundle, bundle, tmp_path, max_bytes=3))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3))
    with pytest.raises(ExtractionError, match="no room"):
        list(extract_members(bundle, bundle, tmp_path))

    assert list(tmp_path.iterdir()) == []
    assert [one.fault for one in extract_members(bundle, [bundle.entries[0]], tmp_path, max_bytes=2)] == [None]


def test_a_file_that_appears_while_another_is_written_is_kept(tmp_path: Path) -> None:
    with pytest.raises(ExtractionError, match="taken"), new_file(tmp_path / "a"):
        (tmp_path / "a").write_bytes(b"old")

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}


def test_a_folder_that_is_swapped_for_a_link_meanwhile_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "outside").mkdir()

    with Destination.at(tmp_path) as destination, destination.new_file(("in", "a")) as file:
        file.write(b"1")
        (tmp_path / "in").rename(tmp_path / "moved")
        (tmp_path / "in").symlink_to(tmp_path / "outside")

    assert list((tmp_path / "outside").iterdir()) == []
    assert (tmp_path / "moved" / "a").read_bytes() == b"1"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_system_without_handles_or_hard_links_writes_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no hard links")

    for number, (handles, link) in enumerate([(False, os.link), (True, no_links)]):
        monkeypatch.setattr("aggregator.bundles.destination._HANDLES", handles)
        monkeypatch.setattr(os, "link", link)
        with Destination.at(tmp_path) as destination:
            with destination.new_file((f"{number}", "a"), overwrite=overwrite) as file:
                file.write(b"1")
            if not overwrite:
                with pytest.raises(ExtractionError), destination.new_file((f"{number}", "a")):
                    raise AssertionError
            (tmp_path / f"link{number}").symlink_to(tmp_path)
            with pytest.raises(ExtractionError), destination.new_file((f"link{number}", "a")):
                raise AssertionError

    assert sorted(path.read_bytes() for path in tmp_path.glob("[01]/*")) == [b"1", b"1"]


def test_a_name_that_is_too_long_is_cut_and_stays_unlike_its_neighbour() -> None:
    names = safe_names(["x" * 1_000 + ".json", "x" * 1_001 + ".json", "é" * 500])

    assert len({names[0], names[1]}) == 2
    assert all(name.endswith(".json") for (name,) in names[:2])
    assert all(len(name.encode()) <= MOST_BYTES for (name,) in names)


def test_a_hundred_thousand_like_keys_are_told_apart_in_no_time() -> None:
    names = safe_names(["a"] * 100_000)

    assert len(set(names)) == 100_000


@given(KEYS)
def test_whatever_the_keys_the_names_are_safe_and_unlike_on_any_disk(keys: list[str]) -> None:
    names = safe_names(keys)

    folded = [tuple(_folded(part) for part in parts) for parts in names]
    folders = {parts[:depth] for parts in folded for depth in range(1, len(parts))}
    assert len(set(folded)) == len(keys)
    assert set(folded) & folders == set()
    for part in (part for parts in names for part in parts):
        assert part not in {"", ".", ".."}
        assert not set(part) & {"/", "\\", "\x00", "\n"}
        assert len(part.encode()) < 255
        assert part[-1] not in ". "


@given(KEYS)
def test_the_same_keys_have_the_same_names(keys: list[str]) -> None:
    assert safe_names(keys) == safe_names(keys)


def test_hostile_keys_are_written_below_the_folder_byte_for_byte(tmp_path: Path, executor: Executor) -> None:
    folder = tmp_path / "very" / "deep" / "folder"
    bodies = [b"%d" % number for number in range(len(HOSTILE))]
    bundle = _bundle(HOSTILE, bodies, executor)

    done = list(extract_members(bundle, bundle, folder))

    assert [one.fault for one in done] == [None] * len(HOSTILE)
    assert [one.path.read_bytes() for one in done] == bodies
    assert all(one.path.resolve().is_relative_to(folder.resolve()) for one in done)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == len(HOSTILE)
    assert {one.member.key for one in done if not one.renamed} >= {"Same", "Stra\u00dfe", "caf\u00e9", "file"}
    assert {one.member.key for one in done if one.renamed} >= {
        "../../etc/passwd",
        "CON",
        "same",
        "file/inside",
        "folder/",
    }


def test_a_link_in_the_folder_is_not_followed(tmp_path: Path, executor: Executor) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_bytes(b"old")
    folder = tmp_path / "folder"
    (folder / "b").mkdir(parents=True)
    (folder / "a").symlink_to(outside)
    (folder / "b" / "c").symlink_to(outside / "new")
    (folder / "d").symlink_to(outside / "victim")
    bundle = _bundle(["a/x", "a/y/z", "b/c", "d", "e"], [b"1", b"2", b"3", b"4", b"5"], executor)

    refused = [one.fault is not None for one in extract_members(bundle, bundle, folder)]
    replaced = [one.fault is not None for one in extract_members(bundle, bundle, folder, overwrite=True)]

    assert (refused, replaced) == ([True, True, True, True, False], [True, True, False, False, False])
    assert [path.name for path in outside.iterdir()] == ["victim"]
    assert (outside / "victim").read_bytes() == b"old"
    assert ((folder / "b" / "c").read_bytes(), (folder / "d").read_bytes()) == (b"3", b"4")


def test_a_folder_that_is_a_link_itself_is_what_the_user_wants(tmp_path: Path, executor: Executor) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    bundle = _bundle(["a/b"], [b"1"], executor)

    (done,) = extract_members(bundle, bundle, tmp_path / "link")

    assert (done.fault, (tmp_path / "real" / "a" / "b").read_bytes()) == (None, b"1")


def test_a_file_that_is_there_is_kept_unless_it_is_to_be_replaced(tmp_path: Path, executor: Executor) -> None:
    bundle = _bundle(["a", "b"], [b"new", b"new"], executor)
    (tmp_path / "a").write_bytes(b"old")

    first = [one.fault for one in extract_members(bundle, bundle, tmp_path)]
    kept = (tmp_path / "a").read_bytes()
    second = [one.fault for one in extract_members(bundle, bundle, tmp_path, overwrite=True)]

    assert first == [f"the name is taken already (path={str(tmp_path / 'a')!r})", None]
    assert (kept, second, (tmp_path / "a").read_bytes()) == (b"old", [None, None], b"new")


def test_a_damaged_member_leaves_nothing_and_the_others_are_written(tmp_path: Path, executor: Executor) -> None:
    bodies = [random.Random(number).randbytes(BLOCK_SIZE) for number in range(3)]
    bundle = _bundle(["a", "b", "c"], bodies, executor, turned=BLOCK_SIZE + 1_000)

    done = list(extract_members(bundle, bundle, tmp_path))

    fault = "a member is not what the index says (key='b')"
    assert [one.fault for one in done] == [None, fault, None]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]


def test_a_member_has_the_same_name_whichever_others_are_extracted(tmp_path: Path, executor: Executor) -> None:
    bundle = _bundle(["a", "A"], [b"1", b"2"], executor)

    (alone,) = extract_members(bundle, [bundle.entries[1]], tmp_path)

    assert alone == Extracted(bundle.entries[1], tmp_path / "A~2", renamed=True, fault=None)


def test_two_members_alike_in_everything_are_written_once(tmp_path: Path, executor: Executor) -> None:
    bundle = _bundle(["a", "a"], [b"", b""], executor, framing_none=True)

    done = list(extract_members(bundle, bundle, tmp_path))

    assert [one.fault for one in done] == [None]


def test_a_file_that_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    def write() -> None:
        with new_file(tmp_path / "a") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()

    assert list(tmp_path.iterdir()) == []


def test_a_new_file_does_not_take_the_place_of_another(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("nowhere")

    with pytest.raises(ExtractionError), new_file(tmp_path / "a"):
        raise AssertionError


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def _bundle(
    keys: Sequence[str], bodies: Sequence[bytes], executor: Executor, *, turned: int = 0, framing_none: bool = False
) -> Bundle:
    spool = io.BytesIO()
    packer = Packer(spool, limit=10**9, level=1, framing="none" if framing_none else "lines", executor=executor)
    for key, body in zip(keys, bodies, strict=True):
        packer.add(FetchedObject(ObjectRef("source", key), len(body), "e"), [body])
    packer.finish(Plan("b.gz", "2026-11-23T11:54:56Z", "r", ()))
    data = bytearray(spool.getvalue())
    data[turned] ^= 1 if turned else 0
    return Bundle.open(io.BytesIO(data))
