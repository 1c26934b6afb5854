"""Scarce memory: what a worker gives up before the kernel kills it (promises 9).

The budget is the cgroup's limit (version 1 or 2), which all processes of the node share, or what
``ulimit -v`` leaves to each.  File pages that the kernel can drop do not count.
"""

import asyncio
import logging
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Protocol

from tbfast import limits
from tbfast._ext import metrics as words
from tbfast._ext.metrics import Slot
from tbfast.obs.log import get_logger

log = get_logger("tbfast.memory")

LOOK_S: Final = 0.05
IDLE_S: Final = 1.0  # without a limit; one may be set later
_NO_LIMIT: Final = 1 << 60  # version 1 says so with a number near 2**63
_STEPS: Final = (
    "no new connections",
    "no new connections, smaller windows",
    "no new connections, smaller windows, peers that do not read are dropped",
)


class Budget:
    """How much memory there is, and how much is taken."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._groups = list(_groups(root))
        self._statm = root / "proc/self/statm"
        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        self._address_space = soft if soft != resource.RLIM_INFINITY else None

    def share(self) -> tuple[int, int]:
        """(used, limit) where the least is left, relative to the limit; (0, 0) without limits."""
        readings = [(used, limit) for limit, used in self._readings()]
        return max(readings, key=lambda r: r[0] / r[1], default=(0, 0))

    def _readings(self) -> Iterator[tuple[int, int]]:
        for group in self._groups:
            limit = group.limit()
            if limit is not None:
                yield limit, group.used()
        if self._address_space is not None:
            pages = int(self._statm.read_text().split()[0])
            yield self._address_space, pages * resource.getpagesize()


class _Group:
    """One cgroup with a memory controller."""

    def __init__(self, path: Path, limit: str, usage: str, files: tuple[str, ...]) -> None:
        self._path = path
        self._limit = path / limit
        self._usage = path / usage
        self._files = files

    def limit(self) -> int | None:
        try:
            text = self._limit.read_text().strip()
        except OSError:
            return None  # the root of the hierarchy has none
        limit = _NO_LIMIT if text == "max" else int(text)
        return limit if limit < _NO_LIMIT else None

    def used(self) -> int:
        lines = (line.split() for line in (self._path / "memory.stat").read_text().splitlines())
        stat = {name: int(value) for name, value in lines}
        return int(self._usage.read_text()) - sum(stat[name] for name in self._files)


def _groups(root: Path) -> Iterator[_Group]:
    """The cgroups this process is in, and those around them."""
    version_1 = "memory.limit_in_bytes", "memory.usage_in_bytes", (
        "total_inactive_file", "total_active_file",
    )  # fmt: skip
    version_2 = "memory.max", "memory.current", ("inactive_file", "active_file")
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if "memory" in controllers.split(","):
            base, files = root / "sys/fs/cgroup/memory", version_1
        elif not controllers:
            base, files = root / "sys/fs/cgroup", version_2
        else:
            continue
        # In a container the name may be one of the host, and what we see is the group's own.
        path = base / name.lstrip("/")
        for group in (path, *path.parents):
            if (group / files[0]).exists():
                yield _Group(group, *files)
            if group == base:
                break


class Port(Protocol):
    """What can be given up on a port."""

    def admit(self, on: bool) -> None: ...
    def drop_unread(self) -> int: ...


class MemoryWatch:
    """Takes steps and takes them back."""

    def __init__(
        self,
        budget: Budget,
        slot: Slot,
        ports: list[Port],
        narrow: Callable[[bool], None],
    ) -> None:
        """narrow(on): makes the window of what is not durable yet smaller."""
        self._budget = budget
        self._slot = slot
        self._ports = ports
        self._narrow = narrow
        self.level = 0

    async def run(self) -> None:
        """Looks for ever; often where there is a limit, as memory goes fast."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_S if self._slot.get(words.MEMORY_BUDGET_BYTES) else IDLE_S)

    def look(self) -> None:
        """Measures, and does what the level asks for."""
        used, limit = self._budget.share()
        self._slot.put(words.MEMORY_USED_BYTES, used)
        self._slot.put(words.MEMORY_BUDGET_BYTES, limit)
        if limit:
            self._move(100 * used // limit)
        if self.level >= 3:
            for port in self._ports:
                self._slot.add(words.MEMORY_SHED, port.drop_unread())

    def _move(self, percent: int) -> None:
        level = sum(percent >= bound for bound in limits.MEMORY_SHED_PERCENT)
        if level < self.level:  # not back and forth at the bound
            level = sum(
                percent >= b - limits.MEMORY_BACK_PERCENT for b in limits.MEMORY_SHED_PERCENT
            )
        if level == self.level:
            return
        before, self.level = self.level, level
        self._slot.put(words.MEMORY_LEVEL, level)
        if (before >= 1) != (level >= 1):
            for port in self._ports:
                port.admit(level < 1)
        if (before >= 2) != (level >= 2):
            self._narrow(level >= 2)
        if level:
            log.limited(
                "memory", logging.WARNING, "memory is scarce: " + _STEPS[level - 1],
                used_percent=percent,
            )  # fmt: skip
        else:
            log.info("there is memory again: all connections are welcome")
