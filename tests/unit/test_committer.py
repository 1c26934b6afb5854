"""The commit path against a journal that misbehaves on demand."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

from tbfast import limits
from tbfast._ext.ingest import Group, Ingest
from tbfast.errors import StoreError, StoreFull, StoreStall
from tbfast.store.journal import Position
from tbfast.worker import commit
from tbfast.worker.commit import Committer, DiskSpace


class Journal:
    """Keeps nothing; `refuse` is raised by the next appends."""

    def __init__(self) -> None:
        self.journal_id = 0
        self.epoch = 1
        self.path = Path("journal")
        self.written = self.durable = Position(1, 0)
        self.written_keys = 0
        self.refuse: Exception | None = None
        self.mark_error: StoreError | None = None
        self.marked = threading.Event()

    def append(self, group: Group) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.written = Position(self.epoch, group.seq)

    def sync(self) -> None:
        """Nothing to sync."""

    def mark(self, position: Position) -> None:
        self.marked.set()
        if self.mark_error is not None:
            raise self.mark_error

    def disk_bytes(self) -> int:
        return 0


class Answers:
    """What the port would be told."""

    def __init__(self) -> None:
        self.completed = self.failed = 0
        self.pressed = False

    def complete(self, group: Group) -> None:
        self.completed += 1

    def fail(self, group: Group, error: StoreError) -> None:
        self.failed += 1

    def press(self, on: bool) -> None:
        self.pressed = on


class Metrics:
    def committed(self, group: Group, seconds: float) -> None: ...
    def refused(self, group: Group) -> None: ...
    def pressed(self) -> None: ...


class CommitPath:
    """A committer with all of it."""

    def __init__(self, space: DiskSpace | None = None) -> None:
        self.journal = Journal()
        self.answers = Answers()
        self.ingest = Ingest()
        self.ingest.open(0, 1, 4)
        self.broken: list[StoreError] = []
        self.committer = Committer(
            asyncio.get_running_loop(), self.ingest, self.journal, self.answers, Metrics(),
            disk=True, on_durable=lambda group, previous: None, on_broken=self.broken.append,
            space=space,
        )  # fmt: skip

    def message(self, packet_id: int) -> None:
        self.ingest.append_json(1, b'{"t":1}')
        self.ingest.note(0, 4, packet_id)


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


def test_pressure_ends_when_a_stalled_store_refuses():
    async def run() -> None:
        path = CommitPath()
        path.journal.refuse = StoreStall("wait")
        path.message(1)
        path.committer.commit()
        assert path.answers.pressed
        path.journal.refuse = StoreFull("full")
        await _until(lambda: path.answers.failed)
        assert not path.answers.pressed
        assert path.committer.idle
        path.committer.close()

    asyncio.run(run())


def test_a_stalled_group_is_written_once_and_answered():
    async def run() -> None:
        path = CommitPath()
        path.journal.refuse = StoreStall("wait")
        path.message(1)
        path.committer.commit()
        path.journal.refuse = None
        await _until(lambda: path.answers.completed)
        assert (path.answers.completed, path.answers.failed) == (1, 0)
        assert not path.answers.pressed
        path.committer.close()

    asyncio.run(run())


def test_a_mark_that_does_not_fit_the_disk_does_not_end_the_worker(monkeypatch):
    monkeypatch.setattr(commit, "MARK_INTERVAL_S", 0.01)

    async def run() -> None:
        path = CommitPath()
        path.message(1)
        path.committer.commit()
        await _until(lambda: path.answers.completed)
        path.journal.mark_error = StoreFull("no space left")
        path.journal.marked.clear()
        await _until(path.journal.marked.is_set)
        path.message(2)
        path.committer.commit()
        await _until(lambda: path.answers.completed == 2 or path.broken)
        assert path.broken == []
        path.journal.mark_error = None
        path.committer.close()

    asyncio.run(run())


def test_inflight_bytes_press_and_release():
    async def run() -> None:
        path = CommitPath()
        syncing, release = threading.Event(), threading.Event()

        def sync() -> None:
            syncing.set()
            release.wait(10)

        path.journal.sync = sync
        text = b'{"t":"' + b"x" * 60_000 + b'"}'
        packet_id = 0
        while not path.answers.pressed:
            assert path.committer.inflight_bytes < 2 * limits.INFLIGHT_BYTES
            packet_id += 1
            path.ingest.append_json(1, text)
            path.ingest.note(0, 4, packet_id)
            path.committer.commit()
        assert path.answers.completed == 0
        release.set()
        await _until(lambda: path.answers.completed == packet_id)
        assert not path.answers.pressed
        path.committer.close()

    asyncio.run(run())


class NoSpace:
    """A disk that is full for a while."""

    def __init__(self) -> None:
        self.full = True

    def admits(self, nbytes: int) -> bool:
        assert nbytes > 0
        return not self.full


def test_without_room_nothing_is_written_and_all_is_refused_until_there_is():
    async def run() -> None:
        space = NoSpace()
        path = CommitPath(space)
        path.message(1)
        path.committer.commit()
        assert (path.answers.failed, path.answers.completed) == (1, 0)
        assert path.journal.written == Position(1, 0)
        space.full = False
        path.message(2)
        path.committer.commit()
        await _until(lambda: path.answers.completed)
        assert path.broken == []
        path.committer.close()

    asyncio.run(run())


def test_nobody_waits_for_the_position_of_a_group_without_rows_or_a_refused_one():
    async def run() -> None:
        space = NoSpace()
        path = CommitPath(space)
        path.message(1)
        assert path.committer.accepted == Position(1, 1)
        path.committer.commit()  # refused: no room
        assert path.committer.accepted == Position(1, 0)
        space.full = False
        path.message(2)
        path.committer.commit()
        path.ingest.append_json(1, b"{}")
        path.ingest.note(0, 4, 3)
        path.committer.commit()  # an acknowledgement and no row
        assert path.committer.accepted == Position(1, 2)
        await _until(lambda: path.answers.completed == 2)
        assert path.committer.accepted == Position(1, 2)
        path.committer.close()

    asyncio.run(run())


def test_before_the_first_row_what_earlier_epochs_wrote_is_the_newest():
    async def run() -> None:
        path = CommitPath()
        path.journal.epoch = 4
        path.journal.written = path.journal.durable = Position(3, 9)
        # Whoever reads what it wrote waits for this position: (4, 0) would never come.
        assert path.committer.accepted == Position(3, 9)

    asyncio.run(run())
