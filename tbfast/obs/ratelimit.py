"""How often one reason may be logged; time is an argument."""

import threading

from tbfast import limits

_OTHER = "other"


class _Window:
    __slots__ = ("admitted", "second", "suppressed")

    def __init__(self) -> None:
        self.second = -1
        self.admitted = 0
        self.suppressed = 0


class RateLimiter:
    """At most LOG_LINES_PER_SECOND lines in each second per reason (hostile-input 1, I8).

    Past LOG_REASONS reasons, new ones share one count: reasons are fixed words, and one that is
    not must not fill the memory.
    """

    def __init__(self, per_second: int = limits.LOG_LINES_PER_SECOND) -> None:
        self._per_second = per_second
        self._windows: dict[str, _Window] = {}
        self._lock = threading.Lock()  # any thread logs, the writer thread drains

    def admit(self, reason: str, now_s: float) -> int | None:
        """None if this line must be left out, else the number left out since the last one."""
        with self._lock:
            window = self._windows.get(reason)
            if window is None:
                if len(self._windows) >= limits.LOG_REASONS:
                    reason = _OTHER
                window = self._windows.setdefault(reason, _Window())
            second = int(now_s)
            if second != window.second:
                window.second = second
                window.admitted = 0
            if window.admitted >= self._per_second:
                window.suppressed += 1
                return None
            window.admitted += 1
            suppressed, window.suppressed = window.suppressed, 0
            return suppressed

    def drain(self, now_s: float) -> list[tuple[str, int]]:
        """Counts of reasons that went quiet with lines left out; each is reported once."""
        second = int(now_s)
        found = []
        with self._lock:
            for reason, window in self._windows.items():
                if window.suppressed and second != window.second:
                    found.append((reason, window.suppressed))
                    window.suppressed = 0
        return found
