"""
Upload the files that come or change below a folder.

    new or changed ──same at the next look──▶ uploaded ──other time, size or inode──▶ changed

A file that is still being written differs from look to look, so it waits. A program that pauses while it writes
should rename the file into the folder when it is complete.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from aggregator.runtimes.local.files import Files, left_out_in_words, look

State = tuple[int, int, int]
"""When a file was changed last, its size and its inode: a change of any is another version."""

_UPLOADERS = 8
_SHARE = 9
"""How many times as long as a look the pause after it is: a folder of many files takes a tenth of a core at most."""


class Watcher:
    """Looks at `folder`, at most once in `every` seconds, and uploads what two looks find unchanged."""

    def __init__(self, folder: Path, *, out: Path, upload: Callable[[str, Path], None], every: float = 1.0) -> None:
        self._folder, self._out, self._upload, self._every = folder, out, upload, every
        self._last: dict[str, State] = {}
        self._uploaded: dict[str, State] = {}
        self._under_way: dict[str, tuple[State, Future[None]]] = {}
        self._said = set[object]()
        self._next = 0.0
        self._uploaders = ThreadPoolExecutor(_UPLOADERS, thread_name_prefix="upload")

    def look(self) -> Iterator[str]:
        """Look, if it is time; lines about what cannot be uploaded, each once."""
        yield from self._finished()
        began = time.monotonic()
        if began < self._next:
            return
        found = look(self._folder, out=self._out)
        states = _states(found)
        for key, state in states.items():
            if state == self._last.get(key) and state != self._uploaded.get(key) and key not in self._under_way:
                self._under_way[key] = state, self._uploaders.submit(self._upload, key, found.by_key[key])
        self._last = states
        self._uploaded = {key: state for key, state in self._uploaded.items() if key in states}
        ended = time.monotonic()
        self._next = ended + max(self._every, _SHARE * (ended - began)) if self._every else 0.0
        yield from self._news(found)

    def close(self) -> None:
        """Start no further upload."""
        self._uploaders.shutdown(wait=False, cancel_futures=True)

    def end(self) -> Iterator[str]:
        """Finish the uploads that have begun; a line about what is there and not uploaded."""
        self._uploaders.shutdown(cancel_futures=True)
        yield from self._finished()
        found = _states(look(self._folder, out=self._out))
        if left := sum(state != self._uploaded.get(key) for key, state in found.items()):
            yield f"files not uploaded: {left:,}; run again with --replace to bundle all"

    def _finished(self) -> Iterator[str]:
        """Note the uploads that have ended; one that failed is tried again, unless its file was deleted."""
        for key, (state, upload) in list(self._under_way.items()):
            if not upload.done():
                continue
            del self._under_way[key]
            if upload.cancelled():
                continue
            try:
                upload.result()
                self._uploaded[key] = state
            except FileNotFoundError:
                self._last.pop(key, None)
            except OSError as error:
                yield from self._once(f"cannot read {error.filename}, and will try again: {error.strerror}")

    def _news(self, found: Files) -> Iterator[str]:
        for fault in found.faults:
            yield from self._once(fault)
        left_out = {path: why for path, why in found.left_out.items() if path not in self._said}
        self._said |= left_out.keys()
        yield from left_out_in_words(left_out)

    def _once(self, line: str) -> Iterator[str]:
        if line not in self._said:
            self._said.add(line)
            yield line


def _states(files: Files) -> dict[str, State]:
    """The state of each file by its key, without those that are deleted meanwhile."""
    states = {}
    for key, path in files.by_key.items():
        with suppress(OSError):
            status = path.stat()
            states[key] = status.st_mtime_ns, status.st_size, status.st_ino
    return states
