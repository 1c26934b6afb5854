"""Bytes of packages, read by the worker itself: the controller only says which file it is."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from tbfast import limits
from tbfast.errors import StoreError
from tbfast.model.operations import Chunk, ReadChunk, Refusal, Result
from tbfast.obs.log import get_logger
from tbfast.store.packages import PackageFiles

log = get_logger("tbfast.packages")

_GONE: Final = Refusal("unassigned", "the package was deleted")
_BUSY: Final = Refusal("limit", "too many chunks of packages are being read")


class PackageReader:
    """Reads in one thread of its own, in the order asked; all calls on the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, files: PackageFiles) -> None:
        self._loop = loop
        self._files = files
        self._thread: ThreadPoolExecutor | None = None  # most nodes serve no packages
        self._waiting = 0

    def read(self, asked: ReadChunk, done: Callable[[Result], None]) -> None:
        """Calls `done` with a Chunk or a Refusal, never before this returns."""
        if self._waiting >= limits.PACKAGE_READS:
            self._loop.call_soon(done, _BUSY)
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "packages")
        self._waiting += 1
        future = self._thread.submit(self._files.read, asked.id, asked.offset, asked.length)
        future.add_done_callback(
            lambda future: self._loop.call_soon_threadsafe(self._ended, asked, future, done)
        )

    def _ended(
        self, asked: ReadChunk, future: "Future[bytes | None]", done: Callable[[Result], None]
    ) -> None:
        self._waiting -= 1
        try:
            data = future.result()
        except StoreError as error:
            log.limited("package", logging.ERROR, "a package cannot be read", error=str(error))
            done(Refusal("unavailable", "the package cannot be read"))
            return
        if data is None or len(data) < asked.length:
            done(_GONE)
        else:
            done(Chunk(data))
