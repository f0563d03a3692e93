"""Bundles of given members, in files."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aggregator.pipeline.core import FetchedObject, Packer
from aggregator.pipeline.planning import Plan
from aggregator.schemas import ObjectRef


def write_bundle(
    path: Path, members: Mapping[str, bytes], *, hour: str = "11", bucket: str = "source", framing: str = "lines"
) -> bytes:
    """Write a bundle to a file, whose folder is made; its name and hour are in its index."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(1) as executor, path.open("w+b") as spool:
        packer = Packer(spool, limit=10**9, level=1, framing=framing, executor=executor)  # type: ignore[arg-type]
        for key, body in members.items():
            packer.add(FetchedObject(ObjectRef(bucket, key), len(body)), [body])
        name = "/".join(path.parts[-3:])
        packer.finish(Plan(name, f"2026-11-23T{hour}:00:00Z", f"request-{hour}", ()))
    return path.read_bytes()
