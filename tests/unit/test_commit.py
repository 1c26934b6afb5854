"""Group commit with a real journal: what is acknowledged, when, and what never is."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tbfast import limits
from tbfast._ext.ingest import Group
from tbfast.errors import StoreError, StoreFull, StoreStall
from tbfast.store.journal import MARK, Journal, Position
from tbfast.worker.commit import Committer
from tests.support.groups import GroupMaker

WAIT_S = 5.0


class HeldJournal(Journal):
    """A journal whose next appends raise, and whose syncs wait and raise, as a test says."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, 0)
        self.append_errors: list[StoreError] = []
        self.sync_errors: list[StoreError] = []
        self.syncs_begun = 0
        self.may_sync = threading.Event()
        self.may_sync.set()

    def append(self, group: Group) -> None:
        if self.append_errors:
            raise self.append_errors.pop(0)
        super().append(group)

    def sync(self) -> None:
        self.syncs_begun += 1
        assert self.may_sync.wait(WAIT_S)
        if self.sync_errors:
            raise self.sync_errors.pop(0)
        super().sync()


class _Metrics:
    """Counts of the commit path."""

    def __init__(self) -> None:
        self.refusals = 0
        self.presses = 0

    def committed(self, group: Group, seconds: float) -> None:
        assert seconds >= 0

    def refused(self, group: Group) -> None:
        self.refusals += 1

    def pressed(self) -> None:
        self.presses += 1


class Bench:
    """A committer and everything around it; answers are recorded as message numbers."""

    def __init__(
        self,
        path: Path,
        *,
        disk: bool = True,
        max_bytes: int = 1 << 40,
        busy_ms: int = limits.JOURNAL_BUSY_MS,
    ) -> None:
        self.journal = HeldJournal(path)
        make = GroupMaker(self.journal)
        self.ingest = make.ingest
        self.message = make.message
        self.metrics = _Metrics()
        self.acknowledged: list[int] = []
        self.refused: list[int] = []
        self.durable: list[tuple[int, int]] = []
        self.broken: list[StoreError] = []
        self.presses: list[bool] = []
        self.committer = Committer(
            asyncio.get_running_loop(),
            self.ingest,
            self.journal,
            self,
            self.metrics,
            disk=disk,
            on_durable=self.on_durable,
            on_broken=self.broken.append,
            max_journal_bytes=max_bytes,
            busy_ms=busy_ms,
        )

    def on_durable(self, group: Group, before: Position) -> None:
        assert self.journal.durable.seq == group.seq
        self.durable.append((before.seq, group.seq))

    def complete(self, group: Group) -> None:
        assert group.value is None or self.durable[-1][1] == group.seq
        self.acknowledged += _messages(group)

    def fail(self, group: Group, error: StoreError) -> None:
        self.refused += _messages(group)

    def press(self, on: bool) -> None:
        self.presses.append(on)

    def commit(self, *messages: int) -> None:
        for n in messages:
            self.message(n)
        self.committer.commit()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                await asyncio.sleep(0.001)

    def stored(self) -> list[int]:
        blocks = self.journal.read(Position(0, 0), Position(99, 0), 1 << 30)
        return [position.seq for position, _ in blocks]

    async def close(self) -> None:
        self.journal.may_sync.set()
        self.committer.close()
        self.journal.close()


def _messages(group: Group) -> list[int]:
    return [n for _, _, owed in group.answers() for _, n in owed]


def run(
    tmp_path: Path,
    body: Callable[[Bench], Awaitable[None]],
    *,
    disk: bool = True,
    max_bytes: int = 1 << 40,
    busy_ms: int = limits.JOURNAL_BUSY_MS,
) -> None:
    async def main() -> None:
        path = tmp_path / "journal" / "0"
        bench = Bench(path, disk=disk, max_bytes=max_bytes, busy_ms=busy_ms)
        try:
            await body(bench)
        finally:
            await bench.close()

    asyncio.run(main())


@pytest.mark.parametrize("disk", [True, False])
def test_acknowledged_in_order_and_stored(tmp_path: Path, disk: bool) -> None:
    async def body(bench: Bench) -> None:
        for n in range(1, 50):
            bench.commit(2 * n, 2 * n + 1)
        await bench.until(lambda: bench.committer.idle)
        assert bench.acknowledged == list(range(2, 100))
        assert bench.durable == [(n - 1, n) for n in range(1, 50)]
        assert bench.stored() == list(range(1, 50))
        assert (bench.refused, bench.broken) == ([], [])

    run(tmp_path, body, disk=disk)


def test_process_acknowledges_after_the_write(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.journal.may_sync.clear()
        bench.commit(1)
        assert bench.acknowledged == [1]
        assert bench.stored() == [1]

    run(tmp_path, body, disk=False)


def test_disk_acknowledges_after_a_sync_that_began_after_the_write(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.journal.may_sync.clear()
        bench.commit(1)
        await bench.until(lambda: bench.journal.syncs_begun == 1)
        bench.commit(2)  # written while the first sync runs: not covered by it
        bench.message(3)  # and this one is still open
        assert bench.stored() == [1, 2]
        assert bench.acknowledged == []
        held = bench.journal.may_sync
        bench.journal.may_sync = threading.Event()
        held.set()
        await bench.until(lambda: bench.acknowledged)
        assert bench.acknowledged == [1]
        await bench.until(lambda: bench.journal.syncs_begun == 2)
        assert bench.stored() == [1, 2, 3]
        assert bench.acknowledged == [1]
        bench.journal.may_sync.set()
        await bench.until(lambda: bench.committer.idle)
        assert bench.acknowledged == [1, 2, 3]

    run(tmp_path, body)


def test_small_groups_go_out_by_timer(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.commit(1)
        bench.message(2)
        bench.committer.turn_ended()
        await bench.until(lambda: bench.acknowledged == [1, 2])

    run(tmp_path, body, disk=False)


def test_message_without_rows_waits_for_those_before_it(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.journal.may_sync.clear()
        bench.commit(1)
        await bench.until(lambda: bench.journal.syncs_begun)
        bench.ingest.note(0, 4, 2)
        bench.committer.commit()
        assert bench.acknowledged == []
        bench.journal.may_sync.set()
        await bench.until(lambda: bench.committer.idle)
        assert bench.acknowledged == [1, 2]
        bench.ingest.note(0, 4, 3)  # nothing before it: nothing to sync
        syncs = bench.journal.syncs_begun
        bench.committer.commit()
        assert bench.acknowledged == [1, 2, 3]
        assert bench.journal.syncs_begun == syncs
        assert bench.stored() == [1]

    run(tmp_path, body)


@pytest.mark.parametrize("disk", [True, False])
def test_what_makes_no_block_is_waited_for_by_nobody(tmp_path: Path, disk: bool) -> None:
    """Reads wait for `accepted`: a position that never comes costs each of them a second."""

    async def body(bench: Bench) -> None:
        def accepted() -> int:
            return bench.committer.accepted.seq

        bench.message(1)
        assert accepted() == 1  # still open
        bench.journal.may_sync.clear()
        bench.committer.commit()
        bench.ingest.note(0, 4, 2)  # a message without rows
        assert accepted() == 1
        bench.committer.commit()
        assert accepted() == 1
        bench.journal.may_sync.set()
        await bench.until(lambda: bench.committer.idle)
        assert accepted() == bench.stored()[-1] == 1
        bench.journal.append_errors = [StoreFull("no space")]
        bench.commit(3)
        assert (bench.refused, accepted()) == ([3], 1)
        bench.commit(4)
        await bench.until(lambda: bench.committer.idle)
        assert accepted() == bench.stored()[-1]

    run(tmp_path, body, disk=disk)


@pytest.mark.parametrize("disk", [True, False])
def test_stall_is_waited_out_under_pressure(tmp_path: Path, disk: bool) -> None:
    async def body(bench: Bench) -> None:
        bench.journal.append_errors = [StoreStall("slow"), StoreStall("slow")]
        bench.commit(1)
        assert bench.presses == [True]
        bench.commit(2)
        assert bench.stored() == []
        await bench.until(lambda: bench.committer.idle)
        assert bench.acknowledged == [1, 2]
        assert bench.stored() == [1, 2]
        assert bench.presses == [True, False]
        assert bench.refused == []

    run(tmp_path, body, disk=disk)


def test_rows_that_wait_for_a_sync_too_long_are_a_stall(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.committer.look()
        assert not bench.committer.stalled  # nothing waits, for however long
        bench.journal.may_sync.clear()
        bench.commit(1)
        bench.committer.look()
        assert bench.committer.stalled
        bench.journal.may_sync.set()
        await bench.until(lambda: bench.acknowledged == [1])
        assert not bench.committer.stalled  # at once, without being looked at

    run(tmp_path, body, busy_ms=0)


@pytest.mark.parametrize("disk", [True, False])
def test_rows_that_the_store_does_not_take_for_too_long_are_a_stall(
    tmp_path: Path, disk: bool
) -> None:
    async def body(bench: Bench) -> None:
        bench.journal.append_errors = [StoreStall("slow")] * 2
        bench.commit(1)
        bench.committer.look()
        assert bench.committer.stalled
        await bench.until(lambda: bench.acknowledged == [1])
        assert not bench.committer.stalled

    run(tmp_path, body, disk=disk, busy_ms=0)


def test_a_slow_disk_is_no_stall_before_its_time(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.journal.may_sync.clear()
        bench.commit(1)
        await bench.until(lambda: bench.journal.syncs_begun)
        bench.committer.look()
        assert not bench.committer.stalled

    # The groups of a bench are as old as the clock.
    run(tmp_path, body, busy_ms=time.monotonic_ns() // 1_000_000 + 60_000)


@pytest.mark.parametrize("disk", [True, False])
def test_no_space_refuses_until_there_is(tmp_path: Path, disk: bool) -> None:
    async def body(bench: Bench) -> None:
        bench.commit(1)
        await bench.until(lambda: bench.committer.idle)
        bench.journal.append_errors = [StoreFull("full")] * 2
        syncs = bench.journal.syncs_begun
        bench.commit(2)
        bench.commit(3)
        assert bench.refused == [2, 3]
        assert bench.journal.syncs_begun == syncs
        assert not bench.committer.can_sync
        bench.commit(4)
        await bench.until(lambda: bench.committer.idle)
        assert bench.acknowledged == [1, 4]
        assert bench.stored() == [1, 4]
        assert bench.durable == [(0, 1), (1, 4)]
        assert bench.committer.can_sync
        assert bench.broken == []
        assert bench.committer.inflight_bytes == 0

    run(tmp_path, body, disk=disk)


def test_written_groups_without_a_sync_are_refused_when_space_runs_out(tmp_path: Path) -> None:
    """Asking RocksDB to sync in that state would keep it from ever recovering."""

    async def body(bench: Bench) -> None:
        bench.journal.may_sync.clear()
        bench.commit(1)
        await bench.until(lambda: bench.journal.syncs_begun)
        bench.commit(2)
        bench.journal.append_errors = [StoreFull("full")]
        bench.commit(3)
        assert bench.refused == [2, 3]
        bench.journal.may_sync.set()
        await bench.until(lambda: bench.acknowledged == [1])
        bench.commit(4)
        await bench.until(lambda: bench.committer.idle)
        assert bench.acknowledged == [1, 4]
        assert bench.stored() == [1, 2, 4]
        # The feed learns that a block is in between, which readers of the journal see.
        assert bench.durable == [(0, 1), (2, 4)]

    run(tmp_path, body)


def test_byte_budget_refuses(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.commit(1)
        await bench.until(lambda: bench.committer.idle)
        for n in range(2, 100):
            bench.commit(n)
        await bench.until(lambda: bench.committer.idle)
        stored = len(bench.stored())
        assert 1 < stored < 99
        assert bench.acknowledged == list(range(1, stored + 1))
        assert bench.refused == list(range(stored + 1, 100))
        assert bench.broken == []
        assert bench.metrics.refusals == len(bench.refused)

    run(tmp_path, body, max_bytes=6_000)


def test_failed_sync_acknowledges_nothing_more(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.commit(1)
        await bench.until(lambda: bench.committer.idle)
        error = StoreError("fdatasync: Input/output error")
        bench.journal.sync_errors = [error]
        bench.journal.may_sync.clear()
        bench.commit(2)
        bench.commit(3)
        bench.journal.may_sync.set()
        await bench.until(lambda: bench.broken)
        assert bench.broken == [error]
        assert bench.refused == [2, 3]
        bench.commit(4)
        assert bench.acknowledged == [1]
        assert bench.stored() == [1, 2, 3]
        assert not bench.committer.can_sync

    run(tmp_path, body)


@pytest.mark.parametrize("disk", [True, False])
def test_failed_write_ends_the_worker(tmp_path: Path, disk: bool) -> None:
    async def body(bench: Bench) -> None:
        error = StoreError("write: Input/output error")
        bench.journal.append_errors = [error]
        bench.commit(1)
        assert bench.broken == [error]
        bench.commit(2)
        assert bench.refused == [1]
        assert bench.acknowledged == []
        assert bench.stored() == []

    run(tmp_path, body, disk=disk)


def test_pressure_follows_what_is_not_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "INFLIGHT_BYTES", 1_000)

    async def body(bench: Bench) -> None:
        bench.journal.may_sync.clear()
        n = 0
        while not bench.presses:
            n += 1
            bench.commit(n)
            assert n < 1_000
        assert bench.committer.inflight_bytes >= 1_000
        assert bench.presses == [True]
        bench.journal.may_sync.set()
        await bench.until(lambda: bench.committer.idle)
        assert bench.presses == [True, False]
        assert bench.acknowledged == list(range(1, n + 1))
        assert bench.committer.inflight_bytes == 0
        assert bench.metrics.presses == 1

    run(tmp_path, body)


@pytest.mark.parametrize("disk", [True, False])
def test_close_leaves_everything_synced_and_marked(tmp_path: Path, disk: bool) -> None:
    async def body(bench: Bench) -> None:
        bench.commit(1)
        bench.commit(2)
        await bench.until(lambda: bench.committer.idle)

    run(tmp_path, body, disk=disk)
    magic, epoch, seq, _crc = MARK.unpack((tmp_path / "journal" / "0.mark").read_bytes())
    assert (magic, epoch, seq) == (b"TBJM", 1, 2)
