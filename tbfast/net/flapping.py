"""Devices that connect again and again: later and later let in (promises 18, hostile-input C9).

Each device may connect FLAPPING_BURST times at once and once per FLAPPING_INTERVAL_MS in the long
run.  A CONNECT beyond that is answered late; nothing is refused, so a device that publishes over
short connections loses pace, not messages.
"""

from tbfast import limits

FIRST_DELAY_MS = 1_000
LAST_DELAY_MS = 4_000  # within every client's patience, and within MQTT_CONNECT_TIMEOUT_MS
LOG_INTERVAL_MS = 60_000


class _Flaps:
    __slots__ = ("delay_ms", "due_ms", "logged_ms")

    def __init__(self, now: int) -> None:
        self.due_ms = now  # when all its past connects are worked off (GCRA)
        self.delay_ms = 0
        self.logged_ms = now - LOG_INTERVAL_MS


class Flapping:
    """Connects by device number, least recent first; past the bound the least recent is forgotten.

    Times are monotonic milliseconds.
    """

    def __init__(
        self,
        burst: int = limits.FLAPPING_BURST,
        interval_ms: int = limits.FLAPPING_INTERVAL_MS,
        max_devices: int = limits.FLAPPING_DEVICES,
    ) -> None:
        self._allowance_ms = burst * interval_ms
        self._interval_ms = interval_ms
        self._max_devices = max_devices
        self._devices: dict[int, _Flaps] = {}

    def __len__(self) -> int:
        return len(self._devices)

    def connects(self, device: int, now: int) -> tuple[int, bool]:
        """(how long its CONNECT waits for the answer, whether to write that to the log)."""
        flaps = self._devices.pop(device, None) or _Flaps(now)
        self._devices[device] = flaps
        if len(self._devices) > self._max_devices:
            del self._devices[next(iter(self._devices))]
        due = max(flaps.due_ms, now) + self._interval_ms
        if due - now <= self._allowance_ms:
            flaps.due_ms = due
            flaps.delay_ms = 0
            return 0, False
        # The debt does not grow: the device is let in a little late, not locked out.
        flaps.due_ms = now + self._allowance_ms
        flaps.delay_ms = min(max(2 * flaps.delay_ms, FIRST_DELAY_MS), LAST_DELAY_MS)
        say = now - flaps.logged_ms >= LOG_INTERVAL_MS
        if say:
            flaps.logged_ms = now
        return flaps.delay_ms, say
