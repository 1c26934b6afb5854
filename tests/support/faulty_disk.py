"""Disks that fail, are slow, lose power, or are full."""

import contextlib
import mmap
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).with_name("fault_shim.c")


def preloaded(source: Path, directory: Path) -> Path:
    """Compiles a library for LD_PRELOAD."""
    library = directory / "shim.so"
    command = ["gcc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", str(source), "-ldl"]
    subprocess.run([*command, "-o", str(library)], check=True, capture_output=True)
    return library


class FaultShim:
    """The preloaded library of fault_shim.c and its controls.

    place: what the paths of the files that fail or are slow have in common.
    """

    def __init__(self, directory: Path, place: str = "/journal/") -> None:
        directory.mkdir()
        library = preloaded(SOURCE, directory)
        self._synced = directory / "synced"
        (directory / "control").write_bytes(bytes(8))
        with open(directory / "control", "r+b") as file:
            self._control = mmap.mmap(file.fileno(), 8)
        self.env = {
            "LD_PRELOAD": str(library),
            "TBFAST_TEST_SHIM": str(directory),
            "TBFAST_TEST_SHIM_PLACE": place,
        }

    def fail_syncs(self, count: int) -> None:
        """That many of the next syncs there fail."""
        self._control[0:4] = struct.pack("<i", count)

    @property
    def failures_left(self) -> int:
        return int(struct.unpack("<i", self._control[0:4])[0])

    def delay_syncs(self, ms: int) -> None:
        """Every sync there takes so long, also one that has begun; 0 lets it go."""
        self._control[4:8] = struct.pack("<i", ms)

    def cut_power(self, data_dir: Path) -> int:
        """After everything was killed: logs and manifests lose what no sync covered.

        Returns the number of bytes lost.
        """
        synced: dict[str, int] = {}
        for line in self._synced.read_text().splitlines():
            path, length = line.split("\t")
            synced[path] = max(int(length), synced.get(path, 0))
        lost = 0
        for path in data_dir.rglob("*"):
            if path.suffix != ".log" and not path.name.startswith("MANIFEST-"):
                continue
            kept = synced.get(str(path), 0)
            if path.stat().st_size > kept:
                lost += path.stat().st_size - kept
                os.truncate(path, kept)
        return lost


class SmallDisk:
    """A mounted tmpfs."""

    def __init__(self, path: Path, size_mb: int) -> None:
        self.path = path
        self._filler = path / "filler"
        path.mkdir()
        _mount("-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(path))

    def fill(self) -> None:
        """Takes the space that is left now; what a node gives up meanwhile stays free."""
        found = os.statvfs(self.path)
        left = found.f_bavail * found.f_frsize
        with open(self._filler, "ab", buffering=0) as file, contextlib.suppress(OSError):
            while left and (written := file.write(bytes(min(left, 1 << 20)))):
                left -= written

    def resize(self, size_mb: int) -> None:
        _mount("-o", f"remount,size={size_mb}m", str(self.path))

    def read_only(self) -> None:
        _mount("-o", "remount,ro", str(self.path))

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", str(self.path)], check=True)


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


@contextlib.contextmanager
def small_disk(path: Path, size_mb: int) -> Iterator[SmallDisk]:
    """Needs root."""
    disk = SmallDisk(path, size_mb)
    try:
        yield disk
    finally:
        disk.unmount()
