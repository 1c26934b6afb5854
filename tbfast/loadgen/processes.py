"""CPU time and memory of the server under test, all its processes together."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Memory(NamedTuple):
    """Bytes; ``pss`` counts a page shared by n processes as 1/n of it in each."""

    rss: int
    pss: int


def with_children(pids: Iterable[int]) -> set[int]:
    """The processes and all their descendants that exist now."""
    found: set[int] = set()
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        if pid in found:
            continue
        found.add(pid)
        for children in _tasks(pid, "children"):
            waiting.extend(map(int, children.split()))
    return found


def cpu_ns(pids: Iterable[int]) -> dict[tuple[int, str], int]:
    """Time on a CPU of every thread so far, as the scheduler counts it.

    /proc/<pid>/stat counts in ticks of 10 ms, too coarse for a phase of some seconds.
    """
    times: dict[tuple[int, str], int] = {}
    for pid in with_children(pids):
        for task in _listed(pid):
            text = _read(f"/proc/{pid}/task/{task}/schedstat")
            if text:
                times[pid, task] = int(text.split()[0])
    return times


def spent_ns(before: dict[tuple[int, str], int], after: dict[tuple[int, str], int]) -> int:
    """CPU time between two looks; a thread that ended in between counts with nothing."""
    return sum(max(0, time - before.get(thread, 0)) for thread, time in after.items())


def memory(pids: Iterable[int]) -> Memory:
    """Present memory of the processes and their descendants."""
    rss = pss = 0
    for pid in with_children(pids):
        for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
            name, _, rest = line.partition(":")
            if name == "Rss":
                rss += int(rest.split()[0]) * 1024
            elif name == "Pss":
                pss += int(rest.split()[0]) * 1024
    return Memory(rss, pss)


def _tasks(pid: int, name: str) -> list[str]:
    return [_read(f"/proc/{pid}/task/{task}/{name}") for task in _listed(pid)]


def _listed(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return []


def _read(path: str) -> str:
    """Contents; empty if the process is gone."""
    try:
        return Path(path).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
