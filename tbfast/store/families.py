"""A database of a fixed set of column families, and the door where its exceptions become ours."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from rocksdict import Rdict

from tbfast.errors import StoreBusy, StoreError, TbfastError
from tbfast.store import rocks

_CACHE_BYTES: Final = 8_388_608


def open_families(path: Path, families: Sequence[str], *, write_buffer_bytes: int) -> Rdict:
    """Open or create the database at ``path`` with exactly these column families.

    Raises StoreBusy when another process has it open, StoreError when it cannot be used.
    """
    cache = rocks.cache(_CACHE_BYTES)
    made = rocks.options(write_buffer_bytes=write_buffer_bytes, cache=cache)
    with translated(path):
        _create_directory(path)
        return Rdict(str(path), made, column_families=dict.fromkeys(families, made))


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what RocksDB and the file system raise into StoreBusy, StoreError or ResourceError."""
    try:
        yield
    except TbfastError:
        raise
    except OSError as error:
        raise StoreError(f"cannot use the store at {path}: {error.strerror}") from error
    except Exception as error:  # rocksdict raises plain Exception for every RocksDB status
        text = str(error)
        if "/LOCK: " in text:
            raise StoreBusy(f"another process has the store at {path} open") from error
        if text.startswith("Corruption"):
            raise StoreError(
                f"the store at {path} is damaged ({text}); keep a copy of that directory and "
                "restore it from a backup"
            ) from error
        raise rocks.translate(error, path) from error


def _create_directory(path: Path) -> None:
    """Make the directory for its owner only (it holds secrets); its name survives power loss."""
    if path.is_dir():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700)
    for directory in (path.parent, path.parent.parent):
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
