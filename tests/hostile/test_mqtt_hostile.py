"""Hostile MQTT from accept to CONNECT (hostile-input spec 3 to 5), canaries beside it.

Each test names its rows of the specification.  What must hold besides - canaries undisturbed, same
processes, memory and descriptors back - is checked after every test by the fixture `field`.
"""

import contextlib
import random
import ssl
import threading
import time

import pytest

from tbfast import limits
from tbfast.codec import mqtt as codec
from tbfast.errors import PeerError
from tbfast.model import mqtt as m
from tbfast.model.mqtt import ReasonCode as Code
from tests.support.battlefield import Field, scaled
from tests.support.canaries import cpu_s
from tests.support.mqtt_raw import PLACES, block, frame, may_carry, sample, text, varint
from tests.support.mqtt_raw import connect as raw_connect
from tests.support.mqtt_vectors import load
from tests.support.oracle_mqtt import PROPERTIES
from tests.support.waiting import wait_until
from tests.support.wire import Closed, Wire, connect

VERSIONS = pytest.mark.parametrize("version", [4, 5])
ALL_VERSIONS = pytest.mark.parametrize("version", [3, 4, 5])
SEED = 20_240_607


def publish(topic: str = "v2/t", payload: bytes = b'{"bad":1}', packet_id: int = 1) -> m.Publish:
    return m.Publish(topic, payload, 1, packet_id=packet_id)


# --- 3: connections --------------------------------------------------------------------------


def test_n1_n2_n6_m3_peers_that_stall(field: Field) -> None:
    """Everybody at once: the connect deadline and the write deadline take ten seconds each."""
    start = time.monotonic()
    silent = [field.wire() for _ in range(scaled(300))]
    opened_by = time.monotonic()
    drip = [field.wire() for _ in range(10)]
    almost = raw_connect(client_id=b"x" * 60_000)[:-1]
    fat = [field.wire() for _ in range(scaled(200))]
    for wire in fat:
        wire.send(almost)
    deaf = field.open(buffer_bytes=4_096)
    deaf.sock.settimeout(30)
    flood = threading.Thread(target=_flood_without_reading, args=(deaf,))
    flood.start()
    dripping = raw_connect(client_id=b"y" * 200)
    stop = start + limits.MQTT_CONNECT_TIMEOUT_MS / 1000 + 3
    for number in range(9):  # one byte a second, 9 of a CONNECT's 220
        for wire in drip:
            wire.send(dripping[number : number + 1])
        wait_until(lambda at=start + number + 1: time.monotonic() >= at)
    for wire in silent[:5] + drip[:5]:
        wire.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            wire.sock.recv(1)  # still there shortly before the deadline
    for wire in (*silent, *drip, *fat):
        assert wire.expect_close(max(0.1, stop - time.monotonic())) == []
        wire.close()
    assert time.monotonic() - opened_by >= 9.5
    flood.join(30)
    assert not flood.is_alive()
    deaf.close()


def _flood_without_reading(wire: Wire) -> None:
    data = codec.encode(publish(payload=b'{"ts":1,"values":{"deaf":1}}'), 4) * 500
    with contextlib.suppress(ConnectionError):
        while True:
            wire.sock.sendall(data)


def test_n3_half_open_connections_from_one_address(field: Field) -> None:
    """A CONNECT without its last byte each; others get in at once, also from that address."""
    almost = codec.encode(connect(field.mallory), 4)[:-1]
    half_open = []
    for _ in range(scaled(1_000)):
        wire = Wire(field.server.mqtt_port, source="127.0.0.2")
        wire.send(almost)
        half_open.append(wire)
    for number, source in enumerate(["127.0.0.3", "127.0.0.4", "127.0.0.2"] * 3):
        device = field.server.add_device(f"n3-{number}-{field.mallory}")
        started = time.monotonic()
        with Wire(field.server.mqtt_port, source=source).open(device) as wire:
            wire.ping()
        assert time.monotonic() - started < 1
    for wire in half_open:
        wire.reset()
    assert field.rows() == {}


def test_n5_other_protocols_on_this_port(field: Field) -> None:
    context = ssl.create_default_context()
    hello, nothing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(nothing, hello, server_hostname="x")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    for raw in (hello.read(), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"SSH-2.0-x\r\n", b"\xff" * 50):
        field.cut(raw)


def test_n7_end_in_the_middle_of_a_packet(field: Field) -> None:
    data = codec.encode(publish(payload=b'{"half":1}'), 4)
    for number in range(scaled(200)):
        wire = field.open()
        wire.send(data[: 1 + number % (len(data) - 1)])
        wire.reset() if number % 2 else wire.close()
    assert field.rows() == {}


# --- 4: framing ------------------------------------------------------------------------------

FIVE_BYTE_LENGTHS = [b"\xff\xff\xff\xff\x7f", b"\x80\x80\x80\x80\x01"]


@pytest.mark.parametrize("length", FIVE_BYTE_LENGTHS, ids=bytes.hex)
@VERSIONS
def test_m1_fifth_length_byte(field: Field, length: bytes, version: int) -> None:
    field.cut(b"\x10" + length)
    field.refused(b"\x30" + length, version)
    field.refused(b"\x30" + length[:4], version)  # the fourth byte says enough


def test_m2_first_packet_of_256_mb(field: Field) -> None:
    for kind in range(16):
        field.cut(bytes([kind << 4 | (2 if kind in (6, 8, 10) else 0)]) + b"\xff\xff\xff\x7f")


@VERSIONS
def test_m4_body_above_the_limit_is_not_drained(field: Field, version: int) -> None:
    with field.open(version) as wire, contextlib.suppress(ConnectionError):
        wire.send(b"\x30" + varint(50_000_000))
        sent = 0
        begun = time.monotonic()
        while time.monotonic() - begun < 4:
            wire.sock.sendall(b"x" * 65_536)
            sent += 65_536
        raise AssertionError(f"{sent} bytes were read")
    field.refused(b"\x30" + varint(limits.MQTT_MAX_REMAINING_BYTES + 1), version)


@VERSIONS
def test_m5_field_past_its_packet(field: Field, version: int) -> None:
    good = codec.encode(publish(), version)
    short = frame(0x30, b"\x00\x40v2/t")  # a topic of 64 bytes in 4
    field.refused(short + good * 10, version)
    field.refused(frame(0x82, b"\x00\x01" + b"\x00\x20v2/a\x00") + good * 10, version)
    assert field.rows() == {}


@ALL_VERSIONS
def test_m6_bytes_left_over(field: Field, version: int) -> None:
    field.cut(raw_connect(version=version, tail=b"\x00"))
    empty = b"\x00" if version == 5 else b""
    one = b"\x00\x01" + empty
    field.refused(frame(0x82, one + text("v2/a") + b"\x00\x00"), version)
    field.refused(frame(0xA2, one + text("v2/a") + b"\x00"), version)
    field.refused(b"\xc0\x01\x00", version)
    if version < 5:
        field.refused(frame(0x62, b"\x00\x01\x00"), version)
    else:
        field.refused(frame(0x62, b"\x00\x01\x00\x00\x00"), version)


REQUIRED_FLAGS = {6: 2, 8: 2, 10: 2}  # PUBREL, SUBSCRIBE, UNSUBSCRIBE
NO_PUBLISH = [1, 2, *range(4, 16)]


@VERSIONS
def test_m7_reserved_flags(field: Field, version: int) -> None:
    for kind in NO_PUBLISH:
        for bit in range(4):
            first = (kind << 4 | REQUIRED_FLAGS.get(kind, 0)) ^ 1 << bit
            field.refused(frame(first, b"\x00\x01"), version)


def test_m8_reserved_types(field: Field) -> None:
    for version in (3, 4, 5):
        field.refused(b"\x00\x00", version)
    for version in (3, 4):
        field.refused(b"\xf0\x00", version)
    field.ignored(b"\xf0\x00", 5)
    field.ignored(frame(0xF0, b"\x18" + block(b"\x15" + text("m"))), 5)


SERVER_PACKETS = {
    "CONNACK": b"\x20\x02\x00\x00",
    "SUBACK": b"\x90\x03\x00\x01\x00",
    "UNSUBACK": b"\xb0\x02\x00\x01",
    "PINGRESP": b"\xd0\x00",
}


def test_m9_packets_of_a_server(field: Field) -> None:
    for raw in SERVER_PACKETS.values():
        field.ignored(raw, 4)
    field.ignored(b"\x20\x03\x00\x00\x00", 5)
    field.ignored(b"\x90\x04\x00\x01\x00\x00" * 3, 5)
    for raw in (b"\x20\x00", b"\x20\x01\x00", b"\x90\x01\x00", b"\xb0\x01\x00", b"\xd0\x01\x00"):
        field.refused(raw, 4)
    costs = {}
    for name, raw in (("PINGREQ", b"\xc0\x00"), *SERVER_PACKETS.items()):
        with field.open() as wire:
            reader = threading.Thread(target=_read_until_pingresp, args=(wire, name == "PINGREQ"))
            before = cpu_s(field.worker)
            reader.start()
            wire.send(raw * 20_000 + b"\xc0\x00")
            reader.join(30)
            assert not reader.is_alive()
            costs[name] = cpu_s(field.worker) - before
    assert max(costs.values()) <= 1.5 * costs["PINGREQ"] + 0.1, costs


def _read_until_pingresp(wire: Wire, pings: bool) -> None:
    for _ in range(20_001 if pings else 1):
        assert wire.receive() == m.Pingresp()


def test_m10_second_connect_with_another_identity(field: Field) -> None:
    name = field.server.add_device("victim")
    for version in (4, 5):
        raw = codec.encode(connect(name, version), version)
        field.refused(raw + codec.encode(publish(), version), version, Code.PROTOCOL_ERROR)
    assert field.server.query("victim") == {}
    assert field.rows() == {}


def test_m11_pings_without_reading(field: Field) -> None:
    with field.open() as wire:
        for _ in range(2):
            wire.send(b"\xc0\x00" * 30_000)
        for _ in range(60_000):
            assert wire.receive() == m.Pingresp()


def _outcome(wire: Wire, raw: bytes) -> None:
    """Sends; the connection lives on or ends, in a way the protocol knows."""
    try:
        wire.send(raw)
        wire.sock.shutdown(1)
        wire.expect_close()
    except OSError:
        return


def test_m12_random_bytes(field: Field) -> None:
    dice = random.Random(SEED)
    for number in range(scaled(300)):
        raw = dice.randbytes(dice.randrange(1, 200))
        with field.wire(5) if number % 2 else field.open(4) as wire, contextlib.suppress(PeerError):
            _outcome(wire, raw)
    assert field.rows() == {}


def test_m12_flipped_bits(field: Field) -> None:
    dice = random.Random(SEED)
    good = [v for v in load() if v.packet is not None and not isinstance(v.packet, m.Connect)]
    for number in range(scaled(400)):
        vector = good[number % len(good)]
        bit = dice.randrange(len(vector.data) * 8)
        flipped = bytearray(vector.data)
        flipped[bit // 8] ^= 1 << bit % 8
        with field.open(vector.version) as wire:
            _outcome(wire, bytes(flipped))


@VERSIONS
def test_m13_too_short(field: Field, version: int) -> None:
    fixed = {3: 0x30, 4: 0x40, 5: 0x50, 6: 0x62, 7: 0x70, 8: 0x82, 9: 0x90, 10: 0xA2, 11: 0xB0}
    for first in fixed.values():
        field.refused(bytes([first, 0]), version)
        field.refused(bytes([first, 1, 0]), version)
    field.refused(b"\xc0\x01\x00", version)
    if version == 4:
        field.refused(b"\xe0\x01\x00", version)


# --- 5: CONNECT ------------------------------------------------------------------------------


def test_c1_protocol_names_and_levels(field: Field) -> None:
    for level in (0, 2, 6, 255):
        field.cut(raw_connect(level=level))
    for name in (b"", b"MQT", b"MQTTT", b"mqtt", b"MQIsdp", b"MQTT\x00"):
        field.cut(raw_connect(name=name))
    field.cut(frame(0x10, b"\xff\xffMQTT\x04\x02\x00\x00\x00\x00"))
    field.cut(raw_connect(level=3))


def test_c2_connect_flags(field: Field) -> None:
    for version in (4, 5):
        field.cut(raw_connect(version=version, flags=0x83))  # reserved
        will = (b"\x00" if version == 5 else b"") + text("w") + text("w")
        field.cut(raw_connect(version=version, flags=0x9E, will=will))  # will QoS 3
        field.cut(raw_connect(version=version, flags=0x8A))  # will QoS without will
        field.cut(raw_connect(version=version, flags=0xA2))  # will retain without will
    with field.wire() as wire:  # a password without user name is looked up
        wire.send(raw_connect(flags=0x42, user=None, tail=text(b"pw")))
        wire.expect(m.Connack(False, 5))


def test_c3_refused_connects_that_never_close(field: Field) -> None:
    refused = [
        raw_connect(user=b"wrong"),
        raw_connect(flags=0x02, user=None),
        raw_connect(flags=0x02, user=None, client_id=b""),
        raw_connect(version=3, user=b"wrong"),
        raw_connect(version=5, user=b"wrong"),
        raw_connect(user=b"wrong", client_id=b""),
    ]
    wires = []
    for number in range(scaled(500)):
        version = (4, 4, 4, 3, 5, 4)[number % 6]
        wire = field.wire(version)
        wire.send(refused[number % 6])
        wires.append(wire)
    for wire in wires:
        (answer,) = wire.expect_close()
        assert isinstance(answer, m.Connack)
        assert answer.reason_code != 0
    field.canaries.check()  # descriptors are back while the clients still hold theirs
    for wire in wires:
        wire.close()


BAD_TEXTS = [b"a\x00b", b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"]


@VERSIONS
def test_c4_texts_that_are_no_texts(field: Field, version: int) -> None:
    empty = b"\x00" if version == 5 else b""
    for bad in BAD_TEXTS:
        field.cut(raw_connect(version=version, client_id=bad))
        field.cut(raw_connect(version=version, user=bad))
        will = empty + text(bad) + text("w")
        field.cut(raw_connect(version=version, flags=0x86, will=will))
        field.refused(frame(0x30, text(bad) + empty + b"{}"), version)
        field.refused(frame(0x82, b"\x00\x01" + empty + text(bad) + b"\x00"), version)
        field.refused(frame(0xA2, b"\x00\x01" + empty + text(bad)), version)


def test_c5_identities_are_opaque(field: Field) -> None:
    for odd in ("+", "#", "/", "..", "a/../b", "%s%n", "*", "mallory/#", "\r\nx"):
        with field.wire() as wire:
            assert wire.connect(odd, client_id=odd).reason_code == 5
        with field.wire() as wire:
            assert wire.connect(field.mallory, client_id=odd).reason_code == 0
    field.server.add_device("odd", "+/#")
    with field.wire() as wire:
        wire.open("+/#").publish('{"ts":1,"values":{"mine":1}}')
    assert field.server.values("odd", "mine") == [1]
    assert "mine" not in field.rows()


def test_c9_two_clients_fight_over_one_token(field: Field) -> None:
    rounds = scaled(20)  # beyond FLAPPING_BURST they are let in late

    def fight() -> None:
        for _ in range(rounds):
            with field.wire(5) as wire, contextlib.suppress(Closed, ConnectionError):
                wire.open(field.mallory)

    fighters = [threading.Thread(target=fight) for _ in range(2)]
    for one in fighters:
        one.start()
    for one in fighters:
        one.join(60)
        assert not one.is_alive()
    with field.open() as wire:
        wire.ping()


def test_c10_user_properties(field: Field) -> None:
    pair = b"\x26" + text("") + text("")
    most = limits.MQTT_USER_PROPERTIES
    for count in (most + 1, 1_000, 65_000 // len(pair)):
        field.cut(raw_connect(version=5, block=block(*[pair] * count)))
        field.refused(PLACES[0].packet(block(*[pair] * count)), 5)
    with field.wire(5) as wire:
        wire.send(raw_connect(version=5, block=block(*[pair] * most)))
        answer = wire.receive()
        assert isinstance(answer, m.Connack)
    good = PLACES[0].packet(block(*[pair] * most))
    many = PLACES[0].packet(block(*[pair] * 10_000))
    costs = []
    for raw, count in ((good, 400), (many, 1)):
        before = cpu_s(field.worker)
        for _ in range(scaled(20)):
            with field.open(5) as wire:
                wire.send(raw * count)
                for _ in range(count):
                    wire.receive()
        costs.append((cpu_s(field.worker) - before) / (len(raw) * count))
    assert costs[1] <= 4 * costs[0] + 1e-7, costs  # per byte (I5)


def test_c12_impossible_properties(field: Field) -> None:
    for bad in (b"\x21\x00\x00", b"\x27\x00\x00\x00\x00", b"\x17\x02", b"\x19\x02"):
        field.cut(raw_connect(version=5, block=block(bad)))
    for identifier in PROPERTIES:
        if may_carry("CONNECT", identifier) and identifier != 0x26:
            twice = block(sample(identifier), sample(identifier))
            field.cut(raw_connect(version=5, block=twice))


def test_c14_publishes_behind_wrong_credentials(field: Field) -> None:
    burst = b"".join(codec.encode(publish(packet_id=n), 4) for n in range(1, 1_001))
    for token in ("wrong-once", "wrong-once", "wrong-twice"):  # unknown at first, then cached
        with field.wire() as wire:
            wire.send(codec.encode(connect(token), 4) + burst)
            answers = wire.expect_close()
            assert answers in ([], [m.Connack(False, 5)])
    assert field.rows() == {}


@VERSIONS
def test_c15_publishes_before_a_slow_lookup_answers(field: Field, version: int) -> None:
    burst = [codec.encode(publish(packet_id=n), version) for n in range(1, 1_001)]
    big = codec.encode(publish(payload=b'{"bad":"' + b"x" * 60_000 + b'"}'), version)
    for early in (burst, [big] * 6):
        field.another_device()  # no worker knows it yet
        accepted = codec.encode(connect(field.mallory, version), version)
        with field.server.paused("controller"), field.wire(version) as wire:
            wire.send(accepted + b"".join(early))
            answers = wire.expect_close()
            reasons = [p.reason_code for p in answers if isinstance(p, m.Disconnect)]
            assert reasons == ([Code.QUOTA_EXCEEDED] if version == 5 else [])
            assert len(answers) == len(reasons)
        assert field.rows() == {}
    field.another_device()
    accepted = codec.encode(connect(field.mallory, version), version)
    with field.wire(version) as wire:  # within the bound: all of it is answered
        with field.server.paused("controller"):
            wire.send(accepted + b"".join(burst[:100]))
        assert isinstance(wire.receive(), m.Connack)
        assert [wire.receive() for _ in range(100)] == [m.Puback(n) for n in range(1, 101)]
