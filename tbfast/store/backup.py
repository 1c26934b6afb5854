"""Backups: what is in one, and how it is written.

A backup is a directory, or a tar archive of it, that holds the files of the stores under their
names in a data directory, and beside them ``manifest.json``: their sizes and SHA-256, and a
SHA-256 of that list.  It is written under another name and renamed when all of it is on disk, so
that what has the name of a backup is whole.
"""

import contextlib
import errno
import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Final, Protocol

import msgspec

from tbfast.errors import LocalError, StoreError, StoreFull
from tbfast.store import rocks
from tbfast.store.files import sync_directory

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
TAR_SUFFIX: Final = ".tar"
STORES: Final = ("series", "attributes", "registry", "journal", "known", "packages")
_STEP_BYTES: Final = 1 << 20

Progress = Callable[[int, int], None]  # bytes done, of how many


class StoredFile(msgspec.Struct, frozen=True):
    """A file of a store: its path below the data directory."""

    path: str
    bytes: int


class BackupFile(msgspec.Struct, frozen=True):
    """A file of a backup."""

    path: str
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup is; cursors: journal -> (epoch, sequence) that the series store holds."""

    format: int = FORMAT
    version: str
    created_ms: int
    cursors: dict[int, tuple[int, int]]
    files: tuple[BackupFile, ...] = ()

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.bytes for file in self.files)


class Sealed(msgspec.Struct):
    """A manifest's text with its checksum."""

    sha256: str
    manifest: msgspec.Raw


def stored_files(root: Path) -> list[StoredFile]:
    """Files of the stores below a data directory (or a copy of one) that a backup holds."""
    found = []
    for store in STORES:
        for directory, children, names in os.walk(root / store):
            children[:] = sorted(name for name in children if "." not in name)  # set aside
            for name in sorted(names):
                if name == "LOCK" or name.startswith("LOG") or name.endswith(".new"):
                    continue
                path = Path(directory, name)
                found.append(StoredFile(path.relative_to(root).as_posix(), path.stat().st_size))
    return found


# --- writing ---------------------------------------------------------------------------------


class _Sink(Protocol):
    def add(self, path: str, size: int, source: IO[bytes]) -> None:
        """Writes one file."""

    def finish(self) -> None:
        """Everything is on disk on return."""


class _DirectorySink:
    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(mode=0o700)

    def add(self, path: str, size: int, source: IO[bytes]) -> None:
        write_file(self._root / path, source)

    def finish(self) -> None:
        for directory, _, _ in os.walk(self._root):
            sync_directory(Path(directory))


class _TarSink:
    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(fd, "wb")
        self._tar = tarfile.TarFile(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)

    def add(self, path: str, size: int, source: IO[bytes]) -> None:
        info = tarfile.TarInfo(path)
        info.size = size
        info.mode = 0o600
        self._tar.addfile(info, source)

    def finish(self) -> None:
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


class Hashed:
    """A file that is read once, in order, from its beginning; counts and hashes what was read."""

    def __init__(self, file: IO[bytes], progress: Callable[[int], None]) -> None:
        self._file = file
        self._progress = progress
        self._hash = hashlib.sha256()
        self.bytes = 0

    def read(self, size: int = _STEP_BYTES) -> bytes:
        data = self._file.read(size)
        self._hash.update(data)
        self.bytes += len(data)
        self._progress(len(data))
        return data

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


def write_backup(
    root: Path,
    files: Sequence[StoredFile],
    about: Manifest,
    to: Path,
    progress: Progress = lambda done, total: None,
) -> Manifest:
    """Copies files below `root` into a new backup `to`, on disk on return; its manifest.

    LocalError if `to` is there already; StoreError if a file cannot be read or written.
    """
    check_free(to)
    partial = to.with_name(to.name + ".partial")
    _remove(partial)
    with _writing(to):
        sink: _Sink = _TarSink(partial) if to.suffix == TAR_SUFFIX else _DirectorySink(partial)
    try:
        manifest = _write(root, files, about, sink, to, progress)
        with _writing(to):
            sink.finish()
            partial.rename(to)
            sync_directory(to.absolute().parent)
    except BaseException:
        _remove(partial)
        raise
    return manifest


def _write(
    root: Path,
    files: Sequence[StoredFile],
    about: Manifest,
    sink: _Sink,
    to: Path,
    progress: Progress,
) -> Manifest:
    step = steps(sum(file.bytes for file in files), progress)
    written = []
    for file in files:
        with rocks.translated(root / file.path), open(root / file.path, "rb") as source:
            hashed = Hashed(source, step)
            with _writing(to):
                sink.add(file.path, file.bytes, hashed)  # type: ignore[arg-type]
        if hashed.bytes != file.bytes:
            raise StoreError(f"{root / file.path} changed while it was copied; try again")
        written.append(BackupFile(file.path, file.bytes, hashed.sha256))
    manifest = msgspec.structs.replace(about, files=tuple(written))
    text = msgspec.json.encode(manifest)
    sealed = msgspec.json.encode(Sealed(hashlib.sha256(text).hexdigest(), msgspec.Raw(text)))
    with _writing(to):
        sink.add(MANIFEST, len(sealed), io.BytesIO(sealed))
    return manifest


@contextlib.contextmanager
def _writing(to: Path) -> Iterator[None]:
    """Errors name the backup, not a store; StoreFull and StoreError as everywhere."""
    try:
        yield
    except OSError as error:
        kind = StoreFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreError
        raise kind(f"cannot write the backup {to}: {error.strerror}") from error


def check_free(to: Path) -> None:
    """LocalError unless a backup can be written to `to`."""
    if to.name and to.is_dir() and not any(to.iterdir()) and to.suffix != TAR_SUFFIX:
        return
    if to.exists() or to.is_symlink():
        raise LocalError(f"{to} is there already; name a new directory or .tar file")
    if not to.absolute().parent.is_dir():
        raise LocalError(f"the directory {to.absolute().parent} does not exist")


def write_file(path: Path, source: IO[bytes]) -> None:
    """A new file, private to its owner, on disk on return."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        while data := source.read(_STEP_BYTES):
            file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def steps(total: int, progress: Progress) -> Callable[[int], None]:
    """Adds up what is reported in parts."""
    done = 0

    def step(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        progress(min(done, total), total)

    return step
