"""Calls of the server to devices: one numbered, pending table for every protocol (MQTT spec 5.1).

A call is published at once if its device listens, else when it does before the deadline.  Every
time a device subscribes it gets all calls that are still open again, with their ids.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Literal

from tbfast import limits
from tbfast.control.sessions import Sessions
from tbfast.errors import ResourceError, TbfastError
from tbfast.model.operations import Delivery, RpcRequest

Mode = Literal["oneway", "twoway"]


class RpcTimeout(TbfastError):
    """No answer by the deadline; `delivered` tells whether the device was sent the call."""

    def __init__(self, message: str, *, delivered: bool) -> None:
        super().__init__(message)
        self.delivered = delivered


@dataclass(slots=True)
class _Call:
    request: RpcRequest
    mode: Mode
    answer: asyncio.Future[bytes]
    delivered: bool = False


@dataclass(slots=True)
class _Device:
    next_id: int = 0
    calls: dict[int, _Call] = field(default_factory=dict)  # open ones, oldest first


class RpcService:
    """All methods belong to one event loop."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._devices: dict[int, _Device] = {}
        self._open = 0
        sessions.on_ready_for_calls = self._device_listens

    async def call(
        self, device: int, method: str, params: bytes, mode: Mode, timeout_s: float
    ) -> bytes:
        """The device's answer as it came; b"" for a one-way call once it is sent.

        Raises RpcTimeout; ResourceError when too many calls wait; NotFound when the device is
        deleted meanwhile.
        """
        state = self._devices.setdefault(device, _Device())
        if len(state.calls) >= limits.RPC_PENDING_PER_DEVICE or self._open >= limits.RPC_PENDING:
            raise ResourceError("too many calls wait for an answer; try again later")
        request = RpcRequest(state.next_id, method, params)
        state.next_id = (state.next_id + 1) & 0x7FFFFFFF
        call = _Call(request, mode, asyncio.get_running_loop().create_future())
        state.calls[request.id] = call
        self._open += 1
        try:
            self._send(device, call)
            async with asyncio.timeout(timeout_s):
                return await call.answer
        except TimeoutError:
            message = "the device did not answer" if call.delivered else "the device is not there"
            raise RpcTimeout(f"{message} within the timeout", delivered=call.delivered) from None
        finally:
            self._open -= 1
            del state.calls[request.id]

    def answered(self, device: int, request: int, body: bytes) -> None:
        """A device's answer; the first one counts, one for an unknown id is ignored."""
        state = self._devices.get(device)
        call = state.calls.get(request) if state is not None else None
        if call is not None and call.mode == "twoway" and not call.answer.done():
            call.answer.set_result(body)

    def _device_listens(self, device: int) -> None:
        state = self._devices.get(device)
        for call in list(state.calls.values()) if state is not None else ():
            self._send(device, call)

    def _send(self, device: int, call: _Call) -> None:
        if call.answer.done():
            return

        def outcome(state: Delivery) -> None:
            if state in ("sent", "acknowledged"):
                call.delivered = True
                if call.mode == "oneway" and not call.answer.done():
                    call.answer.set_result(b"")

        self._sessions.tell(device, call.request, outcome)
