"""Brings the states of persistent calls to disk, one write of a call at a time, the newest wins."""

import asyncio
import logging
from typing import Final

from tbfast.control.registry.calls import Calls
from tbfast.errors import NotFound, StoreError
from tbfast.model.rpc import PersistentCall
from tbfast.obs.log import get_logger

log = get_logger("tbfast.rpc")

RETRY_S: Final = 1.0  # between two tries on a full disk


class Keeper:
    """All methods belong to one event loop.  As many writes wait as calls are open."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._wanted: dict[str, PersistentCall | None] = {}  # not written yet; None = deleted
        self._writing: dict[str, asyncio.Task[None]] = {}
        self._forgetting: set[asyncio.Task[None]] = set()

    def put(self, call_id: str, call: PersistentCall | None) -> None:
        """This is the state to keep; None = none, the call goes."""
        self._wanted[call_id] = call
        if call_id not in self._writing:
            task = asyncio.get_running_loop().create_task(self._write(call_id))
            self._writing[call_id] = task
            task.add_done_callback(_reported)

    def forget_device(self, device_id: str) -> None:
        """The device is gone, its calls follow.

        What a crash leaves of them is found at the next start, or is too old some day.
        """
        task = asyncio.get_running_loop().create_task(self._calls.forget_device(device_id))
        self._forgetting.add(task)
        task.add_done_callback(self._forgetting.discard)
        task.add_done_callback(_reported)

    async def settled(self, call_id: str) -> None:
        """Returns once the newest state of a call is on disk."""
        if (task := self._writing.get(call_id)) is not None:
            await asyncio.shield(task)

    async def close(self) -> None:
        """Writes what can be written at once, gives up on the rest."""
        tasks = [*self._writing.values(), *self._forgetting]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=RETRY_S)
            for task in late:
                task.cancel()

    async def _write(self, call_id: str) -> None:
        try:
            while call_id in self._wanted:
                call = self._wanted.pop(call_id)
                try:
                    if call is None:
                        await self._calls.delete(call_id)
                    else:
                        await self._calls.save(call)
                except NotFound:
                    log.debug("a call was deleted before its state was stored")
                except StoreError as error:
                    self._wanted.setdefault(call_id, call)
                    log.limited("rpc", logging.ERROR, "a call is not stored yet", error=str(error))
                    await asyncio.sleep(RETRY_S)
        finally:
            del self._writing[call_id]


def _reported(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("the state of a call is not stored", error=repr(error))
