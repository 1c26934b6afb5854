"""Calls of the server to devices: one numbered, pending table for every protocol (MQTT spec 5.1).

A call is sent when its device listens and the submit strategy allows it.  Every time a device
subscribes it gets all calls that are still open again, with their ids.  A persistent call is on
disk before it is sent, and so is each of its states, soon after it was reached; after a restart
the open ones go on where they were.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final, Literal

import msgspec

from tbfast import limits
from tbfast.config import ActorsRpc
from tbfast.control.registry import Registry
from tbfast.control.rpc_keeper import Keeper
from tbfast.control.rpc_line import Call, Line
from tbfast.control.sessions import Outcome, Sessions
from tbfast.errors import Conflict, NotFound, ResourceError, StoreError, TbfastError
from tbfast.model.device import Change
from tbfast.model.operations import Delivery, RpcRequest
from tbfast.model.rpc import Event, PersistentCall, answer_to_keep, error_text, moved

Mode = Literal["oneway", "twoway"]

SWEEP_S: Final = 60.0  # between two looks for finished calls that are too old
LONGEST_TIMER_S: Final = 3_600.0  # then it is set again: the wall clock may have been set

_NO_RESPONSE: Final = "There was a timeout awaiting for RPC response from device."
_EXHAUSTED: Final = (
    "There was a Timeout and all retry attempts have been exhausted. Retry attempts set: {}"
)
_TOO_BIG: Final = "The call is longer than a packet that the device accepts."


class RpcTimeout(TbfastError):
    """No answer by the deadline; `delivered` tells whether the device was sent the call."""

    def __init__(self, message: str, *, delivered: bool) -> None:
        super().__init__(message)
        self.delivered = delivered


class RpcService:
    """All methods belong to one event loop.  kept_ms: how long finished persistent calls stay."""

    def __init__(
        self,
        sessions: Sessions,
        registry: Registry,
        settings: ActorsRpc,
        now_ms: Callable[[], int],
        *,
        kept_ms: int = limits.RPC_KEPT_MS,
    ) -> None:
        self._sessions = sessions
        self._registry = registry
        self._kept = registry.calls
        self._keeper = Keeper(self._kept)
        self._settings = settings
        self._now_ms = now_ms
        self._kept_ms = kept_ms
        self._lines: dict[int, Line] = {}  # by device number; the counter of each stays
        self._open: dict[str, Call] = {}  # persistent ones by id
        self._pending = 0
        self._pending_bytes = 0
        sessions.on_listens = self._device_listens
        sessions.on_poll = self._device_polls

    # --- calls -------------------------------------------------------------------------------

    async def call(
        self, device: int, method: str, params: bytes, mode: Mode, timeout_s: float
    ) -> bytes:
        """The device's answer as it came; b"" for a one-way call once it is sent.

        Raises RpcTimeout; ResourceError when too many calls wait; NotFound when the device is
        deleted meanwhile.
        """
        line = self._room(device, len(method) + len(params))
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        request = RpcRequest(line.new_id(), method, params)
        call = Call(device, request, mode == "oneway", answer=answer)
        self._enter(line, call)
        try:
            self._submit(line)
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            message = "the device did not answer" if call.told else "the device is not there"
            raise RpcTimeout(f"{message} within the timeout", delivered=call.told) from None
        finally:
            self._leave(call)
            self._submit(line)

    async def keep(self, wanted: PersistentCall) -> None:
        """A persistent call, on disk when this returns; its number is given here.

        Raises Conflict when the id is taken, ResourceError when too many calls wait or are kept,
        NotFound when the device is deleted meanwhile.
        """
        if wanted.id in self._open:
            raise Conflict(f"there is an RPC with id [{wanted.id}] already")
        line = self._room(wanted.device, len(wanted.method) + len(wanted.params))
        request = RpcRequest(line.new_id(), wanted.method, wanted.params)
        kept = msgspec.structs.replace(wanted, number=request.id)
        call = Call(wanted.device, request, wanted.oneway, kept=kept, stage="storing")
        self._enter(line, call)
        try:
            await self._kept.add(kept)
            if not self._registry.has_number(wanted.device):
                await self._kept.delete(kept.id)
                raise NotFound("the device was deleted")
        except BaseException:
            self._leave(call)
            raise
        if call.kept is None:
            raise NotFound("the device was deleted")
        self._begin(call, "waiting")
        self._submit(line)

    async def restore(self) -> None:
        """Takes up the open calls that are on disk; once, before any session is known."""
        found = [kept async for kept in self._kept.open()]
        for kept in sorted(found, key=lambda kept: kept.number):
            if not self._registry.has_number(kept.device):
                await self._kept.forget_device(kept.device_id)
                continue
            line = self._line(kept.device)
            line.next_id = max(line.next_id, (kept.number + 1) & 0x7FFFFFFF)
            request = RpcRequest(kept.number, kept.method, kept.params)
            call = Call(kept.device, request, kept.oneway, kept=kept)
            call.told = kept.status != "QUEUED"
            self._enter(line, call)
            self._begin(call, "delivered" if kept.status == "DELIVERED" else "waiting")
            if kept.status == "TIMEOUT":
                line.overdue(call)

    async def answered(self, device: int, request: int, body: bytes) -> None:
        """A device's answer; the first one counts, one for an unknown id is ignored.

        Returns when the answer of a persistent call is on disk.
        """
        line = self._lines.get(device)
        call = line.calls.get(request) if line is not None else None
        if line is None or call is None or call.stage == "storing":
            return
        if call.oneway and call.stage == "waiting":
            return
        if call.kept is not None:
            self._move(call, "answered", answer_to_keep(body))
            self._submit(line)
            await self._keeper.settled(call.kept.id)
        elif call.answer is not None and not call.oneway and not call.answer.done():
            call.answer.set_result(body)

    async def delete(self, call_id: str) -> None:
        """Deletes a persistent call; an open one is withdrawn."""
        call = self._open.get(call_id)
        if call is not None:
            self._leave(call)
        self._keeper.put(call_id, None)
        await self._keeper.settled(call_id)
        if call is not None and (line := self._lines.get(call.device)) is not None:
            self._submit(line)

    # --- its life ----------------------------------------------------------------------------

    async def sweep(self) -> None:
        """Deletes finished calls once they are too old; runs until cancelled."""
        while True:
            try:
                await self._kept.prune(self._now_ms() - self._kept_ms)
            except StoreError:  # the disk: its own watch reports it, here the next time will do
                pass
            await asyncio.sleep(SWEEP_S)

    async def close(self) -> None:
        """States that were reached come to disk."""
        for call in list(self._open.values()):
            self._leave(call)
        await self._keeper.close()

    def registry_changed(self, change: Change) -> None:
        """A device that leaves the registry takes its calls along."""
        if change.kind != "device" or change.op != "deleted":
            return
        line = self._lines.pop(change.number, None)
        for call in list(line.calls.values()) if line is not None else ():
            self._leave(call, line)
            call.kept = None
            if call.answer is not None and not call.answer.done():
                call.answer.set_exception(NotFound("the device was deleted"))
        self._keeper.forget_device(change.id)

    # --- what devices do ---------------------------------------------------------------------

    def _device_listens(self, device: int, again: bool) -> None:
        line = self._lines.get(device)
        if line is not None:
            if again:
                line.restart()
            self._submit(line)

    def _device_polls(self, device: int) -> tuple[RpcRequest, Outcome] | None:
        line = self._lines.get(device)
        call = line.offer() if line is not None else None
        if call is None:
            return None
        call.stage = "sent"
        call.attempt += 1
        return call.request, partial(self._outcome, call, call.attempt)

    def _outcome(self, call: Call, attempt: int, state: Delivery) -> None:
        line = self._lines.get(call.device)
        open_ = line is not None and line.calls.get(call.request.id) is call
        if line is None or not open_ or call.stage != "sent" or call.attempt != attempt:
            return
        match state:
            case "sent":
                self._sent(call)
                self._move(call, "sent")
                return
            case "acknowledged":
                self._sent(call)
                call.stage = "delivered"
                if self._settings.submit_strategy == "SEQUENTIAL_ON_RESPONSE_FROM_DEVICE":
                    self._arm(call, self._settings.response_timeout_ms, self._unanswered)
                self._move(call, "delivered")
            case "timeout":
                self._overdue(line, call)
            case "dropped":
                call.stage = "waiting"  # until the device subscribes
                self._move(call, "dropped")
                return
            case "too_big":
                call.stage = "overdue"
                self._move(call, "failed", error_text(_TOO_BIG))
        self._submit(line)

    def _sent(self, call: Call) -> None:
        call.told = True
        if call.oneway and call.answer is not None and not call.answer.done():
            call.answer.set_result(b"")

    def _overdue(self, line: Line, call: Call) -> None:
        line.overdue(call)
        if call.kept is None:
            return
        most = self._settings.max_retries
        wanted = most if call.kept.retries is None else min(call.kept.retries, most)
        if call.kept.overdue < wanted:
            self._move(call, "overdue")
        elif self._settings.close_session_on_rpc_delivery_timeout:
            self._move(call, "requeued")
            self._sessions.close(call.device)
        else:
            self._move(call, "failed", error_text(_EXHAUSTED.format(wanted)))

    def _unanswered(self, call: Call) -> None:
        call.lapsed = True
        self._move(call, "failed", error_text(_NO_RESPONSE))
        if (line := self._lines.get(call.device)) is not None:
            self._submit(line)

    def _expire(self, call: Call) -> None:
        assert call.kept is not None
        left_ms = call.kept.expires_ms - self._now_ms()
        if left_ms > 0:
            self._arm(call, left_ms, self._expire)
            return
        self._move(call, "expired")
        if (line := self._lines.get(call.device)) is not None:
            self._submit(line)

    # --- sending and keeping -----------------------------------------------------------------

    def _submit(self, line: Line) -> None:
        for call in line.due():
            call.stage = "sent"
            call.attempt += 1
            outcome = partial(self._outcome, call, call.attempt)
            if not self._sessions.tell(call.device, call.request, outcome):
                call.stage = "waiting"
                return

    def _move(self, call: Call, event: Event, response: bytes = b"") -> None:
        """One step in the life of a persistent call; nothing for others."""
        if call.kept is None:
            return
        before = call.kept
        call.kept = moved(before, event, response)
        if call.kept != before:
            self._keeper.put(before.id, call.kept)
        if call.kept.final:
            self._leave(call)

    def _room(self, device: int, nbytes: int) -> Line:
        line = self._line(device)
        if (
            len(line.calls) >= limits.RPC_PENDING_PER_DEVICE
            or self._pending >= limits.RPC_PENDING
            or self._pending_bytes + nbytes > limits.RPC_PENDING_BYTES
        ):
            raise ResourceError("too many calls wait for an answer; try again later")
        return line

    def _line(self, device: int) -> Line:
        return self._lines.setdefault(device, Line(self._settings.submit_strategy))

    def _enter(self, line: Line, call: Call) -> None:
        line.calls[call.request.id] = call
        self._pending += 1
        self._pending_bytes += call.size
        if call.kept is not None:
            self._open[call.kept.id] = call

    def _begin(self, call: Call, stage: Literal["waiting", "delivered"]) -> None:
        call.stage = stage
        assert call.kept is not None
        self._arm(call, call.kept.expires_ms - self._now_ms(), self._expire)
        if stage == "delivered" and (
            self._settings.submit_strategy == "SEQUENTIAL_ON_RESPONSE_FROM_DEVICE"
        ):
            self._arm(call, self._settings.response_timeout_ms, self._unanswered)

    def _leave(self, call: Call, line: Line | None = None) -> None:
        line = line or self._lines.get(call.device)
        for timer in call.timers.values():
            timer.cancel()
        if line is None or line.calls.get(call.request.id) is not call:
            return
        del line.calls[call.request.id]
        self._pending -= 1
        self._pending_bytes -= call.size
        if call.kept is not None:
            self._open.pop(call.kept.id, None)

    def _arm(self, call: Call, delay_ms: int, then: Callable[[Call], None]) -> None:
        if (earlier := call.timers.get(then.__name__)) is not None:
            earlier.cancel()
        delay_s = min(max(delay_ms, 0) / 1000, LONGEST_TIMER_S)
        timer = asyncio.get_running_loop().call_later(delay_s, then, call)
        call.timers[then.__name__] = timer
