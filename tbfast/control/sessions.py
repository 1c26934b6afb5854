"""Which sessions devices have, wherever they are, and telling them things.

A device has one session that counts for takeover; what is told goes to that session and to the
requests of connectionless protocols that wait for it (HTTP long polls).
"""

import itertools
import time
from collections.abc import Callable
from typing import Protocol

from tbfast.link import messages as msg
from tbfast.model.operations import Delivery, Notice, RpcRequest

Outcome = Callable[[Delivery], None]


class Worker(Protocol):
    """Where a session is."""

    def send(self, message: msg.Message) -> None: ...


class Sessions:
    """The controller's table; all calls on the loop's thread."""

    def __init__(self) -> None:
        self._sessions: dict[int, tuple[Worker, msg.OpenSession]] = {}  # by device number
        self._pushes: dict[int, tuple[int, Outcome]] = {}  # as many as workers have under way
        self._of_device: dict[int, set[int]] = {}  # pushes to the present session of a device
        # A worker may still speak of pushes of the controller before this one.
        self._push = itertools.count(time.monotonic_ns())
        self._polls: dict[tuple[int, bool], list[Callable[[Notice], None]]] = {}
        self.on_opened: Callable[[int, int], None] = _ignored  # device, CONNECT (monotonic ms)
        self.on_closed: Callable[[int], None] = _ignored
        self.on_listens: Callable[[int, bool], None] = _ignored  # to calls; also to open ones again
        # The call that a request which waits for one gets at once.
        self.on_poll: Callable[[int], tuple[RpcRequest, Outcome] | None] = _no_call

    def opened(self, worker: Worker, session: msg.OpenSession) -> None:
        """One session per device: the later CONNECT wins, wherever it is."""
        older = self._sessions.get(session.device)
        if older is not None and older[0] is not worker:
            if older[1].at_ms > session.at_ms:
                _take_over(worker, session)
                return
            _take_over(*older)
        self._drop_pushes(session.device)
        self._sessions[session.device] = (worker, session)
        self.on_opened(session.device, session.at_ms)
        if session.rpc:
            self.on_listens(session.device, session.again)

    def closed(self, worker: Worker, device: int, slot: int, generation: int) -> None:
        """The session has ended."""
        current = self._sessions.get(device)
        if current is not None and _is(current, worker, slot, generation):
            del self._sessions[device]
            self._drop_pushes(device)
            self.on_closed(device)

    def listens(self, worker: Worker, message: msg.Listen) -> None:
        """What a session is subscribed to now."""
        current = self._sessions.get(message.device)
        if current is None or not _is(current, worker, message.slot, message.generation):
            return
        session = msg.OpenSession(
            message.device,
            message.slot,
            message.generation,
            current[1].at_ms,
            message.attributes,
            message.rpc,
        )
        self._sessions[message.device] = (worker, session)
        if message.pending:
            self.on_listens(message.device, True)

    def worker_gone(self, worker: Worker) -> None:
        """Its sessions are unknown until it is back; what was under way to them is lost."""
        for device in [d for d, (w, _) in self._sessions.items() if w is worker]:
            del self._sessions[device]
            self._drop_pushes(device)
            self.on_closed(device)

    def connected(self, device: int) -> bool:
        """Whether the device has a session."""
        return device in self._sessions

    def tell(self, device: int, notice: Notice, outcome: Outcome | None = None) -> bool:
        """Tells whoever listens; False when nobody does.

        outcome(state) is called for what becomes of it: another state may follow "sent".
        """
        told = self._tell_polls(device, notice, outcome)
        current = self._sessions.get(device)
        if current is None:
            return told
        worker, session = current
        is_call = isinstance(notice, RpcRequest)
        if not (session.rpc if is_call else session.attributes):
            return told
        push = 0
        if outcome is not None:
            push = next(self._push)
            self._pushes[push] = (device, outcome)
            self._of_device.setdefault(device, set()).add(push)
        worker.send(msg.Notify(device, session.slot, session.generation, notice, push))
        return True

    def delivered(self, push: int, state: Delivery) -> None:
        """A worker says what became of a push."""
        known = self._pushes.get(push)
        if known is None:
            return
        device, outcome = known
        if state != "sent":
            del self._pushes[push]
            pushes = self._of_device[device]
            pushes.discard(push)
            if not pushes:
                del self._of_device[device]
        outcome(state)

    def close(self, device: int) -> None:
        """Ends the session of a device that does not acknowledge what it is sent."""
        if (current := self._sessions.get(device)) is not None:
            worker, session = current
            worker.send(msg.Unresponsive(device, session.slot, session.generation))

    def _drop_pushes(self, device: int) -> None:
        """What was under way to a session that is gone has not arrived, as far as we know."""
        for push in sorted(self._of_device.pop(device, ())):
            self._pushes.pop(push)[1]("dropped")

    # --- requests that wait for one notice ---------------------------------------------------

    def poll(self, device: int, calls: bool, told: Callable[[Notice], None]) -> Callable[[], None]:
        """Calls `told` once with the next notice of the kind; returns the way to give up."""
        if calls and (pending := self.on_poll(device)) is not None:
            notice, outcome = pending
            told(notice)
            outcome("acknowledged")
            return _stopped
        waiting = self._polls.setdefault((device, calls), [])
        waiting.append(told)

        def stop() -> None:
            held = self._polls.get((device, calls), [])
            if told in held:
                held.remove(told)
            if not held:
                self._polls.pop((device, calls), None)

        return stop

    def _tell_polls(self, device: int, notice: Notice, outcome: Outcome | None) -> bool:
        waiting = self._polls.pop((device, isinstance(notice, RpcRequest)), [])
        for told in waiting:
            told(notice)
        if waiting and outcome is not None:
            outcome("acknowledged")  # taking the request counts as delivery (HTTP spec 3.5)
        return bool(waiting)


def _ignored(*_: object) -> None:
    """Nobody wants to know."""


def _no_call(_: int) -> None:
    """Nothing waits."""


def _stopped() -> None:
    """There is nothing to give up any more."""


def _is(current: tuple[Worker, msg.OpenSession], worker: Worker, slot: int, gen: int) -> bool:
    session = current[1]
    return current[0] is worker and (session.slot, session.generation) == (slot, gen)


def _take_over(worker: Worker, session: msg.OpenSession) -> None:
    worker.send(msg.TakenOver(session.device, session.slot, session.generation))
