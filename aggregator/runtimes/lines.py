"""Standard output as whole lines: no other thread or process writes into the middle of one."""

import io
import os
import threading
from collections.abc import Callable


class Lines(io.TextIOBase):
    """A text stream that hands each line on as a whole, with its line feed, however many writes make one."""

    def __init__(self, hand_on: Callable[[str], object]) -> None:
        self._hand_on = hand_on
        self._begun = threading.local()  # by each thread: `print` writes a line and its end one after the other

    def write(self, text: str) -> int:
        """Add `text`, and hand on the lines that are complete."""
        *lines, self._begun.text = (getattr(self._begun, "text", "") + text).split("\n")
        for line in lines:
            self._hand_on(line + "\n")
        return len(text)


def write_at_once(descriptor: int) -> Callable[[str], None]:
    """
    Writes a text to a file descriptor, by one call.

    Processes that share a pipe do not mix texts of up to PIPE_BUF bytes, 4,096 on Linux (pipe(7)); longer ones only
    while the pipe is full.
    """

    def write(text: str) -> None:
        data = text.encode(errors="backslashreplace")
        while data:
            data = data[os.write(descriptor, data) :]

    return write
