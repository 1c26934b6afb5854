"""Follows the journals: cursors, latest values, and the live feed."""

import asyncio
import struct
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

import msgspec

from tbfast import limits
from tbfast._ext import metrics as words
from tbfast._ext.deleted import Deleted
from tbfast._ext.head import Head
from tbfast._ext.metrics import Slot
from tbfast._ext.scan import RangeScan
from tbfast._ext.series import rows, split_definitions
from tbfast._ext.tail import Tail
from tbfast.errors import ResourceError, StoreError
from tbfast.obs.log import get_logger

log = get_logger("tbfast.tail")

FEED_ROWS = 8_192  # given to a read in one turn of the loop, a few ms at most
LIVE_QUEUE_BYTES = 1 << 20  # per subscriber; beyond it the subscription is ended
PLACE = struct.Struct("<IIQq")  # journal, epoch, sequence, commit time: block header, offset 8
_DEFS_BYTES = struct.Struct("<I")
_EVERY_KEY = (1 << 32) - 1
_TELEMETRY, _ATTRIBUTES = 0, 1  # kinds of records

Cursor = tuple[int, int]
Row = tuple[int, str, int, bytes]  # device number, key, time, JSON text
DeletedRange = tuple[bytes | None, int, int]  # key (None = all), first and last ms

# (journal, position, client attributes as (device, name, time, JSON text))
OnAttributes = Callable[[int, Cursor, Sequence[tuple[int, str, int, bytes]]], None]


class RowListener(Protocol):
    """Wants telemetry as it is committed, called on the loop's thread."""

    @property
    def devices(self) -> Collection[int]:
        """Numbers of the devices it wants now."""

    def rows(self, rows: Iterable[Row]) -> None:
        """Rows of one commit, in order."""


class LiveSubscription:
    """Rows as they are committed, as JSON lines; ResourceError when the reader was too slow."""

    def __init__(self, tail: "TailService", devices: frozenset[int] | None) -> None:
        self.devices = devices
        self._tail = tail
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._overflowed = False
        self._wake = asyncio.Event()

    def __aiter__(self) -> "LiveSubscription":
        return self

    async def __anext__(self) -> bytes:
        while not self._queue:
            if self._overflowed:
                raise ResourceError("this subscriber reads too slowly; subscribe again")
            self._wake.clear()
            await self._wake.wait()
        chunk = b"".join(self._queue)
        self._queue.clear()
        self._queued_bytes = 0
        return chunk

    async def aclose(self) -> None:
        """Ends the subscription."""
        self._tail.unsubscribe(self)

    def push(self, lines: bytes) -> None:
        """Queues lines, or ends the subscription at the bound."""
        if self._queued_bytes + len(lines) > LIVE_QUEUE_BYTES:
            self._overflowed = True
            self._tail.unsubscribe(self)
        else:
            self._queue.append(lines)
            self._queued_bytes += len(lines)
        self._wake.set()


class TailService:
    """State that follows from the journals' blocks, in the order each journal committed them."""

    def __init__(
        self,
        slot: Slot,
        *,
        head_bytes: int = limits.HEAD_BYTES,
        registered: Callable[[int], bool] | None = None,
        on_attributes: OnAttributes | None = None,
    ) -> None:
        """registered(number): whether a device exists; None = all do."""
        self._slot = slot
        self._registered = registered
        self._on_attributes = on_attributes
        self._bound_bytes = head_bytes * limits.HEAD_BLOCKED_HEADS
        self._tail = Tail(registered)
        self._frozen: Head | None = None
        self._frozen_deleted: dict[int, list[DeletedRange]] = {}  # since it was frozen, by device
        self._replayed: dict[int, tuple[Cursor, dict[int, Deleted]]] = {}  # journal -> up to, what
        self._damaged: dict[int, str] = {}  # journal -> where; its rows end before that place
        self._hidden_ms: int | None = None  # since when they have been missing, Unix time
        self._cursors: dict[int, Cursor] = {}
        self._clocks: dict[int, tuple[int, int]] = {}  # journal -> its last commit, what is added
        self._newest_ms = 0  # of all commits
        self._step_ms = 0  # what the clock has been set back in all
        self._names: dict[tuple[int, int], dict[int, bytes]] = {}
        self._waiting: dict[int, list[tuple[Cursor, asyncio.Future[None]]]] = {}
        self._stirred = False  # blocks have come since `settle` was called last
        self._live: set[LiveSubscription] = set()
        self._listeners: list[RowListener] = []

    def cursor(self, journal: int) -> Cursor:
        """Position of the last block applied; (0, 0) = none."""
        return self._cursors.get(journal, (0, 0))

    def define(self, journal: int, epoch: int, first: int, names: list[bytes]) -> None:
        """Key definitions of one journal epoch."""
        self._tail.define(journal, epoch, first, names)
        known = self._names.setdefault((journal, epoch), {})
        known.update(enumerate(names, first))

    # --- runs ----------------------------------------------------------------------------

    @property
    def head(self) -> Head:
        """Rows of the current run."""
        return self._tail.head

    @property
    def full(self) -> bool:
        """Whether sealing lags so far behind that workers must wait."""
        held = self._tail.head.nbytes + (self._frozen.nbytes if self._frozen else 0)
        return held >= self._bound_bytes

    def cursors(self) -> dict[int, Cursor]:
        """Position applied of every journal."""
        return dict(self._cursors)

    def restore_cursors(self, cursors: dict[int, Cursor]) -> None:
        """Positions that recorded runs cover; blocks up to there are ignored."""
        self._cursors.update(cursors)

    def restore_deleted(self, journal: int, last: Cursor, deleted: dict[int, Deleted]) -> None:
        """What deletes covered of a journal's blocks up to `last`, for their replay."""
        self._replayed[journal] = last, deleted

    def freeze(self) -> Head:
        """Starts a new head; the frozen one stays readable until `thaw`."""
        assert self._frozen is None  # its rows would be in no run and in no head
        self._frozen = self._tail.freeze()
        return self._frozen

    def thaw(self, cursors: dict[int, Cursor]) -> None:
        """The frozen head is in a recorded run that covers the journals up to these positions."""
        self._frozen = None
        self._frozen_deleted = {}
        for journal, (epoch, _) in cursors.items():
            self._tail.forget_epochs(journal, epoch)
            for known in [k for k in self._names if k[0] == journal and k[1] < epoch]:
                del self._names[known]

    def release_spare(self) -> None:
        """Gives the memory kept for the next head back: it fills slowly now."""
        self._tail.pool.release()

    def keep_spare(self, keep: bool) -> None:
        """While full heads come one upon the other each takes the memory of the one before it,
        however large the backlog made that; else no more than an ordinary head needs."""
        # Arrays double, so there is up to twice the memory that rows fill.
        self._tail.pool.bound(2 * self._bound_bytes if keep else limits.HEAD_SPARE_BYTES)

    @property
    def key_count(self) -> int:
        """Own key numbers given so far."""
        return len(self._tail.names_from(1))

    def names_from(self, number: int) -> list[tuple[int, bytes]]:
        """(own key number, name) from a number on."""
        return self._tail.names_from(number)

    def restore_key(self, number: int, name: bytes) -> None:
        """A key of the series store, in order of numbers."""
        self._tail.restore_key(number, name)

    def restore_latest(self, device: int, packed: bytes) -> None:
        """Latest values of a device from the series store."""
        self._tail.restore_latest(device, packed)

    def restore_changes(self, packed: bytes) -> None:
        """Changes of latest values since, from the series store."""
        self._tail.restore_changes(packed)

    def pack_changes(self, head: Head, start: int, count: int, keys_end: int) -> tuple[int, bytes]:
        """What the series store keeps of the devices in the frozen head: keys below `keys_end`.

        (Where to go on, 0 = the end, latest values and last activity).
        """
        return self._tail.pack_changes(head, start, count, keys_end)

    def pack_device_changes(self, device: int) -> bytes:
        """Latest values of one device, or that it is gone."""
        return self._tail.pack_device_changes(device, _EVERY_KEY)

    def pack_stale(
        self, start: int, count: int, keys_end: int
    ) -> list[tuple[int, bytes | None]] | None:
        """Devices with changes that their records in the series store lack, of `count` from place
        `start` on; None at the end."""
        if not self._tail.numbers(start, 1):
            return None
        return self._tail.pack_stale(start, count, keys_end)

    async def feed(self, scan: RangeScan, device: int) -> None:
        """Gives the rows that no recorded run held at the call to a range scan, some in a turn of
        the loop: a device may have a million."""
        for head, age, deleted in self._unsealed(device):
            place = self._tail.feed(scan, head, device, age, deleted, (0, 0), FEED_ROWS)
            while place is not None:
                await asyncio.sleep(0)
                place = self._tail.feed(scan, head, device, age, deleted, place, FEED_ROWS)

    def _unsealed(self, device: int) -> list[tuple[Head, int, Deleted | None]]:
        """Heads with their age, and what was deleted of a frozen one."""
        heads: list[tuple[Head, int, Deleted | None]] = [(self._tail.head, 0, None)]
        if self._frozen is not None:
            ranges = self._frozen_deleted.get(device)
            deleted = None if ranges is None else Deleted([(0, *r) for r in ranges])
            heads.append((self._frozen, 1, deleted))
        return heads

    def damaged(self, journal: int, where: str) -> None:
        """Rows of a journal cannot be read from there on."""
        self._hide(journal, where, _now_ms())

    def check(self) -> None:
        """StoreError if a journal has damage that hides acknowledged rows."""
        for where in self._damaged.values():
            raise StoreError(
                f"{where}; stop the server and save what can be read with 'tbfast store recover'"
            )

    # --- blocks --------------------------------------------------------------------------

    def settle(self) -> None:
        """Called now and then: if nothing came since, queries show all there is."""
        if self._damaged or not (self._stirred or self.full):
            self._publish_lag(_now_ms())
        self._stirred = False

    def _publish_lag(self, shown_ms: int) -> None:
        """Queries show all rows up to a time, but those that damage hides."""
        if self._hidden_ms is not None:
            shown_ms = min(shown_ms, self._hidden_ms)
        self._slot.put(words.TAIL_LAG_MS, max(0, _now_ms() - shown_ms))

    def _hide(self, journal: int, where: str, since_ms: int) -> None:
        self._damaged[journal] = where
        self._hidden_ms = min(since_ms, self._hidden_ms or since_ms)

    def apply(self, block: bytes) -> None:
        """Takes a block in; one that was applied before is ignored."""
        journal, epoch, seq, commit_ms = PLACE.unpack_from(block, 8)
        position = (epoch, seq)
        if position <= self.cursor(journal):
            return
        if journal in self._damaged:
            return
        attributes = self._tail.attribute_records
        try:
            dropped = self._tail.dropped
            deleted = self._deleted_before(journal, position)
            self._tail.apply(block, deleted, self._ahead_ms(journal, commit_ms))
        except StoreError as error:
            # The cursor stays before it: nothing from here on is sealed or trimmed.
            where = f"journal {journal}, epoch {epoch}, sequence {seq}: {error}"
            self._hide(journal, where, commit_ms)
            log.error("journal is damaged", where=self._damaged[journal])
            return
        self._cursors[journal] = position
        self._stirred = True
        if self._tail.dropped != dropped:
            self._slot.add(words.RECORDS_DROPPED_DEVICE, self._tail.dropped - dropped)
        self._publish_lag(commit_ms)
        self._learn_names(block, journal, epoch)
        if self._tail.attribute_records != attributes and self._on_attributes is not None:
            names = self._names.setdefault((journal, epoch), {})
            self._on_attributes(
                journal,
                position,
                [
                    (device, name, ts, text)
                    for device, _, ts, name, _, text in rows(block, names, kind=_ATTRIBUTES)
                    if self._registered is None or self._registered(device)
                ],
            )
        if self._live:
            self._push_live(block, journal, epoch)
        for listener in self._listeners:
            if wanted := listener.devices:
                names = self._names.setdefault((journal, epoch), {})
                found = rows(block, names, wanted, _TELEMETRY)
                listener.rows([(device, name, ts, text) for device, _, ts, name, _, text in found])
        self._wake(journal, position)

    def _ahead_ms(self, journal: int, commit_ms: int) -> int:
        """What is added to commit times of a journal so that they never run backwards.

        A clock that was set back makes commits old that are the newest of all.
        """
        before_ms, ahead_ms = self._clocks.get(journal, (0, 0))
        if commit_ms < before_ms:
            # Every journal meets the same step: the first measures it.
            if ahead_ms == self._step_ms:
                self._step_ms = self._newest_ms - commit_ms
            ahead_ms = self._step_ms
        self._clocks[journal] = commit_ms, ahead_ms
        self._newest_ms = max(self._newest_ms, commit_ms + ahead_ms)
        return ahead_ms

    def _deleted_before(self, journal: int, position: Cursor) -> dict[int, Deleted] | None:
        replayed = self._replayed.get(journal)
        if replayed is None:
            return None
        if position > replayed[0]:
            del self._replayed[journal]
            return None
        return replayed[1]

    def _learn_names(self, block: bytes, journal: int, epoch: int) -> None:
        (size,) = _DEFS_BYTES.unpack_from(block, 56)
        if size:
            (first,) = _DEFS_BYTES.unpack_from(block, 72)
            names = split_definitions(block[80 : 80 + size])
            self._names.setdefault((journal, epoch), {}).update(enumerate(names, first))

    # --- deletes -------------------------------------------------------------------------

    def delete(
        self, device: int, keys: Collection[bytes] | None, first_ms: int, last_ms: int, latest: bool
    ) -> list[bytes]:
        """Hides rows applied so far; with `latest` also latest values in that range.

        None keys = all.  Returns the keys that lost their latest value.
        """
        if self._frozen is not None:
            hidden = self._frozen_deleted.setdefault(device, [])
            hidden += [(key, first_ms, last_ms) for key in ((None,) if keys is None else keys)]
        return self._tail.delete(device, keys, first_ms, last_ms, latest)

    def delete_device(self, device: int) -> list[bytes]:
        """Hides everything of a device, now and later; returns the keys it had."""
        return self._tail.delete_device(device)

    def rewrite_latest(self, device: int, scan: RangeScan) -> None:
        """Takes the points of a scan (limit 1, newest first) as latest values, if newer."""
        self._tail.rewrite_latest(device, scan)

    def activity_ms(self, device: int) -> int:
        """Commit time of the device's last record, 0 = none."""
        return self._tail.activity_ms(device)

    def numbers(self, start: int, count: int) -> list[int]:
        """Numbers of devices seen, from the one in place `start`."""
        return self._tail.numbers(start, count)

    # --- waiting for a position --------------------------------------------------------------

    async def reached(self, journal: int, position: Cursor) -> None:
        """Returns when the journal has been applied up to `position`."""
        if self.cursor(journal) >= position:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(journal, []).append((position, future))
        await future

    def _wake(self, journal: int, position: Cursor) -> None:
        waiting = self._waiting.get(journal)
        if not waiting:
            return
        self._waiting[journal] = [w for w in waiting if w[0] > position and not w[1].done()]
        for wanted, future in waiting:
            if wanted <= position and not future.done():
                future.set_result(None)

    # --- live --------------------------------------------------------------------------------

    def subscribe(self, devices: frozenset[int] | None) -> LiveSubscription:
        """Rows committed from now on; None = of all devices."""
        subscription = LiveSubscription(self, devices)
        self._live.add(subscription)
        return subscription

    def listen(self, listener: RowListener) -> None:
        """Tells it of all rows of its devices from now on."""
        self._listeners.append(listener)

    def unsubscribe(self, subscription: LiveSubscription) -> None:
        """Ends a subscription."""
        self._live.discard(subscription)

    def _push_live(self, block: bytes, journal: int, epoch: int) -> None:
        wanted: set[int] | None = set()
        for subscription in self._live:
            wanted = None if subscription.devices is None or wanted is None else (
                wanted | subscription.devices
            )  # fmt: skip
        names = self._names.setdefault((journal, epoch), {})
        lines: list[tuple[int, bytes]] = [
            (
                device,
                b'{"device":%d,"ts":%d,"key":%b,"value":%b}\n'
                % (device, ts, msgspec.json.encode(name), text),
            )
            for device, _, ts, name, _, text in rows(block, names, wanted, _TELEMETRY)
        ]
        for subscription in list(self._live):
            mine = b"".join(
                line
                for device, line in lines
                if subscription.devices is None or device in subscription.devices
            )
            if mine:
                subscription.push(mine)

    def active_since(self, since_ms: int, start: int, count: int) -> list[tuple[int, int]]:
        """(device number, commit time) of those among `count` places that had rows since."""
        return self._tail.active_since(since_ms, start, count)

    @property
    def devices_seen(self) -> int:
        """Places of devices in use."""
        return self._tail.devices_seen

    # --- reads -------------------------------------------------------------------------------

    def latest(self, device: int, keys: list[str] | None) -> tuple[bytes, list[str]]:
        """(JSON without its closing brace, keys whose value must be read from the journals)."""
        return self._tail.latest(device, keys)

    def key_numbers(self, device: int) -> dict[int, bytes]:
        """Own key number -> name of the keys a device has."""
        return self._tail.key_numbers(device)

    def keys(self, device: int) -> list[str]:
        """Telemetry keys of a device, sorted."""
        return self._tail.key_names(device)

    @property
    def series(self) -> int:
        """Number of series seen."""
        return self._tail.series


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
