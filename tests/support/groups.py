"""Commit groups as a worker makes them, without sockets."""

from tbfast._ext.ingest import Group, Ingest
from tbfast.store.journal import Journal

PUBACK = 4


class GroupMaker:
    """Groups of one message each, numbered from 1 in a journal's epoch."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.ingest = Ingest()
        self.ingest.open(0, 1, 4)
        self.seq = 0

    def message(self, n: int, key: str = "n", text: str = "") -> None:
        """A message {key: n} at time n into the open group; its PUBACK n is owed."""
        self.ingest.at(1_000 + n, 0)
        payload = f'{{"ts":{n},"values":{{"{key}":{n},"text":"{text}"}}}}'
        self.ingest.append_json(1, payload.encode())
        self.ingest.note(0, PUBACK, n)

    def group(self, n: int, key: str = "n", text: str = "", seq: int = 0) -> Group:
        """A closed group with that message."""
        self.message(n, key, text)
        self.seq = seq or self.seq + 1
        journal = self._journal
        return self.ingest.take(
            journal.journal_id, journal.epoch, self.seq, 1_000 + n, journal.written_keys + 1
        )
