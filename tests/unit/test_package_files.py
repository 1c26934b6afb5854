"""Files of packages: whole or not there, and nothing left over."""

import os
import resource
import signal
from pathlib import Path

import pytest

from tbfast.errors import StoreError
from tbfast.store.packages import PackageFiles


@pytest.fixture
def files(tmp_path: Path) -> PackageFiles:
    made = PackageFiles(tmp_path / "packages")
    assert made.open(lambda name: True) == 0
    return made


def test_a_file_appears_when_it_is_whole(files: PackageFiles, tmp_path: Path) -> None:
    incoming = files.begin("a")
    incoming.write(b"one ")
    assert files.size("a") is None
    incoming.write(b"two")
    incoming.finish()
    assert files.size("a") == 7
    assert [p.name for p in (tmp_path / "packages").iterdir()] == ["a"]
    assert (tmp_path / "packages" / "a").stat().st_mode & 0o777 == 0o600
    assert files.read("a", 4, 100) == b"two"
    assert files.read("a", 7, 5) == b""
    files.remove("a")
    files.remove("a")
    assert files.read("a", 0, 1) is None


def test_nothing_stays_of_what_is_discarded(files: PackageFiles, tmp_path: Path) -> None:
    incoming = files.begin("a")
    incoming.write(b"half")
    incoming.discard()
    assert list((tmp_path / "packages").iterdir()) == []
    again = files.begin("a")
    again.write(b"x")
    again.finish()
    assert files.read("a", 0, 9) == b"x"


def test_a_start_removes_what_nobody_owns(tmp_path: Path) -> None:
    root = tmp_path / "packages"
    root.mkdir()
    for name in ("kept", "orphan", "kept.part"):
        (root / name).write_bytes(b"x")
    assert PackageFiles(root).open(lambda name: name == "kept") == 2
    assert [p.name for p in root.iterdir()] == ["kept"]


def test_a_write_that_fails_is_a_store_error(files: PackageFiles, tmp_path: Path) -> None:
    """A file size limit stands for a disk that refuses."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    incoming = files.begin("a")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        with pytest.raises(StoreError):
            incoming.write(os.urandom(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    incoming.discard()
    assert list((tmp_path / "packages").iterdir()) == []
