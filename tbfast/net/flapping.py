"""Devices that connect again and again: later and later let in (promises 18, hostile-input C9).

Each device may connect FLAPPING_BURST times at once and once per FLAPPING_INTERVAL_MS in the long
run, whichever workers it comes to.  A CONNECT beyond that is answered late; nothing is refused, so
a device that publishes over short connections loses pace, not messages.
"""

from typing import Final

from tbfast import limits
from tbfast._ext.cells import Cells

DELAYS_MS: Final = (0, 1_000, 2_000, 4_000)
FIRST_DELAY_MS = DELAYS_MS[1]
LAST_DELAY_MS = DELAYS_MS[-1]  # within every client's patience, and within MQTT_CONNECT_TIMEOUT_MS
LOG_INTERVAL_MS = 60_000

# A word: when all past connects of the device are worked off (GCRA, ms), the place of its last
# delay in DELAYS_MS, and the second it was last named in the log, from 1; 0 = never.
_STEP_BITS: Final = 2
_LOGGED_BITS: Final = 22
_LOGGED_MASK: Final = (1 << _LOGGED_BITS) - 1


class Flapping:
    """Connects by device number; made before the processes are forked that share it.

    Device numbers `devices` apart count as one.  Times are monotonic milliseconds.
    """

    def __init__(
        self,
        burst: int = limits.FLAPPING_BURST,
        interval_ms: int = limits.FLAPPING_INTERVAL_MS,
        devices: int = limits.FLAPPING_DEVICES,
    ) -> None:
        self._allowance_ms = burst * interval_ms
        self._interval_ms = interval_ms
        self._cells = Cells(devices)

    def connects(self, device: int, now: int) -> tuple[int, bool]:
        """(how long its CONNECT waits for the answer, whether to write that to the log)."""
        index = device % self._cells.count
        while True:
            word = self._cells.load(index)
            becomes, wait_ms, say = self._next(word, now)
            if self._cells.swap(index, word, becomes):
                return wait_ms, say

    def _next(self, word: int, now: int) -> tuple[int, int, bool]:
        """The word after a connect, and the answer of `connects`."""
        step = word >> _LOGGED_BITS & (1 << _STEP_BITS) - 1
        logged = word & _LOGGED_MASK
        due = max(word >> _STEP_BITS + _LOGGED_BITS, now) + self._interval_ms
        late = due - now > self._allowance_ms
        # The debt does not grow: the device is let in a little late, not locked out.
        due = min(due, now + self._allowance_ms)
        step = min(step + 1, len(DELAYS_MS) - 1) if late else 0
        second = now // 1000 + 1
        say = late and (not logged or second - logged & _LOGGED_MASK >= LOG_INTERVAL_MS // 1000)
        if say:
            logged = second & _LOGGED_MASK
        return (due << _STEP_BITS | step) << _LOGGED_BITS | logged, DELAYS_MS[step], say
