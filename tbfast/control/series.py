"""What REST reads of stored telemetry are answered from."""

from collections.abc import Sequence

from tbfast.control.links import LinkServer
from tbfast.control.tail import TailService
from tbfast.store.series_reader import JournalReader


class NodeSeries:
    """Latest values and key names from the tail, ranges from the journals.

    Every answer holds all rows acknowledged before the call: while a worker is away, or its journal
    is still being replayed, latest values and key names are read from the journals as well.
    """

    def __init__(
        self, tail: TailService, links: LinkServer, journals: JournalReader, workers: int
    ) -> None:
        self._tail = tail
        self._links = links
        self._journals = journals
        self._workers = frozenset(range(workers))

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
        """Points with start_ms <= ts < end_ms, at most `limit` per key."""
        return await self._journals.range(
            device, keys, start_ms=start_ms, end_ms=end_ms, limit=limit, ascending=ascending
        )

    async def latest(self, device: int, keys: Sequence[str] | None) -> bytes:
        """The newest point of each key."""
        if not await self._tail_complete():
            return await self._journals.latest(device, keys)
        text, elsewhere = self._tail.latest(device, None if keys is None else list(keys))
        if not elsewhere:
            return text + b"}"
        rest = await self._journals.latest(device, elsewhere)
        separator = b"," if len(text) > 1 and len(rest) > 2 else b""
        return text + separator + rest[1:]

    async def keys(self, device: int) -> list[str]:
        """Names of the device's keys, sorted."""
        if not await self._tail_complete():
            return await self._journals.keys(device)
        return self._tail.keys(device)

    async def _tail_complete(self) -> bool:
        """False while a journal is being replayed or its worker is away."""
        return await self._links.caught_up() >= self._workers
