"""The journal on a real file system: what is kept, what is noticed, what is refused."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tbfast._ext.series import block_info, split_definitions
from tbfast.errors import StoreBusy, StoreError, StoreFull
from tbfast.store.journal import Journal, KeyDefinitions, Position
from tbfast.store.layout import Layout
from tbfast.store.recover import recover
from tests.support.faulty_disk import small_disk
from tests.support.groups import GroupMaker
from tests.support.waiting import wait_until

START = Position(0, 0)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "journal" / "0", 7)
    yield opened
    opened.close()


def reopened(path: Path) -> Journal:
    return Journal(path, 7)


def positions(journal: Journal, after: Position = START, upto: Position | None = None) -> list:
    upto = journal.written if upto is None else upto
    return [tuple(position) for position, _ in journal.read(after, upto, 1 << 30)]


def fill(journal: Journal, count: int, key: str = "n", text: str = "") -> GroupMaker:
    make = GroupMaker(journal)
    for n in range(1, count + 1):
        journal.append(make.group(n, key, text))
    return make


def test_blocks_come_back_as_written(journal: Journal) -> None:
    make = GroupMaker(journal)
    groups = [make.group(n) for n in (1, 2, 3)]
    for group in groups:
        journal.append(group)
    found = journal.read(START, journal.written, 1 << 30)
    assert found == [(Position(1, n), g.value) for n, g in enumerate(groups, 1)]
    info = block_info(found[1][1])
    assert (info["journal_id"], info["epoch"], info["seq"]) == (7, 1, 2)


def test_each_opening_starts_an_epoch(tmp_path: Path) -> None:
    path = tmp_path / "journal" / "0"
    for epoch in (1, 2, 3):
        journal = reopened(path)
        assert journal.epoch == epoch
        assert journal.durable == journal.written == Position(epoch - 1, 2 if epoch > 1 else 0)
        fill(journal, 2)
        journal.close()
    journal = reopened(path)
    assert positions(journal) == [(e, s) for e in (1, 2, 3) for s in (1, 2)]
    journal.close()


def test_an_epoch_is_not_used_twice_even_if_nothing_was_written(tmp_path: Path) -> None:
    path = tmp_path / "journal" / "0"
    reopened(path).close()
    journal = reopened(path)
    assert (journal.epoch, journal.last()) == (2, START)
    journal.close()


def test_read_ranges(journal: Journal) -> None:
    make = GroupMaker(journal)
    for seq in (1, 2, 5, 6):  # 3 and 4 were refused
        journal.append(make.group(seq, seq=seq))
    assert positions(journal, Position(1, 2)) == [(1, 5), (1, 6)]
    assert positions(journal, Position(1, 3)) == [(1, 5), (1, 6)]
    assert positions(journal, Position(1, 1), Position(1, 5)) == [(1, 2), (1, 5)]
    assert positions(journal, Position(1, 2), Position(1, 4)) == []
    assert positions(journal, Position(1, 6)) == []
    size = len(journal.read(START, Position(1, 1), 1)[0][1])
    assert [p.seq for p, _ in journal.read(START, journal.written, 1)] == [1]
    assert [p.seq for p, _ in journal.read(START, journal.written, 2 * size)] == [1, 2]


def test_definitions_are_kept_beside_the_blocks(tmp_path: Path) -> None:
    path = tmp_path / "journal" / "0"
    journal = reopened(path)
    make = GroupMaker(journal)
    for n, key in enumerate(("a", "a", "b"), 1):
        journal.append(make.group(n, key))
    journal.close()
    journal = reopened(path)
    fill(journal, 1, "c")
    names = [(d.epoch, d.first, split_definitions(d.defs)) for d in journal.definitions()]
    assert names == [(1, 1, [b"a", b"text"]), (1, 3, [b"b"]), (2, 1, [b"c", b"text"])]
    journal.close()


def test_trim(tmp_path: Path) -> None:
    path = tmp_path / "journal" / "0"
    journal = reopened(path)
    fill(journal, 3, "old")
    journal.close()
    journal = reopened(path)
    fill(journal, 3, "new")
    journal.trim(Position(1, 2))
    assert positions(journal) == [(1, 3), (2, 1), (2, 2), (2, 3)]
    assert [d.epoch for d in journal.definitions()] == [1, 2]
    journal.trim(Position(2, 1))
    journal.trim(Position(1, 3))  # an older one changes nothing
    assert positions(journal) == [(2, 2), (2, 3)]
    assert [d.epoch for d in journal.definitions()] == [2]
    journal.close()
    journal = reopened(path)
    assert (journal.trimmed, positions(journal)) == (Position(2, 1), [(2, 2), (2, 3)])
    journal.trim(Position(2, 3))
    journal.mark(Position(2, 3))
    journal.close()
    journal = reopened(path)  # empty, and rightly so
    assert (journal.epoch, positions(journal)) == (4, [])
    assert journal.definitions() == [KeyDefinitions(2, 1, b"\3new\4text")]
    journal.close()


def test_tables_are_freed_once_most_of_them_are_trimmed(tmp_path: Path) -> None:
    path = tmp_path / "journal" / "0"
    rng = random.Random(1)
    for _ in range(5):  # each opening puts what the last one left in the log into a table
        journal = reopened(path)
        fill(journal, 50, text=rng.randbytes(50_000).hex())
        journal.close()
    journal = reopened(path)
    before = journal.disk_bytes()
    for epoch, trimmed in ((2, False), (3, False), (4, True)):
        journal.trim(Position(epoch, 50))
        assert journal.reclaimable() is trimmed
        assert journal.reclaimable(pressed=True)
    journal.reclaim()
    assert journal.disk_bytes() < before / 4
    assert not journal.reclaimable(pressed=True)
    assert positions(journal) == [(5, n) for n in range(1, 51)]
    journal.close()


def test_trimming_writes_no_table(journal: Journal) -> None:
    """Only the log: it runs on the worker's loop, before what waits to be acknowledged."""
    make = GroupMaker(journal)
    for n in (1, 2, 3):
        journal.append(make.group(n))
        journal.trim(Position(journal.epoch, n))
    assert positions(journal) == []
    assert not list(journal.path.glob("*.sst"))


# --- damage ----------------------------------------------------------------------------------


def crashed_copy(journal: Journal, to: Path) -> Path:
    """What a killed process leaves; returns the copy's newest log."""
    path = to / "journal" / "0"
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(journal.path, path)
    mark = journal.path.with_name("0.mark")
    shutil.copy(mark, path.with_name("0.mark"))
    return max(path.glob("*.log"))


def newest_log_bytes(journal: Journal) -> int:
    return max(journal.path.glob("*.log")).stat().st_size


def test_log_torn_anywhere_in_its_last_record(journal: Journal, tmp_path: Path) -> None:
    make = fill(journal, 2)
    journal.sync()
    journal.mark(Position(1, 2))
    before = newest_log_bytes(journal)
    journal.append(make.group(3))
    size = newest_log_bytes(journal)
    assert size - before > 100
    copy = tmp_path / "copy"
    for length in range(before, size + 1):
        with open(crashed_copy(journal, copy), "r+b") as log:
            log.truncate(length)
        torn = reopened(copy / "journal" / "0")
        assert positions(torn) == [(1, 1), (1, 2), (1, 3)][: 3 if length == size else 2], length
        torn.close()


def test_byte_flipped_in_the_middle_of_the_log(journal: Journal, tmp_path: Path) -> None:
    fill(journal, 1)
    journal.sync()
    middle = newest_log_bytes(journal)
    make = GroupMaker(journal)
    make.seq = 1
    for n in range(2, 6):
        journal.append(make.group(n))
    copy = tmp_path / "copy"
    for offset in range(middle - 150, middle, 5):
        log = crashed_copy(journal, copy)
        data = bytearray(log.read_bytes())
        data[offset] ^= 0x10
        log.write_bytes(data)
        with pytest.raises(StoreError, match="damaged") as caught:
            reopened(copy / "journal" / "0")
        assert str(copy / "journal" / "0") in str(caught.value)


def test_missing_synced_tail_is_noticed(journal: Journal, tmp_path: Path) -> None:
    fill(journal, 3)
    journal.sync()
    journal.mark(Position(1, 3))
    copy = tmp_path / "copy"
    crashed_copy(journal, copy).unlink()
    path = copy / "journal" / "0"
    with pytest.raises(StoreError, match="acknowledged data is missing") as caught:
        reopened(path)
    assert str(path) in str(caught.value)
    assert "tbfast store recover --shard journal/0" in str(caught.value)
    [told] = recover(Layout(copy), "journal/0", "now")
    assert "up to epoch 1, sequence 3" in told.lost[0]
    accepted = reopened(path)
    assert positions(accepted) == []
    accepted.close()


@pytest.mark.parametrize("length", range(21))
def test_torn_mark_says_nothing(tmp_path: Path, length: int) -> None:
    path = tmp_path / "journal" / "0"
    journal = reopened(path)
    fill(journal, 1)
    journal.mark(Position(1, 1))
    journal.close()
    mark = path.with_name("0.mark")
    whole = mark.read_bytes()
    mark.write_bytes(whole[:length] + b"\xff" * (len(whole) - length) if length else b"")
    journal = reopened(path)
    assert positions(journal) == [(1, 1)]
    journal.close()


def test_newer_format_is_refused(journal: Journal) -> None:
    journal._meta.put(b"f", b"\2\0\0\0")
    with pytest.raises(StoreError, match="newer tbfast") as caught:
        journal._check_format()
    assert str(journal.path) in str(caught.value)


def test_second_opener_is_refused(journal: Journal) -> None:
    with pytest.raises(StoreBusy, match="another process") as caught:
        reopened(journal.path)
    assert str(journal.path) in str(caught.value)


def test_file_where_the_directory_should_be(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("")
    with pytest.raises(StoreError, match="cannot use the store"):
        reopened(tmp_path / "journal" / "0")


def test_full_disk_refuses_then_resumes(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 16) as disk:
        journal = reopened(disk.path / "journal" / "0")
        make = fill(journal, 10)
        journal.sync()
        disk.fill()
        written = 10
        with pytest.raises(StoreFull, match="no space left") as caught:
            while written < 10_000:
                journal.append(make.group(written + 1, text="x" * 10_000))
                written += 1
        assert str(journal.path) in str(caught.value)
        assert journal.written == Position(1, written)
        with pytest.raises(StoreFull):
            journal.append(make.group(20_000))
        disk.resize(64)

        def appended() -> bool:
            try:
                journal.append(make.group(30_000))
            except StoreFull:
                return False
            return True

        wait_until(appended, 10, "RocksDB resumes by itself")
        journal.sync()
        seqs = [p.seq for p, _ in journal.read(START, journal.written, 1 << 30)]
        assert seqs[:written] == list(range(1, written + 1))
        assert seqs[-1] == make.seq
        last = journal.written
        journal.close()
        journal = reopened(disk.path / "journal" / "0")
        assert journal.durable == last
        journal.close()


def test_no_space_to_start(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 16) as disk:
        path = disk.path / "journal" / "0"
        journal = reopened(path)
        fill(journal, 3)
        journal.close()
        disk.fill()
        with pytest.raises(StoreFull):
            reopened(path)
        disk.resize(64)
        journal = reopened(path)
        assert positions(journal) == [(1, 1), (1, 2), (1, 3)]
        journal.close()
