"""Addresses that presented wrong credentials too often (MQTT spec 8.4).

All workers of a node count together: who spreads over them gains nothing.  An address is one word
of shared memory, changed by compare-and-swap, in a set of WAYS that a keyed hash chooses; in a full
set the one that failed longest ago is forgotten.
"""

import hashlib
import math
import secrets
from typing import Final

from tbfast import limits
from tbfast._ext.cells import Cells

WAYS: Final = 8
UNIT_MS: Final = 100  # of the time in a word

# A word: what tells addresses of a set apart, failures, and when the last one was (wrapping after
# three years).  No failures are zero.
_TIME_BITS: Final = 30
_COUNT_BITS: Final = 10
_TAG_BITS: Final = 24
_TIME_MASK: Final = (1 << _TIME_BITS) - 1
MAX_COUNT: Final = (1 << _COUNT_BITS) - 1


class AddressBlocks:
    """Made before the processes are forked that share it.

    Times are monotonic milliseconds.  An address is blocked from its `max_wrong`-th failure
    (MAX_COUNT at most) until `block_ms` after its last one; a success in between forgets them.
    """

    def __init__(
        self, max_wrong: int, block_ms: int, max_addresses: int = limits.BLOCKED_ADDRESSES
    ) -> None:
        self._max_wrong = max_wrong
        self._block_ms = block_ms
        self._sets = max(max_addresses // WAYS, 1)
        self._cells = Cells(self._sets * WAYS)
        self._key = secrets.token_bytes(16)  # so that nobody chooses who shares a set or a word

    def blocked(self, address: bytes, now: int) -> bool:
        """Whether it may not connect now."""
        first, tag = self._place(address)
        word, _ = self._find(first, tag)
        return self._count(word, now) >= self._max_wrong

    def failed(self, address: bytes, now: int) -> bool:
        """Wrong credentials from there; whether this one blocks the address."""
        first, tag = self._place(address)
        while True:
            word, index = self._find(first, tag)
            if word == 0:
                word, index = self._oldest(first, now)
                count = 1
            else:
                count = min(self._count(word, now) + 1, MAX_COUNT)
            time = now // UNIT_MS & _TIME_MASK
            becomes = (tag << _COUNT_BITS | count) << _TIME_BITS | time
            if self._cells.swap(index, word, becomes):
                return count == self._max_wrong

    def succeeded(self, address: bytes) -> None:
        """A login from there."""
        first, tag = self._place(address)
        while True:
            word, index = self._find(first, tag)
            if word == 0 or self._cells.swap(index, word, 0):
                return

    def _place(self, address: bytes) -> tuple[int, int]:
        """The first word of its set, and its tag."""
        digest = hashlib.blake2b(address, digest_size=8, key=self._key).digest()
        number = int.from_bytes(digest, "big")
        tag, rest = number & ((1 << _TAG_BITS) - 1), number >> _TAG_BITS
        return rest % self._sets * WAYS, tag

    def _find(self, first: int, tag: int) -> tuple[int, int]:
        """Its word and where that is; a word of 0 = it has none."""
        for index in range(first, first + WAYS):
            word = self._cells.load(index)
            if word and word >> (_COUNT_BITS + _TIME_BITS) == tag:
                return word, index
        return 0, first

    def _oldest(self, first: int, now: int) -> tuple[int, int]:
        """The word of a set to give up, and where it is: one of nobody, if there is any."""
        words = [(self._cells.load(index), index) for index in range(first, first + WAYS)]
        return max(words, key=lambda place: _age_ms(place[0], now) if place[0] else math.inf)

    def _count(self, word: int, now: int) -> int:
        """Failures that still count."""
        return word >> _TIME_BITS & MAX_COUNT if _age_ms(word, now) < self._block_ms else 0


def _age_ms(word: int, now: int) -> int:
    return (now // UNIT_MS - word & _TIME_MASK) * UNIT_MS
