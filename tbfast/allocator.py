"""The C allocator, told what a server wants of it: memory that was needed once goes back.

glibc raises the size from which an allocation gets pages of its own to that of the largest one
that was freed, up to 32 MiB.  After the first sealed head the arrays of the next heads and of reads
grow inside the common heap, where one small object above them keeps them resident: reads alone took
a controller from 18 to 34 MiB of heap, half of it free.  A fixed size turns that off.

For the controller only.  In a worker it would be buffers of connections, below the fixed size and
above glibc's first one, that fill the common heap: after a flood of them it did not shrink again.
"""

import ctypes
from typing import Final

MAPPED_BYTES: Final = 1 << 20  # allocations from here on have pages of their own
KEPT_BYTES: Final = 2 << 20  # free at the end of a heap, kept for the next allocations
ARENAS: Final = 4  # heaps of a process; by default eight for each processor

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8


def settle() -> None:
    """For the life of the process; nothing where there is no glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for option, value in (
        (_M_MMAP_THRESHOLD, MAPPED_BYTES),
        (_M_TRIM_THRESHOLD, KEPT_BYTES),
        (_M_ARENA_MAX, ARENAS),
    ):
        mallopt(option, value)
