"""What was deleted and may still lie in chunks and journals (design section 3).

A tombstone covers the rows of one device that had arrived when it was made: `run` says so for
chunks, `cursors` for journals.  Rows that arrive later, with the same times even, are not covered.

Every run that had begun by then holds only covered rows.  Runs that begin later were written from a
head that no longer has them, with one exception: the head that was frozen at that moment may get
its number afterwards.  Its record tells by its cursors: they are not past the tombstone's.

Entries are (device, number) -> tombstone; numbers grow with time.
"""

import struct
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from tbfast import limits
from tbfast._ext.deleted import Deleted
from tbfast.errors import ResourceError, StoreError

FIRST_MS: Final = -(1 << 63)
LAST_MS: Final = (1 << 63) - 1
KEY: Final = struct.Struct(">QQ")  # device, number of the tombstone
Cursors = Mapping[int, tuple[int, int]]  # journal -> (epoch, sequence)


class Tombstone(msgspec.Struct, array_like=True, frozen=True):
    """Rows of a device with first_ms <= ts <= last_ms are deleted; `key` None = of all keys."""

    device: int
    number: int
    key: bytes | None
    first_ms: int
    last_ms: int
    run: int  # chunks of runs up to this one are covered
    cursors: dict[int, tuple[int, int]]  # journals are covered up to here

    def covers(self, other: "Tombstone") -> bool:
        """Whether an earlier one adds nothing to this."""
        return (
            (self.key is None or self.key == other.key)
            and self.first_ms <= other.first_ms
            and other.last_ms <= self.last_ms
        )

    def reaches(self, cursors: Cursors) -> bool:
        """Whether all rows up to these positions had arrived."""
        return all(at <= self.cursors.get(j, (0, 0)) for j, at in cursors.items())

    def passed_by(self, cursors: Cursors) -> bool:
        """Whether no journal is read from a position it covers any more."""
        return all(at <= cursors.get(j, (0, 0)) for j, at in self.cursors.items())


def _too_many() -> ResourceError:
    return ResourceError(
        f"this device has {limits.TOMBSTONES_PER_DEVICE} deleted ranges that its data "
        "still holds; delete one range that spans them"
    )


def decode(raw: bytes) -> Tombstone:
    """A stored tombstone; StoreError when it is damaged."""
    try:
        return msgspec.msgpack.decode(raw, type=Tombstone)
    except msgspec.DecodeError as error:
        raise StoreError(f"a tombstone does not decode: {error}") from error


class Tombstones:
    """All of a node's, by device.  Any thread may ask; changes are collected for one writer.

    A device has at most `limits.TOMBSTONES_PER_DEVICE`: later deletes replace what they cover, and
    ranges that touch and reach equally far become one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_device: dict[int, tuple[Tombstone, ...]] = {}  # oldest first
        self._deleted: dict[int, Deleted] = {}  # made of it on demand
        self._changes: dict[tuple[int, int], Tombstone | None] = {}  # not stored yet
        self._recent: set[int] = set()  # devices with one that no recorded run has passed yet
        self._spans: list[tuple[int, int]] | None = None  # of the last `forget`
        self._next = 1

    def __len__(self) -> int:
        return sum(map(len, self._by_device.values()))

    def __iter__(self) -> Iterator[Tombstone]:
        for mine in list(self._by_device.values()):
            yield from mine

    @property
    def next_number(self) -> int:
        """Of the next tombstone: whoever rewrites chunks from now on applies all before it."""
        return self._next

    def restore(self, stored: Iterable[Tombstone], next_number: int = 1) -> None:
        """Takes back what was stored, oldest first; numbers below `next_number` are not reused."""
        self._next = max(self._next, next_number)
        for tombstone in stored:
            mine = self._by_device.get(tombstone.device, ())
            self._by_device[tombstone.device] = (*mine, tombstone)
            self._recent.add(tombstone.device)
            self._next = max(self._next, tombstone.number + 1)

    # --- changes -------------------------------------------------------------------------

    def add(
        self,
        device: int,
        keys: Iterable[bytes] | None,
        first_ms: int,
        last_ms: int,
        *,
        run: int,
        cursors: Cursors,
    ) -> None:
        """In force at once; ResourceError when the device has too many."""
        names = (None,) if keys is None else tuple(dict.fromkeys(keys))
        wanted = frozenset(names)
        with self._lock:
            mine = self._by_device.get(device, ())
            alike: dict[bytes | None, list[Tombstone]] = {}  # those a new one may cover or touch
            for held in mine:
                alike.setdefault(held.key, []).append(held)
            kept = [] if keys is None else [t for t in mine if t.key not in wanted]
            if len(kept) + len(names) > limits.TOMBSTONES_PER_DEVICE:
                raise _too_many()
            for key in names:
                made = Tombstone(device, self._next, key, first_ms, last_ms, run, dict(cursors))
                self._next += 1
                before = mine if key is None else alike.get(key, ())
                kept += _joined([*(t for t in before if not made.covers(t)), made])
            if len(kept) > limits.TOMBSTONES_PER_DEVICE:
                raise _too_many()
            self._set(device, sorted(kept, key=lambda t: t.number))

    def recorded(self, run: int, cursors: Cursors) -> None:
        """A run was recorded: covers it where its rows had arrived before the delete."""
        with self._lock:
            for device in list(self._recent):
                mine = self._by_device.get(device, ())
                if any(t.run < run and t.reaches(cursors) for t in mine):
                    # Found again from the run's record at the next start.
                    self._by_device[device] = tuple(
                        msgspec.structs.replace(t, run=run)
                        if t.run < run and t.reaches(cursors)
                        else t
                        for t in mine
                    )
                    self._deleted.pop(device, None)
                if all(t.passed_by(cursors) for t in mine):
                    self._recent.discard(device)

    def forget(self, spans: list[tuple[int, int]], cursors: Cursors) -> None:
        """Drops those that no rows in chunks or journals are left for.

        spans: (first run, number below which tombstones were applied) of every segment.
        """
        with self._lock:
            if spans == self._spans:
                return
            self._spans = spans
            for device, mine in list(self._by_device.items()):
                kept = [
                    t
                    for t in mine
                    if not t.passed_by(cursors)
                    or any(t.run >= first and t.number >= clean for first, clean in spans)
                ]
                if len(kept) != len(mine):
                    self._set(device, kept)

    def _set(self, device: int, now: list[Tombstone]) -> None:
        before = {t.number: t for t in self._by_device.get(device, ())}
        for tombstone in now:
            if before.pop(tombstone.number, None) != tombstone:
                self._changes[device, tombstone.number] = tombstone
        for number in before:
            self._changes[device, number] = None
        if now:
            self._by_device[device] = tuple(now)
            self._recent.add(device)
        else:
            self._by_device.pop(device, None)
        self._deleted.pop(device, None)

    def take_changes(self) -> dict[tuple[int, int], Tombstone | None]:
        """What has to be stored (None = removed), oldest first."""
        with self._lock:
            changes, self._changes = self._changes, {}
            return changes

    def give_back(self, changes: dict[tuple[int, int], Tombstone | None]) -> None:
        """Changes that could not be stored."""
        with self._lock:
            self._changes = changes | self._changes

    # --- questions -----------------------------------------------------------------------

    def in_chunks(self, device: int) -> Deleted | None:
        """What is deleted of a device's chunks, positions being run numbers; None = nothing.

        Also for whoever rewrites chunks: rows it covers need not be kept.
        """
        mine = self._by_device.get(device)
        if mine is None:
            return None
        known = self._deleted.get(device)
        if known is None:
            known = Deleted([(t.run, t.key, t.first_ms, t.last_ms) for t in mine])
            with self._lock:
                if self._by_device.get(device) is mine:
                    self._deleted[device] = known
        return known

    def in_journal(self, device: int, journal: int) -> Deleted | None:
        """What is deleted of its rows in a journal, positions being epoch << 64 | sequence."""
        return _in_journal(self._by_device.get(device, ()), journal)

    def replayed(self, journal: int) -> tuple[tuple[int, int], dict[int, Deleted]]:
        """Up to which position blocks hold deleted rows, and `in_journal` of all devices."""
        found: dict[int, Deleted] = {}
        last = (0, 0)
        for device, mine in list(self._by_device.items()):
            deleted = _in_journal(mine, journal)
            if deleted is not None:
                found[device] = deleted
                last = max(last, *(t.cursors.get(journal, (0, 0)) for t in mine))
        return last, found

    def journals(self) -> set[int]:
        """Journals that may hold deleted rows."""
        return {journal for tombstone in self for journal in tombstone.cursors}


def _in_journal(mine: Iterable[Tombstone], journal: int) -> Deleted | None:
    entries = [
        (epoch << 64 | seq, t.key, t.first_ms, t.last_ms)
        for t in mine
        for epoch, seq in (t.cursors.get(journal, (0, 0)),)
        if epoch
    ]
    return Deleted(entries) if entries else None


def _joined(mine: list[Tombstone]) -> list[Tombstone]:
    """The newest with those it touches that reach as far as it does."""
    *others, newest = mine
    merged = True
    while merged:
        merged = False
        for other in others:
            if (
                (other.key, other.run, other.cursors) == (newest.key, newest.run, newest.cursors)
                and other.first_ms <= newest.last_ms + 1
                and newest.first_ms <= other.last_ms + 1
            ):
                newest = msgspec.structs.replace(
                    newest,
                    first_ms=min(newest.first_ms, other.first_ms),
                    last_ms=max(newest.last_ms, other.last_ms),
                )
                others.remove(other)
                merged = True
                break
    return [*others, newest]
