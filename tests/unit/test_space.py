"""The reserve, and who may write when the disk is nearly full."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from tbfast.store.layout import Layout
from tbfast.store.space import Space, used_bytes

MB = 1 << 20
SIZE = 2000 * MB
RESERVE = 64 * MB
FULL = RESERVE + 48 * MB
ROOMY = RESERVE + 60 * MB


class FakeDisk:
    """A file system of SIZE of which `others` is taken besides the reserve file."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.layout = Layout(root)
        self.others = 0
        self.size = SIZE
        monkeypatch.setattr(os, "statvfs", self._statvfs)
        monkeypatch.setattr(os, "posix_fallocate", self._fallocate)

    @property
    def held(self) -> int:
        path = self.layout.reserve
        return os.stat(path).st_blocks * 512 if path.exists() else 0

    def _statvfs(self, _path: Path) -> SimpleNamespace:
        free = max(0, self.size - self.others - self.held)
        return SimpleNamespace(f_blocks=self.size, f_bavail=free, f_frsize=1)

    def _fallocate(self, fd: int, _offset: int, nbytes: int) -> None:
        os.write(fd, bytes(nbytes))


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDisk:
    return FakeDisk(tmp_path, monkeypatch)


def test_the_reserve_is_taken_given_up_and_taken_again(disk: FakeDisk) -> None:
    space = Space(disk.layout, RESERVE)
    assert space.settle().held == RESERVE
    assert space.settle().held == RESERVE
    disk.others = SIZE - FULL + 1
    room = space.settle()
    assert (space.full, room.held, room.available) == (True, 0, FULL - 1)
    disk.others = SIZE - ROOMY + 1
    assert (space.settle().held, space.full) == (0, True)  # not clearly room yet
    disk.others = SIZE - ROOMY
    assert (space.settle().held, space.full) == (RESERVE, False)


def test_telemetry_never_gets_the_reserve(disk: FakeDisk) -> None:
    controller, worker = Space(disk.layout, RESERVE), Space(disk.layout, RESERVE)
    controller.settle()
    worker.look()
    disk.others = SIZE - FULL - MB
    assert worker.admits(MB)
    assert not worker.admits(MB + 1)
    disk.others += MB + 1
    assert controller.settle().held == 0
    assert not worker.admits(1)
    worker.look()
    assert not worker.admits(1)
    disk.others = SIZE - ROOMY
    assert not worker.admits(1)  # until the next look
    worker.look()
    assert worker.admits(1)


def test_what_is_left_is_kept_for_the_next_start(disk: FakeDisk) -> None:
    disk.others = SIZE - 5 * MB
    space = Space(disk.layout, RESERVE)
    space.keep()
    assert disk.held == 5 * MB
    disk.others = SIZE - 5 * MB
    assert Space(disk.layout, RESERVE).settle().held == 0
    disk.others = SIZE
    space.keep()
    assert disk.held == 0


@pytest.mark.parametrize(
    ("size", "reserve", "low"),
    [(SIZE, RESERVE, 200 * MB), (64 * MB, 64 * MB // 20, 27 * MB), (1 << 40, RESERVE, 1 << 30)],
)
def test_reserve_and_low_water_follow_the_size(
    disk: FakeDisk, size: int, reserve: int, low: int
) -> None:
    disk.size = size
    room = Space(disk.layout, RESERVE).look()
    assert (room.reserve, room.low // MB) == (reserve, low // MB)


def test_without_a_reserve_nothing_is_refused_beforehand(disk: FakeDisk) -> None:
    space = Space(disk.layout, 0)
    disk.others = SIZE
    assert (space.settle().held, space.full, space.admits(0)) == (0, False, True)


def test_used_bytes_counts_files_at_any_depth(tmp_path: Path) -> None:
    before = used_bytes(tmp_path)
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(bytes(100_000))
    (tmp_path / "file").write_bytes(bytes(10_000))
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert 110_000 <= used_bytes(tmp_path) - before < 130_000
    assert 10_000 <= used_bytes(tmp_path, tmp_path / "a" / "b") - before < 30_000
