"""The bytes of OTA packages: one file for each, named by the package's id and never changed.

A file is written under another name, synced and renamed, so that a name with the plain id stands
for complete bytes.  What a crash leaves behind is removed at the next start.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tbfast.errors import StoreError
from tbfast.store import rocks

_PARTIAL: Final = ".part"


class PackageFiles:
    """Files below one directory; every method may block."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def open(self, keep: Callable[[str], bool]) -> int:
        """Makes the directory and removes files that no package owns; how many those were."""
        removed = 0
        with rocks.translated(self._root):
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in list(self._root.iterdir()):
                if path.name.endswith(_PARTIAL) or not keep(path.name):
                    path.unlink()
                    removed += 1
        return removed

    def begin(self, package_id: str) -> "Incoming":
        """A file that is being received; one at a time for each package."""
        return Incoming(self._root / package_id)

    def link_into(self, to: Path) -> None:
        """Hard links of all complete files in another directory; those it has already stay."""
        with rocks.translated(to):
            to.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in list(self._root.iterdir()):
                if not path.name.endswith(_PARTIAL):
                    with contextlib.suppress(FileExistsError, FileNotFoundError):
                        os.link(path, to / path.name)

    def size(self, package_id: str) -> int | None:
        """Bytes of a file; None where there is none."""
        with rocks.translated(self._root):
            try:
                return (self._root / package_id).stat().st_size
            except FileNotFoundError:
                return None

    def remove(self, package_id: str) -> None:
        """Removes a file, if it is there."""
        with rocks.translated(self._root):
            (self._root / package_id).unlink(missing_ok=True)

    def read(self, package_id: str, offset: int, length: int) -> bytes | None:
        """At most `length` bytes from `offset`; None when the file is gone."""
        path = self._root / package_id
        with rocks.translated(path):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return None
            try:
                data = os.pread(fd, length, offset)
                while len(data) < length and (more := os.pread(
                    fd, length - len(data), offset + len(data)
                )):  # fmt: skip
                    data += more
                return data
            finally:
                os.close(fd)


class Incoming:
    """Bytes of a package on their way to the disk; exactly one of `finish`, `discard` ends it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(path.name + _PARTIAL)
        with rocks.translated(path):
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self._fd = os.open(self._partial, flags, 0o600)

    def write(self, data: bytes) -> None:
        """Appends; StoreFull when the disk is full."""
        view = memoryview(data)
        with rocks.translated(self._path):
            while view:
                view = view[os.write(self._fd, view) :]

    def finish(self) -> None:
        """All of it is on the disk, and under its name, on return."""
        with rocks.translated(self._path):
            os.fsync(self._fd)
            os.close(self._fd)
            os.rename(self._partial, self._path)
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    def discard(self) -> None:
        """Nothing of it stays."""
        with contextlib.suppress(OSError):  # closed by a `finish` that failed
            os.close(self._fd)
        with contextlib.suppress(StoreError), rocks.translated(self._path):
            self._partial.unlink(missing_ok=True)
