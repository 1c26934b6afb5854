"""Chunks that share a value: what is stored under a chunk's key may be a page of several.

In segments as runs wrote them, common chunks of neighbouring devices lie in one page under the key
that the common chunk of the page's first device would have (`tbf_page.h`); a value says itself
what it is.  Joined segments have none.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Final

from tbfast._ext import page
from tbfast.store.series_files import CHUNK_KEY

_RUN: Final = struct.Struct(">I")


def expanded(key: bytes, value: bytes) -> list[tuple[bytes, bytes]]:
    """(key, chunk) of a stored value, as if each chunk had been stored by itself.

    StoreError when it is a page that is damaged.
    """
    if not page.is_page(value):
        return [(key, value)]
    first, _, run = CHUNK_KEY.unpack(key)
    return [(CHUNK_KEY.pack(device, 0, run), c) for device, c in page.unpack(first, value)]


def places(device: int, key: int, *, raw: bool) -> list[bytes]:
    """Where chunks of a series may be, each without the run: by themselves, in a page.

    raw: of a segment as runs wrote it.
    """
    own = CHUNK_KEY.pack(device, key, 0)[: -_RUN.size]
    first = page.first_device(device)
    if not raw or key or first == device:
        return [own]
    return [own, CHUNK_KEY.pack(first, 0, 0)[: -_RUN.size]]


def chunk_of(device: int, stored_key: bytes, value: bytes) -> bytes | None:
    """A device's chunk in a value stored at one of its `places`, None = it is of others."""
    if page.is_page(value):
        return page.find(device, value)
    return value if CHUNK_KEY.unpack(stored_key)[0] == device else None


def read_chunk(
    get: Callable[[bytes], bytes | None], device: int, key: int, run: int
) -> bytes | None:
    """One chunk of a family; None when it is not there.  get: reads a value of the family."""
    for place in places(device, key, raw=True):
        stored_key = place + _RUN.pack(run)
        value = get(stored_key)
        chunk = None if value is None else chunk_of(device, stored_key, bytes(value))
        if chunk is not None:
            return chunk
    return None


class PagedChunks:
    """(run, key, chunk) of stored values, device by device, whatever they share.

    stored: (key, value) in order of keys, of the runs that count.  ``device``: the next one, None
    at the end.  Holds the pages of `page.DEVICES` devices.
    """

    def __init__(self, stored: Iterator[tuple[bytes, bytes]]) -> None:
        self._stored = stored
        self._paged: dict[int, list[tuple[int, bytes, bytes]]] = {}  # by device
        self._order: list[int] = []  # of its devices, the next one last
        self.device: int | None = None
        self._read()
        self._settle()

    def _read(self) -> None:
        """Takes the next value; its device is None at the end."""
        key, self._value = next(self._stored, (None, b""))
        self._at: int | None = None
        if key is not None:
            self._key = key
            self._at, _, self._run = CHUNK_KEY.unpack(key)

    def _settle(self) -> None:
        """Unpacks the pages that may hold the next device, and says which that is."""
        group = page.first_device(self._order[-1]) if self._order else self._at
        unpacked = False
        # Devices of a later page come after those in hand.
        while self._at is not None and self._at == group and page.is_page(self._value):
            page.collect(self._at, self._run, self._value, self._paged)
            unpacked = True
            self._read()
        if unpacked:
            self._order = sorted(self._paged, reverse=True)
        self.device = self._at
        if self._order and (self._at is None or self._order[-1] < self._at):
            self.device = self._order[-1]

    def of(self, device: int) -> Iterator[tuple[int, bytes, bytes]]:
        """(run, key, chunk) of a device, which is the next one or not there; in any order."""
        while self.device == device:
            if self._order and self._order[-1] == device:
                self._order.pop()
                yield from self._paged.pop(device)
            while self._at == device and not page.is_page(self._value):
                yield self._run, self._key, self._value
                self._read()
            self._settle()
