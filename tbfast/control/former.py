"""Journals that no worker sends: their rows go to the tail as a worker's.

Those that a smaller --workers left without a writer, and what the controller's own holds of former
runs.  Once the rows of the first are sealed, the next start finds nothing after the cursor and
removes the journal.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from tbfast import limits
from tbfast._ext.series import split_definitions
from tbfast.control.merge import Merge
from tbfast.control.tail import TailService
from tbfast.errors import StoreError
from tbfast.obs.log import get_logger
from tbfast.store.journal import Position
from tbfast.store.layout import NODE_JOURNAL, Layout
from tbfast.store.series_reader import JournalFile, remove_journal

log = get_logger("tbfast.former")

WAIT_S = 0.02  # for room in the head, or for the other journals to come as far


class FormerJournals:
    """Reads them beside the workers' journals, as fast as rows are sealed.

    left: numbers of those whose rows are not all applied yet.  on_own() is called when those of the
    controller's own journal are.
    """

    def __init__(
        self,
        layout: Layout,
        tail: TailService,
        merge: Merge,
        numbers: list[int],
        *,
        on_own: Callable[[], None] = lambda: None,
    ) -> None:
        self._layout = layout
        self._tail = tail
        self._merge = merge
        self._on_own = on_own
        self.left = set(numbers)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Links them all at once, so that they are merged with each other too."""
        self._tasks = [asyncio.create_task(self._read(number)) for number in sorted(self.left)]

    async def stop(self) -> None:
        """Leaves the rest for the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _read(self, number: int) -> None:
        queued = 0

        def consumed(nbytes: int) -> None:
            nonlocal queued
            queued -= nbytes

        in_thread = asyncio.get_running_loop().run_in_executor
        source = self._merge.link(number, consumed)
        path = self._layout.journal(number)
        try:
            journal = await in_thread(None, JournalFile, path)
            with contextlib.closing(journal):
                for epoch, tables in (await in_thread(None, journal.definitions)).items():
                    for first, defs in tables:
                        self._tail.define(number, epoch, first, split_definitions(defs))
                blocks = journal.blocks(Position(*self._tail.cursor(number)))
                count = 0
                while batch := await in_thread(None, _next, blocks):
                    for block in batch:
                        queued += len(block)
                        self._merge.push(source, block)
                    count += len(batch)
                    while queued >= limits.LINK_CREDIT_BYTES or self._tail.full:
                        await asyncio.sleep(WAIT_S)
                while queued:
                    await asyncio.sleep(WAIT_S)
                epoch = await in_thread(None, journal.epoch)
            if number == NODE_JOURNAL:
                self._on_own()
            else:
                log.info("journal of a former worker", journal=number, blocks=count)
            if count == 0 and number != NODE_JOURNAL:
                await in_thread(None, remove_journal, path, epoch)
        except StoreError as error:
            log.error("a journal that no worker sends cannot be read", error=str(error))
            self._tail.damaged(number, str(error))
        finally:
            self._merge.unlink(source)
        self.left.discard(number)


def _next(blocks: Iterator[tuple[Position, bytes]]) -> list[bytes]:
    """The next blocks, LINK_REPLAY_BYTES or a little more; none at the end."""
    batch: list[bytes] = []
    size = 0
    for _, block in blocks:
        batch.append(block)
        size += len(block)
        if size >= limits.LINK_REPLAY_BYTES:
            break
    return batch
