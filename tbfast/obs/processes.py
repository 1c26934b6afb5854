"""What the kernel knows of a process, in Prometheus' usual names."""

import os
from typing import Final, NamedTuple

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Usage(NamedTuple):
    """CPU time, memory, descriptors and disk writes of one process."""

    cpu_seconds: float
    resident_bytes: int
    open_fds: int
    written_bytes: int  # 0 where the kernel does not say


def usage(pid: int) -> Usage | None:
    """Reads /proc; None if the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The command name stands in parentheses and may hold anything.
            fields = file.read().rpartition(b")")[2].split()
        return Usage(
            (int(fields[11]) + int(fields[12])) / _TICKS,
            int(fields[21]) * _PAGE,
            _open_fds(pid),
            _written_bytes(pid),
        )
    except (FileNotFoundError, ProcessLookupError):
        return None


def _open_fds(pid: int) -> int:
    # Since Linux 6.2 the directory's size is the number; listing takes 5 ms at 20,000 connections.
    return os.stat(f"/proc/{pid}/fd").st_size or len(os.listdir(f"/proc/{pid}/fd"))


def _written_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/io", "rb") as file:
            io = dict(line.split(b": ") for line in file.read().splitlines())
    except PermissionError:  # hardened /proc
        return 0
    return int(io[b"write_bytes"])
