"""Blocks of several journals come out in the order of their commits, whoever is slow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbfast import limits
from tbfast.control.merge import PATIENCE_S, START_PATIENCE_S, Merge, Source
from tests.support.blocks import Block, write_block

NOW_MS = 1_700_000_000_000
OLD_MS = NOW_MS - 3_600_000


class Merging:
    """A merge whose clocks stand still unless moved."""

    def __init__(self, *expected: int) -> None:
        self.now = 0.0
        self.given: list[tuple[int, int]] = []  # journal, sequence
        self.consumed: dict[int, int] = {}
        self.merge = Merge(self._apply, expected, clock=lambda: self.now, wall_ms=lambda: NOW_MS)
        self._seq: dict[int, int] = {}

    def _apply(self, block: bytes) -> None:
        self.given.append((int.from_bytes(block[8:12], "little"), int(block[16])))

    def link(self, journal: int) -> Source:
        def consumed(nbytes: int) -> None:
            self.consumed[journal] = self.consumed.get(journal, 0) + nbytes

        return self.merge.link(journal, consumed)

    def push(self, source: Source, commit_ms: int) -> None:
        seq = self._seq[source.journal] = self._seq.get(source.journal, 0) + 1
        self.merge.push(source, write_block(Block(source.journal, 1, seq, commit_ms, 1, (), ())))


def test_one_journal_is_given_on_at_once() -> None:
    merging = Merging()
    source = merging.link(0)
    merging.push(source, OLD_MS)
    merging.push(source, OLD_MS - 5)
    assert merging.given == [(0, 1), (0, 2)]
    assert merging.merge.quiet() == []


def test_an_older_block_of_a_slow_journal_comes_first() -> None:
    merging = Merging()
    fast, slow = merging.link(0), merging.link(1)
    merging.push(fast, OLD_MS + 20)
    assert merging.given == []
    merging.push(slow, OLD_MS + 10)
    assert merging.given == [(1, 1)]
    merging.push(slow, OLD_MS + 30)
    assert merging.given == [(1, 1), (0, 1)]
    assert set(merging.consumed) == {0, 1}


def test_an_idle_journal_says_how_far_it_has_come() -> None:
    merging = Merging()
    busy, idle = merging.link(0), merging.link(1)
    merging.push(busy, OLD_MS)
    assert merging.merge.quiet() == [idle]
    merging.merge.came(idle, (0, 0), OLD_MS + 5)
    assert merging.given == [(0, 1)]
    merging.push(busy, OLD_MS + 6)
    assert merging.given == [(0, 1)]


def test_a_journal_that_is_behind_has_not_come_that_far() -> None:
    merging = Merging()
    busy, behind = merging.link(0), merging.link(1)
    merging.push(busy, OLD_MS + 3)
    merging.merge.came(behind, (1, 2), NOW_MS)  # two blocks of it are still on their way
    assert merging.given == []
    merging.push(behind, OLD_MS)
    assert merging.given == [(1, 1)]
    merging.push(behind, OLD_MS + 2)
    assert merging.given == [(1, 1), (1, 2), (0, 1)]


def test_fresh_blocks_do_not_wait_for_each_other() -> None:
    merging = Merging()
    one, other = merging.link(0), merging.link(1)
    merging.merge.came(other, (0, 0), NOW_MS - limits.MERGE_FRESH_MS)
    merging.push(one, NOW_MS)
    assert merging.given == [(0, 1)]


def test_who_hangs_is_not_waited_for() -> None:
    merging = Merging()
    one, _ = merging.link(0), merging.link(1)
    merging.push(one, OLD_MS)
    merging.now = PATIENCE_S - 0.1
    merging.merge.release()
    assert merging.given == []
    merging.now = PATIENCE_S
    merging.merge.release()
    assert merging.given == [(0, 1)]


def test_a_worker_that_has_not_linked_yet_is_waited_for() -> None:
    merging = Merging(0, 1)
    one = merging.link(0)
    merging.push(one, OLD_MS + 1)
    merging.now = START_PATIENCE_S - 0.1
    merging.merge.release()
    assert merging.given == []
    other = merging.link(1)
    merging.push(other, OLD_MS)
    merging.merge.came(other, (1, 1), NOW_MS)
    assert merging.given == [(1, 1), (0, 1)]


def test_a_link_that_ends_takes_its_blocks_along() -> None:
    merging = Merging()
    one, other = merging.link(0), merging.link(1)
    merging.push(one, OLD_MS)
    merging.merge.unlink(one)  # they are sent again
    merging.push(other, OLD_MS + 1)
    assert merging.given == [(1, 1)]
    again = merging.link(0)
    merging.push(one, OLD_MS + 2)  # of the old link
    merging.push(again, OLD_MS + 3)
    merging.push(other, OLD_MS + 4)
    assert merging.given == [(1, 1), (0, 3)]


def test_a_block_that_memory_was_lacking_for_stays_in_front() -> None:
    """Else the journal's next one would be applied, and what was skipped be trimmed as sealed."""
    merging = Merging()
    short = [(1, 1)]  # applied once more memory is free

    def apply(block: bytes) -> None:
        place = int.from_bytes(block[8:12], "little"), int(block[16])
        if place in short:
            short.remove(place)
            raise MemoryError("no memory for the tail")
        merging.given.append(place)

    merging.merge = Merge(apply, clock=lambda: merging.now, wall_ms=lambda: NOW_MS)
    other, one = merging.link(0), merging.link(1)
    merging.push(one, OLD_MS)
    with pytest.raises(MemoryError):
        merging.push(other, OLD_MS + 1)  # the link that it fails on is not the block's own
    assert merging.given == []
    merging.push(one, OLD_MS + 2)
    assert merging.given == [(1, 1), (0, 1)]
    merging.push(other, OLD_MS + 3)
    assert merging.given == [(1, 1), (0, 1), (1, 2)]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 50)), max_size=60), st.randoms())
def test_commit_order_whatever_the_arrival(steps: list[tuple[int, int]], random) -> None:
    """Each journal's commits in order, journals out of step at will: the result is sorted."""
    merging = Merging()
    sources = [merging.link(number) for number in range(3)]
    commits: dict[int, list[int]] = {0: [], 1: [], 2: []}
    at = OLD_MS
    for journal, step in steps:
        at += step
        commits[journal].append(at)
    left = {journal: list(times) for journal, times in commits.items() if times}
    while left:
        journal = random.choice(sorted(left))
        merging.push(sources[journal], left[journal].pop(0))
        if not left[journal]:
            del left[journal]
    for source in sources:
        merging.merge.came(source, (1, len(commits[source.journal])) if commits[source.journal]
                           else (0, 0), NOW_MS)  # fmt: skip
    times = [commits[journal][seq - 1] for journal, seq in merging.given]
    assert times == sorted(at for of_journal in commits.values() for at in of_journal)
