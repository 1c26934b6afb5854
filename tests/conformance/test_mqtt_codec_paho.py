"""The codec against paho-mqtt's own encoder, byte for byte."""

import socket
from collections.abc import Iterator

import pytest
from paho.mqtt import client as paho
from paho.mqtt import properties as paho_properties
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode as PahoReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from tbfast.codec.mqtt import decode, encode
from tbfast.model.mqtt import (
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Subscribe,
    Subscription,
    Unsubscribe,
    Will,
)
from tests.support.mqtt_vectors import load


class Recorder(paho.Client):
    """A paho client that is never connected: it keeps the packets it would send."""

    def __init__(self, version: int, client_id: str = "c") -> None:
        clean = {"clean_session": True} if version < 5 else {}
        super().__init__(
            paho.CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTProtocolVersion(version),
            **clean,
        )  # fmt: skip
        self.sent: list[bytes] = []
        self._sock, self.other_end = socket.socketpair()

    def _packet_queue(self, command, packet, mid, qos, info=None):  # type: ignore[no-untyped-def]
        self.sent.append(bytes(packet))
        return paho.MQTT_ERR_SUCCESS

    def close(self) -> None:
        self._sock.close()
        self._sock = None
        self.other_end.close()


@pytest.fixture(params=[3, 4, 5])
def recorder(request: pytest.FixtureRequest) -> Iterator[Recorder]:
    client = Recorder(request.param)
    yield client
    client.close()


def check(recorder: Recorder, *packets: Packet) -> None:
    version = int(recorder._protocol)
    assert [decode(data, version) for data in recorder.sent] == list(packets)
    assert recorder.sent == [encode(packet, version) for packet in packets]


def test_connect(recorder: Recorder) -> None:
    recorder.username_pw_set("token", "secret")
    recorder.will_set("w/é", b"\x00gone", qos=2, retain=True)
    recorder._send_connect(77)
    will = Will("w/é", b"\x00gone", 2, True)
    check(recorder, Connect(int(recorder._protocol), "c", True, 77, "token", b"secret", will))


def test_publish(recorder: Recorder) -> None:
    recorder._send_publish(1, b"v1/devices/me/telemetry", b"{}", qos=1)
    recorder._send_publish(65_535, b"t", b"x" * 300, qos=2, retain=True, dup=True)
    recorder._send_publish(9, "é".encode(), b"")
    check(
        recorder,
        Publish("v1/devices/me/telemetry", b"{}", 1, packet_id=1),
        Publish("t", b"x" * 300, 2, True, True, 65_535),
        Publish("é", b""),
    )


def test_acknowledgements_and_ping(recorder: Recorder) -> None:
    recorder._send_puback(258)
    recorder._send_pubrec(2)
    recorder._send_pubrel(3)
    recorder._send_pubcomp(4)
    recorder._send_pingreq()
    recorder._send_disconnect()
    check(recorder, Puback(258), Pubrec(2), Pubrel(3), Pubcomp(4), Pingreq(), Disconnect())


def test_subscribe_and_unsubscribe(recorder: Recorder) -> None:
    if recorder._protocol == paho.MQTTv5:
        options = SubscribeOptions(qos=2, noLocal=True, retainAsPublished=True, retainHandling=2)
        recorder._send_subscribe(False, [(b"a/+", options), (b"#", SubscribeOptions(qos=1))])
        wanted = (Subscription("a/+", 2, True, True, 2), Subscription("#", 1))
    else:
        recorder._send_subscribe(False, [(b"a/+", 2), (b"#", 1)])
        wanted = (Subscription("a/+", 2), Subscription("#", 1))
    recorder._send_unsubscribe(False, [b"a/+", b"#"])
    check(recorder, Subscribe(1, wanted), Unsubscribe(2, ("a/+", "#")))


def test_disconnect_with_reason() -> None:
    client = Recorder(5)
    client._send_disconnect(PahoReasonCode(PacketTypes.DISCONNECT, identifier=4))
    client.close()
    assert [decode(data, 5) for data in client.sent] == [Disconnect(4)]


def paho_name(field: str) -> str:
    special = {
        "maximum_qos": "MaximumQoS",
        "user_properties": "UserProperty",
        "subscription_identifiers": "SubscriptionIdentifier",
    }
    return special.get(field, "".join(word.capitalize() for word in field.split("_")))


def blocks() -> Iterator[tuple[str, int, Properties, bytes]]:
    """Name, paho's packet type, properties and bytes of each vector that has some."""
    for vector in load():
        if vector.packet is None:
            continue
        block, kind = getattr(vector.packet, "properties", None), vector.data[0] >> 4
        will = getattr(vector.packet, "will", None)
        if will is not None and will.properties is not None:
            block, kind = will.properties, PacketTypes.WILLMESSAGE
        # paho refuses to build topic alias 0, which ThingsBoard ignores.
        if block is not None and block.topic_alias != 0:
            yield vector.name, kind, block, vector.data


BLOCKS = {name: rest for name, *rest in blocks()}


@pytest.mark.parametrize("name", BLOCKS)
def test_property_blocks(name: str) -> None:
    """What paho packs for the same properties stands in the vector that we accept."""
    kind, block, data = BLOCKS[name]
    theirs = paho_properties.Properties(kind)
    for field in block.__struct_fields__:
        value = getattr(block, field)
        if value in (None, ()):
            continue
        values = value if isinstance(value, tuple) else (value,)
        for each in values:
            setattr(theirs, paho_name(field), each)
    assert theirs.pack() in data
