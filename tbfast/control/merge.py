"""Blocks of several journals, given on in the order of their commits (design section 3).

Devices may write one time of one key through several workers; the later commit must win.  While
blocks are fresh, workers push them and the tail's own order evens out what little they are out of
step; when one is behind (replay after a restart, a slow controller) the others' blocks wait here
until it has come as far.  What waits is bounded by the credit of each link.

Who does not come forward for `PATIENCE_S` (a hanging worker, a journal that cannot be read) is not
waited for until it does.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable

from tbfast import limits
from tbfast.control.tail import PLACE

POLL_S = 0.25  # an idle worker says that often how far it has come
PATIENCE_S = 2.0
START_PATIENCE_S = 10.0  # a worker that has not linked yet may be opening a large journal

Position = tuple[int, int]


def wall_clock_ms() -> int:
    """Now, in the workers' time."""
    return time.time_ns() // 1_000_000


class Source:
    """One journal's blocks on their way; `received` is the position of the newest."""

    def __init__(self, journal: int, consumed: Callable[[int], None], patient_until: float) -> None:
        self.journal = journal
        self.consumed = consumed
        self.blocks: deque[tuple[int, bytes]] = deque()  # with their commit times
        self.received: Position = (0, 0)
        self.through_ms = 0  # everything committed up to then has come
        self.patient_until = patient_until
        self._awaited: tuple[Position, int] | None = None

    def came(self, position: Position, through_ms: int) -> None:
        """Everything up to a position that was the newest at a time must have come by then."""
        if self.received >= position:
            self.through_ms = max(self.through_ms, through_ms)
        else:
            self._awaited = position, through_ms

    def take(self, block: bytes) -> None:
        """Queues a block."""
        _, epoch, seq, commit_ms = PLACE.unpack_from(block, 8)
        self.blocks.append((commit_ms, block))
        self.received = max(self.received, (epoch, seq))
        self.through_ms = max(self.through_ms, commit_ms)
        if self._awaited is not None and self.received >= self._awaited[0]:
            self.through_ms = max(self.through_ms, self._awaited[1])
            self._awaited = None


class Merge:
    """Gives blocks to `apply`, oldest commit first, as soon as no other journal can have an older.

    journals: those that will be linked soon and are waited for.
    """

    def __init__(
        self,
        apply: Callable[[bytes], None],
        journals: Iterable[int] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self._apply = apply
        self._clock = clock
        self._wall_ms = wall_ms
        patient_until = clock() + START_PATIENCE_S
        self._sources = {j: Source(j, lambda nbytes: None, patient_until) for j in journals}
        self._releasing = False

    def link(self, journal: int, consumed: Callable[[int], None]) -> Source:
        """A journal's blocks will come; consumed(bytes) is called for each one given on."""
        source = Source(journal, consumed, self._clock() + PATIENCE_S)
        self._sources[journal] = source  # what an older link has queued will be sent again
        return source

    def unlink(self, source: Source) -> None:
        """No more of it comes, and what is queued will be sent again."""
        if self._sources.get(source.journal) is source:
            del self._sources[source.journal]
            self.release()

    def push(self, source: Source, block: bytes) -> None:
        """The next block of its journal."""
        if self._sources.get(source.journal) is not source:
            return
        source.patient_until = self._clock() + PATIENCE_S
        source.take(block)
        self.release()

    def came(self, source: Source, position: Position, through_ms: int) -> None:
        """At that time the newest block of the journal was at this position."""
        source.patient_until = self._clock() + PATIENCE_S
        source.came(position, through_ms)
        self.release()

    def quiet(self) -> list[Source]:
        """Sources that should be asked how far they have come; none while there is one journal."""
        return [s for s in self._sources.values() if not s.blocks] if len(self._sources) > 1 else []

    def release(self) -> None:
        """Gives on what may go; called again when patience may have ended."""
        if self._releasing:
            return  # `apply` may end up here
        self._releasing = True
        try:
            while (source := self._next()) is not None:
                _, block = source.blocks[0]
                self._apply(block)  # without memory it fails, and no later block may go first
                source.blocks.popleft()
                source.consumed(len(block))
        finally:
            self._releasing = False

    def _next(self) -> Source | None:
        first: Source | None = None
        silent: list[Source] = []
        for source in self._sources.values():
            if not source.blocks:
                silent.append(source)
            elif first is None or source.blocks[0][0] < first.blocks[0][0]:
                first = source
        if first is None or not silent:
            return first
        commit_ms = first.blocks[0][0]
        if commit_ms >= self._wall_ms() - limits.MERGE_FRESH_MS:
            commit_ms -= limits.MERGE_FRESH_MS
        behind = (s for s in silent if s.through_ms < commit_ms)
        now = self._clock()
        return None if any(now < s.patient_until for s in behind) else first
