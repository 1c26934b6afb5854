"""Operations of devices that only the controller can carry out: asked, answered, given up on.

An operation waits for the link if it is down, at most its time; one that was under way when the
link broke is asked again if asking twice does no harm.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final, Protocol

from tbfast import limits
from tbfast.link import messages as msg
from tbfast.link.channel import Channel
from tbfast.model.operations import (
    AnswerRpc,
    CallServer,
    Claim,
    Delivery,
    Notice,
    Operation,
    ReadAttributes,
    ReadChunk,
    Refusal,
    Result,
)
from tbfast.obs.log import get_logger
from tbfast.ops.rpc import built_in
from tbfast.store.journal import Position
from tbfast.worker.packages import PackageReader

log = get_logger("tbfast.operations")

_BUSY: Final = Refusal("limit", "too many requests of this node wait for an answer")
_AWAY: Final = Refusal("unavailable", "the node cannot answer now; try again")
_SAID: Final = (AnswerRpc, Claim)


class Sessions(Protocol):
    """Sessions that are told things: tbfast.net.mqtt.MqttPort."""

    def notified(
        self, device: int, slot: int, generation: int, notice: Notice, push: int
    ) -> None: ...


class _Asked:
    __slots__ = ("device", "done", "expires", "operation", "position", "sent")

    def __init__(
        self,
        device: int,
        operation: Operation,
        position: Position,
        done: Callable[[Result], None],
        expires: float,
    ) -> None:
        self.device = device
        self.operation = operation
        self.position = position
        self.done = done
        self.expires = expires
        self.sent = False


class Operations:
    """One worker's end of the operations; all calls on the loop's thread.

    position: of the newest row that was accepted, committed or not.  builtin: whether the node
    answers calls itself that it can.  timeout_s: longest wait for an answer, unless it is said.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        position: Callable[[], Position],
        packages: PackageReader,
        *,
        builtin: bool = True,
        timeout_s: float = limits.REQUEST_TIMEOUT_MS / 1000,
    ) -> None:
        self._loop = loop
        self._position = position
        self._builtin = builtin
        self._timeout_s = timeout_s
        self._told: Channel | None = None  # knows our sessions
        self._channel: Channel | None = None  # and takes questions
        self._asked: dict[int, _Asked] = {}  # bounded: OPERATIONS_PENDING
        # Sessions that subscribed to calls while nobody heard it; bounded: OPERATIONS_PENDING.
        self._unheard: dict[int, tuple[int, int]] = {}  # device -> slot, generation
        self._reading: set[int] = set()  # bounded as the reader is
        self._packages = packages
        self._request = 0
        self.sessions: Sessions | None = None

    def ask(
        self,
        device: int,
        operation: Operation | ReadChunk,
        done: Callable[[Result], None],
        *,
        timeout_s: float | None = None,
    ) -> int:
        """Calls `done` once with the result, never before this returns; the number is for `drop`.

        A device that reads its attributes sees what it wrote before.
        """
        self._request += 1
        request = self._request
        if isinstance(operation, ReadChunk):
            self._read(request, operation, done)
            return request
        if self._builtin and isinstance(operation, CallServer):
            reply = built_in(operation, time.time_ns() // 1_000_000)
            if reply is not None:
                self._loop.call_soon(done, reply)
                return request
        if len(self._asked) >= limits.OPERATIONS_PENDING:
            log.limited("operations", logging.WARNING, _BUSY.message)
            self._loop.call_soon(done, _BUSY)
            return request
        reads = isinstance(operation, ReadAttributes)
        position = self._position() if reads else Position(0, 0)
        expires = self._loop.time() + (self._timeout_s if timeout_s is None else timeout_s)
        asked = _Asked(device, operation, position, done, expires)
        self._asked[request] = asked
        self._send(request, asked)
        return request

    def _read(self, request: int, wanted: ReadChunk, done: Callable[[Result], None]) -> None:
        def ended(result: Result) -> None:
            if request in self._reading:
                self._reading.discard(request)
                done(result)

        self._reading.add(request)
        self._packages.read(wanted, ended)

    def drop(self, request: int) -> None:
        """Nobody waits for it any more: `done` will not be called.

        What the device has said, and not only asked, is carried out all the same: many answer a
        call and go without waiting.
        """
        self._reading.discard(request)
        asked = self._asked.get(request)
        if asked is None:
            return
        if isinstance(asked.operation, _SAID):
            asked.done = _unheard
        else:
            self._give_up(request)

    def _give_up(self, request: int) -> None:
        asked = self._asked.pop(request)
        if asked.sent and self._channel is not None:
            self._channel.send(msg.Drop(request))

    def listen(
        self, device: int, slot: int, generation: int, attributes: bool, rpc: bool, pending: bool
    ) -> None:
        """What a session is subscribed to.

        While the link is down Hello will say it.
        """
        if self._told is not None:
            self._told.send(msg.Listen(device, slot, generation, attributes, rpc, pending))
        elif pending and len(self._unheard) < limits.OPERATIONS_PENDING:
            self._unheard[device] = slot, generation

    def delivered(self, push: int, state: Delivery) -> None:
        """What became of a push."""
        if push and self._told is not None:
            self._told.send(msg.Delivered(push, state))

    def expire(self) -> None:
        """Gives up on what nobody answered; called a few times a second."""
        now = self._loop.time()
        for request in [r for r, a in self._asked.items() if a.expires <= now]:
            asked = self._asked[request]
            self._give_up(request)
            asked.done(_AWAY if self._channel is None else Refusal("timeout", "no answer in time"))

    # --- the link ----------------------------------------------------------------------------

    def introduced(self, channel: Channel) -> dict[int, tuple[int, int]]:
        """Hello goes out now: what sessions do is told from here on.

        Returns device -> (slot, generation) of those that subscribed to calls since the link went
        down.  The controller may push before its Welcome, and hears what became of it.
        """
        self._told = channel
        unheard, self._unheard = self._unheard, {}
        return unheard

    def linked(self, channel: Channel) -> None:
        """The controller is ready for questions."""
        self._channel = channel
        for request, asked in self._asked.items():
            self._send(request, asked)

    def unlinked(self) -> None:
        """The controller went away."""
        self._told = self._channel = None
        for request, asked in list(self._asked.items()):
            if asked.sent and not asked.operation.again:
                del self._asked[request]
                asked.done(_AWAY)
            asked.sent = False

    def answered(self, answer: msg.Answer) -> None:
        """The controller's answer."""
        asked = self._asked.pop(answer.request, None)
        if asked is not None:
            asked.done(answer.result)

    def notify(self, message: msg.Notify) -> None:
        """The controller has something for a session."""
        if self.sessions is not None:
            self.sessions.notified(
                message.device, message.slot, message.generation, message.notice, message.push
            )

    def _send(self, request: int, asked: _Asked) -> None:
        if self._channel is not None:
            asked.sent = True
            self._channel.send(msg.Ask(request, asked.device, asked.operation, *asked.position))


def _unheard(_: Result) -> None:
    """Who asked is gone."""
