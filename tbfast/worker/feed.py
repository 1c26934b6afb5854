"""Sends committed blocks to the controller: straight from memory while it keeps up, else from the
journal as credit comes back."""

import asyncio
import logging

from tbfast import limits
from tbfast._ext.ingest import Group
from tbfast.errors import StoreError
from tbfast.link.channel import Channel
from tbfast.obs.log import get_logger
from tbfast.store.journal import Journal, Position

log = get_logger("tbfast.feed")

RETRY_S = 1.0  # after a failed read of the journal


class BlockFeed:
    """One worker's feed.

    Blocks go out together, `LINK_GATHER_MS` after the first at the latest: waking the controller
    for each commit would cost as much as the commit.  What waits is bounded by the credit; a block
    that does not fit it is read from the journal later.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, journal: Journal) -> None:
        self._loop = loop
        self._journal = journal
        self._channel: Channel | None = None
        self._sent = Position(0, 0)
        self._credit = 0
        self._pump_scheduled = False
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self, channel: Channel, after: Position, credit_bytes: int) -> None:
        """The controller wants blocks after `after`."""
        if after < self._journal.trimmed:
            log.error(
                "the series store is an old copy: rows between are in neither",
                series=tuple(after), journal=tuple(self._journal.trimmed),
            )  # fmt: skip
        self._channel = channel
        self._sent = after
        self._credit = credit_bytes
        self._schedule()

    def stop(self) -> None:
        """The link is down."""
        self._channel = None
        self._gathered.clear()
        self._gathered_bytes = 0

    def add_credit(self, nbytes: int) -> None:
        """The controller has consumed that much."""
        self._credit += nbytes
        self._schedule()

    def committed(self, group: Group, previous: Position) -> None:
        """A group became durable; `previous` is the position of the block before it."""
        if self._channel is None:
            return
        block = group.value
        assert block is not None  # only groups with rows are announced
        if self._sent >= previous and self._credit >= len(block):
            self._credit -= len(block)
            self._sent = Position(self._journal.epoch, group.seq)
            self._gathered.append(block)
            self._gathered_bytes += len(block)
            if self._gathered_bytes >= limits.LINK_GATHER_BYTES:
                self.flush()
            elif self._timer is None:
                self._timer = self._loop.call_later(limits.LINK_GATHER_MS / 1000, self.flush)
        else:
            self._schedule()

    def flush(self) -> None:
        """Sends what was gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._channel is not None:
            for block in self._gathered:
                self._channel.send_block(block)
        self._gathered.clear()
        self._gathered_bytes = 0

    def _schedule(self) -> None:
        if not self._pump_scheduled and self._channel is not None:
            self._pump_scheduled = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """One bounded read of the journal per loop turn while behind."""
        self._pump_scheduled = False
        self.flush()  # blocks keep their order
        if self._channel is None or self._credit <= 0 or self._sent >= self._journal.durable:
            return
        try:
            blocks = self._journal.read(
                self._sent, self._journal.durable, min(self._credit, limits.LINK_REPLAY_BYTES)
            )
        except StoreError as error:
            # Not a hole: the controller must not take what follows for all there is.
            log.limited("feed", logging.ERROR, "the journal cannot be read", error=str(error))
            self._loop.call_later(RETRY_S, self._schedule)
            return
        for key, block in blocks:
            self._credit -= len(block)  # may go below zero by one block: it is bounded
            self._channel.send_block(block)
            self._sent = key
        if not blocks:
            self._sent = self._journal.durable  # a hole up to here: nothing was acknowledged in it
        self._schedule()
