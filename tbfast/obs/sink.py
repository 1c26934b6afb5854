"""Where log lines go: standard error, without ever blocking the process that says them."""

import os
import select
import sys
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final

from tbfast import limits

_TICK_S: Final = 1.0


class ThreadedSink:
    """A bounded queue of lines and one writer thread; a line that finds it full is dropped.

    tick: called about once a second in the writer thread; what it returns is written too.
    lost: called there for each line that could not be written (a full disk, a reader that left).
    Create it after fork.
    """

    def __init__(self, fd: int, tick: Callable[[], list[bytes]], lost: Callable[[], None]) -> None:
        self._fd = fd
        self._tick = tick
        self._lost = lost
        self._abandoned = False
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> bool:
        """Queues a line; False if it was dropped."""
        if self._lines.qsize() >= limits.LOG_QUEUE_LINES:
            return False
        self._lines.put(line)
        return True

    def close(self, timeout_s: float) -> None:
        """Writes what is queued, as far as the time allows."""
        self._lines.put(None)
        self._thread.join(timeout_s)
        self._abandoned = True

    def _run(self) -> None:
        ticked = time.monotonic()
        while True:
            try:
                line = self._lines.get(timeout=_TICK_S)
            except Empty:
                line = b""
            now = time.monotonic()
            if line is None or now - ticked >= _TICK_S:
                ticked = now
                for extra in self._tick():
                    _write_all(self._fd, extra)
            if line is None or self._abandoned:
                return
            if line and not _write_all(self._fd, line):
                self._lost()


class DirectSink:
    """Writes at once if that cannot block, else drops; for a process that must have no threads."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, line: bytes) -> bool:
        """False if the line was dropped because nobody reads."""
        return _takes_a_line(self._fd) and _write_all(self._fd, line)

    def close(self, timeout_s: float) -> None:
        """Nothing is held back."""


def say_now(text: str) -> None:
    """To standard output, at most a line's bytes; OSError if nobody reads it: it never waits."""
    if sys.stdout is None or not _takes_a_line(sys.stdout.fileno()):
        raise OSError("nobody reads standard output")
    sys.stdout.write(text)
    sys.stdout.flush()


def _takes_a_line(fd: int) -> bool:
    """A line is at most PIPE_BUF long: a pipe that is writable takes it whole."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    events = poll.poll(0)
    return bool(events and events[0][1] & select.POLLOUT)


def _write_all(fd: int, line: bytes) -> bool:
    view = memoryview(line)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [], _TICK_S)
        except OSError:
            return False
    return True
