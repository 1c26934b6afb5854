"""A journal is read beside its writer, whatever files that one is done with meanwhile."""

import threading
from pathlib import Path

from tbfast._ext.ingest import Ingest
from tbfast.store.journal import Journal, Position
from tbfast.store.series_reader import JournalFile

READS = 400
EPOCHS = 3  # at least, while they are read
BLOCKS = 4


def write_epoch(path: Path) -> None:
    """One life of a writer: opening, blocks, a trim, and a close that flushes."""
    journal, ingest = Journal(path, 0), Ingest()
    try:
        for seq in range(1, BLOCKS + 1):
            ingest.at(seq, 0)
            ingest.append_json(7, b'{"ts":1,"values":{"a":1}}')
            ingest.note(0, 0, 0)
            journal.append(ingest.take(0, journal.epoch, seq, seq, journal.written_keys + 1))
            journal.sync()
        journal.trim(Position(journal.epoch, BLOCKS - 1))
    finally:
        journal.close()


def test_files_go_while_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "0"
    write_epoch(path)
    stop, epochs = threading.Event(), [0]

    def write() -> None:
        while not stop.is_set():
            write_epoch(path)
            epochs[0] += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(READS):
            journal = JournalFile(path)
            found = [position for position, _ in journal.blocks(Position(0, 0))]
            journal.close()
            assert found == sorted(set(found))
            assert writer.is_alive()
    finally:
        stop.set()
        writer.join()
    assert epochs[0] >= EPOCHS
