"""The open calls of one device and their order (MQTT spec 5.1, submit strategies)."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tbfast.model.operations import RpcRequest
from tbfast.model.rpc import PersistentCall, Strategy

# storing: not on disk yet; waiting: to be sent; sent: on its way; delivered: acknowledged;
# overdue: not acknowledged in time, sent again when the device subscribes again.
Stage = Literal["storing", "waiting", "sent", "delivered", "overdue"]


@dataclass(slots=True, eq=False)
class Call:
    """`answer` is who waits for it, `kept` what is stored of it: a call has one of the two."""

    device: int
    request: RpcRequest
    oneway: bool
    answer: asyncio.Future[bytes] | None = None
    kept: PersistentCall | None = None
    stage: Stage = "waiting"
    attempt: int = 0  # counts sendings: what is heard of an earlier one does not matter
    told: bool = False  # has been sent at least once
    lapsed: bool = False  # holds up no other call any more
    timers: dict[str, asyncio.TimerHandle] = field(default_factory=dict)  # by what they do

    @property
    def open(self) -> bool:
        """Whether anything is still expected of it."""
        return self.answer is None or not self.answer.done()

    @property
    def size(self) -> int:
        """Bytes it counts for."""
        return len(self.request.method) + len(self.request.params)


class Line:
    """Calls by their number, oldest first."""

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self.next_id = 0
        self.calls: dict[int, Call] = {}

    def new_id(self) -> int:
        """The next number."""
        number = self.next_id
        self.next_id = (number + 1) & 0x7FFFFFFF
        return number

    def due(self) -> list[Call]:
        """What may be sent now, oldest first."""
        waiting = [call for call in self.calls.values() if call.stage == "waiting" and call.open]
        if self._strategy == "BURST":
            return waiting
        holding: tuple[Stage, ...] = ("sent",)
        if self._strategy == "SEQUENTIAL_ON_RESPONSE_FROM_DEVICE":
            holding = ("sent", "delivered")
        if any(c.stage in holding and c.open and not c.lapsed for c in self.calls.values()):
            return []
        return waiting[:1]

    def offer(self) -> Call | None:
        """What a request that waits for a call gets (HTTP spec 3.5).

        A call that was delivered is offered again only if it is kept and nothing else is open.
        """
        if due := self.due():
            return due[0]
        by_stage: tuple[tuple[Stage, Callable[[Call], object]], ...] = (
            ("overdue", lambda call: True),
            ("delivered", lambda call: call.kept),
        )
        for stage, fits in by_stage:
            for call in self.calls.values():
                if call.stage == stage and call.open and fits(call):
                    return call
        return None

    def restart(self) -> None:
        """The device subscribed: everything that is still open goes out again."""
        for call in self.calls.values():
            if call.stage != "storing":
                call.stage = "waiting"
                call.attempt += 1

    def overdue(self, call: Call) -> None:
        """No acknowledgement in time: sequential strategies send a kept call again at once."""
        again = call.kept is not None and self._strategy != "BURST"
        call.stage = "waiting" if again else "overdue"
