"""Range reads over what the journals hold.

A running server's journals are followed as RocksDB secondaries: a read first catches up with the
writer's log, so it sees every row acknowledged before it began, and never touches a worker's loop.
A stopped server's journals are opened read-only.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from rocksdict import AccessType, Cache, Rdict

from tbfast._ext.series import RangeScan
from tbfast.errors import StoreError
from tbfast.store import rocks
from tbfast.store.journal import KEY, read_definitions
from tbfast.store.layout import Layout

_WRITE_BUFFER_BYTES = 1 << 20  # nothing is written through these handles
_FAMILIES = ("default", "meta")

T = TypeVar("T")


class JournalReader:
    """Reads the journals of one data directory, one read at a time, in a thread of its own."""

    def __init__(self, layout: Layout, *, follow: bool) -> None:
        self._layout = layout
        self._follow = follow
        self._open: dict[int, Rdict] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="series-read")

    async def range(
        self,
        device: int,
        keys: Sequence[str] | None,
        *,
        start_ms: int | None,
        end_ms: int | None,
        limit: int,
        ascending: bool,
    ) -> bytes:
        """{"key":[{"ts":..,"value":..},..],..} with start_ms <= ts < end_ms, `limit` per key."""

        def read() -> bytes:
            scan = RangeScan(
                device, keys, start_ms=start_ms, end_ms=end_ms, limit=limit, ascending=ascending
            )
            self._scan(scan)
            return scan.to_json()

        return await self._in_thread(read)

    async def latest(self, device: int, keys: Sequence[str] | None) -> bytes:
        """The newest point of each key."""
        return await self.range(device, keys, start_ms=None, end_ms=None, limit=1, ascending=False)

    async def keys(self, device: int) -> list[str]:
        """Names of the device's keys, sorted."""

        def read() -> list[str]:
            scan = RangeScan(device, None, limit=1)
            self._scan(scan)
            return scan.key_names()

        return await self._in_thread(read)

    async def replay(self, numbers: Sequence[int], apply: Callable[[bytes], None]) -> None:
        """Every block of these journals, in order, to `apply` (called in the reader's thread)."""

        def read() -> None:
            for number in numbers:
                path = self._layout.journal(number)
                with rocks.translated(path):
                    db = self._caught_up(number, path)
                for _, block in rocks.pairs(db, path):
                    apply(block)

        await self._in_thread(read)

    async def close(self) -> None:
        """Releases the journals."""
        await self._in_thread(self._forget_all)
        self._thread.shutdown()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # --- in the thread -----------------------------------------------------------------------

    def _scan(self, scan: RangeScan) -> None:
        for number in self._layout.journal_numbers():
            path = self._layout.journal(number)
            with rocks.translated(path):
                db = self._caught_up(number, path)
            definitions: dict[int, list[tuple[int, bytes]]] = {}
            for known in read_definitions(db, path):
                definitions.setdefault(known.epoch, []).append((known.first, known.defs))
            epoch = -1
            for key, block in rocks.pairs(db, path):
                block_epoch, seq = KEY.unpack(key)
                if block_epoch != epoch:
                    epoch = block_epoch
                    scan.epoch(definitions.get(epoch, ()))
                try:
                    scan.feed(block)
                except StoreError as error:
                    raise StoreError(f"{path}: epoch {epoch}, sequence {seq}: {error}") from error

    def _caught_up(self, number: int, path: Path) -> Rdict:
        db = self._open.get(number)
        if db is not None:
            try:
                db.try_catch_up_with_primary()
                return db
            except Exception:  # noqa: BLE001 - rocksdict raises plain Exception
                # The writer removed files under the secondary: opening it again finds the new ones.
                self._forget(number)
        access = AccessType.read_only(False)
        if self._follow:
            secondary = self._layout.run / f"follow-{number}"
            access = AccessType.secondary(str(secondary))
        opts = rocks.options(
            write_buffer_bytes=_WRITE_BUFFER_BYTES, cache=Cache(_WRITE_BUFFER_BYTES)
        )
        opts.create_if_missing(False)
        opts.set_max_open_files(-1 if self._follow else 256)
        db = Rdict(str(path), opts, dict.fromkeys(_FAMILIES, opts), access)
        if self._follow:
            db.try_catch_up_with_primary()
            self._open[number] = db
        return db

    def _forget(self, number: int) -> None:
        self._open.pop(number).close()

    def _forget_all(self) -> None:
        for number in list(self._open):
            self._forget(number)


def open_offline(data_dir: Path) -> JournalReader:
    """Reader for a stopped server."""
    return JournalReader(Layout(data_dir), follow=False)
