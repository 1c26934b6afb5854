"""Strangers against the obvious model: a list of connections, oldest first."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tbfast.net.strangers import Strangers

MAX_CONNECTIONS = 6
MAX_BYTES = 100


class StrangersMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.real = Strangers(MAX_CONNECTIONS, MAX_BYTES)
        self.model: dict[int, tuple[bytes, int]] = {}
        self.next_slot = 0

    def _held(self) -> dict[bytes, list[int]]:
        held: dict[bytes, list[int]] = {}
        for slot, (address, _) in self.model.items():
            held.setdefault(address, []).append(slot)
        return held

    @rule(address=st.sampled_from([b"a", b"b", b"c"]))
    def add(self, address: bytes) -> None:
        self.real.add(self.next_slot, address)
        self.model[self.next_slot] = (address, 0)
        self.next_slot += 1

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.model)))
        self.real.remove(slot)
        self.real.remove(slot)
        del self.model[slot]

    @precondition(lambda self: self.model)
    @rule(data=st.data(), nbytes=st.integers(1, 60))
    def received(self, data: st.DataObject, nbytes: int) -> None:
        slot = data.draw(st.sampled_from(sorted(self.model)))
        self.real.received(slot, nbytes)
        self.real.received(1 << 30, nbytes)
        address, before = self.model[slot]
        self.model[slot] = (address, before + nbytes)

    @precondition(lambda self: self.real.to_close() is not None)
    @rule()
    def shed(self) -> None:
        slot = self.real.to_close()
        assert slot is not None
        self.real.remove(slot)
        del self.model[slot]

    @invariant()
    def same(self) -> None:
        held = self._held()
        total = sum(nbytes for _, nbytes in self.model.values())
        assert (len(self.real), self.real.nbytes) == (len(self.model), total)
        for address in (b"a", b"b", b"c", b"d"):
            assert self.real.held(address) == len(held.get(address, []))
        most = max(map(len, held.values()), default=0)
        fullest = {slots[0] for slots in held.values() if len(slots) == most}
        first = self.real.first_to_go()
        assert first in fullest if held else first is None
        if len(self.model) > MAX_CONNECTIONS:
            assert self.real.to_close() == first
        elif total > MAX_BYTES:
            weight = {a: sum(self.model[s][1] for s in slots) for a, slots in held.items()}
            heaviest = {held[a][0] for a in held if weight[a] == max(weight.values())}
            assert self.real.to_close() in heaviest
        else:
            assert self.real.to_close() is None


TestStrangers = StrangersMachine.TestCase
