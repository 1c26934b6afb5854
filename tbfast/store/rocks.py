"""How tbfast opens RocksDB, and the door where its exceptions become ours."""

import contextlib
import errno
import resource
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Final

from rocksdict import (
    BlockBasedOptions,
    Cache,
    Checkpoint,
    ChecksumType,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    ReadOptions,
)

from tbfast.errors import StoreBusy, StoreError, StoreFull, StoreStall, TbfastError
from tbfast.store.files import sync_directory

MAX_OPEN_FILES: Final = 256
RECOVER: Final = (
    "restore a backup, or stop the server and save what can be read with 'tbfast store recover'"
)


def options(
    *, write_buffer_bytes: int, cache: Cache, packed: bool = False, block_bytes: int = 4_096
) -> Options:
    """Options every database shares.  packed: for what is written once and kept for long.

    The recovery mode refuses damage in the middle of a log: RocksDB's default silently drops
    everything after it. xxh3 replaces a CRC that the wheel computes in software; HyperClockCache
    has no shards that are too small for a filter block.
    """
    blocks = BlockBasedOptions()
    blocks.set_block_cache(cache)
    blocks.set_bloom_filter(10, False)
    blocks.set_checksum_type(ChecksumType.xxh3())
    blocks.set_block_size(block_bytes)
    made = Options(raw_mode=True)
    made.create_if_missing(True)
    made.create_missing_column_families(True)
    made.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    made.set_block_based_table_factory(blocks)
    made.set_compression_type(DBCompressionType.zstd() if packed else DBCompressionType.lz4())
    made.set_write_buffer_size(write_buffer_bytes)
    made.set_max_write_buffer_number(2)
    made.set_max_background_jobs(2)
    # A family that is rarely written holds back the logs it has a record in; without a bound that
    # is four times all write buffers of all families.
    made.set_max_total_wal_size(3 * write_buffer_bytes)
    made.set_max_manifest_file_size(4_194_304)
    made.set_max_log_file_size(1_048_576)
    made.set_keep_log_file_num(2)
    made.set_stats_dump_period_sec(0)
    made.set_max_open_files(_max_open_files())
    return made


def _max_open_files() -> int:
    """Tables one database keeps open: a process has up to four, and not only those."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_OPEN_FILES if soft == resource.RLIM_INFINITY else min(MAX_OPEN_FILES, soft // 8)


def open_families(path: Path, families: Sequence[str], *, write_buffer_bytes: int) -> Rdict:
    """Open or create the database at ``path`` with exactly these column families.

    Raises StoreBusy when another process has it open, StoreError when it cannot be used.
    """
    cache = Cache.new_hyper_clock_cache(8_388_608, 4_096)
    made = options(write_buffer_bytes=write_buffer_bytes, cache=cache)
    return open_with(path, made, dict.fromkeys(families, made))


def open_with(path: Path, base: Options, families: Mapping[str, Options]) -> Rdict:
    """`open_families` with options of its own for each; `base`: of the database as a whole."""
    with translated(path):
        _create_directory(path)
        return Rdict(str(path), base, column_families=dict(families))


def close(db: Rdict, path: Path) -> None:
    """Close a database; what a full disk leaves no room for in tables stays in its log."""
    with contextlib.suppress(StoreFull), translated(path):
        db.close()


def pairs(
    db: Rdict, path: Path, from_key: bytes = b"", *, once: bool = False
) -> Generator[tuple[bytes, bytes], None, None]:
    """Keys and values from a key on, in order.

    once: they will not be read again soon and must not drive others out of the block cache.
    StoreError where a table file is damaged: a RocksDB iterator just ends there, as after the last
    key, and only its status knows the difference.
    """
    reading = None
    if once:
        reading = ReadOptions()
        reading.fill_cache(False)  # type: ignore[call-arg]  # its stub has no argument
    with translated(path):
        it = db.iter(reading)
        it.seek(from_key)
        while it.valid():
            yield it.key(), it.value()
            it.next()
        it.status()


def under(
    db: Rdict, path: Path, prefix: bytes, last: bytes | None = None
) -> Generator[tuple[bytes, Callable[[], bytes]], None, None]:
    """Keys that begin with a prefix, and what reads the value until the next key is asked for.

    In order; last: backwards from the key that is this one or comes before it.  StoreError as
    `pairs`.
    """
    with translated(path):
        it = db.iter()
        if last is None:
            it.seek(prefix)
        else:
            it.seek_for_prev(last)
        while it.valid():
            key = it.key()
            if not key.startswith(prefix):
                break
            yield key, it.value
            if last is None:
                it.next()
            else:
                it.prev()
        it.status()


def checkpoint(db: Rdict, path: Path, to: Path) -> None:
    """A copy of the open database at ``to``, of its state now; its tables are hard links.

    Holds the GIL, for 15 ms with 20 000 rows in memory: memory tables are flushed.
    """
    with translated(path):
        to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        Checkpoint(db).create_checkpoint(str(to))


def translated(path: Path) -> contextlib.AbstractContextManager[None]:
    """Turn what RocksDB and the file system raise into StoreError or one of its kinds."""
    return _Translation(path)


class _Translation(contextlib.AbstractContextManager[None]):
    """A class: a generator would cost more than the reads that are done in it."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, TbfastError):
            raise _translated(error, self._path) from error


def _translated(error: Exception, path: Path) -> TbfastError:
    if isinstance(error, OSError):
        kind = StoreFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreError
        return kind(f"cannot use the store at {path}: {error.strerror}")
    text = str(error)  # rocksdict raises plain Exception for every RocksDB status
    if "/LOCK: " in text:
        return StoreBusy(f"another process has the store at {path} open")
    if "No space left" in text:
        return StoreFull(
            f"no space left for the store at {path}; free space and writing resumes by itself"
        )
    if "Write stall" in text:
        return StoreStall(f"the store at {path} asks writers to wait")
    _, newer, families = text.partition("Column families not opened: ")
    if newer:
        return StoreError(
            f"the store at {path} was written by a newer tbfast (it also holds {families}); start "
            f"that version or use another --data-dir"
        )
    if text.startswith("Corruption") or "No such file" in text:
        return StoreError(f"the store at {path} is damaged ({text}); {RECOVER}")
    return StoreError(f"the store at {path} failed: {text}")


def _create_directory(path: Path) -> None:
    """Make the directory for its owner only (it holds secrets); its name survives power loss."""
    if path.is_dir():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700)
    for directory in (path.parent, path.parent.parent):
        sync_directory(directory)
