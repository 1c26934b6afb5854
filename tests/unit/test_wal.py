"""Log files of RocksDB: read as it writes them, without what is damaged and nothing more."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rocksdict import Options, Rdict

from tbfast._ext.crc import crc32c
from tbfast.store.wal import BLOCK_BYTES, read_log, write_log

sizes = st.one_of(
    st.integers(0, 50),
    st.integers(BLOCK_BYTES - 20, BLOCK_BYTES + 20),
    st.integers(0, 3 * BLOCK_BYTES),
)
logs = st.lists(sizes, max_size=8).map(
    lambda lengths: [bytes([n % 251 + 1]) * length for n, length in enumerate(lengths)]
)


def test_crc32c_of_a_known_text() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"56789", crc32c(b"1234")) == 0xE3069283
    assert crc32c(b"") == 0


@given(logs)
def test_what_is_written_is_read(records: list[bytes]) -> None:
    assert read_log(write_log(records)) == (records, [])
    assert read_log(write_log(records) + bytes(100)) == (records, [])


@given(logs.filter(any), st.data())
def test_a_flipped_bit_costs_one_record(records: list[bytes], data: st.DataObject) -> None:
    log = bytearray(write_log(records))
    at = data.draw(st.integers(0, len(log) - 1))
    log[at] ^= 1 << data.draw(st.integers(0, 7))
    found, damages = read_log(bytes(log))
    assert len(found) >= len(records) - 1
    left = iter(records)
    assert all(record in left for record in found), "in their order"
    assert len(found) == len(records) or damages


@given(logs, st.integers(0, 10**6))
def test_a_torn_log_keeps_what_is_before(records: list[bytes], cut: int) -> None:
    log = write_log(records)
    found, _ = read_log(log[: cut % (len(log) + 1)])
    assert found == records[: len(found)]


@given(st.binary(max_size=300))
def test_any_bytes_are_read(data: bytes) -> None:
    records, damages = read_log(data)
    assert sum(map(len, records)) + sum(d.length for d in damages) <= len(data)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A database whose rows are only in its log, as a kill would leave it."""
    db = Rdict(str(tmp_path / "db"), Options(raw_mode=True))
    for n in range(300):
        db[b"%04d" % n] = bytes([n % 256]) * (n * 7 % 900)
    db.flush_wal(True)
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in (tmp_path / "db").iterdir():
        if file.name != "LOCK":
            (copy / file.name).write_bytes(file.read_bytes())
    db.close()
    return copy


def test_logs_of_rocksdb(written: Path) -> None:
    [log] = written.glob("*.log")
    data = bytearray(log.read_bytes())
    records, damages = read_log(bytes(data))
    assert (len(records), damages) == (300, [])
    data[len(write_log(records[:150])) + 20] ^= 4
    records, damages = read_log(bytes(data))
    assert (len(records), len(damages)) == (299, 1)
    log.write_bytes(write_log(records))
    db = Rdict(str(written), Options(raw_mode=True))
    assert [int(key) for key, _ in db.items()] == [n for n in range(300) if n != 150]
    db.close()
