"""The controller's heartbeat, by which the supervisor tells one that hangs from one that works."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Final

from tbfast import limits
from tbfast._ext import metrics as words
from tbfast._ext.metrics import Slot

BEAT_S: Final = 0.5


class Heart:
    """Beats while the event loop turns; `waits` says beforehand that it may not for a while."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._waiting = 0
        self._lock = threading.Lock()

    async def run(self) -> None:
        """Beats until cancelled."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._beat(0)
            await asyncio.sleep(BEAT_S)

    @contextlib.contextmanager
    def waits(self) -> Iterator[None]:
        """Around a call that syncs while it holds the GIL: a slow disk is no hang.

        Opening a database, making or dropping a column family and checkpoints are such calls.  The
        next heartbeat is asked for `DISK_PATIENCE_MS` later.  For any thread.
        """
        with self._lock:
            self._waiting += 1
            self._beat(limits.DISK_PATIENCE_MS)
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1
                if not self._waiting:
                    self._beat(0)

    def _beat(self, ahead_ms: int) -> None:
        self._slot.put(words.HEALTH_HEARTBEAT_MS, int(time.monotonic() * 1000) + ahead_ms)
