"""Files that RocksDB writes for itself stay few and small, whatever a node goes through."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from rocksdict import Options, Rdict

from tbfast.control.registry import Registry
from tbfast.errors import StoreError
from tbfast.store import rocks
from tbfast.store.journal import Journal
from tbfast.store.series import SeriesStore

OPENINGS = 12


def _registry(path: Path) -> None:
    async def run() -> None:
        await (await Registry.open(path)).close()

    asyncio.run(run())


@pytest.mark.parametrize(
    "reopen",
    [_registry, lambda path: Journal(path, 0).close(), lambda path: SeriesStore(path).close()],
    ids=["registry", "journal", "series"],
)
def test_logs_and_options_of_many_openings_are_not_kept(
    tmp_path: Path, reopen: Callable[[Path], None]
) -> None:
    path = tmp_path / "store" / "one"
    for _ in range(OPENINGS):
        reopen(path)
    names = [file.name for file in path.iterdir()]
    assert len([name for name in names if name.startswith("LOG")]) <= 3
    assert len([name for name in names if name.startswith("OPTIONS")]) <= 2
    assert len([name for name in names if name.startswith("MANIFEST")]) == 1
    assert len(names) < 20, names


def test_a_log_of_its_own_never_passes_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "store" / "one"
    SeriesStore(path).close()
    options = (path / max(f.name for f in path.glob("OPTIONS-*"))).read_text()
    for line in (
        "max_log_file_size=1048576",
        "keep_log_file_num=2",
        "max_manifest_file_size=4194304",
        "max_total_wal_size=25165824",
    ):
        assert f"  {line}\n" in options


@pytest.mark.parametrize(
    "reopen", [_registry, lambda path: Journal(path, 0).close()], ids=["registry", "journal"]
)
def test_a_family_that_a_newer_version_added_is_named(
    tmp_path: Path, reopen: Callable[[Path], None]
) -> None:
    path = tmp_path / "store" / "one"
    reopen(path)
    families = Rdict.list_cf(str(path))
    db = rocks.open_families(path, families, write_buffer_bytes=1 << 20)
    db.create_column_family("of_tomorrow", Options(raw_mode=True))
    rocks.close(db, path)
    with pytest.raises(StoreError, match=f"{path} was written by a newer tbfast .*of_tomorrow"):
        reopen(path)
