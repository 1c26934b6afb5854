"""How many entities match a query, and again when they have become more or fewer (REST spec 14.5).

Looked at again when the registry changes; where the query is about values, which change without
it, also every so often.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import msgspec

from tbfast import limits
from tbfast.control.queries import EntityQueries
from tbfast.control.rest.callers import Caller
from tbfast.control.ws.messages import CountEntities, part
from tbfast.control.ws.updates import BAD_REQUEST
from tbfast.errors import PeerError, TbfastError
from tbfast.model.device import Change, ChangeKind
from tbfast.model.entity_query import CountQuery

VALUES_S: Final = 10.0  # a count that is about values is looked at so often
COUNTED_KINDS: Final[frozenset[ChangeKind]] = frozenset(
    {"device", "credentials", "device_profile", "customer"}
)

Send = Callable[[bytes], None]


class CountSubscription:
    """One cmdId: a number, and again whenever it has become another."""

    def __init__(
        self,
        cmd_id: int,
        caller: Caller,
        queries: EntityQueries,
        send: Send,
        failed: Callable[[TbfastError], None],
    ) -> None:
        self._cmd_id = cmd_id
        self._caller = caller
        self._queries = queries
        self._send = send
        self._failed = failed
        self._count = -1
        self._doubtful = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Ends it."""
        if self._task is not None:
            self._task.cancel()

    def changed(self, change: Change) -> None:
        """Something in the registry is different now."""
        if change.kind in COUNTED_KINDS:
            self._doubtful.set()

    async def carry_out(self, command: CountEntities) -> None:
        """The number now, and its changes from now on."""
        query = part(command.query, CountQuery)
        if query is None:
            raise PeerError("query is missing", code=BAD_REQUEST)
        took_s = await self._look(query)
        self._task = asyncio.create_task(self._follow(query, took_s))

    async def _follow(self, query: CountQuery, took_s: float) -> None:
        """Many changes at once are one look; looks take a bounded part of the time."""
        of_values = any(f.key.type != "ENTITY_FIELD" for f in query.key_filters or ())
        while True:
            await asyncio.sleep(max(limits.WS_COUNT_MS / 1000, took_s * limits.WS_COUNT_REST))
            try:
                async with asyncio.timeout(VALUES_S if of_values else None):
                    await self._doubtful.wait()
            except TimeoutError:
                pass  # values may be others
            try:
                took_s = await self._look(query)
            except TbfastError as error:  # such as devices that have become too many for it
                self._failed(error)
                return

    async def _look(self, query: CountQuery) -> float:
        """Seconds it took."""
        self._doubtful.clear()  # what changes from here on may be missed by this look
        began_s = time.monotonic()
        count = await self._queries.count(query, self._caller.sees)
        if count != self._count:
            self._count = count
            answer = {
                "cmdId": self._cmd_id,
                "count": count,
                "cmdUpdateType": "COUNT_DATA",
                "errorCode": 0,
                "errorMsg": None,
            }
            self._send(msgspec.json.encode(answer))
        return time.monotonic() - began_s
