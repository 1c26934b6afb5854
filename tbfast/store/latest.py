"""Latest values of the sealed series, for the next start (design section 3).

A run writes those of its series; now and then all that has changed goes to one record per device.
A start takes the records and then the changes since, in order: each replaces what a series had.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import Final

from rocksdict import WriteBatch

from tbfast.store import rocks
from tbfast.store.series_files import SeriesFiles

_U64: Final = struct.Struct(">Q")


class LatestValues:
    """Families `latest` and `changes` of a series store; packed by the tail, not looked into."""

    def __init__(self, files: SeriesFiles) -> None:
        self._files = files
        self._next_change = 1
        self._changes_bytes = 0
        for key, packed in rocks.pairs(files.changes, files.path):
            self._next_change = _U64.unpack(key)[0] + 1
            self._changes_bytes += len(packed)

    def write_changes(self, packed: bytes) -> None:
        """Latest values of series that have changed; durable with `flush`.

        Not in the log, as the chunks of their run: without its record nobody misses them.
        """
        if packed:
            self._files.write_unlogged("changes", [(self._number_change(packed), packed)])

    def flush(self) -> None:
        """All changes are on disk when it returns."""
        self._files.flush_changes()

    def put_changes(self, batch: WriteBatch, packed: bytes) -> None:
        """Adds the same to a batch of the caller's."""
        if packed:
            handle = self._files.db.get_column_family_handle("changes")
            batch.put(self._number_change(packed), packed, handle)

    def _number_change(self, packed: bytes) -> bytes:
        key = _U64.pack(self._next_change)
        self._next_change += 1
        self._changes_bytes += len(packed)
        return key

    @property
    def changes_bytes(self) -> int:
        """Of all changes that are kept."""
        return self._changes_bytes

    @property
    def next_change(self) -> int:
        """Number of the next change that is written."""
        return self._next_change

    def write_records(self, values: Iterable[tuple[int, bytes | None]]) -> None:
        """Records of devices (None = gone), with all changes so far; durable with
        `forget_changes`."""
        batch = WriteBatch(raw_mode=True)
        handle = self._files.db.get_column_family_handle("latest")
        for device, packed in values:
            if packed is None:
                batch.delete(_U64.pack(device), handle)
            else:
                batch.put(_U64.pack(device), packed, handle)
        self._files.write(batch)

    def forget_changes(self, before: int) -> None:
        """Drops changes with smaller numbers: the devices' records have them."""
        batch = WriteBatch(raw_mode=True)
        handle = self._files.db.get_column_family_handle("changes")
        batch.delete_range(_U64.pack(0), _U64.pack(before), handle)
        self._files.write_synced(batch)
        self._changes_bytes = sum(map(len, self.changes()))

    def changes(self) -> Iterator[bytes]:
        """Changes of latest values that came after the `records`, in order."""
        for _, packed in rocks.pairs(self._files.changes, self._files.path):
            yield packed

    def records(self) -> Iterator[tuple[int, bytes]]:
        """(device, packed latest values)."""
        for key, packed in rocks.pairs(self._files.latest, self._files.path):
            yield _U64.unpack(key)[0], packed
