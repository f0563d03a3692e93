"""Lines of many threads and processes on one standard output."""

import os
import subprocess
import sys
import threading

from aggregator.runtimes.lines import Lines, write_at_once
from tests.support import ROOT

WRITER = """
import sys, threading
from aggregator.runtimes.lines import Lines, write_at_once

sys.stdout = Lines(write_at_once(1))

def write(letter):
    for _ in range(200):
        print(letter * 3000)

threads = [threading.Thread(target=write, args=(letter,)) for letter in sys.argv[1]]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def test_a_line_is_handed_on_as_a_whole_however_it_is_written() -> None:
    handed: list[str] = []
    lines = Lines(handed.append)

    for piece in ("a", "b\nc", "", "\n\nd"):
        lines.write(piece)

    assert handed == ["ab\n", "c\n", "\n"]


def test_a_thread_does_not_end_the_line_of_another() -> None:
    handed: list[str] = []
    lines = Lines(handed.append)

    lines.write("begun ")
    other = threading.Thread(target=lines.write, args=("other\n",))
    other.start()
    other.join()
    lines.write("ended\n")

    assert handed == ["other\n", "begun ended\n"]


def test_processes_and_threads_that_share_a_pipe_do_not_mix_their_lines() -> None:
    reading, writing = os.pipe()
    program = [sys.executable, "-u", "-c", WRITER]
    writers = [subprocess.Popen([*program, letters], stdout=writing, cwd=ROOT) for letters in ("ab", "cd", "ef")]
    os.close(writing)

    with os.fdopen(reading, encoding="ascii") as pipe:
        lines = pipe.read().splitlines()

    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert sorted(lines) == [letter * 3000 for letter in "abcdef" for _ in range(200)]


def test_what_cannot_be_encoded_is_escaped() -> None:
    reading, writing = os.pipe()

    write_at_once(writing)("\ud800é\n")
    os.close(writing)

    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"\\ud800\xc3\xa9\n"
