"""What a data directory must hold: a second place that names its stores.

``known/`` has a file for each store that was ever opened: ``registry``, ``series``, ``attributes``
(empty) and ``journal-<n>`` with the newest epoch of that journal.  A store that is named there and
missing took acknowledged data with it: a node says so instead of starting an empty one.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

from tbfast.errors import LocalError, StoreError, StoreFull
from tbfast.store import rocks
from tbfast.store.files import write_durably
from tbfast.store.layout import Layout

_STORES: Final = ("registry", "series", "attributes")
_LOST: Final = {
    "registry": "the devices and their credentials",
    "series": "sealed telemetry",
    "attributes": "attributes",
}


def known_journal(layout: Layout, number: int) -> Path:
    """The file with a journal's newest epoch."""
    return layout.known / f"journal-{number}"


def of_journal(journal: Path) -> Path:
    """The same of a journal in its place in a data directory."""
    return known_journal(Layout(journal.parent.parent), int(journal.name))


def remember_stores(layout: Layout) -> None:
    """Called when the controller has opened its stores."""
    # A full disk: the next start makes up for it.
    with contextlib.suppress(StoreFull), rocks.translated(layout.known):
        layout.known.mkdir(mode=0o700, exist_ok=True)
        for name in _STORES:
            (layout.known / name).touch(mode=0o600)


def read_epoch(path: Path) -> int:
    """An epoch that `write_epoch` or `remember_epoch` wrote, 0 = none."""
    with rocks.translated(path):
        try:
            return int(path.read_bytes())
        except (FileNotFoundError, ValueError):  # torn: the journal's own records still hold
            return 0


def write_epoch(path: Path, epoch: int) -> None:
    """Replaces the file, synced."""
    with rocks.translated(path):
        write_durably(path, b"%d\n" % epoch)


def remember_epoch(path: Path, epoch: int) -> None:
    """Overwrites the file where it is, synced: that needs no space."""
    with contextlib.suppress(StoreFull), rocks.translated(path):  # made at the next start instead
        path.parent.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(fd, b"%010d\n" % epoch, 0)
            os.fsync(fd)
        finally:
            os.close(fd)


def retired_path(journal: Path) -> Path:
    """The newest epoch of a journal that was removed, in the journal's epochs a new one follows."""
    return journal.with_name(journal.name + ".epoch")


def lost_journal(journal: Path, known: Path, found: int) -> StoreError | None:
    """An error if there was an epoch of the journal after `found`, the newest it has now."""
    if found >= read_epoch(known):
        return None
    return StoreError(_lost({journal: known}, "is an old copy" if found else "is missing"))


def missing_stores(layout: Layout) -> list[tuple[Path, Path]]:
    """(a store that was there once and is not, the file that names it)."""
    found = []
    for known in sorted(layout.known.iterdir()) if layout.known.is_dir() else ():
        kind, _, number = known.name.partition("-")
        if kind in _STORES and not (layout.root / kind / "CURRENT").exists():
            found.append((layout.root / kind, known))
        if kind == "journal" and number.isdigit():
            journal = layout.journal(int(number))
            retired = read_epoch(retired_path(journal))
            if not (journal / "CURRENT").exists() and retired < read_epoch(known):
                found.append((journal, known))
    return found


def check_stores(layout: Layout) -> None:
    """LocalError names what is missing, and what can be done."""
    missing = missing_stores(layout)
    for store, _ in missing:
        if store.is_dir() and any(store.iterdir()):
            raise LocalError(
                f"{store} is damaged: its file CURRENT is missing. Save what can be read with "
                f"'tbfast store recover', or restore {layout.root} from a backup"
            )
    journals = {store: known for store, known in missing if store.parent == layout.journals}
    for store, known in missing:
        if store not in journals:
            _missing(store, known)
    if journals:
        raise LocalError(_lost(journals, "is missing" if len(journals) == 1 else "are missing"))


def _lost(journals: dict[Path, Path], state: str) -> str:
    accept = [f"mkdir -p {next(iter(journals)).parent}"]
    accept += [f"mv {known} {retired_path(journal)}" for journal, known in journals.items()]
    return (
        f"{', '.join(map(str, journals))} {state}: acknowledged telemetry may have been there that "
        f"is nowhere else. Put back what was moved, or accept the loss of what was not sealed yet "
        f"with: {' && '.join(accept)}"
    )


def _missing(store: Path, known: Path) -> None:
    advice = f"Put the directory back or restore {store.parent} from a backup"
    if store.name != "registry":  # numbers of devices would be given twice
        advice += f", or accept the loss with: rm {known}"
    raise LocalError(f"{store} is missing: it held {_LOST[store.name]}. {advice}")
