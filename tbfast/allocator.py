"""The C allocator, told what a server wants of it: memory goes back now and then, not at once.

Sealing and replay fill the same few buffers of megabytes over and over.  glibc gives large ones
pages of their own and hands them back when they are freed, so that every run faulted all of them
in again: a third of a replay's processor time.  What is free stays ours therefore, until
`give_back` looks for whole free pages, wherever in a heap they are.  Without that one small object
above a large free array would keep the array resident.

For the controller only.  A worker gives back when connections close (`connections.pyx`).
"""

import ctypes
from typing import Final

MAPPED_BYTES: Final = 32 << 20  # from here on pages of their own; glibc allows no higher bound
KEPT_BYTES: Final = 64 << 20  # free at the end of a heap and kept, at most
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


def give_back() -> None:
    """Free pages of every heap to the system, without the GIL; nothing where there is no glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
