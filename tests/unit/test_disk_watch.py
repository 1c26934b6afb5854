"""What the controller does about space: oldest first, one at a time, and an alarm before."""

import asyncio
from pathlib import Path

import pytest

from tbfast._ext import metrics as words
from tbfast._ext.metrics import Slot
from tbfast.control import disk
from tbfast.control.disk import DiskWatch
from tbfast.store.layout import Layout
from tbfast.store.space import Space
from tests.unit.test_space import MB, RESERVE, SIZE, FakeDisk

WINDOW = 10 * MB


class Windows:
    """Sealed windows as files; each drop frees one."""

    def __init__(self, fake: FakeDisk, count: int) -> None:
        self._fake = fake
        self.left = count
        self.hurried = False

    def hurry(self) -> None:
        self.hurried = True

    async def drop_oldest(self) -> int | None:
        if self.left < 2:
            return None
        self.left -= 1
        self._fake.others -= WINDOW
        return 7


class Watched:
    def __init__(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, *, used: int, budget: int, windows: int
    ) -> None:
        self.fake = FakeDisk(root, monkeypatch)
        self.fake.others = used
        # Without the reserve: it is counted on top.
        monkeypatch.setattr(disk, "used_bytes", lambda *_: self.fake.others + self.fake.held)
        self.slot = Slot()
        self.windows = Windows(self.fake, windows)
        space = Space(Layout(root), RESERVE)
        self.backups = 0
        self.watch = DiskWatch(
            Layout(root), space, self.slot, budget_bytes=budget, give_up=self.give_up
        )

    def give_up(self) -> bool:
        self.backups -= 1
        return self.backups >= 0

    def check(self, times: int = 1) -> None:
        async def run() -> None:
            for _ in range(times):
                await self.watch.check(self.windows)

        asyncio.run(run())


def test_over_the_budget_the_oldest_go_one_for_each_measurement(tmp_path, monkeypatch):
    node = Watched(tmp_path, monkeypatch, used=100 * MB, budget=145 * MB, windows=9)
    node.check()
    assert node.windows.left == 8
    assert node.windows.hurried
    assert node.slot.get(words.DISK_USED_BYTES) == 100 * MB + RESERVE
    assert node.slot.get(words.DISK_BUDGET_BYTES) == 145 * MB
    node.check(9)
    assert node.windows.left == 7  # 80 MB and the reserve
    assert node.slot.get(words.DISK_DROPPED_POINTS) == 14


def test_a_backup_goes_before_data_does_but_only_for_want_of_room(tmp_path, monkeypatch):
    node = Watched(tmp_path, monkeypatch, used=SIZE - 10 * MB, budget=0, windows=9)
    node.backups = 1
    node.check()
    assert (node.windows.left, node.backups) == (9, 0)
    node.check()
    assert node.windows.left == 8
    node = Watched(tmp_path, monkeypatch, used=100 * MB, budget=145 * MB, windows=9)
    node.backups = 1
    node.check()
    assert (node.windows.left, node.backups) == (8, 1)  # a snapshot is not in the budget


def test_the_newest_window_stays(tmp_path, monkeypatch):
    node = Watched(tmp_path, monkeypatch, used=400 * MB, budget=100 * MB, windows=3)
    node.check(5)
    assert node.windows.left == 1


def test_without_a_budget_the_file_system_is_it(tmp_path, monkeypatch):
    node = Watched(tmp_path, monkeypatch, used=SIZE - 400 * MB, budget=0, windows=9)
    node.check()
    assert node.windows.left == 9
    assert node.slot.get(words.DISK_BUDGET_BYTES) == SIZE - 200 * MB + RESERVE
    node.fake.others += 205 * MB
    node.check(3)
    assert node.windows.left == 8


def test_the_alarm_comes_at_90_percent_and_goes(tmp_path, monkeypatch):
    node = Watched(tmp_path, monkeypatch, used=100 * MB, budget=1000 * MB, windows=1)
    node.check()
    assert node.slot.get(words.DISK_ALARM) == 0
    node.fake.others = 900 * MB
    node.check()
    assert node.slot.get(words.DISK_ALARM) == 1
    node.fake.others = 100 * MB
    node.check()
    assert node.slot.get(words.DISK_ALARM) == 0


def test_a_budget_beyond_the_file_system_does_not_count(tmp_path, monkeypatch):
    node = Watched(tmp_path, monkeypatch, used=SIZE - 100 * MB, budget=2 * SIZE, windows=9)
    node.check()
    assert node.windows.left == 8
    assert node.slot.get(words.DISK_ALARM) == 1
