"""Calls of the server by devices, and who answers them: a webhook, or whoever fetches them.

A call that nobody answers in time gets the answer of ThingsBoard's default rule chain
(MQTT spec 5.2).  A fetched call is not handed out again; its first answer counts.
"""

import asyncio
import logging
import uuid
from collections import OrderedDict
from typing import Protocol

import msgspec

from tbfast import limits
from tbfast.control.registry import Registry
from tbfast.errors import NotFound, PeerError
from tbfast.model.operations import CallServer, Refusal, Reply, Result
from tbfast.model.rpc import error_text
from tbfast.obs.log import get_logger

log = get_logger("tbfast.calls")


class DeviceCall(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A device's call as its handler sees it; `request_id` is the device's own number."""

    device_name: str
    device_id: str
    method: str
    params: msgspec.Raw
    request_id: int


class WaitingCall(DeviceCall, frozen=True, kw_only=True, rename="camel"):
    """One that waits to be fetched; the id is for the answer."""

    id: str


class Handler(Protocol):
    """Somebody who answers at once: tbfast.control.webhook.Webhook."""

    async def answer(self, call: DeviceCall) -> bytes:
        """JSON text; PeerError when there is none."""


class DeviceCalls:
    """All methods belong to one event loop; cancelling a call or a fetch gives it up."""

    def __init__(self, registry: Registry, handler: Handler | None, *, timeout_ms: int) -> None:
        self._registry = registry
        self._handler = handler
        self._timeout_s = timeout_ms / 1000
        self._under_way = 0  # at most CALLS_OF_DEVICES, also what the tables hold
        self._answers: dict[str, asyncio.Future[bytes]] = {}
        self._waiting: OrderedDict[str, WaitingCall] = OrderedDict()  # those not fetched yet
        self._arrived = asyncio.Condition()

    async def call(self, number: int, operation: CallServer) -> Result:
        """The handler's answer verbatim, else {"error":...}; Refusal when the node is to blame."""
        device = await self._registry.device_by_number(number)
        if device is None:
            return Refusal("unavailable", "the device was deleted")
        if self._under_way >= limits.CALLS_OF_DEVICES:
            return Refusal("limit", "too many calls of devices wait for an answer")
        call = DeviceCall(
            device_name=device.name,
            device_id=device.id,
            method=operation.method,
            params=msgspec.Raw(operation.params),
            request_id=operation.id,
        )
        self._under_way += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                if self._handler is not None:
                    return Reply(await self._handler.answer(call))
                return Reply(await self._fetched(call))
        except TimeoutError:
            return Reply(error_text("timeout"))
        except PeerError as error:
            log.limited("webhook", logging.WARNING, "no answer of the webhook", error=str(error))
            return Reply(error_text("the handler of calls failed"))
        finally:
            self._under_way -= 1

    async def _fetched(self, call: DeviceCall) -> bytes:
        call_id = str(uuid.uuid4())
        fields = {name: getattr(call, name) for name in DeviceCall.__struct_fields__}
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answers[call_id] = answer
        self._waiting[call_id] = WaitingCall(id=call_id, **fields)
        try:
            async with self._arrived:
                self._arrived.notify()
            return await answer
        finally:
            del self._answers[call_id]
            self._waiting.pop(call_id, None)

    async def fetch(self, timeout_s: float) -> WaitingCall | None:
        """The call that has waited longest; None when none comes in time."""
        try:
            async with asyncio.timeout(timeout_s), self._arrived:
                await self._arrived.wait_for(lambda: self._waiting)
                return self._waiting.popitem(last=False)[1]
        except TimeoutError:
            return None

    async def give_back(self, call: WaitingCall) -> None:
        """Whoever fetched it is gone: the next one gets it, at once if somebody waits."""
        if call.id in self._answers:
            self._waiting[call.id] = call
            self._waiting.move_to_end(call.id, last=False)
            async with self._arrived:
                self._arrived.notify()

    def answered(self, call_id: str, body: bytes) -> None:
        """The answer to a call, JSON text; NotFound when nobody waits for it any more."""
        answer = self._answers.get(call_id)
        if answer is None or answer.done():
            raise NotFound(f"No call with id [{call_id}] waits for an answer")
        answer.set_result(body)


def strict_json(body: bytes) -> bytes:
    """The same text; PeerError unless it is JSON."""
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerError(f"the answer is not JSON: {error}") from error
    return body
