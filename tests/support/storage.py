"""A node's storage in one process, without sockets: journals, tail, sealer and series store."""

import itertools
import json
import shutil
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from tbfast._ext.ingest import Ingest
from tbfast._ext.metrics import Slot
from tbfast._ext.series import split_definitions
from tbfast.config import Series
from tbfast.control.deletes import DeleteService
from tbfast.control.sealer import SealService
from tbfast.control.series import NodeSeries
from tbfast.control.tail import TailService
from tbfast.model.ranges import RangeQuery
from tbfast.store.journal import Journal, Position
from tbfast.store.layout import Layout
from tbfast.store.series import SeriesStore

_commits = itertools.count(1_000_000)
Answer = dict[str, list[dict[str, Any]]]


class Crash(Exception):
    """The process would have died here."""


class CrashingStore(SeriesStore):
    """Raises Crash around the step named by `crash_at`: (method, calls until then, before it)."""

    crash_at: tuple[str, int, bool] | None = None

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        for name in ("write_changes", "write_records", "forget_changes"):
            method = getattr(self.latest, name)
            setattr(self.latest, name, partial(self._around, name, method))

    def _step(self, name: str, *arguments: Any) -> Any:
        return self._around(name, getattr(super(), name), *arguments)

    def _around(self, name: str, work: Callable[..., Any], *arguments: Any) -> Any:
        method, calls, before = self.crash_at or ("", 0, True)
        if method != name:
            return work(*arguments)
        if calls:
            self.crash_at = method, calls - 1, before
            return work(*arguments)
        if not before:
            work(*arguments)
        raise Crash(name)

    def begin_run(self) -> int:
        return int(self._step("begin_run"))

    def window_for(self, *arguments: Any) -> int:
        return int(self._step("window_for", *arguments))

    def write_keys(self, *arguments: Any) -> None:
        self._step("write_keys", *arguments)

    def write_chunks(self, *arguments: Any) -> None:
        self._step("write_chunks", *arguments)

    def finish_run(self, *arguments: Any) -> None:
        self._step("finish_run", *arguments)

    def begin_join(self) -> Any:
        return self._step("begin_join")

    def finish_join(self, *arguments: Any) -> Any:
        return self._step("finish_join", *arguments)

    def forget(self, *arguments: Any) -> None:
        self._step("forget", *arguments)


class _NoLinks:
    """Blocks are applied as they are written: there is nothing to catch up with."""

    async def caught_up(self) -> set[int]:
        return set()


def parsed(answer: bytes) -> Answer:
    """JSON with decimals kept."""
    return json.loads(answer, parse_float=Decimal)


class Storage:
    """Opens what is there, replays what no recorded run covers."""

    def __init__(
        self,
        root: Path,
        *,
        journals: int = 2,
        settings: Series | None = None,
        class_of: Callable[[int], int] = lambda device: 0,
    ) -> None:
        self._closed = False
        self.layout = Layout(root)
        self.journals = [Journal(self.layout.journal(n), n) for n in range(journals)]
        self._ingests = [Ingest() for _ in self.journals]
        self._seq = [0] * journals
        settings = settings or Series()
        self.store = CrashingStore(self.layout.series, join_runs=settings.join_runs)
        slot = Slot()
        self.tail = TailService(slot)
        self.broken: list[Exception] = []
        self.sealer = SealService(
            self.tail,
            self.store,
            slot,
            settings,
            class_of=class_of,
            on_run=self.trimmable,
            on_broken=self.broken.append,
        )
        links: Any = _NoLinks()
        self.reads = NodeSeries(self.tail, links, self.store, self.layout, 0)
        self.deletes = DeleteService(self.tail, self.store, self.sealer, self.reads)
        self.sealed_to: dict[int, tuple[int, int]] = self.store.cursors()
        self.sealer.restore()
        self.replayed = self._replay()

    def trimmable(self, cursors: dict[int, tuple[int, int]]) -> None:
        """A run was recorded."""
        self.sealed_to = cursors

    def _replay(self) -> int:
        blocks = []
        for journal in self.journals:
            number = journal.journal_id
            for known in journal.definitions():
                names = split_definitions(known.defs)
                self.tail.define(number, known.epoch, known.first, names)
            after = Position(*self.tail.cursor(number))
            blocks += [block for _, block in journal.read(after, journal.written, 1 << 30)]
        blocks.sort(key=lambda block: int.from_bytes(block[24:32], "little"))  # commit time
        for block in blocks:
            self.tail.apply(block)
        return len(blocks)

    def write(self, number: int, device: int, *rows: tuple[int, Mapping[str, str]]) -> None:
        """One message of (time, {key: JSON text}), committed, synced and applied."""
        self.write_json(number, device, f"[{','.join(_timed(*row) for row in rows)}]".encode())

    def write_json(self, number: int, device: int, payload: bytes) -> None:
        """One message as a device would send it."""
        journal, ingest = self.journals[number], self._ingests[number]
        commit_ms = next(_commits)
        ingest.at(commit_ms, 0)
        ingest.append_json(device, payload)
        ingest.note(0, 0, 0)
        self._seq[number] += 1
        group = ingest.take(
            number, journal.epoch, self._seq[number], commit_ms, journal.written_keys + 1
        )
        journal.append(group)
        journal.sync()
        journal.mark(journal.written)
        assert group.value is not None
        self.tail.apply(group.value)

    def trim(self) -> None:
        """What the workers do after a recorded run."""
        for journal in self.journals:
            if journal.journal_id in self.sealed_to:
                journal.trim(Position(*self.sealed_to[journal.journal_id]))

    def crashed_copy(self, to: Path) -> Path:
        """The files as a kill -9 would leave them now."""
        while True:
            before = _listing(self.layout.root)
            shutil.rmtree(to, ignore_errors=True)
            try:
                shutil.copytree(self.layout.root, to)
            except shutil.Error:
                continue  # a compaction removed a file
            if _listing(self.layout.root) == before == _listing(to):
                return to

    def close(self) -> None:
        """Closes without sealing; once is enough."""
        if self._closed:
            return
        self._closed = True
        self.sealer.close()
        self.reads.close()
        self.store.close()
        for journal in self.journals:
            journal.close()


def _timed(ts: int, values: Mapping[str, str]) -> str:
    members = ",".join(f"{json.dumps(key)}:{text}" for key, text in values.items())
    return f'{{"ts":{ts},"values":{{{members}}}}}'


def _listing(root: Path) -> dict[Path, int]:
    return {p.relative_to(root): p.stat().st_size for p in root.rglob("*") if p.is_file()}


async def ranged(reader: Any, device: int, keys: list[str] | None = None, **bounds: Any) -> Answer:
    """`reader.range` with wide defaults, parsed."""
    wide = {"keys": None if keys is None else tuple(keys), "limit": 1 << 40, "ascending": True}
    return parsed(await reader.range(device, RangeQuery(**{**wide, **bounds})))
