"""Deleting stored rows so that nothing brings them back: neither replay, sealing nor a restart."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from tbfast import limits
from tbfast.control.sealer import SealService
from tbfast.control.series import NodeSeries
from tbfast.control.tail import TailService
from tbfast.errors import StoreError, StoreStall
from tbfast.model.device import Change
from tbfast.obs.log import get_logger
from tbfast.store.series import SeriesStore
from tbfast.store.tombstones import FIRST_MS, LAST_MS

log = get_logger("tbfast.deletes")

RETRY_S: Final = 5.0  # a full disk: the removal of a device is in force and is stored later

Deletion = Callable[[int, Sequence[bytes]], None]  # device, keys that have no latest value any more


class DeleteService:
    """Deletes are in force at once and answered when they are on disk.

    Each covers the rows that had been acknowledged before the call, and no later ones.
    """

    def __init__(
        self, tail: TailService, store: SeriesStore, sealer: SealService, reads: NodeSeries
    ) -> None:
        self._tail = tail
        self._store = store
        self._sealer = sealer
        self._reads = reads
        self._subscribers: list[Deletion] = []
        self._unwritten: set[int] = set()  # devices with deletes that are not on disk yet
        self._writing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def subscribe(self, callback: Deletion) -> Callable[[], None]:
        """Call back with the keys of a device that lost their value; returns the way to stop."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    async def delete(
        self,
        device: int,
        keys: Sequence[str] | None,
        *,
        start_ms: int | None = None,
        end_ms: int | None = None,
        latest: bool = True,
        rewrite_latest: bool = False,
    ) -> None:
        """Deletes points with start_ms <= ts < end_ms; None keys = all.

        latest: a latest value in that range goes too, and with it the key until a point arrives;
        rewrite_latest: the newest point that is left takes its place.

        Raises StoreStall while a worker's journal cannot be reached, ResourceError when the device
        has too many deleted ranges, StoreError when the disk fails: then it may have been deleted
        or not.
        """
        first_ms = FIRST_MS if start_ms is None else start_ms
        last_ms = LAST_MS if end_ms is None else end_ms - 1
        if first_ms > last_ms:
            return
        if await self._reads.missing():
            raise StoreStall("a worker restarts and may hold rows to delete; try again")
        names = None if keys is None else [key.encode() for key in keys]
        # No await from here to the tail: rows that arrive meanwhile would be in neither.
        self._bury(device, names, first_ms, last_ms)
        lost = self._tail.delete(device, names, first_ms, last_ms, latest)
        if lost and rewrite_latest:
            left = await self._reads.newest(device, [name.decode() for name in lost])
            self._tail.rewrite_latest(device, left)
            self._unwritten.add(device)
        await self._write()
        remaining = set(self._tail.keys(device))
        self._publish(device, [name for name in lost if name.decode() not in remaining])

    async def finish(self) -> None:
        """Waits until the removals of devices so far are on disk."""
        await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        """Stops waiting for room; the next start finds removed devices again."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- devices -----------------------------------------------------------------------------

    def registry_changed(self, change: Change) -> None:
        """A device that leaves the registry takes its rows along."""
        if change.kind == "device" and change.op == "deleted" and change.number:
            self._forget(change.number)
            self._spawn()

    async def sweep(self, registered: Callable[[int], bool]) -> None:
        """Devices removed while no controller ran, or just before it died."""
        start = 0
        while numbers := self._tail.numbers(start, limits.REST_SCAN_ROWS):
            for device in numbers:
                if not registered(device):
                    self._forget(device)
            start += len(numbers)
            await asyncio.sleep(0)
        if self._unwritten:
            self._spawn()

    def _forget(self, device: int) -> None:
        self._bury(device, None, FIRST_MS, LAST_MS)
        self._publish(device, self._tail.delete_device(device))

    # --- writing -----------------------------------------------------------------------------

    def _bury(
        self, device: int, names: Sequence[bytes] | None, first_ms: int, last_ms: int
    ) -> None:
        self._store.tombstones.add(
            device,
            names,
            first_ms,
            last_ms,
            run=self._store.begun,
            cursors=self._tail.cursors(),
        )
        self._unwritten.add(device)

    async def _write(self) -> None:
        """One write for all deletes that wait."""
        async with self._writing:
            devices, self._unwritten = self._unwritten, set()
            if not devices:
                return  # written with those of another
            try:
                await self._sealer.write_deletes(devices)
            except BaseException:
                self._unwritten |= devices
                raise

    def _spawn(self) -> None:
        task = asyncio.get_running_loop().create_task(self._write_patiently())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write_patiently(self) -> None:
        while True:
            try:
                await self._write()
                return
            except StoreError as error:
                log.limited("delete", logging.ERROR, "a removed device waits", error=str(error))
            await asyncio.sleep(RETRY_S)

    def _publish(self, device: int, keys: Sequence[bytes]) -> None:
        if keys:
            for callback in list(self._subscribers):
                callback(device, keys)
