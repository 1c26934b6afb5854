"""How a backup (tbfast.store.backup) becomes a data directory again."""

import contextlib
import hashlib
import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Final

import msgspec

from tbfast.errors import LocalError, NotFound, StoreError
from tbfast.store import rocks
from tbfast.store.backup import (
    FORMAT,
    MANIFEST,
    STORES,
    BackupFile,
    Hashed,
    Manifest,
    Progress,
    Sealed,
    steps,
    write_file,
)
from tbfast.store.files import sync_directory, write_durably
from tbfast.store.layout import Layout

_NOTHING: Final = {"lock", "run", "lost+found"}  # names in a directory that counts as empty
_MANIFEST_BYTES: Final = 64 << 20


def restore(
    source: Path, layout: Layout, progress: Progress = lambda done, total: None
) -> Manifest:
    """Makes a data directory of a backup: copied, verified, then renamed into place.

    LocalError if the directory holds anything (but a restore that was interrupted), NotFound or
    StoreError if the backup is missing, incomplete or damaged: the directory is then left empty.
    """
    if not source.exists():
        raise NotFound(f"there is no backup {source}")
    again = layout.unfinished.exists() and (layout.root / "restoring").is_dir()
    held = {p.name for p in layout.root.iterdir()} if layout.root.is_dir() else set()
    if not again and held - _NOTHING:
        raise LocalError(
            f"{layout.root} is not empty; restore into a new directory, or move this one away"
        )
    layout.create()
    lock = layout.acquire()
    try:
        return _restore(source, layout, progress)
    finally:
        os.close(lock)


def _restore(source: Path, layout: Layout, progress: Progress) -> Manifest:
    staging = layout.root / "restoring"
    words = (
        f"a restore from {source} did not finish; run 'tbfast restore {source} --data-dir "
        f"{layout.root}' again\n"
    )
    with rocks.translated(layout.root):
        write_durably(layout.unfinished, words.encode())
        _clear(layout, staging)
        staging.mkdir(mode=0o700)
    try:
        manifest = _verified(source, staging, progress)
    except BaseException:
        _clear(layout, staging)
        layout.unfinished.unlink()
        raise
    with rocks.translated(layout.root):
        for directory, _, _ in os.walk(staging):
            sync_directory(Path(directory))
        for store in STORES:
            if (staging / store).exists():
                (staging / store).rename(layout.root / store)
        sync_directory(layout.root)
        shutil.rmtree(staging)
        layout.unfinished.unlink()
        sync_directory(layout.root)
    return manifest


def _clear(layout: Layout, staging: Path) -> None:
    for path in (staging, *(layout.root / store for store in STORES)):
        shutil.rmtree(path, ignore_errors=True)


def _verified(source: Path, staging: Path, progress: Progress) -> Manifest:
    """Unpacks a backup; returns when every byte of it is known to be right and on disk."""
    total = _total_bytes(source)
    _check_room(source, staging, total)
    step = steps(total, progress)
    found: dict[str, BackupFile] = {}
    sealed = b""
    with _translated_tar(source):
        for path, file in _members(source):
            if path == MANIFEST:
                sealed = file.read(_MANIFEST_BYTES)
                continue
            hashed = Hashed(file, step)
            with rocks.translated(staging):
                write_file(staging / path, hashed)  # type: ignore[arg-type]
            found[path] = BackupFile(path, hashed.bytes, hashed.sha256)
    manifest = _manifest(source, sealed)
    _compare(source, manifest, found)
    return manifest


def _manifest(source: Path, sealed: bytes) -> Manifest:
    if not sealed:
        raise StoreError(
            f"{source} is not a backup, or not all of one: it has no {MANIFEST}; a plain copy of a "
            "data directory is used as it is, with --data-dir"
        )
    try:
        outer = msgspec.json.decode(sealed, type=Sealed)
        if hashlib.sha256(bytes(outer.manifest)).hexdigest() != outer.sha256:
            raise StoreError(f"{source}: {MANIFEST} is damaged; use another backup")
        form = msgspec.json.decode(outer.manifest, type=dict[str, msgspec.Raw]).get("format", b"0")
        if int(bytes(form)) > FORMAT:
            raise StoreError(
                f"{source} was written by a newer tbfast (format {bytes(form).decode()}, this one "
                f"reads {FORMAT}); restore it with that version"
            )
        return msgspec.json.decode(outer.manifest, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise StoreError(
            f"{source}: {MANIFEST} is damaged ({error}); use another backup"
        ) from error


def _compare(source: Path, manifest: Manifest, found: Mapping[str, BackupFile]) -> None:
    wanted = {file.path: file for file in manifest.files}
    for path in sorted(wanted.keys() | found.keys()):
        if path not in found:
            raise StoreError(f"{source}: {path} is missing; use another backup")
        if path not in wanted:
            raise StoreError(f"{source}: {path} does not belong to the backup; remove it")
        if wanted[path] != found[path]:
            raise StoreError(f"{source}: {path} is damaged; use another backup")


def _members(source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """(path, content) of every file, once; StoreError for what no backup holds."""
    if source.is_dir():
        for directory, children, names in os.walk(source):
            children.sort()
            for name in sorted(names):
                path = Path(directory, name)
                checked = _checked(source, path.relative_to(source).as_posix())
                with open(path, "rb") as file:
                    yield checked, file
        return
    seen = set()
    with tarfile.open(source, "r:") as tar:
        for member in tar:
            if member.isdir():
                continue
            path_text = _checked(source, member.name.removeprefix("./"))
            content = tar.extractfile(member) if member.isreg() else None
            if content is None or path_text in seen:
                raise StoreError(f"{source}: {member.name!r} is nothing that a backup holds")
            seen.add(path_text)
            yield path_text, content


def _checked(source: Path, text: str) -> str:
    parts = PurePosixPath(text).parts
    inside = parts[:1] and parts[0] in STORES and ".." not in parts and len(parts) > 1
    if text != MANIFEST and not inside:
        raise StoreError(f"{source}: {text[:80]!r} is nothing that a backup holds")
    return text


@contextlib.contextmanager
def _translated_tar(source: Path) -> Iterator[None]:
    try:
        with rocks.translated(source):
            yield
    except StoreError as error:
        if isinstance(error.__cause__, tarfile.TarError | EOFError):
            raise StoreError(
                f"{source} is no tar archive, or damaged; use another backup"
            ) from error
        raise


def _total_bytes(source: Path) -> int:
    with rocks.translated(source):
        if source.is_dir():
            return sum(p.stat().st_size for p in source.rglob("*") if p.is_file())
        return source.stat().st_size


def _check_room(source: Path, staging: Path, needed: int) -> None:
    found = os.statvfs(staging)
    if found.f_bavail * found.f_frsize < needed:
        raise StoreError(
            f"{source} needs {needed} bytes, {staging.parent} has only "
            f"{found.f_bavail * found.f_frsize}; free space or choose another --data-dir"
        )
