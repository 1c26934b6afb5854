"""What the owner of a running node can ask of its stores: to be sealed, and to be backed up."""

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Sequence

import msgspec

from tbfast import __version__
from tbfast._ext.chunk import describe
from tbfast.control.attributes import AttributeService
from tbfast.control.registry import Registry
from tbfast.control.sealer import SealService
from tbfast.control.series import NodeSeries
from tbfast.control.tail import Cursor, TailService
from tbfast.errors import Conflict, ResourceError
from tbfast.obs.log import get_logger
from tbfast.store import backup
from tbfast.store.attributes import AttributeStore
from tbfast.store.journal import retire_epoch
from tbfast.store.known import known_journal, read_epoch, remember_epoch, remember_stores
from tbfast.store.layout import Layout
from tbfast.store.packages import PackageFiles
from tbfast.store.pages import expanded
from tbfast.store.series_files import Waits

log = get_logger("tbfast.backups")

CAUGHT_UP_S = 30.0  # longest wait for journals that are being replayed
SEALED_S = 45.0  # longest wait for a run: on a full disk it waits for room


class SealedKind(msgspec.Struct):
    """Values of one kind in sealed chunks; bytes without their times."""

    points: int = 0
    bytes: int = 0


class Sealed(msgspec.Struct):
    """What `Backups.seal` wrote; bytes are those of chunks, before the store compresses them."""

    runs: int = 0
    points: int = 0
    bytes: int = 0
    kinds: dict[str, SealedKind] = {}


class Snapshot(msgspec.Struct):
    """A copy of the stores below ``root`` that stays as it is."""

    root: str
    version: str
    created_ms: int
    cursors: dict[int, tuple[int, int]]
    files: list[backup.StoredFile]


class Backups:
    """All methods belong to one event loop."""

    def __init__(
        self,
        layout: Layout,
        tail: TailService,
        sealer: SealService,
        series: NodeSeries,
        attributes: AttributeStore,
        applied: AttributeService,
        registry: Registry,
        waits: Waits = contextlib.nullcontext,
    ) -> None:
        """waits: around what holds the GIL while it syncs, however long the disk takes."""
        self._layout = layout
        self._tail = tail
        self._sealer = sealer
        self._series = series
        self._attributes = attributes
        self._applied = applied
        self._registry = registry
        self._waits = waits
        self._discarding: asyncio.Task[None] | None = None
        self._held: asyncio.Event | None = None  # set: the snapshot has to go

    async def seal(self) -> Sealed:
        """Everything acknowledged before the call is in recorded runs on return.

        ResourceError when that takes too long; it goes on all the same.
        """
        await self._catch_up()
        wanted = self._tail.cursors()
        sealed = Sealed()
        # A task: a caller that goes away must not leave a run half made.
        task = asyncio.create_task(self._seal_until(wanted, sealed))
        await asyncio.wait([task], timeout=SEALED_S)
        if not task.done():
            raise ResourceError("sealing takes long; the disk may be full, see the log")
        task.result()
        return sealed

    async def _seal_until(self, wanted: dict[int, Cursor], sealed: Sealed) -> None:
        def tally(batch: Sequence[tuple[bytes, bytes]]) -> None:
            for _, chunk in (stored for pair in batch for stored in expanded(*pair)):
                sealed.bytes += len(chunk)
                for _, kind, points, _, _, nbytes in describe(chunk):
                    known = sealed.kinds.setdefault(kind, SealedKind())
                    known.points += points
                    known.bytes += nbytes

        while (record := await self._sealer.seal(tally)) is not None:
            sealed.runs += 1
            sealed.points += record.points
            # A run that was under way already may hold less than what was asked for.
            if all(record.cursors.get(j, (0, 0)) >= at for j, at in wanted.items()):
                return

    async def _catch_up(self) -> None:
        """Returns when everything acknowledged before the call has been applied."""
        deadline = time.monotonic() + CAUGHT_UP_S
        while missing := await self._series.missing():
            if time.monotonic() > deadline:
                names = ", ".join(map(str, sorted(missing)))
                raise ResourceError(
                    f"journal {names} is being replayed or has no worker; try later"
                )

    async def snapshot(self) -> AsyncIterator[bytes]:
        """One line, a `Snapshot`; it exists until the iteration ends, or the disk is short."""
        if self._discarding is not None:
            await self._discarding
        if self._held is not None:
            raise Conflict("another backup of this node is being made; wait for it")
        held = self._held = asyncio.Event()
        try:
            sealed = await self.seal()
            made = await self._make()
            log.info("snapshot for a backup", runs=sealed.runs, files=len(made.files))
            yield msgspec.json.encode(made) + b"\n"
            await held.wait()
        finally:
            # Apart: a reader that goes away cancels whatever is awaited here.
            self._discarding = asyncio.create_task(self._discard())

    async def _make(self) -> Snapshot:
        # The registry last: every device that rows and attributes mention is in it.
        to = Layout(self._layout.snapshot)
        in_thread = asyncio.get_running_loop().run_in_executor
        await in_thread(None, remove_snapshot, self._layout)
        created_ms = time.time_ns() // 1_000_000
        await self._sealer.checkpoint(to.series)
        await self._applied.settle()
        with self._waits():
            await in_thread(None, self._attributes.checkpoint, to.attributes)
        # Before and after the registry: a package that it has may come or go meanwhile.
        packages = PackageFiles(self._layout.packages)
        await in_thread(None, packages.link_into, to.packages)
        with self._waits():
            await in_thread(None, self._registry.store.checkpoint, to.registry)
        await in_thread(None, packages.link_into, to.packages)
        cursors = self._tail.cursors()

        def finish() -> list[backup.StoredFile]:
            # New journals must begin after every position that the copies name.
            to.journals.mkdir(mode=0o700)
            remember_stores(to)
            for number, (epoch, _) in cursors.items():
                newest = max(epoch, read_epoch(known_journal(self._layout, number)))
                retire_epoch(to.journal(number), newest)
                remember_epoch(known_journal(to, number), newest)
            return backup.stored_files(to.root)

        files = await in_thread(None, finish)
        return Snapshot(str(to.root), __version__, created_ms, cursors, files)

    async def _discard(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, remove_snapshot, self._layout)
        self._held = None

    def give_up(self, reason: str = "the disk is short of space") -> bool:
        """Ends a backup that is being made; False when there is none."""
        if self._held is None or self._held.is_set():
            return False
        log.warning("a backup was given up", reason=reason)
        self._held.set()
        return True


def remove_snapshot(layout: Layout) -> None:
    """Also what a process that ended has left."""
    shutil.rmtree(layout.snapshot, ignore_errors=True)
