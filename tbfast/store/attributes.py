"""Attributes of devices on disk: client, shared and server scope.

Client attributes arrive as journal rows; they are written here with the journal position they
came at, in one batch, so that a replay after a crash changes nothing twice and misses nothing.
Key: device (8 bytes, big-endian), scope (1 byte), name.  Value: format byte, time (8 bytes), the
JSON text of the value.
"""

import asyncio
import contextlib
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Literal, NamedTuple

from rocksdict import ColumnFamily, Rdict, WriteBatch, WriteOptions

from tbfast.errors import StoreError, StoreFull, StoreStall
from tbfast.store import rocks

Scope = Literal["CLIENT_SCOPE", "SHARED_SCOPE", "SERVER_SCOPE"]
SCOPES: Final[tuple[Scope, ...]] = ("CLIENT_SCOPE", "SHARED_SCOPE", "SERVER_SCOPE")

STORE_FORMAT: Final = 1
_FAMILIES: Final = ("attribute", "meta")
_WRITE_BUFFER_BYTES: Final = 4_194_304
_FORMAT_KEY: Final = b"format"
_CURSOR: Final = struct.Struct(">IQ")
_HEAD: Final = struct.Struct(">Bq")  # value format, time
_DEVICE: Final = struct.Struct(">QB")
_VALUE_FORMAT: Final = 1


class Attribute(NamedTuple):
    """One attribute; `text` is the JSON text of its value."""

    name: str
    ts_ms: int
    text: bytes


class AttributeStore:
    """The attribute database.  One event loop owns it."""

    def __init__(self, path: Path) -> None:
        """Open or create; raises StoreBusy, StoreError, also when a newer tbfast wrote it."""
        self._path = path
        self._db = rocks.open_families(path, _FAMILIES, write_buffer_bytes=_WRITE_BUFFER_BYTES)
        try:
            self._rows: Rdict = self._db.get_column_family("attribute")
            self._meta: Rdict = self._db.get_column_family("meta")
            self._rows_handle: ColumnFamily = self._db.get_column_family_handle("attribute")
            self._meta_handle: ColumnFamily = self._db.get_column_family_handle("meta")
            self._check_format()
        except BaseException:
            self._release()
            raise
        self._options = WriteOptions()
        self._options.no_slowdown = True
        self._thread = ThreadPoolExecutor(1, "attribute-sync")
        self._synced: asyncio.Future[None] | None = None  # of the sync that begins next
        self._syncs: set[asyncio.Task[None]] = set()
        self.failed: StoreError | None = None  # nothing is promised until it is opened again

    def _check_format(self) -> None:
        with rocks.translated(self._path):
            raw = self._meta.get(_FORMAT_KEY)
            if raw is None:
                self._meta[_FORMAT_KEY] = b"%d" % STORE_FORMAT
                self._db.flush_wal(True)
            elif int(raw) > STORE_FORMAT:
                raise StoreError(
                    f"the attributes at {self._path} were written by a newer tbfast (format "
                    f"{int(raw)}, this one reads {STORE_FORMAT}); run that version"
                )

    # --- reads -------------------------------------------------------------------------------

    def read(self, device: int, scope: Scope, names: Sequence[str] | None) -> list[Attribute]:
        """Those of these names that exist; None = all, in the order of names."""
        prefix = _prefix(device, scope)
        if names is not None:
            found = []
            with rocks.translated(self._path):
                for name in dict.fromkeys(names):
                    raw = self._rows.get(prefix + name.encode("utf-8", "surrogateescape"))
                    if raw is not None:
                        found.append(_attribute(name, raw))
            return found
        every = []
        for key, raw in rocks.pairs(self._rows, self._path, prefix):
            if not key.startswith(prefix):
                break
            every.append(_attribute(key[len(prefix) :].decode("utf-8", "surrogateescape"), raw))
        return every

    def devices_with(
        self, scope: Scope, name: str, text: bytes, after: int, limit: int
    ) -> list[int]:
        """At most `limit` devices above a number whose attribute has this value, in order."""
        found: list[int] = []
        with rocks.translated(self._path):
            it = self._rows.iter()
            it.seek(_prefix(after + 1, scope) + name.encode())
            while it.valid() and len(found) < limit:
                key = it.key()
                device = _DEVICE.unpack_from(key)[0]
                wanted = _prefix(device, scope) + name.encode()
                if key == wanted and it.value()[_HEAD.size :] == text:
                    found.append(device)
                it.seek(wanted if key < wanted else _prefix(device + 1, scope) + name.encode())
            it.status()
        return found

    def cursor(self, journal: int) -> tuple[int, int]:
        """Position of the newest journal block whose client attributes are here."""
        with rocks.translated(self._path):
            raw = self._meta.get(b"cursor%d" % journal)
        return (0, 0) if raw is None else _CURSOR.unpack(raw)

    # --- writes ------------------------------------------------------------------------------

    def apply(
        self, journal: int, position: tuple[int, int], rows: Iterable[tuple[int, str, int, bytes]]
    ) -> None:
        """Client attributes (device, name, time, JSON text) of one block; not durable yet."""
        batch = WriteBatch(raw_mode=True)
        for device, name, ts_ms, text in rows:
            key = _prefix(device, "CLIENT_SCOPE") + name.encode("utf-8", "surrogateescape")
            batch.put(key, _HEAD.pack(_VALUE_FORMAT, ts_ms) + text, self._rows_handle)
        batch.put(b"cursor%d" % journal, _CURSOR.pack(*position), self._meta_handle)
        self._write(batch)

    async def save(
        self, device: int, scope: Scope, values: Iterable[tuple[str, bytes]], ts_ms: int
    ) -> None:
        """Values as JSON text under their names; durable on return."""
        batch = WriteBatch(raw_mode=True)
        prefix = _prefix(device, scope)
        for name, text in values:
            batch.put(
                prefix + name.encode("utf-8", "surrogateescape"),
                _HEAD.pack(_VALUE_FORMAT, ts_ms) + text,
                self._rows_handle,
            )
        self._write(batch)
        await self.synced()

    async def save_many(
        self, scope: Scope, values: Mapping[int, Mapping[str, bytes]], ts_ms: int
    ) -> None:
        """Values of many devices in one write; durable on return."""
        batch = WriteBatch(raw_mode=True)
        head = _HEAD.pack(_VALUE_FORMAT, ts_ms)
        for device, named in values.items():
            prefix = _prefix(device, scope)
            for name, text in named.items():
                batch.put(prefix + name.encode(), head + text, self._rows_handle)
        self._write(batch)
        await self.synced()

    async def delete(self, device: int, scope: Scope, names: Iterable[str]) -> None:
        """Durable on return; names that do not exist are no error."""
        batch = WriteBatch(raw_mode=True)
        prefix = _prefix(device, scope)
        for name in names:
            batch.delete(prefix + name.encode("utf-8", "surrogateescape"), self._rows_handle)
        self._write(batch)
        await self.synced()

    def delete_device(self, device: int) -> None:
        """Every attribute of a device; not durable yet."""
        batch = WriteBatch(raw_mode=True)
        batch.delete_range(
            device.to_bytes(8, "big"), (device + 1).to_bytes(8, "big"), self._rows_handle
        )
        self._write(batch)

    async def synced(self) -> None:
        """Returns when everything written before the call is on disk; callers share one sync."""
        if self._synced is None:
            self._synced = asyncio.get_running_loop().create_future()
            task = asyncio.get_running_loop().create_task(self._sync())
            self._syncs.add(task)
            task.add_done_callback(self._syncs.discard)
        await asyncio.shield(self._synced)

    async def _sync(self) -> None:
        await asyncio.sleep(0)  # whoever writes in this turn shares it
        synced, self._synced = self._synced, None
        assert synced is not None
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self.flush)
        except StoreError as error:
            synced.set_exception(error)
            synced.exception()  # retrieved, should every caller have been cancelled
        else:
            synced.set_result(None)

    def flush(self) -> None:
        """Everything written is on disk on return; may be called from any thread."""
        with self._watched():
            self._db.flush_wal(True)

    def checkpoint(self, to: Path) -> None:
        """A copy of its present state."""
        rocks.checkpoint(self._db, self._path, to)

    def close(self) -> None:
        """Release the database; call when nothing is being written."""
        self._thread.shutdown()
        self._release()

    def _write(self, batch: WriteBatch) -> None:
        with self._watched():
            self._db.write(batch, self._options)

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Space may come back; after any other error what the disk holds is unknown."""
        if self.failed is not None:
            raise self.failed
        try:
            with rocks.translated(self._path):
                yield
        except (StoreFull, StoreStall):
            raise
        except StoreError as error:
            self.failed = error
            raise

    def _release(self) -> None:
        # The database stays locked until its handles are gone, hence the deleting.
        for name in ("_rows_handle", "_meta_handle"):
            self.__dict__.pop(name, None)
        for name in ("_rows", "_meta"):
            if (family := self.__dict__.pop(name, None)) is not None:
                rocks.close(family, self._path)
        rocks.close(self._db, self._path)


def _prefix(device: int, scope: Scope) -> bytes:
    return _DEVICE.pack(device, SCOPES.index(scope))


def _attribute(name: str, raw: bytes) -> Attribute:
    value_format, ts_ms = _HEAD.unpack_from(raw)
    if value_format != _VALUE_FORMAT:
        raise StoreError(f"an attribute has the unknown format {value_format}; a newer tbfast?")
    return Attribute(name, ts_ms, raw[_HEAD.size :])
