"""What the allocator is told, in a process of its own."""

import ctypes
import subprocess
import sys

import pytest

from tests.support.canaries import SANITIZED

MIB = 1 << 20

_FILL_AND_FREE = """
import ctypes, os
from pathlib import Path
from tbfast import allocator

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
if {settle}:
    allocator.settle()
before = resident()
large = libc.malloc(24 << 20)
ctypes.memset(large, 1, 24 << 20)
above = libc.malloc(1000)  # no page of its own in either case
libc.free(large)
freed = resident() - before
allocator.give_back()
print(freed, resident() - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="glibc only")
@pytest.mark.skipif(SANITIZED, reason="the sanitizer has an allocator of its own")
@pytest.mark.parametrize("settle", [False, True])
def test_freed_memory_is_kept_until_it_is_given_back(settle: bool) -> None:
    """Although something that lives on lies above it."""
    answer = subprocess.run(
        [sys.executable, "-c", _FILL_AND_FREE.format(settle=settle)],
        capture_output=True,
        text=True,
        check=True,
    )
    freed, given_back = map(int, answer.stdout.split())
    assert (freed >= 24 * MIB) == settle
    assert given_back < 4 * MIB
