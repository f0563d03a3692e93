"""Verifying finds every fault and cries no wolf: not on good bundles, and not over eTags that are no MD5."""

import hashlib
import io
import json
import random
import tracemalloc
import zlib
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Literal

import pytest

from aggregator.bundles.layout import BLOCK_SIZE, EXTRA_SIZE, FOOTER, FOOTER_ID, INDEX_ID, MAGIC, empty_member
from aggregator.exceptions import BundleFormatError
from aggregator.pipeline.core import FetchedObject, Packer
from aggregator.pipeline.planning import Plan
from aggregator.reader import Bundle
from aggregator.schemas import ObjectRef

SEED = 20_261_123
KMS = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def varied(executor: Executor) -> bytes:
    """A bundle of 101 members in two blocks, one stored, one deflated."""
    randoms = random.Random(SEED)
    return _pack([_body(randoms) for _ in range(100)] + [randoms.randbytes(BLOCK_SIZE) + bytes(9_000)], executor)


def test_1000_random_bits_are_found(varied: bytes) -> None:
    bits = random.Random(SEED).sample(range(8 * len(varied)), 1_000)

    assert [bit for bit in bits if _fault(_with_bit_turned(varied, bit)) is None] == []


def test_1000_good_bundles_raise_no_alarm(executor: Executor) -> None:
    randoms = random.Random(SEED)

    faults = [_fault(_any_bundle(randoms, executor)) for _ in range(1_000)]

    assert faults == [None] * 1_000


def test_verifying_reads_each_byte_once_and_says_how_far_it_is(varied: bytes) -> None:
    fetches: list[tuple[int, int]] = []
    progress: list[int] = []

    def fetch(at: int, length: int) -> bytes:
        fetches.append((at, length))
        return varied[at : at + length]

    bundle = Bundle(fetch, len(varied))
    opening = len(fetches)
    bundle.verify(progress.append)

    assert fetches[opening:] == [(0, len(varied))]
    assert (sorted(progress), progress[-1]) == (progress, len(varied))


def test_a_file_that_becomes_shorter_meanwhile_is_named(varied: bytes) -> None:
    file = io.BytesIO(varied)
    bundle = Bundle.open(file)
    file.truncate(len(varied) // 2)

    with pytest.raises(BundleFormatError, match="the file has become shorter while it was read"):
        bundle.verify()


def test_the_proof_names_the_sha_256_of_the_file(varied: bytes) -> None:
    assert Bundle.open(io.BytesIO(varied)).verify().sha256 == hashlib.sha256(varied).hexdigest()


def test_etags_that_are_the_md5_of_their_member_are_counted_and_others_told(executor: Executor) -> None:
    bundle = _with_etags(
        [
            (b"put", hashlib.md5(b"put").hexdigest(), False),
            (b"", hashlib.md5(b"").hexdigest(), False),
            (b"kms", KMS, False),
            (b"multipart", f"{KMS}-2", False),
            (b"decoded", KMS, True),
            (b"unknown", None, False),
            (b"express", "AbCdEf", False),
        ],
        executor,
    )

    proof = bundle.verify()

    assert (proof.etags, [entry.key for entry in proof.other_etags]) == (2, ["2"])


def test_a_member_that_is_not_as_long_as_its_object_is_named(executor: Executor) -> None:
    spool = io.BytesIO()
    packer = Packer(spool, limit=10, level=1, framing="lines", executor=executor)
    packer.add(FetchedObject(ObjectRef("source", "cut off"), 4, "e"), [b"abc"])
    packer.finish(Plan("b.gz", "2026-11-23T11:54:56Z", "r", ()))

    assert _fault(spool.getvalue()) == "a member is not as long as its object was"


@pytest.mark.parametrize("block_size", [2**25, 2**40, 2**63 - 1])
def test_blocks_that_claim_to_be_huge_are_refused_before_they_are_inflated(block_size: int, executor: Executor) -> None:
    data = _pack([b"a"], executor)
    fields = json.loads(Bundle.open(io.BytesIO(data)).index.model_dump_json()) | {"block_size": block_size}

    assert _fault(_with_index(data, fields)) == "a block is larger than a block may be"


def test_a_block_that_inflates_to_more_than_a_block_is_not_inflated_further() -> None:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = deflate.compress(bytes(200_000_000)) + deflate.flush(zlib.Z_FULL_FLUSH)
    small = bomb[: BLOCK_SIZE - 1] + b"\x00"
    bundle = Bundle.open(io.BytesIO(_forged(small)))

    tracemalloc.start()
    with pytest.raises(BundleFormatError, match="a block is not as long as the index says"):
        bundle.verify()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 4 * BLOCK_SIZE


def _body(randoms: random.Random) -> bytes:
    size = randoms.choice([0, 1, randoms.randrange(100), randoms.randrange(3_000)])
    body = randoms.randbytes(size) if randoms.random() < 0.5 else b"x" * size
    return body + randoms.choice([b"", b"\n"])


def _any_bundle(randoms: random.Random, executor: Executor) -> bytes:
    """A small bundle with anything that a good one may have."""
    framing: Literal["lines", "none"] = "lines" if randoms.random() < 0.5 else "none"
    level = randoms.randrange(10)
    spool = io.BytesIO()
    packer = Packer(spool, limit=10**9, level=level, framing=framing, executor=executor)
    for number in range(randoms.randrange(8)):
        body, decoded = _body(randoms), randoms.random() < 0.2
        etag = randoms.choice([hashlib.md5(body).hexdigest(), KMS, f"{KMS}-3", "e", None])
        member = ObjectRef(randoms.choice("ab"), randoms.choice(["k", f"{number}/é", "a" * 1_000]))
        size = randoms.randrange(10**6) if decoded else len(body)
        packer.add(
            FetchedObject(member, size, etag, randoms.choice([None, "v"]), encoding="gzip" if decoded else None), [body]
        )
    packer.finish(Plan("b.gz", "2026-11-23T11:54:56Z", "r", ()))
    return spool.getvalue()


def _with_etags(members: Sequence[tuple[bytes, str | None, bool]], executor: Executor) -> Bundle:
    spool = io.BytesIO()
    packer = Packer(spool, limit=10**9, level=1, framing="lines", executor=executor)
    for number, (body, etag, gzipped) in enumerate(members):
        packer.add(
            FetchedObject(ObjectRef("source", str(number)), len(body), etag, encoding="gzip" if gzipped else None),
            [body],
        )
    packer.finish(Plan("b.gz", "2026-11-23T11:54:56Z", "r", ()))
    return Bundle.open(spool)


def _pack(members: Sequence[bytes], executor: Executor) -> bytes:
    spool = io.BytesIO()
    packer = Packer(spool, limit=10**9, level=1, framing="lines", executor=executor)
    for number, body in enumerate(members):
        packer.add(FetchedObject(ObjectRef("source", f"in/{number}"), len(body), hashlib.md5(body).hexdigest()), [body])
    packer.finish(Plan("b.gz", "2026-11-23T11:54:56Z", "r", ()))
    return spool.getvalue()


def _forged(block: bytes) -> bytes:
    """A bundle of one block, whatever it inflates to."""
    fields = {
        "bundle": "b.gz",
        "created": "2026-11-23T11:54:56Z",
        "request_id": "r",
        "framing": "none",
        "text_size": 1,
        "block_size": BLOCK_SIZE,
        "blocks": [len(block)],
        "buckets": [],
        "members": {
            column: []
            for column in ("bucket", "key", "version_id", "etag", "size", "encoding", "start", "length", "crc32")
        },
    }
    return _closed(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff" + block + b"\x03\x00" + bytes(8), fields)


def _with_index(data: bytes, fields: dict[str, object]) -> bytes:
    return _closed(data[: 10 + sum(Bundle.open(io.BytesIO(data)).index.blocks) + 2 + 8], fields)


def _closed(text: bytes, fields: dict[str, object]) -> bytes:
    inflated = json.dumps(fields).encode()
    deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
    deflated = deflate.compress(inflated) + deflate.flush()
    assert len(deflated) <= EXTRA_SIZE
    body = text + empty_member(INDEX_ID, deflated)
    sizes = (len(text), len(body) - len(text), len(deflated), len(inflated))
    return body + empty_member(FOOTER_ID, FOOTER.pack(MAGIC, *sizes, hashlib.sha256(body).digest()))


def _with_bit_turned(data: bytes, bit: int) -> bytes:
    turned = bytearray(data)
    turned[bit // 8] ^= 1 << bit % 8
    return bytes(turned)


def _fault(data: bytes) -> str | None:
    """What opening and verifying find, if anything."""
    try:
        Bundle.open(io.BytesIO(data)).verify()
    except BundleFormatError as error:
        return str(error.args[0])
    return None
