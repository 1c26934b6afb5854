"""Metrics of a whole node in one piece of shared memory.

The supervisor creates it before it forks.  Each process writes its own page without locks, every
process can render all of them: any worker answers for the node, also while others are down.
Counters of a page outlive its process; gauges and health start at zero with each.
"""

import mmap
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from tbfast import limits
from tbfast._ext import metrics as w
from tbfast.obs.catalogue import FAMILIES, Family, Labels
from tbfast.obs.processes import usage

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_WORKER: Final = "worker-"
_PER_PROCESS: Final = (
    ("process_cpu_seconds_total", "counter", "User and system CPU time spent."),
    ("process_resident_memory_bytes", "gauge", "Resident memory."),
    ("process_open_fds", "gauge", "Open file descriptors."),
    (
        "tbfast_disk_written_bytes_total",
        "counter",
        "Bytes a process caused to be written to disks.",
    ),
)


class NodeMetrics:
    """The pages of the named processes; create it before forking.

    Names are fixed words such as ``controller`` and ``worker-0``; they become label values.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        memory = mmap.mmap(-1, w.SLOT_BYTES * len(self.names))
        self._slots = {name: w.Slot(memory, number) for number, name in enumerate(self.names)}
        self._words = memoryview(memory).cast("Q")

    def slot(self, name: str) -> w.Slot:
        """The page of a process; KeyError for a name that was not given at creation."""
        return self._slots[name]

    def unready(self, now_s: float | None = None) -> list[str]:
        """Why the node should not get traffic, one text per worker; empty if it is ready.

        now_s: monotonic seconds, for the age of heartbeats.
        """
        now_ms = int((time.monotonic() if now_s is None else now_s) * 1000)
        reasons = []
        for name in self.names:
            if not name.startswith(_WORKER):
                continue  # devices are served while the controller is away
            slot = self._slots[name]
            beat_ms = slot.get(w.HEALTH_HEARTBEAT_MS)
            if not slot.get(w.HEALTH_PID):
                reasons.append(f"{name} is not running")
            elif slot.get(w.DISK_FULL):
                reasons.append(f"{name} refuses telemetry: the disk is full")
            elif slot.get(w.DISK_STALLED):
                reasons.append(f"{name} refuses new connections: the disk is too slow")
            elif not slot.get(w.HEALTH_JOURNAL_OPEN):
                reasons.append(f"{name} has not opened its journal")
            elif not slot.get(w.HEALTH_LISTENING):
                reasons.append(f"{name} is not listening")
            elif beat_ms and now_ms - beat_ms > limits.HEARTBEAT_STALE_MS:
                reasons.append(f"{name} has not answered for {(now_ms - beat_ms) // 1000} s")
        return reasons

    def ready(self, now_s: float | None = None) -> bool:
        """Whether every worker listens, has its journal open, and has room for data."""
        return not self.unready(now_s)

    def render(self) -> bytes:
        """Everything in Prometheus' text format."""
        lines: list[str] = []
        for family in FAMILIES:
            lines += (f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}")
            lines += self._histogram(family) if family.kind == "histogram" else self._plain(family)
        lines += self._health()
        lines += self._processes()
        lines.append("")
        return "\n".join(lines).encode()

    def _plain(self, family: Family) -> Iterator[str]:
        for series in family.series:
            values = self._each(series.word)
            if family.combine in ("sum", "max"):
                value = sum(values) if family.combine == "sum" else max(values, default=0)
                yield _line(family.name, series.labels, value, family.scale)
                continue
            for name, value in zip(self.names, values, strict=True):
                if family.combine == "process":
                    label = ("process", name)
                elif name.startswith(_WORKER):
                    label = ("worker", name.removeprefix(_WORKER))
                else:
                    continue
                yield _line(family.name, (*series.labels, label), value, family.scale)

    def _histogram(self, family: Family) -> Iterator[str]:
        for series in family.series:
            count = 0
            for number in range(w.HISTOGRAM_BUCKETS):
                count += sum(self._each(series.word + number))
                labels = (*series.labels, ("le", _BOUNDS[number]))
                yield _line(f"{family.name}_bucket", labels, count)
            total = sum(self._each(series.word + w.HISTOGRAM_BUCKETS))
            yield _line(f"{family.name}_sum", series.labels, total, family.scale)
            yield _line(f"{family.name}_count", series.labels, count)

    def _each(self, word: int) -> Sequence[int]:
        return self._words[word :: w.SLOT_WORDS].tolist()

    def _health(self) -> Iterator[str]:
        yield "# HELP tbfast_up Whether the process runs."
        yield "# TYPE tbfast_up gauge"
        for name in self.names:
            up = int(self._slots[name].get(w.HEALTH_PID) != 0)
            yield _line("tbfast_up", (("process", name),), up)
        yield "# HELP tbfast_ready Whether every worker listens and can store data."
        yield "# TYPE tbfast_ready gauge"
        yield _line("tbfast_ready", (), int(self.ready()))

    def _processes(self) -> Iterator[str]:
        running = []
        for name in self.names:
            pid = self._slots[name].get(w.HEALTH_PID)
            used = usage(pid) if pid else None
            if used is not None:
                running.append((name, used))
        for number, (metric, kind, text) in enumerate(_PER_PROCESS):
            yield f"# HELP {metric} {text}"
            yield f"# TYPE {metric} {kind}"
            for name, used in running:
                yield _line(metric, (("process", name),), used[number])


_BOUNDS: Final = (*(f"{bound / 1e9:g}" for bound in w.BUCKET_BOUNDS_NS), "+Inf")


def _line(name: str, labels: Labels, value: float, scale: float = 1) -> str:
    inside = ",".join(f'{key}="{text}"' for key, text in labels)
    number = value if scale == 1 else value * scale
    return f"{name}{{{inside}}} {number!r}" if inside else f"{name} {number!r}"
