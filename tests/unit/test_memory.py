"""Where the memory budget comes from, and in which order things are given up."""

from pathlib import Path

import pytest

from tbfast._ext import metrics as words
from tbfast._ext.metrics import Slot
from tbfast.worker.memory import Budget, MemoryWatch

MB = 1 << 20


def write(path: Path, text: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def version_1(root: Path, group: str, limit: object, usage: int) -> None:
    base = root / "sys/fs/cgroup/memory" / group
    write(base / "memory.limit_in_bytes", limit)
    write(base / "memory.usage_in_bytes", usage)
    write(base / "memory.stat", f"cache 5\ntotal_inactive_file {MB}\ntotal_active_file {MB}")


def version_2(root: Path, group: str, limit: object, usage: int) -> None:
    base = root / "sys/fs/cgroup" / group
    write(base / "memory.max", limit)
    write(base / "memory.current", usage)
    write(base / "memory.stat", f"anon 5\ninactive_file {MB}\nactive_file {MB}")


@pytest.mark.parametrize(
    ("lines", "make"), [("4:memory:/a/b\n0::/", version_1), ("0::/a/b", version_2)]
)
def test_the_tightest_of_the_groups_around_us(tmp_path: Path, lines: str, make) -> None:
    write(tmp_path / "proc/self/cgroup", lines)
    make(tmp_path, "a/b", 100 * MB, 52 * MB)
    assert Budget(tmp_path).share() == (50 * MB, 100 * MB)
    make(tmp_path, "a", 60 * MB, 56 * MB)
    assert Budget(tmp_path).share() == (54 * MB, 60 * MB)


def test_no_limit(tmp_path: Path) -> None:
    assert Budget(tmp_path).share() == (0, 0)
    write(tmp_path / "proc/self/cgroup", "4:memory:/a\n0::/a")
    version_1(tmp_path, "a", 9_223_372_036_854_771_712, 5 * MB)
    version_2(tmp_path, "a", "max", 5 * MB)
    assert Budget(tmp_path).share() == (0, 0)


def test_the_group_of_a_container_has_a_name_of_the_host(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/kubepods/pod-1")
    version_2(tmp_path, "", 100 * MB, 12 * MB)
    assert Budget(tmp_path).share() == (10 * MB, 100 * MB)


class Scarce:
    """A budget and a port under a watch."""

    def __init__(self) -> None:
        self.percent = 0
        self.done: list[object] = []
        self.slot = Slot()
        self.watch = MemoryWatch(
            self,  # type: ignore[arg-type]
            self.slot,
            [self],
            lambda on: self.done.append(("narrow", on)),
        )

    def share(self) -> tuple[int, int]:
        return self.percent * MB, 100 * MB

    def admit(self, on: bool) -> None:
        self.done.append(("admit", on))

    def drop_unread(self) -> int:
        self.done.append("drop")
        return 2

    def at(self, percent: int) -> list[object]:
        self.percent, self.done = percent, []
        self.watch.look()
        return self.done


def test_first_newcomers_then_windows_then_slow_peers_and_back() -> None:
    scarce = Scarce()
    assert scarce.at(79) == []
    assert scarce.at(80) == [("admit", False)]
    assert scarce.at(78) == []  # not back and forth
    assert scarce.at(87) == [("narrow", True)]
    assert scarce.at(93) == ["drop"]
    assert scarce.at(93) == ["drop"]
    assert scarce.slot.get(words.MEMORY_SHED) == 4
    assert scarce.slot.get(words.MEMORY_LEVEL) == 3
    assert scarce.at(85) == []
    assert scarce.slot.get(words.MEMORY_LEVEL) == 2
    assert scarce.at(10) == [("admit", True), ("narrow", False)]
    assert scarce.slot.get(words.MEMORY_USED_BYTES) == 10 * MB
    assert scarce.at(99) == [("admit", False), ("narrow", True), "drop"]
