"""Which objects may be deleted, and in which order."""

from contextlib import closing
from pathlib import Path

from aggregator.operations.audit.database import Database


def test_versions_are_as_old_as_the_listing_says_whatever_their_times(tmp_path: Path) -> None:
    """A multipart upload that began before another put and ended after it has the earlier time, and is the newer."""
    with closing(Database(tmp_path, memory="256MB")) as database:
        listed = [("upload", 1.0), ("put", 2.0)]
        database.add("objects", ((number, "a", name, name, "e", 1, time) for number, (name, time) in enumerate(listed)))

        assert [(one.version, one.older) for one in database.candidates(9)] == [("put", 0), ("upload", 1)]
