"""Keeps the data directory within its budget and the disk out of the state where nothing works.

Once a second the controller measures.  Over the budget, or with little left on the file system, the
oldest sealed window goes: one for each measurement, because space comes back a moment later.  When
nothing is left to drop and the disk is nearly full, workers refuse telemetry by their own look at
the disk (tbfast.store.space) and the reserve is given up, so that everything else goes on.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from tbfast import limits
from tbfast._ext import metrics as words
from tbfast._ext.metrics import Slot
from tbfast.errors import StoreError
from tbfast.obs.log import get_logger
from tbfast.store import rocks
from tbfast.store.layout import Layout
from tbfast.store.space import Room, Space, used_bytes

log = get_logger("tbfast.disk")

CHECK_S: Final = limits.DISK_CHECK_MS / 1000
LOOK_S: Final = 0.25


class Droppable(Protocol):
    """Where the oldest data is: tbfast.control.sealer.SealService."""

    async def drop_oldest(self) -> int | None:
        """Points of the oldest sealed window, dropped; None when only the newest is left."""

    def hurry(self) -> None:
        """Seal what is not sealed yet: it takes less space then."""


class DiskWatch:
    """Measures, drops, and keeps the reserve; `run` until cancelled.

    budget_bytes: 0 = what the file system has, less `Room.low`.
    give_up() frees what can be had again, before data goes; False when there is nothing.
    """

    def __init__(
        self,
        layout: Layout,
        space: Space,
        slot: Slot,
        *,
        budget_bytes: int,
        give_up: Callable[[], bool] = lambda: False,
    ) -> None:
        self._layout = layout
        self._space = space
        self._slot = slot
        self._budget_bytes = budget_bytes
        self._give_up = give_up
        self._alarm = False

    async def run(self, series: Droppable) -> None:
        """Checks once a second, and at once when the disk fills or has room again."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            try:
                was_full = self._space.full
                self._space.look()
                if self._space.full != was_full or loop.time() >= due_s:
                    due_s = loop.time() + CHECK_S
                    await self.check(series)
            except StoreError as error:
                log.limited("disk", logging.ERROR, "disk not measured", error=str(error))
            await asyncio.sleep(LOOK_S)

    async def check(self, series: Droppable) -> None:
        """One measurement and what follows from it."""
        used, room = await asyncio.get_running_loop().run_in_executor(None, self._measure)
        budget = self._budget(used, room)
        self._publish(used, budget, room)
        if used > budget and not (room.available < room.low and self._give_up()):
            await self._drop(series)

    def _measure(self) -> tuple[int, Room]:
        room = self._space.settle()
        with rocks.translated(self._layout.root):
            used = used_bytes(self._layout.root, self._layout.snapshot)
        # A reserve that was given up counts: else the directory would seem to have shrunk.
        return used + max(0, room.reserve - room.held), room

    def _budget(self, used: int, room: Room) -> int:
        """What may be used: the configured bytes, or less if the file system has less."""
        possible = max(0, used + room.available - room.low)
        return min(self._budget_bytes or possible, possible)

    async def _drop(self, series: Droppable) -> None:
        series.hurry()
        points = await series.drop_oldest()
        if points is None:
            log.limited("budget", logging.WARNING, "over the disk budget, nothing old to drop")
        else:
            self._slot.add(words.DISK_DROPPED_POINTS, points)

    def _publish(self, used: int, budget: int, room: Room) -> None:
        free = room.available - room.held
        slot = self._slot
        slot.put(words.DISK_USED_BYTES, used)
        slot.put(words.DISK_BUDGET_BYTES, budget)
        slot.put(words.DISK_FREE_BYTES, free)
        slot.put(words.DISK_RESERVE_BYTES, room.held)
        percent = limits.DISK_ALARM_PERCENT
        alarm = used * 100 >= budget * percent or (room.size - free) * 100 >= room.size * percent
        slot.put(words.DISK_ALARM, alarm)
        if alarm != self._alarm:
            self._alarm = alarm
            text = "disk space is short" if alarm else "disk space is no longer short"
            log.limited(
                "alarm", logging.WARNING, text,
                used_bytes=used, budget_bytes=budget, free_bytes=free,
            )  # fmt: skip
