"""Room on the disk: what is used, what is left, and a reserve for the work a full disk needs.

The reserve is a preallocated file in the data directory.  It is given up when the disk is nearly
full, so that deletes, compaction, sealing and shutdown can run, and taken again with new space.
What writers of telemetry may use is counted as if the reserve were always free and never theirs:
giving it up does not let them in, and they stop before the disk is full.  That matters beyond the
reserve: a RocksDB that has met ENOSPC looks for space only every 5 s.
"""

import contextlib
import errno
import os
from pathlib import Path
from typing import Final, NamedTuple

from tbfast import limits
from tbfast.store import rocks
from tbfast.store.layout import Layout

_BLOCK: Final = 512  # unit of st_blocks


class Room(NamedTuple):
    """One look at the file system of a data directory; bytes.

    `available` is what is free plus what the reserve file holds: the same before and after the
    reserve is given up.  `reserve` is what it should hold on a file system of this size.
    """

    size: int
    available: int
    held: int
    reserve: int

    @property
    def low(self) -> int:
        """Less available than this is too little: the oldest windows go, the alarm is on."""
        least = self.reserve + self._headroom * 3 // 2
        return max(least, min(self.size // 10, limits.DISK_LOW_BYTES))

    @property
    def full(self) -> bool:
        """Whether telemetry has to be refused."""
        return self.available < self.reserve + self._headroom

    @property
    def roomy(self) -> bool:
        """Whether telemetry can be accepted again; between `full` and this nothing changes."""
        return self.available >= self.reserve + self._headroom * 5 // 4

    @property
    def _headroom(self) -> int:
        """A write buffer must still fit when telemetry stops.

        RocksDB that fails to flush one goes on only when a whole one is free again.
        """
        return min(limits.DISK_HEADROOM_BYTES, self.size // 4) if self.reserve else 0


class Space:
    """The file system below one data directory, as one process sees it.

    `full`: telemetry is refused; from then on until `look` finds that there is clearly room.
    """

    def __init__(self, layout: Layout, reserve_bytes: int) -> None:
        self._root = layout.root
        self._path = layout.reserve
        self._reserve_bytes = reserve_bytes
        self.full = False
        self._room = self.look()

    def look(self) -> Room:
        """The room there is now; StoreError if the file system does not say."""
        with rocks.translated(self._root):
            found = os.statvfs(self._root)
            held = self._held()
        size = found.f_blocks * found.f_frsize
        room = Room(
            size,
            found.f_bavail * found.f_frsize + held,
            held,
            min(self._reserve_bytes, size // 20),
        )
        self.full = not room.roomy if self.full else room.full
        self._room = room
        return room

    def admits(self, nbytes: int) -> bool:
        """Whether telemetry of that size may be written now.  One system call, 1 us."""
        if self.full:
            return False
        last = self._room
        try:
            found = os.statvfs(self._root)
        except OSError:
            return True  # the write itself says what is wrong
        available = found.f_bavail * found.f_frsize + last.held - nbytes
        self.full = last._replace(available=available).full
        return not self.full

    def _held(self) -> int:
        try:
            return self._path.stat().st_blocks * _BLOCK
        except FileNotFoundError:
            return 0

    def settle(self) -> Room:
        """Gives the reserve up when the disk is full, takes it when there is room again.

        StoreError if the file system refuses either.
        """
        room = self.look()
        with rocks.translated(self._path):
            if self.full:
                self._path.unlink(missing_ok=True)
            # By its length: a file system that compresses holds less, and will not hold more.
            elif room.roomy and _length(self._path) < room.reserve:
                self._take(room.reserve)
            else:
                return room
        return self.look()

    def keep(self) -> None:
        """When nothing runs any more: takes what there is, so that the next start has room."""
        room = self.look()
        with rocks.translated(self._path):
            if (nbytes := min(room.reserve, room.available)) > 0:
                self._take(nbytes)

    def _take(self, nbytes: int) -> None:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, nbytes)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            self._path.unlink()  # somebody was faster; the next look decides again
        finally:
            os.close(fd)


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def used_bytes(root: Path, but: Path | None = None) -> int:
    """Bytes that everything below a directory takes on the disk; files that go meanwhile are not.

    but: a directory that is not looked at; its files have other names that count.  Directories
    that this user may not read hold nothing of ours: a file system has lost+found at its root.

    Preallocated space counts: RocksDB takes that of a log at once.
    """
    total = 0
    skipped = os.fspath(but) if but is not None else None
    left = [os.fspath(root)]
    while left:
        with (
            contextlib.suppress(FileNotFoundError, PermissionError),
            os.scandir(left.pop()) as entries,
        ):
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if entry.is_dir(follow_symlinks=False):
                        if entry.path != skipped:
                            left.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_blocks * _BLOCK
    return total
