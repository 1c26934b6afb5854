"""Hostile MQTT sessions (hostile-input spec 5 to 7): what they leave behind, canaries beside them.

Each test names its rows of the specification.  What must hold besides - canaries undisturbed, same
processes, memory and descriptors back - is checked after every test by the fixture `field`.
"""

import threading
import time

import pytest

from tbfast import limits
from tbfast.codec import mqtt as codec
from tbfast.model import mqtt as m
from tests.support.battlefield import Field, scaled
from tests.support.canaries import cpu_s
from tests.support.mqtt_raw import block, frame, text
from tests.support.mqtt_raw import connect as raw_connect
from tests.support.waiting import wait_until
from tests.support.wire import TELEMETRY, Wire, connect

VERSIONS = pytest.mark.parametrize("version", [4, 5])
RECORD = b'{"ts":1,"values":{"bad":1}}'


@VERSIONS
def test_c6_wills_are_never_published(field: Field, version: int) -> None:
    """Parsed and ignored, whatever the topic; one for telemetry leaves no row either."""
    empty = b"\x00" if version == 5 else b""
    topics = ["+", "#", "", "$SYS/x", "v1/devices/me/attributes", TELEMETRY, "x" * 60_000]
    with field.open(version) as listener:
        listener.send(m.Subscribe(1, (m.Subscription("v2/a", 1),)))
        assert isinstance(listener.receive(), m.Suback)
        for number, topic in enumerate(topics):
            name = field.server.add_device(f"{field.mallory}-will-{number}-{version}")
            with field.wire(version) as wire:
                will = empty + text(topic) + text(RECORD)
                wire.send(raw_connect(version=version, flags=0xA6, will=will, user=name.encode()))
                answer = wire.receive()
                assert isinstance(answer, m.Connack)
                assert answer.reason_code == 0
                wire.reset()
            assert field.server.query(name) == {}
        listener.ping()


def test_c6_will_delay_beyond_the_session(field: Field) -> None:
    with field.wire(5) as wire:
        will = block(b"\x18\xff\xff\xff\xff") + text(TELEMETRY) + text(RECORD)
        wire.send(raw_connect(version=5, flags=0x86, will=will, user=field.mallory.encode()))
        assert isinstance(wire.receive(), m.Connack)
        wire.reset()
    assert field.rows() == {}


def test_c7_keep_alives_of_every_length(field: Field) -> None:
    """They are not enforced: nobody is sent away early, and no timer costs anything."""
    wires = []
    for number in range(scaled(150)):
        name = field.server.add_device(f"{field.mallory}-alive-{number}")
        wires.append(field.wire().open(name, keep_alive=(0, 1, 65_535)[number % 3]))
    begun, before = time.monotonic(), cpu_s(field.worker)
    wait_until(lambda: time.monotonic() > begun + 2.5, 10, "more than twice a second has passed")
    quiet = cpu_s(field.worker) - before
    for wire in wires:
        wire.ping()
        wire.close()
    assert quiet < 1.0, "idle sessions cost the worker"


def test_c8_wrong_tokens_beside_good_ones(field: Field) -> None:
    names = [field.server.add_device(f"{field.mallory}-good-{n}") for n in range(10)]
    over = threading.Event()
    refused = []

    def guess() -> None:
        number = 0
        while not over.is_set() and number < scaled(2_000):
            number += 1
            with field.wire() as wire:
                refused.append(wire.connect(f"guess-{number}-{threading.get_ident()}").reason_code)

    guessers = [threading.Thread(target=guess) for _ in range(2)]
    for one in guessers:
        one.start()
    for round_number in range(5):
        for name in names:
            with field.wire().open(name) as wire:
                wire.publish(f'{{"ts":{round_number},"values":{{"n":1}}}}')
    over.set()
    for one in guessers:
        one.join(30)
        assert not one.is_alive()
    assert set(refused) == {5}
    for name in names:
        assert len(field.server.values(name, "n")) == 5


def test_c11_authentication_method_and_data(field: Field) -> None:
    properties = m.Properties(authentication_method="SCRAM", authentication_data=b"\x00" * 60_000)
    with field.open(5, properties=properties) as wire:
        for _ in range(scaled(50)):
            wire.send(m.Auth(0x19, properties))
        wire.ping()


def test_c13_a_client_that_takes_twenty_bytes(field: Field) -> None:
    """Larger packets are dropped, never split, never tried again; smaller ones arrive."""
    with field.open(5, properties=m.Properties(maximum_packet_size=20)) as wire:
        wire.send(m.Subscribe(1, (m.Subscription("v2/a", 1),)))
        wire.expect(m.Suback(1, (1,)))
        for number in range(20):
            value = "x" * 100 * number
            field.server.save_attributes(field.mallory, "SHARED_SCOPE", {"a": value})
        field.server.save_attributes(field.mallory, "SHARED_SCOPE", {"a": 1})
        heard = []
        while not heard or heard[-1] != b'{"a":1}':
            packet = wire.receive()
            assert isinstance(packet, m.Publish)
            assert len(wire.bytes_of(packet)) <= 20
            heard.append(bytes(packet.payload))
        assert heard == [b'{"a":""}', b'{"a":1}']
        wire.ping()


def test_p8_retained_messages_are_kept_by_nobody(field: Field) -> None:
    count = scaled(2_000)
    with field.open() as wire:
        packets = [m.Publish(f"t/{n}", b"x" * 100, retain=True) for n in range(count)]
        wire.send(*packets, m.Publish(TELEMETRY, RECORD, 1, retain=True, packet_id=1))
        wire.send(m.Publish("v1/devices/me/attributes", b'{"a":1}', 1, retain=True, packet_id=2))
        wire.expect(m.Puback(1), m.Puback(2))
    with field.wire().open(field.mallory) as wire:
        wire.send(m.Subscribe(3, (m.Subscription("v1/devices/me/attributes", 1),)))
        wire.expect(m.Suback(3, (1,)))
        wire.ping()  # nothing came before
    assert set(field.rows()) == {"bad"}


@VERSIONS
def test_p9_topics_outside_the_device_api(field: Field, version: int) -> None:
    lines = field.server.log().count("\n")
    with field.open(version) as wire:
        for topic in ("$SYS/broker/uptime", "v1/devices/other/telemetry", "/provision/request"):
            for _ in range(scaled(500)):
                wire.send(m.Publish(topic, RECORD, 1, packet_id=5))
            for _ in range(scaled(500)):
                answer = wire.receive()
                assert isinstance(answer, m.Puback)
                assert answer.reason_code == (0x90 if version == 5 else 0)
        wire.send(*[m.Publish("v1/gateway/telemetry", RECORD, 1, packet_id=6)] * scaled(500))
        wire.ping()  # dropped in silence
    assert field.rows() == {}
    assert field.server.log().count("\n") - lines < 200  # I8


@VERSIONS
def test_s5_what_a_device_may_not_hear(field: Field, version: int) -> None:
    failure = 0x8F if version == 5 else 0x80
    filters = ("#", "+/#", "v1/#", "v1/devices/me/#", "v1/devices/+/attributes",
               "v1/devices/other/attributes", "v1/devices/me/rpc/request/#", "$SYS/#")  # fmt: skip
    other = field.server.add_device(f"{field.mallory}-neighbour")
    with field.open(version) as wire:
        wire.send(m.Subscribe(1, tuple(m.Subscription(f, 1) for f in filters)))
        wire.expect(m.Suback(1, (failure,) * len(filters)))
        for device in (other, field.mallory):
            field.server.save_attributes(device, "SHARED_SCOPE", {"secret": 1})
        wire.ping()
        wire.send(m.Subscribe(2, (m.Subscription("v1/devices/me/attributes", 1),)))
        wire.expect(m.Suback(2, (1,)))
        field.server.save_attributes(other, "SHARED_SCOPE", {"secret": 2})
        field.server.save_attributes(field.mallory, "SHARED_SCOPE", {"own": 3})
        heard = wire.receive()
        assert isinstance(heard, m.Publish)
        assert bytes(heard.payload) == b'{"own":3}'


def test_s7_subscribing_again_and_again(field: Field) -> None:
    """No slower in the end than in the beginning."""
    pair = codec.encode(m.Subscribe(1, (m.Subscription("v2/a", 1),)), 5)
    pair += codec.encode(m.Unsubscribe(2, ("v2/a",)), 5)
    costs = []
    with field.open(5) as wire:
        for _ in range(4):
            before = cpu_s(field.worker)
            for _ in range(scaled(20)):
                wire.send(pair * 50)
                wire.expect(*[m.Suback(1, (1,)), m.Unsuback(2, (0,))] * 50)
            costs.append(cpu_s(field.worker) - before)
    assert costs[-1] <= 3 * costs[0] + 0.2, costs


def test_s8_sessions_that_want_to_last_for_ever(field: Field) -> None:
    properties = m.Properties(session_expiry_interval=0xFFFFFFFF)
    for number in range(scaled(20)):
        with field.open(5, client_id=f"new-{number}", properties=properties) as wire:
            wire.send(m.Subscribe(1, (m.Subscription("v2/a", 1),)))
            wire.expect(m.Suback(1, (1,)))
            wire.reset()
    with field.wire(5) as wire:
        answer = wire.connect(
            field.mallory, client_id="new-1", clean_start=False, properties=properties
        )
        assert answer.session_present is False
        assert answer.properties is not None
        assert answer.properties.session_expiry_interval == 0
        field.server.save_attributes(field.mallory, "SHARED_SCOPE", {"a": 1})
        wire.ping()


def test_s9_pushes_to_a_device_that_acknowledges_nothing(field: Field) -> None:
    """Bounded in messages and bytes; what is beyond is dropped, the session stays."""
    with field.open(5, properties=m.Properties(receive_maximum=1), timeout_s=30) as wire:
        wire.send(m.Subscribe(1, (m.Subscription("v2/a", 1),)))
        wire.expect(m.Suback(1, (1,)))
        big = {"a": "x" * (limits.MQTT_DOWNLINK_QUEUE_BYTES // 8)}
        for number in range(scaled(100)):
            field.server.save_attributes(field.mallory, "SHARED_SCOPE", big | {"n": number})
        heard = []
        while len(heard) < 8:  # the first, and as many as the queue holds
            packet = wire.receive()
            assert isinstance(packet, m.Publish)
            heard.append(packet.packet_id)
            wire.send(m.Puback(packet.packet_id or 0))
        wire.ping()
        field.server.save_attributes(field.mallory, "SHARED_SCOPE", {"b": 1})
        last = wire.receive()
        assert isinstance(last, m.Publish)
        assert bytes(last.payload) == b'{"b":1}'


@VERSIONS
def test_s12_unsubscribing_from_nothing(field: Field, version: int) -> None:
    empty = b"\x00" if version == 5 else b""
    field.refused(frame(0xA2, b"\x00\x01" + empty), version)
    with field.open(version) as wire:
        wire.send(m.Unsubscribe(1, tuple(f"f{n % 10}" for n in range(10_000))))
        wire.expect(m.Unsuback(1, (0x11,) * 10_000 if version == 5 else ()))


@VERSIONS
def test_t8_answers_to_calls_that_nobody_made(field: Field, version: int) -> None:
    with field.open(version) as wire:
        for request in (0, 1, -1, 2**31 - 1, -(2**31)):
            for answer in (b"{}", b"no JSON", b"", b"x" * 60_000):
                topic = f"v1/devices/me/rpc/response/{request}"
                wire.send(m.Publish(topic, answer, 1, packet_id=7))
                wire.expect(m.Puback(7))
        wire.ping()
    assert field.rows() == {}


def test_t9_a_request_that_names_ten_thousand_keys(field: Field) -> None:
    names = ",".join(f"k{number}" for number in range(10_000))
    body = f'{{"clientKeys":"{names}"}}'.encode()
    request = m.Publish("v1/devices/me/attributes/request/1", body, 1, packet_id=7)
    before = cpu_s(field.server.pids()["controller"])
    with field.open() as wire:
        for _ in range(scaled(10)):
            wire.send(request)
            wire.expect(m.Puback(7))
            answer = wire.receive()
            assert isinstance(answer, m.Publish) and bytes(answer.payload) == b"{}"
            wire.send(m.Puback(answer.packet_id or 0))
    spent = cpu_s(field.server.pids()["controller"]) - before
    assert spent / scaled(10) < 0.1


def test_a_wire_speaks_for_one_device_only(field: Field) -> None:
    """C5, M10: a name in the user name of a second CONNECT changes nothing."""
    other = field.server.add_device(f"{field.mallory}-other")
    with Wire(field.server.mqtt_port, version=5).open(field.mallory) as wire:
        wire.send(connect(other, 5), m.Publish(TELEMETRY, RECORD, 1, packet_id=1))
        wire.expect_close()
    assert field.server.query(other) == {}
    assert field.rows() == {}
