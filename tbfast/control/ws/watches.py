"""Who watches which device, and what each has seen of it.

Rows reach a watch as the tail applies them, so right after the commit; nothing is asked of workers.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, TypeVar

from tbfast import limits
from tbfast.control.queries import as_text
from tbfast.control.tail import Row
from tbfast.control.ws.updates import GONE, Point
from tbfast.store.attributes import Attribute, Scope

T = TypeVar("T")
Tell = Callable[[dict[str, list[Point]]], None]

EARLY_BYTES: Final = limits.WS_QUEUE_BYTES // 8  # for the points of one command that come early
_POINT_BYTES: Final = 128  # of a point that is kept, beside its value


class Watch:
    """One subscription: what it wants, and the newest it was told of each key, as clients read it.

    Until `begin` what arrives is kept, as the values it starts with are being read: the newest of
    each key, and those before it for up to `room` bytes (0: who wants the latest needs no others).
    tell(values) is called with what is new, newest first; keys None = all.
    """

    def __init__(self, keys: Collection[str] | None, tell: Tell, room: int = 0) -> None:
        self._keys = None if keys is None else frozenset(keys)
        self._tell = tell
        self._seen: dict[str, tuple[int, str]] = {}
        self._early: dict[str, Point] | None = {}
        self._earlier: list[tuple[str, Point]] = []
        self._room = room

    def wants(self, key: str) -> bool:
        """Whether this key is watched."""
        return self._keys is None or key in self._keys

    def begin(self, values: dict[str, list[Point]]) -> None:
        """These values have been sent; tells what has changed since they were read."""
        for key, points in values.items():
            if points:
                self._seen[key] = _shown(max(points))
        early, self._early = self._early, None
        earlier, self._earlier = self._earlier, []
        if early:
            self.take([*earlier, *early.items()])

    def take(self, values: Iterable[tuple[str, Point]]) -> None:
        """New values; those older than what was sent are not news."""
        fresh: dict[str, list[Point]] = {}
        for key, point in values:
            if self._early is not None:
                self._keep(self._early, key, point)
            elif point is GONE:
                self._seen.pop(key, None)
                fresh[key] = [GONE]
            else:
                seen, shown = self._seen.get(key), _shown(point)
                if seen is not None and (point[0] < seen[0] or shown == seen):
                    continue
                self._seen[key] = shown
                fresh.setdefault(key, []).append(point)
        if fresh:
            self._tell({key: points[::-1] for key, points in fresh.items()})

    def _keep(self, early: dict[str, Point], key: str, point: Point) -> None:
        """One that came before the beginning."""
        known = early.get(key)
        if point is GONE:
            self._earlier = [kept for kept in self._earlier if kept[0] != key]
        elif known is not None and known is not GONE:
            if point[0] < known[0]:
                return
            if self._room > 0:
                self._earlier.append((key, known))
                self._room -= len(known[1]) + _POINT_BYTES
        early[key] = point


class Watches:
    """All watches of the node by device number; all calls on the loop's thread."""

    def __init__(self) -> None:
        self._series: defaultdict[int, set[Watch]] = defaultdict(set)
        self._attributes: defaultdict[int, set[tuple[Scope | None, Watch]]] = defaultdict(set)

    # --- who -----------------------------------------------------------------------------

    def watch_series(self, device: int, watch: Watch) -> Callable[[], None]:
        """From now on; returns the way to stop."""
        self._series[device].add(watch)
        return lambda: _drop(self._series, device, watch)

    def watch_attributes(
        self, device: int, scope: Scope | None, watch: Watch
    ) -> Callable[[], None]:
        """From now on, None = every scope; returns the way to stop."""
        entry = (scope, watch)
        self._attributes[device].add(entry)
        return lambda: _drop(self._attributes, device, entry)

    @property
    def devices(self) -> Collection[int]:
        """Devices whose rows are wanted."""
        return self._series.keys()

    # --- what ----------------------------------------------------------------------------

    def rows(self, rows: Iterable[Row]) -> None:
        """Telemetry of one commit; values of one device go out together, a repeated key apart."""
        for device, message in _messages(rows):
            for watch in list(self._series.get(device, ())):
                watch.take([(key, point) for key, point in message.items() if watch.wants(key)])

    def deleted(self, device: int, keys: Sequence[bytes]) -> None:
        """Telemetry keys that lost their value."""
        for watch in list(self._series.get(device, ())):
            names = (key.decode() for key in keys)
            watch.take([(name, GONE) for name in names if watch.wants(name)])

    def attributes_changed(
        self, device: int, scope: Scope, saved: list[Attribute], deleted: Sequence[str]
    ) -> None:
        """Attributes saved or deleted."""
        for wanted, watch in list(self._attributes.get(device, ())):
            if wanted in (None, scope):
                watch.take(
                    [(a.name, (a.ts_ms, a.text)) for a in saved if watch.wants(a.name)]
                    + [(name, GONE) for name in deleted if watch.wants(name)]
                )


def _shown(point: Point) -> tuple[int, str]:
    return point[0], as_text(point[1])


def _messages(rows: Iterable[Row]) -> Iterable[tuple[int, dict[str, Point]]]:
    """Neighbouring rows of a device with different keys."""
    device: int | None = None
    message: dict[str, Point] = {}
    for number, key, ts, value in rows:
        if message and (number != device or key in message):
            assert device is not None
            yield device, message
            message = {}
        device = number
        message[key] = (ts, value)
    if message and device is not None:
        yield device, message


def _drop(table: defaultdict[int, set[T]], device: int, entry: T) -> None:
    held = table.get(device)
    if held is not None:
        held.discard(entry)
        if not held:
            del table[device]
