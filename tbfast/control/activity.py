"""Whether devices are there: `active` and its times, kept as server attributes (MQTT spec 8.5).

Rows tell of activity by themselves, through the tail; workers report what leaves no row.  The time
of the last activity is in memory and answered from there; on disk it is at most `SAVE_MS` old, and
exact again once the journals have been replayed.  `reporting.py` says which activity counts.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from tbfast import limits
from tbfast.control.attributes import AttributeService
from tbfast.control.reporting import OVERLAP_MS, Reporting
from tbfast.errors import StoreError
from tbfast.model.activity import ReportingStrategy, look_ms
from tbfast.model.device import Change
from tbfast.obs.log import get_logger
from tbfast.store.attributes import Attribute, Scope

log = get_logger("tbfast.activity")

SAVE_MS: Final = 60_000
SAME_CONNECT_MS: Final = 1_000  # two clocks tell the time of one CONNECT less exactly than this

ACTIVE: Final = "active"
LAST_CONNECT: Final = "lastConnectTime"
LAST_DISCONNECT: Final = "lastDisconnectTime"
LAST_ACTIVITY: Final = "lastActivityTime"
ALARM: Final = "inactivityAlarmTime"
TIMEOUT: Final = "inactivityTimeout"
_SCOPE: Final = "SERVER_SCOPE"


class Tail(Protocol):
    """When rows came: tbfast.control.tail.TailService."""

    def active_since(self, since_ms: int, start: int, count: int) -> list[tuple[int, int]]:
        """(device number, commit time) of those among `count` places that had rows since."""

    @property
    def devices_seen(self) -> int:
        """Places in use."""


class _Device:
    __slots__ = ("active", "last_ms", "saved_ms", "timeout_ms")

    def __init__(self, timeout_ms: int) -> None:
        self.active = False
        self.last_ms = 0
        self.saved_ms = 0  # the last activity that is on disk
        self.timeout_ms = timeout_ms


class Activity:
    """All methods belong to one event loop.

    registered(number): whether a device exists.  timeout_ms: inactivity of a device that has no
    `inactivityTimeout` of its own; check_ms: between two looks at who has gone silent.
    """

    def __init__(
        self,
        attributes: AttributeService,
        tail: Tail,
        registered: Callable[[int], bool],
        now_ms: Callable[[], int],
        *,
        timeout_ms: int,
        check_ms: int,
        report_ms: int,
        strategy: ReportingStrategy,
    ) -> None:
        self._attributes = attributes
        self._tail = tail
        self._registered = registered
        self._now_ms = now_ms
        self._timeout_ms = timeout_ms
        self._check_ms = check_ms
        self._report_ms = report_ms
        self._look_ms = look_ms(strategy, report_ms)
        self._reporting = Reporting(strategy)
        self._devices: dict[int, _Device] = {}
        self._changes: defaultdict[int, dict[str, bytes]] = defaultdict(dict)  # not saved yet
        self._changed = asyncio.Event()
        self._looked_ms = 0
        attributes.overlay = self._overlay
        attributes.subscribe(self._attributes_changed)

    # --- what is told ------------------------------------------------------------------------

    def connected(self, device: int, at_ms: int) -> None:
        """A session was accepted at that time; told again after the controller was away."""
        if not self._registered(device):
            return
        stored = self._number(device, LAST_CONNECT)
        if stored is None or stored + SAME_CONNECT_MS < at_ms:
            self._change(device, LAST_CONNECT, at_ms)
        self._report(device, at_ms)

    def disconnected(self, device: int) -> None:
        """The last session of the device has ended; it stays active until it times out."""
        if self._registered(device):
            self._change(device, LAST_DISCONNECT, self._now_ms())

    def touched(self, device: int, at_ms: int) -> None:
        """The device did something that counts; whether it shows now is the strategy's matter."""
        if self._reporting.due(device, at_ms):
            self._report(device, at_ms)

    def _report(self, device: int, at_ms: int) -> None:
        known = self._devices.get(device)
        if known is None:
            if not self._registered(device):
                return
            known = self._known(device)
        known.last_ms = max(known.last_ms, at_ms)
        if not known.active and known.last_ms + known.timeout_ms > self._now_ms():
            known.active = True
            self._change(device, ACTIVE, True)
            self._change(device, LAST_ACTIVITY, known.last_ms)
            known.saved_ms = known.last_ms
        elif known.last_ms - known.saved_ms >= SAVE_MS:
            known.saved_ms = known.last_ms
            self._change(device, LAST_ACTIVITY, known.last_ms)

    def registry_changed(self, change: Change) -> None:
        """A device that leaves takes its state along."""
        if change.kind == "device" and change.op == "deleted":
            self._devices.pop(change.number, None)
            self._changes.pop(change.number, None)

    # --- the work of the loop ----------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        await self._restore()
        loop = asyncio.get_running_loop()
        look_s = loop.time()
        period_s = look_s + self._report_ms / 1000
        check_s = look_s + self._check_ms / 1000  # journals may still be read
        while True:
            now_s = loop.time()
            if now_s >= min(look_s, check_s):
                look_s = now_s + self._look_ms / 1000
                await self._look_at_rows()
            if now_s >= period_s:
                period_s = now_s + self._report_ms / 1000
                self._report_rest()
            if now_s >= check_s:
                check_s = now_s + self._check_ms / 1000
                await self._check()
            await self._save()
            due_s = min(look_s, check_s, period_s)
            try:
                await asyncio.wait_for(self._changed.wait(), max(0.0, due_s - loop.time()))
            except TimeoutError:
                continue

    async def finish(self) -> None:
        """Everything known is on disk on return, or the log says why not."""
        await self._look_at_rows()
        self._report_rest()
        for device, known in self._devices.items():
            if known.saved_ms < known.last_ms:
                self._change(device, LAST_ACTIVITY, known.last_ms)
        await self._save()

    async def _restore(self) -> None:
        """Devices that were active when the controller ended: they may have gone silent."""
        after = 0
        while numbers := self._attributes.devices_with_true(_SCOPE, ACTIVE, after):
            for device in numbers:
                if self._registered(device):
                    known = self._known(device)
                    known.active = True
            after = numbers[-1]
            await asyncio.sleep(0)

    async def _look_at_rows(self) -> None:
        # Rows of one commit may be applied a little after later ones of another worker.
        since_ms = self._looked_ms - OVERLAP_MS
        self._looked_ms = self._now_ms()
        start = 0
        while start < self._tail.devices_seen:
            found = self._tail.active_since(since_ms, start, limits.ACTIVITY_SCAN_DEVICES)
            for device, at_ms in found:
                self.touched(device, at_ms)
            start += limits.ACTIVITY_SCAN_DEVICES
            await asyncio.sleep(0)

    def _report_rest(self) -> None:
        for device, at_ms in self._reporting.period_ended(self._now_ms()):
            self._report(device, at_ms)

    async def _check(self) -> None:
        now_ms = self._now_ms()
        for turn, (device, known) in enumerate(list(self._devices.items())):
            if known.active and known.last_ms + known.timeout_ms <= now_ms:
                known.active = False
                known.saved_ms = known.last_ms
                self._change(device, ACTIVE, False)
                self._change(device, LAST_ACTIVITY, known.last_ms)
                self._change(device, ALARM, now_ms)
            if turn % limits.ACTIVITY_SCAN_DEVICES == 0:
                await asyncio.sleep(0)

    async def _save(self) -> None:
        self._changed.clear()
        if not self._changes:
            return
        changes, self._changes = self._changes, defaultdict(dict)
        try:
            await self._attributes.save_server(changes)
        except StoreError as error:  # tried again with the next
            log.limited("activity", logging.WARNING, "activity is not saved", error=str(error))
            for device, values in changes.items():
                self._changes[device] = {**values, **self._changes.get(device, {})}

    # --- attributes --------------------------------------------------------------------------

    def _known(self, device: int) -> _Device:
        timeout_ms = self._number(device, TIMEOUT)
        known = _Device(timeout_ms if timeout_ms else self._timeout_ms)
        known.last_ms = known.saved_ms = self._number(device, LAST_ACTIVITY) or 0
        known.active = self._attributes.text_of(device, _SCOPE, ACTIVE) == b"true"
        self._devices[device] = known
        return known

    def _number(self, device: int, name: str) -> int | None:
        changed = self._changes.get(device, {}).get(name)
        text = changed if changed is not None else self._attributes.text_of(device, _SCOPE, name)
        return int(text) if text is not None and text.isdigit() else None

    def _change(self, device: int, name: str, value: int) -> None:
        text = (b"true" if value else b"false") if name == ACTIVE else b"%d" % value
        self._changes[device][name] = text
        self._changed.set()

    def _overlay(self, device: int) -> dict[str, bytes]:
        """What is newer in memory than in the store."""
        newer = dict(self._changes.get(device, {}))
        known = self._devices.get(device)
        if known is not None and known.last_ms > known.saved_ms:
            newer[LAST_ACTIVITY] = b"%d" % known.last_ms
        return newer

    def _attributes_changed(
        self, device: int, scope: Scope, saved: Iterable[Attribute], deleted: Sequence[str]
    ) -> None:
        known = self._devices.get(device)
        if scope != _SCOPE or known is None:
            return
        if TIMEOUT in deleted or any(a.name == TIMEOUT for a in saved):
            known.timeout_ms = self._number(device, TIMEOUT) or self._timeout_ms
