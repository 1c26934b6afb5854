"""Hostile MQTT from PUBLISH to properties (hostile-input spec 6 to 8), canaries beside it.

Each test names its rows of the specification.  What must hold besides - canaries undisturbed, same
processes, memory and descriptors back - is checked after every test by the fixture `field`.
"""

import json
import re
import threading

import pytest

from tbfast import limits
from tbfast.codec import mqtt as codec
from tbfast.model import mqtt as m
from tbfast.model.mqtt import ReasonCode as Code
from tests.support.battlefield import Field, scaled
from tests.support.mqtt_raw import PLACES, Place, block, frame, may_carry, sample, text, varint
from tests.support.mqtt_raw import connect as raw_connect
from tests.support.oracle_mqtt import PROPERTIES

VERSIONS = pytest.mark.parametrize("version", [4, 5])
ALL_VERSIONS = pytest.mark.parametrize("version", [3, 4, 5])
SEED = 20_240_607


def publish(topic: str = "v2/t", payload: bytes = b'{"bad":1}', packet_id: int = 1) -> m.Publish:
    return m.Publish(topic, payload, 1, packet_id=packet_id)


# --- 6: PUBLISH and acknowledgements ---------------------------------------------------------


@VERSIONS
def test_p1_topics(field: Field, version: int) -> None:
    empty = b"\x00" if version == 5 else b""
    for topic in ("+", "#", "v2/#", "v1/+/me", "v2/t\x00"):
        field.refused(frame(0x32, text(topic) + b"\x00\x01" + empty + b"{}"), version)
    if version == 4:
        field.refused(frame(0x32, text("") + b"\x00\x01{}"), version)
    with field.open(version) as wire:
        for topic in ("/" * 30_000, "x" * 65_000, "v1/" * 20_000, "v2/t" + "/" * 100):
            wire.send(publish(topic))
            answer = wire.receive()
            assert isinstance(answer, m.Puback)
            assert answer.reason_code == (Code.TOPIC_NAME_INVALID if version == 5 else 0)
    assert field.rows() == {}


@VERSIONS
def test_p2_qos_3_and_packet_id_0(field: Field, version: int) -> None:
    empty = b"\x00" if version == 5 else b""
    for first, packet_id in ((0x36, 1), (0x32, 0), (0x34, 0)):
        body = text("v2/t") + packet_id.to_bytes(2, "big") + empty + b'{"bad":1}'
        field.refused(frame(first, body), version)
    assert field.rows() == {}


def test_p3_one_packet_id_again_and_again(field: Field) -> None:
    with field.open() as wire:
        count = scaled(2_000)
        wire.send(codec.encode(publish(payload=b'{"again":1}'), 4) * count)
        for _ in range(count):
            assert wire.receive() == m.Puback(1)


def test_p4_qos_2_with_one_id(field: Field) -> None:
    count = min(scaled(6_553), 65_535)
    record = b'{"ts":%d,"values":{"once":1}}'
    raw = b"".join(
        codec.encode(m.Publish("v2/t", record % n, 2, dup=n > 0, packet_id=7), 4)
        for n in range(count)
    )
    with field.open() as wire:
        sender = threading.Thread(target=wire.sock.sendall, args=(raw,))
        sender.start()
        for _ in range(count):
            assert wire.receive(30) == m.Pubrec(7)
        sender.join()
    assert field.server.query(field.mallory, "once")["once"] == [{"ts": 0, "value": 1}]


@VERSIONS
def test_p5_answers_to_nothing(field: Field, version: int) -> None:
    for kind in (m.Puback, m.Pubrec, m.Pubcomp):
        for packet_id in (1, 65_535):
            field.ignored(codec.encode(kind(packet_id), version), version)


def test_p6_topic_aliases(field: Field) -> None:
    def aliased(topic: str, alias: int) -> m.Publish:
        properties = m.Properties(topic_alias=alias)
        return m.Publish(topic, b'{"alias":1}', 1, packet_id=1, properties=properties)

    with field.open(5) as wire:
        for alias in (0, 1, 16, 17, 65_535):
            wire.send(aliased("", alias))
            answer = wire.receive()
            assert isinstance(answer, m.Puback)
            assert answer.reason_code == Code.TOPIC_NAME_INVALID
        for alias in (0, 17, 65_535):
            wire.send(aliased("v2/t", alias))
            wire.expect(m.Puback(1))
        for round_number in range(scaled(50)):  # 16 KiB of topics, whatever is announced
            for alias in range(1, 17):
                wire.send(aliased(f"{round_number}" + "x" * 60_000, alias))
                assert isinstance(wire.receive(), m.Puback)


def test_p7_p10_publishes_without_reading(field: Field) -> None:
    """More in flight than was announced; back-pressure, then every answer and every row."""
    count = scaled(10_000)
    with field.open(5, buffer_bytes=8_192) as wire:
        wire.sock.settimeout(30)
        done = threading.Event()

        def send() -> None:
            for first in range(0, count, 500):
                wire.sock.sendall(
                    b"".join(
                        codec.encode(
                            publish(
                                payload=b'{"ts":%d,"values":{"flood":%d}}' % (n, n),
                                packet_id=n % 65_535 + 1,
                            ),
                            5,
                        )
                        for n in range(first, first + 500)
                    )
                )
            done.set()

        sender = threading.Thread(target=send)
        sender.start()
        done.wait(2)  # or until back-pressure holds it
        for number in range(count):
            assert wire.receive() == m.Puback(number % 65_535 + 1)
        sender.join()
    assert field.server.values(field.mallory, "flood") == list(range(count))


# --- 7: SUBSCRIBE and sessions ---------------------------------------------------------------


def subscribe(*entries: bytes, properties: bytes | None = None, version: int = 4) -> bytes:
    head = b"\x00\x01" + ((properties or b"\x00") if version == 5 else b"")
    return frame(0x82, head + b"".join(entries))


def codes(field: Field, version: int, *entries: bytes) -> tuple[int, ...]:
    with field.open(version) as wire:
        wire.send(subscribe(*entries, version=version))
        answer = wire.receive()
        assert isinstance(answer, m.Suback)
        return answer.reason_codes


@VERSIONS
def test_s1_malformed_subscribes(field: Field, version: int) -> None:
    field.refused(subscribe(version=version), version)
    options = [0x03, 0x40, 0x80] + ([0x30] if version == 5 else [0x04, 0x08])
    for option in options:
        field.refused(subscribe(text("v2/a") + bytes([option]), version=version), version)


@VERSIONS
def test_s2_s3_s4_s10_filters_that_fail_alone(field: Field, version: int) -> None:
    failure = 0x8F if version == 5 else 0x80
    filters = [
        "/" * 65_400, "+/" * 32_000 + "+", "a+/b", "a/#/b", "#a", "", "#", "+/#",
        "$share//x", "$share/+/x", "$share/g", "$share/g/v2/a",
    ]  # fmt: skip
    for one in filters:
        assert codes(field, version, text(one) + b"\x00") == (failure,)
    many = codes(field, version, *[text("v2/a") + b"\x01"] * 9_000)
    bound = limits.MQTT_FILTERS_PER_SUBSCRIBE
    assert many[:bound] == (1,) * bound
    assert set(many[bound:]) == {Code.QUOTA_EXCEEDED if version == 5 else 0x80}
    assert len(many) == 9_000
    if version == 5:  # No Local on a shared filter
        assert codes(field, 5, text("$share/g/v2/a") + b"\x04") == (failure,)


def test_s6_control_characters_stay_where_they_are(field: Field) -> None:
    marker = "\r\n\x1b[31mERROR forged line\t"
    for version in (4, 5):
        assert codes(field, version, text(marker) + b"\x00")[0] >= 0x80
        with field.open(version) as wire:
            wire.send(publish(marker))
            assert isinstance(wire.receive(), m.Puback)
    with field.wire() as wire:
        assert wire.connect(marker, client_id=marker).reason_code == 5
    log = field.server.log()
    assert not re.search(r"^.{0,3}ERROR forged", log, re.MULTILINE)
    assert "\x1b" not in log


def test_s11_subscription_identifiers(field: Field) -> None:
    entry = text("v2/a") + b"\x00"
    for bad in (
        block(b"\x0b\x00"),
        block(b"\x0b\x80\x80\x80\x80\x01"),
        block(b"\x0b\x01", b"\x0b\x02"),
    ):
        field.refused(subscribe(entry, properties=bad, version=5), 5)


# --- 8: properties ---------------------------------------------------------------------------

UNKNOWN = [0x00, 0x04, 0x07, 0x0A, 0x10, 0x14, 0x1B, 0x20, 0x2B, 0x7F]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
def test_v1_v2_v3_v4_v5_v6_property_blocks(field: Field, place: Place) -> None:
    user = sample(0x26)
    wrong = [
        *(block(bytes([number]) + b"\x00\x00\x00\x00") for number in UNKNOWN),  # V1
        *(block(sample(i)) for i in PROPERTIES if not may_carry(place.name, i)),  # V2
        varint(100) + user,  # V3: past the packet
        varint(127) + user * 2,
        varint(len(user) - 1) + user,  # past the block
        block(user, b"\x26"),  # ends inside a property
        b"\x80\x80\x80\x80\x01",  # V4
        b"\xff\xff\xff\xff\x7f",
        block(b"\x26" + text("k")),  # V5
        block(b"\x26" + text("k") + b"\x00"),
        block(b"\x26" + text("k") + b"\x00\x05v"),
        block(b"\xa6\x00" + text("k") + text("v")),  # V6
    ]
    for one in wrong:
        raw = place.packet(one)
        with field.open(5) as wire:
            wire.send(raw)
            answers = wire.expect_close()
            assert [p.reason_code for p in answers if isinstance(p, m.Disconnect)] == [0x81], raw
    assert field.rows() == {}


def test_v1_v2_v3_v4_v5_v6_in_connect_and_will(field: Field) -> None:
    user = sample(0x26)
    for where in ("CONNECT", "WILL"):
        wrong = [
            *(block(bytes([number]) + b"\x00\x00\x00\x00") for number in UNKNOWN),
            *(block(sample(i)) for i in PROPERTIES if not may_carry(where, i)),
            varint(10_000) + user,
            varint(len(user) - 1) + user,
            b"\x80\x80\x80\x80\x01",
            block(b"\x26" + text("k")),
            block(b"\xa6\x00" + text("k") + text("v")),
        ]
        for one in wrong:
            if where == "CONNECT":
                field.cut(raw_connect(version=5, block=one))
            else:
                will = one + text("w") + text("w")
                field.cut(raw_connect(version=5, flags=0x86, will=will))


def test_every_property_where_it_belongs_is_harmless(field: Field) -> None:
    """The other side of V2, so that the cases above fail for the reason they name."""
    for place in PLACES:
        if place.name == "DISCONNECT":
            continue
        allowed = [i for i in PROPERTIES if may_carry(place.name, i)]
        with field.open(5) as wire:
            wire.send(*[place.packet(block(sample(i))) for i in allowed])
            wire.send(m.Pingreq())
            while wire.receive() != m.Pingresp():
                continue


def test_rows_of_valid_devices_only(field: Field) -> None:
    """I6: nothing that was refused left a device or a session behind."""
    listed = json.loads(field.server.cli("device", "list", "--json"))
    names = {device["name"] for device in listed}
    assert {n for n in names if n.startswith("wrong") or n == "nobody"} == set()
    assert field.server.node()["workers"][0]["connections"] == 20
