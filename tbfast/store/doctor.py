"""Examines a data directory: what is wrong, what it means and what to do; repairs what is safe."""

import os
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, Literal

import msgspec

from tbfast.errors import StoreError
from tbfast.store import recover, rocks
from tbfast.store.backup import STORES
from tbfast.store.journal import Position, raise_epoch, read_mark, retired_epoch
from tbfast.store.known import missing_stores, read_epoch
from tbfast.store.layout import Layout
from tbfast.store.series import SeriesStore
from tbfast.store.series_reader import JournalFile
from tbfast.store.space import Space
from tbfast.store.verify import Step, damage, shard_path, shards
from tbfast.store.verify_packages import packages_damage

Level = Literal["note", "warning", "error"]

_LEFTOVERS: Final = ("*.scratch", "*.removed", "*.new")
_RECOVER: Final = "run 'tbfast store recover', or restore a backup"


class Finding(msgspec.Struct, kw_only=True):
    """One thing; error: the server cannot start, or stored rows are missing or damaged."""

    level: Level
    about: str
    text: str
    fix: str
    repaired: bool = False


class Doctor:
    """One examination.  The caller holds the lock, unless a server runs.

    With `repair`, what is safe is repaired at once: nothing that holds data is touched.
    """

    def __init__(self, layout: Layout, reserve_bytes: int, *, repair: bool) -> None:
        self._layout = layout
        self._reserve_bytes = reserve_bytes
        self._repair = repair
        self._closed: set[str] = set()  # stores that this user cannot open
        self.findings: list[Finding] = []

    def examine_directory(self) -> None:
        """What can be looked at beside a running server."""
        self._permissions()
        self._space()
        for path in recover.kept(self._layout):
            self._found(
                "note", path, "damaged files that a recovery kept",
                "remove them when nobody needs them any more",
            )  # fmt: skip

    def examine_stores(self, *, deep: bool, step: Step) -> None:
        """Of a stopped server: everything else."""
        layout = self._layout
        if layout.unfinished.exists():
            text = layout.unfinished.read_text(errors="replace").strip()
            self._found("error", layout.unfinished, text, "see there")
            return
        self._leftovers()
        self._missing_stores()
        for shard in shards(layout):
            if shard.split("/")[0] in self._closed:
                continue  # what cannot be opened is not damaged
            path = shard_path(layout, shard)
            for text in damage(path, shard, deep=deep, step=step):
                self._found("error", path, text, _RECOVER)
        if not any(f.level == "error" for f in self.findings):
            self._packages(deep, step)
            self._positions()

    # --- single checks -----------------------------------------------------------------------

    def _permissions(self) -> None:
        root = self._layout.root
        found = root.stat()
        if found.st_uid != os.geteuid():
            self._found(
                "error", root, f"belongs to user {found.st_uid}, this is user {os.geteuid()}",
                f"run as that user, or: chown -R {os.geteuid()} {root}",
            )  # fmt: skip
        if stat.S_IMODE(found.st_mode) & 0o077:
            self._found(
                "warning", root, "other users can look into it, and it holds secrets",
                f"chmod 700 {root}", lambda: root.chmod(0o700),
            )  # fmt: skip
        for name in STORES:
            others = [path for path in _all_below(root / name) if not _is_ours(path)]
            if others:
                self._closed.add(name)
                self._found(
                    "error", others[0],
                    f"belongs to another user or cannot be written, as {len(others)} files and "
                    f"directories in {root / name}: a command was run as root, or a copy was made?",
                    f"chown -R {os.geteuid()} {root} && chmod -R u+rwX {root}",
                )  # fmt: skip

    def _space(self) -> None:
        room = Space(self._layout, self._reserve_bytes).look()
        if room.full:
            self._found(
                "error", self._layout.root,
                f"{room.available} bytes are left: telemetry is refused", "free space",
            )  # fmt: skip
        elif room.available < room.low:
            self._found(
                "warning", self._layout.root,
                f"{room.available} bytes are left: the oldest sealed rows are dropped",
                "free space, or set disk.budget_bytes or series.retention_ms",
            )  # fmt: skip

    def _leftovers(self) -> None:
        layout = self._layout
        for path in (layout.api, layout.front, layout.link):
            if path.is_socket() and not _answers(path):
                self._found(
                    "note", path, "a socket that a killed server left",
                    "nothing: the next start replaces it", path.unlink,
                )  # fmt: skip
        left = [layout.snapshot] if layout.snapshot.exists() else []
        for directory in (layout.root, layout.journals, layout.known):
            left += [p for pattern in _LEFTOVERS for p in sorted(directory.glob(pattern))]
        for path in left:
            self._found(
                "warning", path, "left by something that was interrupted; nobody needs it",
                f"rm -r {path}", partial(_remove, path),
            )  # fmt: skip

    def _missing_stores(self) -> None:
        for path, known in missing_stores(self._layout):
            if path.is_dir():
                continue  # the damage of its files is told
            if path.parent != self._layout.journals:
                fix = "put it back, or restore a backup"
                self._found("error", path, "is missing, and was there", fix)
                continue
            self._found(
                "error", path,
                f"is missing; blocks of epochs up to {read_epoch(known)} were in it",
                f"put it back, or run 'tbfast store recover --shard journal/{path.name}'",
            )  # fmt: skip

    def _packages(self, deep: bool, step: Step) -> None:
        if not self._layout.registry.is_dir():
            return
        try:
            for path, text in packages_damage(self._layout, deep=deep, step=step):
                self._found(
                    "warning", path, f"{text}; devices cannot get it",
                    "put it back, restore a backup, or delete the package and upload it again",
                )  # fmt: skip
        except StoreError as error:
            self._found("error", self._layout.registry, str(error), _RECOVER)

    def _positions(self) -> None:
        """Journals go on behind everything that the series store took from them."""
        layout = self._layout
        cursors: dict[int, tuple[int, int]] = {}
        if layout.series.is_dir():
            try:
                store = SeriesStore(layout.series)
            except StoreError as error:
                self._found("error", layout.series, str(error), _RECOVER)
                return
            cursors = store.cursors()
            store.close()
        for path in sorted(layout.journals.glob("*.mark")) if layout.journals.is_dir() else ():
            self._mark(path, cursors)
        for number in layout.journal_numbers():
            self._old_series(layout.journal(number), Position(*cursors.get(number, (0, 0))))
        for number, (sealed, _) in sorted(cursors.items()):
            path = layout.journal(number)
            newest = _newest_epoch(path)
            if newest < sealed:
                self._found(
                    "error", path,
                    f"its newest epoch is {newest}, but rows of epoch {sealed} are sealed: new "
                    "rows would be taken for old ones",
                    "run 'tbfast doctor --repair': it raises the epoch",
                    partial(raise_epoch, path, sealed),
                )  # fmt: skip

    def _old_series(self, journal: Path, sealed: Position) -> None:
        """A journal lets go of rows only once they are sealed."""
        opened = JournalFile(journal)
        try:
            trimmed = opened.trimmed()
        finally:
            opened.close()
        if trimmed > sealed:
            self._found(
                "error", self._layout.series,
                f"is an old copy: it ends with epoch {sealed.epoch}, sequence {sealed.seq} of "
                f"{journal}, which has given it rows up to epoch {trimmed.epoch}, sequence "
                f"{trimmed.seq}",
                "put the newer one back before a server starts, or restore all of a backup",
            )  # fmt: skip

    def _mark(self, path: Path, cursors: dict[int, tuple[int, int]]) -> None:
        journal = path.with_suffix("")
        marked = read_mark(journal)
        if journal.is_dir() or marked is None or not journal.name.isdecimal():
            return
        if marked > Position(*cursors.get(int(journal.name), (0, 0))):
            self._found(
                "error", journal,
                f"is missing; blocks up to epoch {marked.epoch}, sequence {marked.seq} were in it",
                f"put it back, or run 'tbfast store recover --shard journal/{journal.name}'",
            )  # fmt: skip

    def _found(
        self,
        level: Level,
        about: Path,
        text: str,
        fix: str,
        repair: Callable[[], object] | None = None,
    ) -> None:
        finding = Finding(level=level, about=str(about), text=text, fix=fix)
        if self._repair and repair is not None:
            with rocks.translated(about):
                repair()
            finding.repaired = True
        self.findings.append(finding)


def _all_below(path: Path) -> Iterator[Path]:
    """A directory and everything in it, as far as it can be read."""
    if path.exists():
        yield path
    for directory, children, names in os.walk(path):
        yield from (Path(directory, name) for name in (*children, *names))


def _is_ours(path: Path) -> bool:
    mode = os.R_OK | os.W_OK | (os.X_OK if path.is_dir() else 0)
    return path.lstat().st_uid == os.geteuid() and os.access(path, mode)


def _newest_epoch(path: Path) -> int:
    if not path.is_dir():
        return retired_epoch(path)
    journal = JournalFile(path)
    try:
        return journal.epoch() or retired_epoch(path)
    finally:
        journal.close()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(1)
        try:
            sock.connect(str(path))
        except OSError:
            return False
        return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def stored_bytes(layout: Layout) -> int:
    """Bytes of the files that a deep examination reads."""
    stores = sum(size for shard in shards(layout) for size in _sizes(shard_path(layout, shard)))
    files = layout.packages.iterdir() if layout.packages.is_dir() else ()
    return stores + sum(path.stat().st_size for path in files)


def _sizes(path: Path) -> Iterator[int]:
    for file in path.iterdir():
        if file.suffix in (".sst", ".log"):
            yield file.stat().st_size
