"""What the allocator is told, in a process of its own."""

import ctypes
import subprocess
import sys

import pytest

from tests.support.canaries import SANITIZED

_FREE_ONE_THEN_MAP_ANOTHER = """
import ctypes
from tbfast import allocator

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd",
        "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
if {settle}:
    allocator.settle()
libc.free(libc.malloc(24 << 20))
before = libc.mallinfo2().hblkhd
kept = libc.malloc(8 << 20)
print(libc.mallinfo2().hblkhd - before >= 8 << 20)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc 2.33 and later")
@pytest.mark.skipif(SANITIZED, reason="the sanitizer has an allocator of its own")
@pytest.mark.parametrize("settle", [False, True])
def test_large_allocations_have_pages_of_their_own(settle: bool) -> None:
    """Also after a larger one was freed, which moves glibc's own bound."""
    code = _FREE_ONE_THEN_MAP_ANOTHER.format(settle=settle)
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == str(settle)
