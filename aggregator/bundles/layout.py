"""
Where things are in the file of a bundle, to the byte, and in a bucket of bundles: what writers and readers agree on.

docs/bundle-format.md describes the format. Nothing here needs more than Python, so that a bundle is read without what
it takes to write one.
"""

import re
import struct

BUNDLE_KEY = re.compile(r"\d{4}/\d\d/\d\d/\d\d/bundle-[\w-]+\.gz", re.ASCII)
"""The key under which the function publishes a bundle (`pipeline/planning.py`); a repacked bundle may have any."""

PROBE_KEY = "doctor/conditional-write-probe.gz"
"""The key of the empty bundle that `aggregator doctor` puts, to learn whether a condition is honoured; it stays."""

HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
"""A gzip header with no name and no time (RFC 1952), so that equal members give equal bytes."""

END = b"\x03\x00"
"""The final, empty deflate block (RFC 1951)."""

INDEX_ID, FOOTER_ID = b"AI", b"AF"
"""Names of our FEXTRA subfields (RFC 1952, section 2.3.1.1)."""

FOOTER = struct.Struct("<8sQQQI32s")
"""Magic, where the index begins, bytes of it in the file, deflated, inflated, and SHA-256 of all before the footer."""

MAGIC = b"AGGRBNDL"

EMPTY_MEMBER_SIZE = len(HEADER) + 2 + 4 + len(END) + 8

FOOTER_SIZE = EMPTY_MEMBER_SIZE + FOOTER.size


def may_be_bundle(key: str) -> bool:
    """Whether what has that key, or path, in a bucket or folder of bundles is one of them."""
    return key.endswith(".gz") and not key.endswith(PROBE_KEY)


def empty_member(name: bytes, extra: bytes) -> bytes:
    """A gzip member with no content that carries `extra`, at most 65,531 bytes, in a FEXTRA subfield called `name`."""
    field = name + struct.pack("<H", len(extra)) + extra
    return HEADER[:3] + b"\x04" + HEADER[4:] + struct.pack("<H", len(field)) + field + END + bytes(8)


BLOCK_SIZE = 256 * 1024
"""Bytes of text in a block: what one thread compresses, and what a reader inflates to get at one member."""

EXTRA_SIZE = 16 * 1024 - 4
"""Most index bytes in one empty member: DuckDB 2.0 refuses a gzip header of more than 32 KiB."""
