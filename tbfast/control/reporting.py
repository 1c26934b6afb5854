"""Which activities of a device are reported, and when: ThingsBoard's strategies (MQTT spec 8.5).

Time is cut into periods, the same for all devices.  LAST reports at the end of one, FIRST at the
first activity in it, FIRST_AND_LAST both, ALL every time.
"""

from typing import Final

from tbfast.model.activity import ReportingStrategy

OVERLAP_MS: Final = 6_000  # looks reach so far back: some rows are applied after later ones


class Reporting:
    """Decides about activities, which looks every `look_ms` find, some of them more than once.

    All times are Unix times in ms.
    """

    def __init__(self, strategy: ReportingStrategy) -> None:
        self._picks = strategy in ("FIRST", "FIRST_AND_LAST")
        self._last_too = strategy == "FIRST_AND_LAST"
        # The newest activity by device, in this period and as far back as looks reach; as many as
        # there are active devices, and only where activities are picked.
        self._period: dict[int, int] = {}
        self._seen: dict[int, int] = {}

    def due(self, device: int, at_ms: int) -> bool:
        """Whether an activity is reported now; else at the end of the period, or never."""
        if not self._picks:
            return True
        if at_ms <= self._seen.get(device, 0):
            return False
        first = device not in self._period
        self._seen[device] = self._period[device] = at_ms
        return first

    def period_ended(self, now_ms: int) -> list[tuple[int, int]]:
        """(device, time) of activities that are reported only now."""
        ended, self._period = self._period, {}
        # What lies in the future is from before the clock was set back.
        recent = range(now_ms - OVERLAP_MS, now_ms + OVERLAP_MS)
        self._seen = {device: at_ms for device, at_ms in self._seen.items() if at_ms in recent}
        return list(ended.items()) if self._last_too else []
