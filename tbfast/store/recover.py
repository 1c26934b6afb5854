"""Takes a damaged store out of the way and puts what can be read of it in its place.

The old files stay beside it under another name.  Nothing is lost in silence: what is missing is
told by key, row or file.
"""

import gc
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from tbfast.errors import LocalError, NotFound
from tbfast.store import known, mend, registry, rocks
from tbfast.store.files import sync_directory, write_durably
from tbfast.store.journal import mark_path, read_mark, retire_epoch, retired_epoch
from tbfast.store.layout import Layout
from tbfast.store.mend_series import mend_series
from tbfast.store.salvage import Gap, salvage
from tbfast.store.series_files import FIXED
from tbfast.store.verify import damage, shard_path, shards, where

_FAMILIES: Final = {
    "registry": registry.FAMILIES,
    "series": FIXED,
    "attributes": ("default", "attribute", "meta"),
}
_JOURNAL: Final = ("default", "meta")
_UNFINISHED: Final = (
    "'tbfast store recover' did not finish; run 'tbfast store recover --data-dir {}' again\n"
)


class Recovered(msgspec.Struct, kw_only=True):
    """What became of one store; lost and notes are sentences."""

    shard: str
    rows: int
    kept_at: str
    lost: list[str]
    notes: list[str]


def recover(layout: Layout, wanted: str | None, date: str) -> list[Recovered]:
    """Recovers one store, or each that is damaged; the caller holds the data directory's lock.

    date: for names of what is set aside.  NotFound if there is no such store.
    """
    # A store that this process failed to open may be kept open by what is left of the error, and
    # tidies up when it is closed at last: that must not happen to what is put in its place.
    gc.collect()
    if (layout.root / "restoring").is_dir():
        raise LocalError(f"{layout.root}: {layout.unfinished.read_text(errors='replace').strip()}")
    finish_interrupted(layout)
    if wanted is None:
        chosen = [
            name for name in shards(layout) if damage(shard_path(layout, name), name, deep=True)
        ]
    else:
        path = shard_path(layout, wanted)
        lost_whole = wanted.startswith("journal/") and _is_lost(path)
        if not path.is_dir() and not lost_whole:
            raise NotFound(f"there is no store {path}")
        chosen = [wanted] if damage(path, wanted, deep=True) else []
    with rocks.translated(layout.root):
        done = []
        for shard in chosen:
            done.append(_recover(layout, shard, date))
            gc.collect()
        layout.unfinished.unlink(missing_ok=True)
    return done


def finish_interrupted(layout: Layout) -> None:
    """Puts in place what a recovery that was interrupted had ready; removes what it had not."""
    with rocks.translated(layout.root):
        for directory in (layout.root, layout.journals):
            for ready in directory.glob("*.recovering") if directory.is_dir() else ():
                path = ready.with_suffix("")
                if path.exists():
                    shutil.rmtree(ready)
                else:  # only when all of it was on disk
                    ready.rename(path)
                    _forget_mark(path)
                    sync_directory(directory)
            for scratch in directory.glob("*.scratch") if directory.is_dir() else ():
                shutil.rmtree(scratch)
        layout.unfinished.unlink(missing_ok=True)


def _recover(layout: Layout, shard: str, date: str) -> Recovered:
    path = shard_path(layout, shard)
    if not path.is_dir():
        return _without_journal(path, shard)
    ready = path.with_name(path.name + ".recovering")
    families = _FAMILIES.get(shard, _JOURNAL)
    saved = salvage(path, path.with_name(path.name + ".scratch"), ready, families)
    lossy = {gap.family for gap in saved.gaps}
    if saved.anything_lost:
        lossy |= set(families)
    lost = [_gap_text(shard, gap) for gap in saved.gaps]
    if shard == "registry":
        lost += mend.mend_registry(ready)
    elif shard == "series":
        lost += mend_series(ready, saved.families, lossy)
    elif shard.startswith("journal/"):
        lost += mend.mend_journal(ready, path, definitions_lost="meta" in lossy)
    kept = _free_name(path.with_name(f"{path.name}.damaged-{date}"))
    for directory in (ready, ready.parent):
        sync_directory(directory)
    write_durably(layout.unfinished, _UNFINISHED.format(layout.root).encode())
    path.rename(kept)
    ready.rename(path)
    _forget_mark(path)
    sync_directory(path.parent)
    return Recovered(shard=shard, rows=saved.rows, kept_at=str(kept), lost=lost, notes=saved.notes)


def _is_lost(path: Path) -> bool:
    """Whether there was a journal that nobody has removed."""
    begun = known.read_epoch(known.of_journal(path))
    return not path.is_dir() and (read_mark(path) is not None or begun > retired_epoch(path))


def _without_journal(path: Path, shard: str) -> Recovered:
    """All of a journal is gone; a new one begins after it."""
    marked = read_mark(path)
    begun = known.read_epoch(known.of_journal(path))
    with rocks.translated(path):
        path.parent.mkdir(mode=0o700, exist_ok=True)
    retire_epoch(path, max(begun, marked.epoch if marked else 0))
    _forget_mark(path)
    end = f"epoch {marked.epoch}, sequence {marked.seq}" if marked else f"epoch {begun}"
    lost = [f"blocks up to {end} that were not sealed"]
    return Recovered(shard=shard, rows=0, kept_at="", lost=lost, notes=[])


def _forget_mark(path: Path) -> None:
    """What it says is missing has been told."""
    if path.parent.name == "journal":
        mark_path(path).unlink(missing_ok=True)


def _free_name(path: Path) -> Path:
    number = 1
    free = path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def _gap_text(shard: str, gap: Gap) -> str:
    first = where(shard, gap.family, gap.after) if gap.after is not None else "the beginning"
    last = where(shard, gap.family, gap.before) if gap.before is not None else "the end"
    text = f"{gap.family}: rows between {first} and {last}"
    if gap.instead:
        text += f"; {gap.instead} rows there are from other tables and may be older ones"
    return text


def kept(layout: Layout) -> Iterable[Path]:
    """What earlier recoveries have set aside."""
    for directory in (layout.root, layout.journals):
        if directory.is_dir():
            yield from sorted(directory.glob("*.damaged-*"))
