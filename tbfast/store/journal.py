"""A worker's journal: commit groups as blocks in RocksDB, with epochs and a high-water mark.

Column families: ``default`` holds block values under (epoch, sequence) big-endian; ``meta`` holds

    b"f"                        format version (u32)
    b"e"                        newest epoch (u32)
    b"t"                        trim point: blocks at or below it are gone (u32 epoch, u64 sequence)
    b"k" + epoch + first key    key definitions, as in the block that defines them

Each opening starts an epoch, synced before anything can be acknowledged: sequence numbers that were
lost with an unsynced tail can then never be taken for blocks already seen.  A second file,
``<journal>.mark``, remembers what had been synced, so that missing synced blocks are noticed.
Of a journal that was removed, ``<journal>.epoch`` remains: cursors of the series store still name
its positions, and blocks of a new journal must come after them.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from rocksdict import Rdict, WriteBatch, WriteOptions

from tbfast._ext.ingest import Group
from tbfast.errors import StoreError
from tbfast.store import known, rocks

FORMAT_VERSION: Final = 1
WRITE_BUFFER_BYTES: Final = 32 << 20  # trimmed before it is flushed, a block is written once
BLOCK_DEFS_OFFSET: Final = 80
RECLAIM_BYTES: Final = 4 << 20  # of trimmed table files, before they are freed
RECLAIM_RATIO: Final = 3  # times the bytes of the others, which that writes once more
MARK: Final = struct.Struct("<4sIQI")  # magic, epoch, sequence, crc32 of what precedes
MARK_MAGIC: Final = b"TBJM"
KEY: Final = struct.Struct(">IQ")


class Position(NamedTuple):
    """A place in a journal; (0, 0) is before everything."""

    epoch: int
    seq: int


class KeyDefinitions(NamedTuple):
    """Names of consecutive key numbers of one epoch, as varint-length-prefixed bytes."""

    epoch: int
    first: int
    defs: bytes


def block_key(position: Position) -> bytes:
    """RocksDB key of a block."""
    return KEY.pack(*position)


def read_definitions(meta: Rdict, path: Path) -> Iterator[KeyDefinitions]:
    """Every key definition of an open journal, oldest epoch first; StoreError at damage."""
    for key, defs in rocks.pairs(meta, path, b"k"):
        if key[:1] != b"k":
            return
        epoch, first = struct.unpack(">II", key[1:])
        yield KeyDefinitions(epoch, first, defs)


def read_epoch(meta: Rdict) -> int:
    """Newest epoch of a journal, 0 = none."""
    stored = meta.get(b"e")
    return int(struct.unpack("<I", stored)[0]) if stored else 0


def retire_epoch(path: Path, epoch: int) -> None:
    """Remembers the newest epoch of a journal that is or will be gone, synced."""
    known.write_epoch(known.retired_path(path), epoch)


def raise_epoch(path: Path, epoch: int) -> None:
    """Lets the journal, there or not, begin its next epoch above `epoch`; nobody has it open."""
    if not path.is_dir():
        retire_epoch(path, epoch)
        return
    db = rocks.open_families(path, ("default", "meta"), write_buffer_bytes=WRITE_BUFFER_BYTES)
    meta = db.get_column_family("meta")
    try:
        with rocks.translated(path):
            meta.put(b"e", struct.pack("<I", max(read_epoch(meta), epoch)))
            db.flush_wal(True)
    finally:
        rocks.close(meta, path)
        rocks.close(db, path)


def mark_path(path: Path) -> Path:
    """Where the high-water mark of a journal is."""
    return path.with_name(path.name + ".mark")


def read_mark(path: Path) -> Position | None:
    """Up to which position a journal had been synced; None when nothing says so."""
    with rocks.translated(path):
        found = mark_path(path)
        return _marked(found.read_bytes()[: MARK.size]) if found.exists() else None


def _marked(raw: bytes) -> Position | None:
    """A torn mark says nothing; the journal's own checksums still hold."""
    if len(raw) < MARK.size:
        return None
    magic, epoch, seq, crc = MARK.unpack(raw)
    good = magic == MARK_MAGIC and crc == zlib.crc32(raw[:-4])
    return Position(epoch, seq) if good else None


def retired_epoch(path: Path) -> int:
    """Newest epoch of a journal that was removed, 0 = of none."""
    return known.read_epoch(known.retired_path(path))


class Journal:
    """The journal of one writer process.  Not thread-safe, but `sync` may run in another thread.

    Raises StoreError when the directory cannot be opened, is damaged, or lacks blocks that had
    been synced; the message names the path.
    """

    def __init__(self, path: Path, journal_id: int, known_epoch: Path | None = None) -> None:
        """known_epoch: file outside the directory that remembers the newest epoch."""
        self.path = path
        self._known_epoch = known_epoch
        self.journal_id = journal_id
        self._db = rocks.open_families(
            path, ("default", "meta"), write_buffer_bytes=WRITE_BUFFER_BYTES
        )
        # Kept: a family's Rdict flushes it when it goes, with syncs and the GIL held.
        self._meta = self._db.get_column_family("meta")
        self._meta_handle = self._db.get_column_family_handle("meta")
        self._write_options = WriteOptions()
        self._write_options.no_slowdown = True
        self._mark_path = mark_path(path)
        self._mark_fd = -1
        try:
            with rocks.translated(self._mark_path):
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
                self._mark_fd = os.open(self._mark_path, flags, 0o600)
            self._check_format()
            self._retired = retired_epoch(path)
            self.trimmed = self._read_position(b"t")
            self._reclaimed = Position(0, 0)
            self._check_mark()
            self.epoch = self._start_epoch()
        except BaseException:
            self._release()
            raise
        self.written = self.last()
        self.durable = self.written
        self.written_keys = 0

    def _check_format(self) -> None:
        stored = self._meta.get(b"f")
        if stored is None:
            with rocks.translated(self.path):
                self._meta.put(b"f", struct.pack("<I", FORMAT_VERSION))
            return
        version = struct.unpack("<I", stored)[0]
        if version > FORMAT_VERSION:
            raise StoreError(
                f"{self.path}: written by a newer tbfast (format {version}, this one knows "
                f"{FORMAT_VERSION}); start that version or use another --data-dir"
            )

    def _read_position(self, key: bytes) -> Position:
        stored = self._meta.get(key)
        return Position(*KEY.unpack(stored)) if stored else Position(0, 0)

    def last(self) -> Position:
        """Position of the newest block; (0, 0) in an empty journal."""
        with rocks.translated(self.path):
            it = self._db.iter()
            it.seek_to_last()
            it.status()
        return Position(*KEY.unpack(it.key())) if it.valid() else Position(0, 0)

    def _check_mark(self) -> None:
        raw = os.pread(self._mark_fd, MARK.size, 0)
        if len(raw) < MARK.size:  # a new journal, or one that never synced
            with rocks.translated(self._mark_path):
                os.pwrite(self._mark_fd, bytes(MARK.size), 0)  # later marks need no more space
            return
        marked = _marked(raw)
        if marked is None or marked.epoch <= self._retired:
            return  # torn, of a journal that was removed, or of one whose loss was accepted
        newest = max(self.last(), self.trimmed)
        if newest < marked:
            raise StoreError(
                f"{self.path}: blocks up to epoch {marked.epoch}, sequence {marked.seq} were "
                f"synced, but the newest is epoch {newest.epoch}, sequence {newest.seq}: "
                f"acknowledged data is missing. Restore a backup, or go on with what is left: "
                f"'tbfast store recover --shard journal/{self.path.name}'"
            )

    def _start_epoch(self) -> int:
        newest = max(read_epoch(self._meta), self._retired)
        if self._known_epoch is not None:
            lost = known.lost_journal(self.path, self._known_epoch, newest)
            if lost is not None:
                raise lost
        epoch = newest + 1
        with rocks.translated(self.path):
            self._meta.put(b"e", struct.pack("<I", epoch))
            self._db.flush_wal(True)
        if self._known_epoch is not None:
            known.remember_epoch(self._known_epoch, epoch)
        return epoch

    def append(self, group: Group) -> None:
        """Writes the group's block, unsynced.  StoreFull, StoreStall or StoreError if refused.

        Holds the GIL while writing: groups are bounded for that reason.
        """
        value = group.value
        assert value is not None  # a group without rows is never written
        position = Position(self.epoch, group.seq)
        batch = WriteBatch(raw_mode=True)
        batch.put(block_key(position), value)
        if group.last_key > self.written_keys:
            defs_n = int.from_bytes(value[56:60], "little")
            first = int.from_bytes(value[72:76], "little")
            batch.put(
                b"k" + struct.pack(">II", self.epoch, first),
                value[BLOCK_DEFS_OFFSET : BLOCK_DEFS_OFFSET + defs_n],
                self._meta_handle,
            )
        with rocks.translated(self.path):
            self._db.write(batch, self._write_options)
        self.written = position
        self.written_keys = max(self.written_keys, group.last_key)

    def sync(self) -> None:
        """Makes everything written before this call durable.  Runs without the GIL."""
        with rocks.translated(self.path):
            self._db.flush_wal(True)

    def mark(self, position: Position) -> None:
        """Remembers in the second place that blocks up to `position` are synced."""
        head = MARK.pack(MARK_MAGIC, position.epoch, position.seq, 0)[:-4]
        with rocks.translated(self._mark_path):
            os.pwrite(self._mark_fd, head + struct.pack("<I", zlib.crc32(head)), 0)

    def read(self, after: Position, upto: Position, max_bytes: int) -> list[tuple[Position, bytes]]:
        """Blocks after one position up to another, inclusive; max_bytes, but at least one.

        StoreError where they are damaged.
        """
        blocks: list[tuple[Position, bytes]] = []
        total = 0
        end = block_key(upto)
        first = block_key(Position(after.epoch, after.seq + 1))
        try:
            for key, value in rocks.pairs(self._db, self.path, first):
                if key > end or (blocks and total + len(value) > max_bytes):
                    break
                blocks.append((Position(*KEY.unpack(key)), value))
                total += len(value)
        except StoreError:
            if not blocks:
                raise  # else the next read begins here
        return blocks

    def definitions(self) -> list[KeyDefinitions]:
        """Key tables of every epoch that may still have blocks."""
        return list(read_definitions(self._meta, self.path))

    def trim(self, upto: Position) -> None:
        """Forgets blocks up to `upto`: their rows are safe elsewhere.  One DeleteRange per call.

        StoreFull or StoreStall if it has to wait; the next call makes up for it.
        """
        if upto <= self.trimmed:
            return
        batch = WriteBatch(raw_mode=True)
        batch.delete_range(block_key(self.trimmed), block_key(Position(upto.epoch, upto.seq + 1)))
        batch.put(b"t", KEY.pack(*upto), self._meta_handle)
        oldest = upto.epoch
        for definitions in self.definitions():
            if definitions.epoch < oldest:
                batch.delete(
                    b"k" + struct.pack(">II", definitions.epoch, definitions.first),
                    self._meta_handle,
                )
        with rocks.translated(self.path):
            self._db.write(batch, self._write_options)
        self.trimmed = upto

    def reclaimable(self, *, pressed: bool = False) -> bool:
        """Whether it is time to free table files of blocks that were flushed before their trim.

        A trim lies in one file with the newest blocks, so freeing what it covers writes all others
        once more: after each run of a long replay that would be the whole journal again and again.
        pressed: space is short, free what there is; also the log, which otherwise goes with the
        next full write buffer.
        """
        if self.trimmed <= self._reclaimed:
            return False
        if pressed:
            return True
        if self._table_bytes() < RECLAIM_BYTES:
            return False
        upto = block_key(self.trimmed)
        trimmed = other = 0
        for table in self._db.live_files():
            if table["end_key"] <= upto:
                trimmed += table["size"]
            else:
                other += table["size"]
        return trimmed >= max(RECLAIM_BYTES, RECLAIM_RATIO * other)

    def reclaim(self) -> None:
        """Frees table files and log of trimmed blocks.  Runs without the GIL, beside the rest."""
        upto = self.trimmed
        with rocks.translated(self.path):
            self._meta.flush(True)  # the log holds its records too
            self._db.compact_range(b"", block_key(Position(upto.epoch, upto.seq + 1)))
        self._reclaimed = upto

    def _table_bytes(self) -> int:
        return int(self._db.property_int_value("rocksdb.total-sst-files-size") or 0)

    def disk_bytes(self) -> int:
        """Bytes held: tables and what is still in memory tables (which the log covers)."""
        memory = self._db.property_int_value("rocksdb.cur-size-all-mem-tables") or 0
        return self._table_bytes() + int(memory)

    def close(self) -> None:
        """Closes the store; unsynced blocks are synced first."""
        if self._db is not None:
            try:
                self.sync()
            finally:
                self._release()

    def _release(self) -> None:
        rocks.close(self._meta, self.path)
        del self._meta_handle
        rocks.close(self._db, self.path)
        if self._mark_fd >= 0:
            os.close(self._mark_fd)
        self._db = None  # type: ignore[assignment]
