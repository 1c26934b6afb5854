"""Persistent calls against a plain model: any order of what devices, people and kill -9 do."""

import asyncio
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tbfast.config import ActorsRpc
from tbfast.control.registry import Registry
from tbfast.control.rpc import RpcService
from tbfast.control.sessions import Sessions
from tbfast.link import messages as msg
from tbfast.model.operations import RpcRequest
from tbfast.model.rpc import PersistentCall

MAX_RETRIES = 1
HOUR_MS = 3_600_000


@dataclass
class Known:
    """What the specification says of one call."""

    number: int
    oneway: bool
    retries: int
    expires_ms: int
    status: str = "QUEUED"
    on_way: bool = False
    parked: bool = False  # waits for a SUBSCRIBE
    overdue: int = 0

    @property
    def final(self) -> bool:
        return self.status in ("SUCCESSFUL", "FAILED", "EXPIRED") or (
            self.oneway and self.status == "DELIVERED"
        )


class Worker:
    """Collects what the controller sends to a session."""

    def __init__(self) -> None:
        self.sent: list[msg.Message] = []

    def send(self, message: msg.Message) -> None:
        self.sent.append(message)


class RpcMachine(RuleBasedStateMachine):
    """BURST; one device with at most one session."""

    strategy = "BURST"

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.home = tempfile.TemporaryDirectory()
        self.registry = self.loop.run_until_complete(Registry.open(Path(self.home.name) / "r"))
        record = self.loop.run_until_complete(self.registry.create_device("d"))
        self.device = record.device
        self.now_ms = 1_700_000_000_000
        self.model: dict[str, Known] = {}
        self.numbers = 0
        self.subscribed = False
        self.slot = 0
        self.pushes: dict[int, str] = {}  # number of a push not decided yet -> id of the call
        self.start()

    def start(self) -> None:
        self.worker = Worker()
        self.sessions = Sessions()
        rpc = ActorsRpc(max_retries=MAX_RETRIES, submit_strategy=self.strategy)
        self.rpc = RpcService(self.sessions, self.registry, rpc, lambda: self.now_ms)
        self.run(self.rpc.restore())

    def run(self, work: Any) -> Any:
        async def settled() -> Any:
            result = await work
            await asyncio.sleep(0.001)  # timers that are due
            for call_id in list(self.model):
                await self.rpc._keeper.settled(call_id)
            return result

        return self.loop.run_until_complete(settled())

    async def _do(self, work: Any) -> None:
        work()

    def now(self, work: Any) -> None:
        """Something that happens on the loop, without waiting."""
        self.run(self._do(work))

    def collect(self) -> list[str]:
        """Ids of the calls that went to the session since the last look."""
        by_number = {known.number: call_id for call_id, known in self.model.items()}
        found = []
        for message in self.worker.sent:
            assert isinstance(message, msg.Notify)
            assert isinstance(message.notice, RpcRequest)
            call_id = by_number[message.notice.id]
            self.pushes[message.push] = call_id
            found.append(call_id)
        self.worker.sent.clear()
        return found

    def expect_sent(self) -> None:
        """Exactly what the strategy wants is on its way now, in order."""
        wanted = []
        if self.subscribed:
            wanted = [
                call_id
                for call_id, known in self.model.items()
                if not known.final and not known.on_way and not known.parked
            ]
            if self.strategy != "BURST":
                wanted = [] if any(self.holds(k) for k in self.model.values()) else wanted[:1]
        assert self.collect() == wanted
        for call_id in wanted:
            self.model[call_id].on_way = True

    def holds(self, known: Known) -> bool:
        return not known.final and known.on_way

    # --- people ------------------------------------------------------------------------------

    @rule(oneway=st.booleans(), retries=st.sampled_from([None, 0, 0, 4]))
    def make(self, oneway: bool, retries: int | None) -> None:
        if sum(not known.final for known in self.model.values()) >= 6:
            return
        call_id = str(uuid.uuid4())
        expires_ms = self.now_ms + HOUR_MS
        wanted = PersistentCall(
            id=call_id, device_id=self.device.id, device=self.device.number, number=0,
            created_ms=self.now_ms, expires_ms=expires_ms, oneway=oneway, method="m",
            params=b"null", retries=retries,
        )  # fmt: skip
        most = MAX_RETRIES if retries is None else min(retries, MAX_RETRIES)
        self.model[call_id] = Known(self.numbers, oneway, most, expires_ms)
        self.numbers += 1
        self.run(self.rpc.keep(wanted))
        self.expect_sent()

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        call_id = data.draw(st.sampled_from(list(self.model)))
        self.run(self.rpc.delete(call_id))
        del self.model[call_id]
        self.expect_sent()

    # --- the device --------------------------------------------------------------------------

    @rule()
    def subscribe(self) -> None:
        if not self.subscribed:
            self.slot += 1
            session = msg.OpenSession(self.device.number, self.slot, 1, self.slot)
            self.now(lambda: self.sessions.opened(self.worker, session))
        self.subscribed = True
        for known in self.model.values():
            known.on_way = known.parked = False
        self.pushes.clear()
        listen = msg.Listen(self.device.number, self.slot, 1, False, True, True)
        self.now(lambda: self.sessions.listens(self.worker, listen))
        self.expect_sent()

    @precondition(lambda self: self.subscribed)
    @rule()
    def leave(self) -> None:
        self.subscribed = False
        self.now(lambda: self.sessions.closed(self.worker, self.device.number, self.slot, 1))
        for call_id in self.pushes.values():
            known = self.model.get(call_id)
            if known is None or known.final or not self.undecided(known):
                continue
            known.status = "QUEUED" if known.status == "SENT" else known.status
            known.on_way = False
        self.pushes.clear()
        self.expect_sent()

    def undecided(self, known: Known) -> bool:
        return known.on_way

    @precondition(lambda self: self.pushes)
    @rule(data=st.data(), state=st.sampled_from(["sent", "acknowledged", "timeout", "too_big"]))
    def outcome(self, data: st.DataObject, state: Any) -> None:
        push = data.draw(st.sampled_from(sorted(self.pushes)))
        call_id = self.pushes[push]
        if state != "sent":
            del self.pushes[push]
        self.now(lambda: self.sessions.delivered(push, state))
        known = self.model.get(call_id)
        if known is not None and not known.final:
            match state:
                case "sent":
                    known.status = "SENT"
                case "acknowledged":
                    known.status = "DELIVERED"
                    known.on_way, known.parked = False, True
                case "too_big":
                    known.status = "FAILED"
                case "timeout" if known.overdue < known.retries:
                    known.status = "TIMEOUT"
                    known.overdue += 1
                    known.on_way, known.parked = False, self.strategy == "BURST"
                case "timeout":
                    known.status = "FAILED"
        self.expect_sent()

    @precondition(lambda self: self.model)
    @rule(data=st.data(), body=st.sampled_from([b'{"a":1}', b"text", b""]))
    def answer(self, data: st.DataObject, body: bytes) -> None:
        call_id = data.draw(st.sampled_from(list(self.model)))
        known = self.model[call_id]
        self.run(self.rpc.answered(self.device.number, known.number, body))
        if not known.final and (not known.oneway or known.on_way or known.parked):
            known.status = "SUCCESSFUL"
        self.expect_sent()

    # --- time and power ----------------------------------------------------------------------

    @rule(hours=st.integers(0, 1))
    def restart(self, hours: int) -> None:
        """kill -9 of the controller; what it had told nobody is lost with it."""
        self.now_ms += hours * HOUR_MS
        for call in list(self.rpc._open.values()):  # its timers die with the process
            self.rpc._leave(call)
        self.subscribed = False
        self.pushes.clear()
        open_ = [known.number for known in self.model.values() if not known.final]
        self.numbers = max([-1, *open_]) + 1
        self.start()
        for known in self.model.values():
            if not known.final and known.expires_ms <= self.now_ms:
                known.status = "EXPIRED"
            known.on_way = False
            known.parked = known.status == "DELIVERED" or (
                known.status == "TIMEOUT" and self.strategy == "BURST"
            )
        # Numbers of finished calls may come again: who asks for one of those gets nothing.
        for call_id in [c for c, known in self.model.items() if known.final]:
            self.check(call_id)
            del self.model[call_id]
        self.expect_sent()

    def check(self, call_id: str) -> None:
        stored = self.loop.run_until_complete(self.registry.calls.get(call_id))
        known = self.model[call_id]
        assert (stored.status, stored.number, stored.overdue) == (
            known.status, known.number, known.overdue,
        )  # fmt: skip
        if stored.response:
            msgspec.json.decode(stored.response)

    @invariant()
    def what_is_stored_is_what_the_model_says(self) -> None:
        for call_id in self.model:
            self.check(call_id)

    def teardown(self) -> None:
        self.run(self.rpc.close())
        self.loop.run_until_complete(self.registry.close())
        self.loop.close()
        self.home.cleanup()


class SequentialOnAck(RpcMachine):
    strategy = "SEQUENTIAL_ON_ACK_FROM_DEVICE"


class SequentialOnResponse(RpcMachine):
    strategy = "SEQUENTIAL_ON_RESPONSE_FROM_DEVICE"

    def holds(self, known: Known) -> bool:
        return not known.final and (known.on_way or (known.parked and known.status == "DELIVERED"))


for machine in (RpcMachine, SequentialOnAck, SequentialOnResponse):
    machine.TestCase.settings = settings(max_examples=25, stateful_step_count=25)

TestBurst = RpcMachine.TestCase
TestSequentialOnAck = SequentialOnAck.TestCase
TestSequentialOnResponse = SequentialOnResponse.TestCase
