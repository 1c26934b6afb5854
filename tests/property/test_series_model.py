"""Each row exactly once: journal, head, runs and windows against plain dictionaries.

Deletes, joined chunks, crashes (files as a kill -9 leaves them, also in the middle of a run or of a
join), restarts, trims, devices that change their retention class, dropped windows; read back by a
running node and by the command line's reader.
"""

import asyncio
import contextlib
import json
import shutil
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tbfast.config import Series
from tbfast.store.series_reader import OfflineSeries
from tests.support.storage import Answer, Crash, Storage, ranged

NUMBERS = (64, 65, 66, 130)  # three that share pages, with their key, and one that does not
DEVICES = st.sampled_from(NUMBERS)
KEYS = ("a", "b", "ä", "long name")
TIMES = st.integers(0, 12) | st.sampled_from([-1, -(2**53), 2**53, 253_402_300_799_999])
VALUES = st.sampled_from(
    ["0", "1", "-7", "9223372036854775807", "1.5", "20.25", "-0.001", "3.141592653589793", "true",
     "false", '""', '"x"', '"äöü"', '{"a":[1,{"b":2}]}', "[]"]
)  # fmt: skip
MESSAGES = st.tuples(
    st.integers(0, 1), DEVICES, TIMES, st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1)
)
BURSTS = st.tuples(DEVICES, st.sampled_from(KEYS), st.integers(65, 150), st.integers(-2000, 2000))
CRASHES = st.tuples(
    st.sampled_from(
        [
            "begin_run",
            "window_for",
            "write_keys",
            "write_chunks",
            "write_changes",
            "finish_run",
            "write_records",
            "forget_changes",
        ]
    ),
    st.integers(0, 2),
    st.booleans(),
)
JOIN_CRASHES = st.tuples(
    st.sampled_from(["begin_join", "finish_join", "forget"]), st.integers(0, 1), st.booleans()
)
DELETES = st.fixed_dictionaries(
    {
        "device": DEVICES,
        "keys": st.none() | st.lists(st.sampled_from(KEYS), unique=True, min_size=1),
        "start_ms": st.none() | TIMES,
        "end_ms": st.none() | TIMES,
        "latest": st.booleans(),
        "rewrite_latest": st.booleans(),
    }
)
MEMORY = Path("/dev/shm")  # crashes of the process, not of the machine: no disk is needed
DAY_MS = 86_400_000
SMALL_BATCH_BYTES = 100  # chunks of a few devices already need several writes

Message = tuple[int, int, int, dict[str, str]]  # journal, device, time, values
Delete = dict[str, Any]
Layer = dict[tuple[int, str], dict[int, tuple[int, Any]]]  # by time: (order of arrival, value)
SETTINGS = Series(retention={"other": 86_400_000}, join_runs=2)  # two classes


class SeriesModel(RuleBasedStateMachine):
    """``layers``: rows by window number; None holds what no run has yet."""

    @initialize()
    def open(self) -> None:
        self.directory = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.generation = 0
        self.runner = asyncio.Runner()
        self.layers: dict[int | None, Layer] = {None: {}}
        self.newest: dict[tuple[int, str], tuple[int, Any]] = {}
        self.runs: set[int] = set()
        self.batch_bytes = mock.patch("tbfast.control.sealer.WRITE_BATCH_BYTES", SMALL_BATCH_BYTES)
        self.batch_bytes.start()
        self.latest_runs = mock.patch("tbfast.limits.LATEST_RUNS", 2)
        self.latest_runs.start()
        self.arrivals = 0
        self.classes = {64: 0, 65: 0, 66: 1, 130: 0}
        self.storage = self._opened(self.directory / "0")

    def _opened(self, root: Path) -> Storage:
        return Storage(root, settings=SETTINGS, class_of=lambda device: self.classes[device])

    @rule(device=DEVICES)
    def change_class(self, device: int) -> None:
        self.classes[device] ^= 1

    # --- writing -----------------------------------------------------------------------------

    def _write(self, journal: int, device: int, *rows: tuple[int, dict[str, str]]) -> None:
        self.storage.write(journal, device, *rows)
        self._arrived(device, *rows)

    def _arrived(self, device: int, *rows: tuple[int, dict[str, str]]) -> None:
        for ts, values in rows:
            for key, text in values.items():
                value = json.loads(text, parse_float=Decimal)
                self.arrivals += 1
                self.layers[None].setdefault((device, key), {})[ts] = self.arrivals, value
                if ts >= self.newest.get((device, key), (ts, None))[0]:
                    self.newest[device, key] = ts, value

    @rule(messages=st.lists(MESSAGES, min_size=1, max_size=5))
    def write(self, messages: list[Message]) -> None:
        for journal, device, ts, values in messages:
            self._write(journal, device, (ts, values))

    @rule(burst=BURSTS)
    def write_a_series_with_a_chunk_of_its_own(self, burst: tuple[int, str, int, int]) -> None:
        device, key, count, start = burst
        self._write(0, device, *((start + 3 * n, {key: str(n)}) for n in range(count)))

    # --- runs --------------------------------------------------------------------------------

    def _recorded(self) -> None:
        sealed = self.layers.pop(None)
        number = self.storage.store.recorded
        windows = {
            window.retention_ms: window.number
            for window in self.storage.store.windows()
            if any(run.number == number for part in window.segments for run in part.runs)
        }
        for series, points in sealed.items():
            if points:
                retention_ms = SETTINGS.retention_classes()[self.classes[series[0]]]
                layer = self.layers.setdefault(windows[retention_ms], {})
                layer.setdefault(series, {}).update(points)
        for window in windows.values():
            self.layers.setdefault(window, {})
        self.layers[None] = {}
        assert number not in self.runs, "a run number twice"
        self.runs.add(number)

    async def _sealed(self, delete: Delete | None, late: Message | None) -> Any:
        """Seals; delete and late message come after the freeze and are not part of the run."""
        sealing = asyncio.ensure_future(self.storage.sealer.seal())
        await asyncio.sleep(0)
        deleting = asyncio.ensure_future(self._delete(delete))
        await asyncio.sleep(0)
        if late is not None:
            journal, device, ts, values = late
            self.storage.write(journal, device, (ts, values))
        try:
            await deleting
        except Crash:
            self.delete_was_acknowledged = False  # and left no trace: its names come first
            await asyncio.wait([sealing])
            raise
        return await sealing

    def _after_freeze(self, delete: Delete | None, late: Message | None) -> None:
        if delete is not None:
            self._deleted(**delete)
        if late is not None:
            self._arrived(late[1], late[2:])

    @rule(delete=st.none() | DELETES, late=st.none() | MESSAGES)
    def seal(self, delete: Delete | None, late: Message | None) -> None:
        held = self.storage.sealer._due
        record = self.runner.run(self._sealed(delete, late))
        assert (record is not None) == held
        if record is not None:
            assert record.points == sum(map(len, self.layers[None].values()))
            self._recorded()
        self._after_freeze(delete, late)

    @rule()
    def trim(self) -> None:
        self.storage.trim()

    @precondition(lambda self: self.storage.sealer._due)
    @rule(step=CRASHES, delete=st.none() | DELETES, late=st.none() | MESSAGES)
    def crash_in_a_run(
        self, step: tuple[str, int, bool], delete: Delete | None, late: Message | None
    ) -> None:
        self.storage.store.crash_at = step
        recorded = self.storage.store.recorded
        self.delete_was_acknowledged = True
        try:
            self.runner.run(self._sealed(delete, late))
        except Crash:
            if self.storage.store.recorded > recorded:
                self._recorded()
        else:
            self._recorded()
        self._after_freeze(delete if self.delete_was_acknowledged else None, late)
        self._crash()

    # --- deletes -----------------------------------------------------------------------------

    async def _delete(self, delete: Delete | None) -> None:
        if delete is not None:
            await self.storage.deletes.delete(**delete)

    def _deleted(
        self,
        device: int,
        keys: list[str] | None,
        start_ms: int | None,
        end_ms: int | None,
        latest: bool,
        rewrite_latest: bool,
    ) -> None:
        def hit(ts: int) -> bool:
            return (start_ms is None or ts >= start_ms) and (end_ms is None or ts < end_ms)

        for layer in self.layers.values():
            for (owner, key), points in layer.items():
                if owner == device and (keys is None or key in keys):
                    for ts in [ts for ts in points if hit(ts)]:
                        del points[ts]
        left = self._points(device)
        for owner, key in list(self.newest):
            if owner != device or (keys is not None and key not in keys):
                continue
            if latest and hit(self.newest[owner, key][0]):
                del self.newest[owner, key]
                if rewrite_latest and left.get(key):
                    ts = max(left[key])
                    self.newest[owner, key] = ts, left[key][ts][1]

    @rule(delete=DELETES)
    def delete(self, delete: Delete) -> None:
        self.runner.run(self._delete(delete))
        self._deleted(**delete)

    @rule(device=DEVICES)
    def delete_everything(self, device: int) -> None:
        self.runner.run(self.storage.deletes.delete(device, None))
        self._deleted(device, None, None, None, latest=True, rewrite_latest=False)

    # --- joining -----------------------------------------------------------------------------

    @rule(turns=st.integers(0, 6), delete=st.none() | DELETES, late=st.none() | MESSAGES)
    def join(self, turns: int, delete: Delete | None, late: Message | None) -> None:
        """Delete and late message come while it runs."""

        async def joined() -> None:
            joining = asyncio.ensure_future(self.storage.sealer.upkeep.join())
            for _ in range(turns):
                await asyncio.sleep(0)
            await self._delete(delete)
            if late is not None:
                self.storage.write(late[0], late[1], late[2:])
            await joining

        self.runner.run(joined())
        self._after_freeze(delete, late)

    @rule(step=JOIN_CRASHES)
    def crash_in_a_join(self, step: tuple[str, int, bool]) -> None:
        self.storage.store.crash_at = step
        with contextlib.suppress(Crash):
            self.runner.run(self.storage.sealer.upkeep.join())
        self._crash()

    # --- windows -----------------------------------------------------------------------------

    @precondition(lambda self: self.storage.store.windows())
    @rule()
    def begin_a_window(self) -> None:
        store = self.storage.store
        newest = store.windows()[-1]
        begun = store.window_for(newest.opened_at_ms + DAY_MS, DAY_MS, 0, newest.retention_ms)
        assert begun > newest.number

    @precondition(lambda self: len(self.storage.store.windows()) > 1)
    @rule()
    def drop_the_oldest_window(self) -> None:
        oldest = self.storage.store.windows()[0].number
        self.storage.store.drop_window(oldest)
        del self.layers[oldest]

    # --- ends --------------------------------------------------------------------------------

    def _crash(self) -> None:
        old = self.storage
        self.generation += 1
        root = old.crashed_copy(self.directory / str(self.generation))
        old.close()
        shutil.rmtree(old.layout.root)
        self.storage = self._opened(root)

    @rule()
    def crash(self) -> None:
        self._crash()

    @rule(sealing=st.booleans())
    def restart(self, sealing: bool) -> None:
        if sealing:
            held = self.storage.sealer._due
            self.runner.run(self.storage.sealer.finish())
            if held:
                self._recorded()
        self.storage.close()
        self._read_offline()
        self.storage = self._opened(self.storage.layout.root)
        if sealing:
            assert self.storage.replayed == 0

    def _read_offline(self) -> None:
        async def read() -> None:
            reader = OfflineSeries(self.storage.layout)
            try:
                for device in NUMBERS:
                    expected = self._expected(device)
                    assert await ranged(reader, device) == expected
                    assert await reader.keys(device) == sorted(expected)
            finally:
                await reader.close()

        self.runner.run(read())

    # --- reading -----------------------------------------------------------------------------

    def _points(self, device: int) -> dict[str, dict[int, tuple[int, Any]]]:
        found: dict[str, dict[int, tuple[int, Any]]] = {}
        for layer in self.layers.values():
            for (owner, key), points in layer.items():
                if owner == device:
                    mine = found.setdefault(key, {})
                    for ts, point in points.items():
                        mine[ts] = max(point, mine.get(ts, (0, None)), key=lambda p: p[0])
        return found

    def _expected(
        self,
        device: int,
        keys: list[str] | None = None,
        start_ms: int | None = None,
        end_ms: int | None = None,
        limit: int = 1 << 40,
        ascending: bool = True,
    ) -> Answer:
        found: Answer = {}
        for key, points in self._points(device).items():
            times = sorted(
                ts
                for ts in points
                if (start_ms is None or ts >= start_ms) and (end_ms is None or ts < end_ms)
            )
            chosen = (times if ascending else times[::-1])[:limit]
            if chosen and (keys is None or key in keys):
                found[key] = [{"ts": ts, "value": points[ts][1]} for ts in chosen]
        return found

    @rule(
        device=DEVICES,
        keys=st.none() | st.lists(st.sampled_from(KEYS), unique=True, min_size=1),
        start_ms=st.none() | TIMES,
        end_ms=st.none() | TIMES,
        limit=st.integers(1, 5),
        ascending=st.booleans(),
    )
    def read_a_range(self, device: int, **bounds: Any) -> None:
        found = self.runner.run(ranged(self.storage.reads, device, **bounds))
        assert found == self._expected(device, **bounds)

    @invariant()
    def agrees(self) -> None:
        self.runner.run(self._compare())
        assert self.storage.broken == []

    async def _compare(self) -> None:
        reads = self.storage.reads
        for device in NUMBERS:
            assert await ranged(reads, device) == self._expected(device)
            newest = {k: v for (owner, k), v in self.newest.items() if owner == device}
            assert await reads.keys(device) == sorted(newest)
            latest = json.loads(await reads.latest(device, None), parse_float=Decimal)
            assert latest == {k: [{"ts": ts, "value": v}] for k, (ts, v) in newest.items()}

    def teardown(self) -> None:
        if hasattr(self, "storage"):
            self.storage.close()
            self.runner.close()
            self.batch_bytes.stop()
            self.latest_runs.stop()
            shutil.rmtree(self.directory)


SeriesModel.TestCase.settings = settings(
    settings(), max_examples=max(1, settings().max_examples // 8), stateful_step_count=20
)
test_series_model = pytest.mark.timeout(120)(SeriesModel.TestCase)
