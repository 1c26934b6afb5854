"""Which activities of a device are reported, and when: ThingsBoard's strategies (MQTT spec 8.5).

Time is cut into periods, the same for all devices.  LAST reports at the end of one, FIRST at the
first activity in it, FIRST_AND_LAST both, ALL every time.
"""

from tbfast.model.activity import ReportingStrategy


class Reporting:
    """Decides about activities, which looks every `look_ms` find, some of them more than once."""

    def __init__(self, strategy: ReportingStrategy) -> None:
        self._picks = strategy in ("FIRST", "FIRST_AND_LAST")
        self._last_too = strategy == "FIRST_AND_LAST"
        # Times of the newest activity by device, in this period and in the one before; as many as
        # there are active devices, and only where activities are picked.
        self._now: dict[int, int] = {}
        self._before: dict[int, int] = {}

    def due(self, device: int, at_ms: int) -> bool:
        """Whether an activity is reported now; else at the end of the period, or never."""
        if not self._picks:
            return True
        if at_ms <= max(self._now.get(device, 0), self._before.get(device, 0)):
            return False
        first = device not in self._now
        self._now[device] = at_ms
        return first

    def period_ended(self) -> list[tuple[int, int]]:
        """(device, time) of activities that are reported only now."""
        ended, self._now = self._now, {}
        self._before = ended
        return list(ended.items()) if self._last_too else []
