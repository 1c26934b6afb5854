"""RocksDB settings shared by our stores, and the translation of its errors.

Reasons for each setting are measured: software CRC32C makes xxh3 cheaper, a plain LRU cache never
keeps large filter blocks, and the default recovery mode silently drops acknowledged data after one
flipped byte in a log.
"""

from pathlib import Path

from rocksdict import (
    BlockBasedOptions,
    Cache,
    ChecksumType,
    DBCompressionType,
    DBRecoveryMode,
    Options,
)

from tbfast.errors import ResourceError, StoreError

INFO_LOG_BYTES = 1 << 20  # RocksDB's own log: at most INFO_LOG_FILES of this size
INFO_LOG_FILES = 4


class StoreFull(StoreError):
    """No space left on the device: nothing is acknowledged until there is."""


class StoreStall(ResourceError):
    """RocksDB asks writers to slow down: wait and write again."""


def options(*, write_buffer_bytes: int, cache: Cache, block_bytes: int = 16_384) -> Options:
    """Base options of every store, for raw byte keys and values."""
    table = BlockBasedOptions()
    table.set_block_cache(cache)
    table.set_block_size(block_bytes)
    table.set_checksum_type(ChecksumType.xxh3())
    table.set_format_version(5)
    opts = Options(raw_mode=True)
    opts.create_if_missing(True)
    opts.create_missing_column_families(True)
    opts.set_block_based_table_factory(table)
    opts.set_write_buffer_size(write_buffer_bytes)
    opts.set_max_write_buffer_number(3)
    opts.set_compression_type(DBCompressionType.lz4())
    opts.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    opts.set_max_background_jobs(2)
    opts.set_max_open_files(256)
    opts.set_max_log_file_size(INFO_LOG_BYTES)
    opts.set_keep_log_file_num(INFO_LOG_FILES)
    opts.set_stats_dump_period_sec(0)
    opts.set_stats_persist_period_sec(0)
    return opts


def cache(capacity_bytes: int) -> Cache:
    """A HyperClockCache: one that keeps large index and filter blocks."""
    return Cache.new_hyper_clock_cache(capacity_bytes, 16_384)


def translate(error: Exception, path: Path) -> StoreError | ResourceError:
    """The error of ours that stands for a RocksDB failure on `path`."""
    text = str(error)
    if "No space left" in text or "IO error: No space" in text:
        return StoreFull(f"{path}: no space left on the device; free space and writing resumes")
    if "Write stall" in text or "Incomplete" in text:
        return StoreStall(f"{path}: write stalled")
    if "lock" in text.lower() and "LOCK" in text:
        return StoreError(f"{path}: in use by another process; stop it first ({text})")
    return StoreError(f"{path}: {text}")
