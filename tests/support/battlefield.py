"""A server under attack, with canaries on the attacked worker and an attacker beside them."""

import os
from typing import Any

from tbfast import limits
from tbfast.codec import mqtt as codec
from tbfast.model import mqtt as m
from tests.support.canaries import Canaries
from tests.support.server import Server
from tests.support.wire import Wire, connect

# The quick version of counts that the specification names; 10 is the long one.
SCALE = float(os.environ.get("TBFAST_TEST_SCALE", "1"))


def scaled(count: int) -> int:
    """So many of an attack's repetitions."""
    return max(1, round(count * SCALE))


class Field:
    """One server, its canaries, and an attacker with a device of its own."""

    def __init__(self, server: Server, canaries: Canaries) -> None:
        self.server = server
        self.canaries = canaries
        self.worker = canaries.pids["worker-0"]
        self.mallory = ""
        self._devices = self._connects = 0
        self.begin()

    def begin(self) -> None:
        """A new test: what former devices have stored is forgotten."""
        self._suspects: list[str] = []
        self.another_device()

    def another_device(self) -> None:
        """Mallory gets a device without rows."""
        self._devices += 1
        self._connects = 0
        self.mallory = self.server.add_device(f"mallory-{self._devices}")
        self._suspects.append(self.mallory)

    def _connecting(self) -> None:
        """One more CONNECT; a device that connects too often would be let in late."""
        self._connects += 1
        if self._connects > limits.FLAPPING_BURST:
            self.another_device()
            self._connects = 1

    def wire(self, version: int = 4, **kwargs: int | None) -> Wire:
        """A connection without CONNECT."""
        return Wire(self.server.mqtt_port, version=version, **kwargs)  # type: ignore[arg-type]

    def open(self, version: int = 4, **fields: Any) -> Wire:
        """Mallory's session; fields: of its CONNECT, or of the wire."""
        self._connecting()
        own = {name: fields.pop(name) for name in ("timeout_s", "buffer_bytes") if name in fields}
        return self.wire(version, **own).open(self.mallory, **fields)

    def cut(self, raw: bytes) -> None:
        """Before a CONNECT was accepted: closed without a byte, however the bytes arrive."""
        for pieces in ([raw], [raw[i : i + 1] for i in range(min(len(raw), 100))] + [raw[100:]]):
            with self.wire() as wire:
                _send(wire, pieces)
                assert wire.expect_close() == []

    def refused(self, raw: bytes, version: int, code: int = 0x81) -> list[m.Packet]:
        """An open session ends (MQTT 5: with the reason), however the bytes arrive."""
        answers: list[m.Packet] = []
        for pieces in (
            [raw],
            [raw[i : i + 1] for i in range(min(len(raw), 40))] + [raw[40:]],
            None,
        ):
            self._connecting()
            accepted = codec.encode(connect(self.mallory, version), version)
            with self.wire(version) as wire:
                if pieces is None:
                    wire.send(accepted + raw)
                else:
                    wire.send(accepted)
                    first = wire.receive()
                    _send(wire, pieces)
                    assert isinstance(first, m.Connack)
                answers = wire.expect_close()
                if pieces is None:
                    assert isinstance(answers.pop(0), m.Connack)
                reasons = [p.reason_code for p in answers if isinstance(p, m.Disconnect)]
                assert reasons == ([code] if version == 5 else []), raw[:40]
        return answers

    def ignored(self, raw: bytes, version: int) -> None:
        """An open session stays and says nothing."""
        with self.open(version) as wire:
            wire.send(raw)
            wire.ping()

    def rows(self) -> dict[str, list[dict[str, object]]]:
        """What mallory's devices have stored in this test."""
        found: dict[str, list[dict[str, object]]] = {}
        for name in self._suspects:
            found |= self.server.query(name)
        return found


def _send(wire: Wire, pieces: list[bytes]) -> None:
    try:
        for piece in pieces:
            wire.send(piece)
    except ConnectionError:
        return  # refused before the last piece
