"""Persistent calls of devices in the registry (REST spec 8).

The controller alone writes them, one write of a call at a time, so versions are not handed around.
"""

import contextlib
from collections.abc import AsyncIterator

import msgspec

from tbfast import limits
from tbfast.errors import Conflict, NotFound, ResourceError
from tbfast.model.rpc import RPC_DONE_INDEX, RPC_OF_INDEX, RPC_OPEN_INDEX, PersistentCall
from tbfast.store.registry import RegistryStore, Write

_decoder = msgspec.msgpack.Decoder(PersistentCall)


class Calls:
    """All methods belong to one event loop; writes return when they are on disk."""

    def __init__(self, store: RegistryStore) -> None:
        self._store = store

    async def add(self, call: PersistentCall) -> None:
        """Keep a new call; the oldest finished ones make room.

        Conflict when its id is taken, ResourceError when only open calls are kept.
        """
        held = self._store.keys(f"{RPC_OF_INDEX}{call.device_id}:")
        if len(held) >= limits.RPC_KEPT_PER_DEVICE:
            await self._make_room([key.rpartition(":")[2] for key in held])
        if await self._store.count("rpc") >= limits.RPC_KEPT:
            oldest = self._store.keys(RPC_DONE_INDEX, limit=1)
            await self._make_room([key.rpartition(":")[2] for key in oldest])
        await self._commit(call, 0)

    async def save(self, call: PersistentCall) -> None:
        """Store a call's new state; NotFound when it was deleted meanwhile."""
        present = self._store.peek("rpc", call.id)
        if present is None:
            raise NotFound(f"RPC with id [{call.id}] is not found")
        await self._commit(call, present.version)

    async def get(self, call_id: str) -> PersistentCall:
        """A call by id."""
        entity = await self._store.get("rpc", call_id)
        if entity is None:
            raise NotFound(f"RPC with id [{call_id}] is not found")
        return _decoder.decode(entity.value)

    async def of_device(self, device_id: str) -> list[PersistentCall]:
        """A device's calls, oldest first."""
        found = []
        for key in self._store.keys(f"{RPC_OF_INDEX}{device_id}:"):
            with contextlib.suppress(NotFound):  # deleted while we look
                found.append(await self.get(key.rpartition(":")[2]))
        return found

    async def open(self) -> AsyncIterator[PersistentCall]:
        """Calls that are not finished, in no order."""
        for call_id in self._store.keys(RPC_OPEN_INDEX):
            yield await self.get(call_id)

    async def delete(self, call_id: str) -> None:
        """Delete a call; one that is gone is no error."""
        present = self._store.peek("rpc", call_id)
        if present is None:
            return
        with contextlib.suppress(Conflict):  # somebody else deletes it
            await self._store.commit(
                Write(kind="rpc", id=call_id, expected=present.version, value=None, change="rpc")
            )

    async def forget_device(self, device_id: str) -> None:
        """Delete all calls of a device."""
        for key in self._store.keys(f"{RPC_OF_INDEX}{device_id}:"):
            await self.delete(key.rpartition(":")[2])

    async def prune(self, before_ms: int) -> int:
        """Delete finished calls that were made before a time; how many."""
        pruned = 0
        while keys := self._store.keys(RPC_DONE_INDEX, limit=limits.REST_SCAN_ROWS):
            for key in keys:
                created, _, call_id = key.partition(":")
                if int(created) >= before_ms:
                    return pruned
                await self.delete(call_id)
                pruned += 1
        return pruned

    async def _make_room(self, ids: list[str]) -> None:
        for call_id in ids:
            if (await self.get(call_id)).final:
                await self.delete(call_id)
                return
        raise ResourceError("too many calls are kept; try again later")

    async def _commit(self, call: PersistentCall, expected: int) -> None:
        await self._store.commit(
            Write(
                kind="rpc",
                id=call.id,
                expected=expected,
                value=msgspec.msgpack.encode(call),
                unique=call.index_keys,
                change="rpc",
            )
        )
