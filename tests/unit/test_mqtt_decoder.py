"""Behaviour of Decoder and encode that a single packet's bytes cannot show."""

import pytest

from tbfast.codec.mqtt import (
    Decoder,
    MalformedPacket,
    PacketTooLarge,
    UnsupportedProtocol,
    decode,
    encode,
)
from tbfast.errors import LocalError, PeerError
from tbfast.limits import MQTT_MAX_REMAINING_BYTES, MQTT_USER_PROPERTIES
from tbfast.model.mqtt import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Properties,
    Puback,
    Publish,
    Pubrel,
    ReasonCode,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Will,
)

PING = b"\xc0\x00"
QOS_3 = b"\x36\x05\x00\x01t\x00\x01"
HUGE = b"\x30\xff\xff\xff\x7f"


def decoder(version: int = 5) -> Decoder:
    return Decoder(max_remaining=MQTT_MAX_REMAINING_BYTES, version=version)


def test_packets_before_a_bad_one_are_not_lost() -> None:
    stream = decoder()
    assert stream.feed(PING + PING + QOS_3 + PING) == [Pingreq(), Pingreq()]
    assert isinstance(stream.failed, MalformedPacket)
    with pytest.raises(MalformedPacket) as caught:
        stream.feed(b"")
    assert caught.value is stream.failed


def test_a_bad_packet_alone_is_raised_at_once_and_stays() -> None:
    stream = decoder()
    for data in (QOS_3, PING, PING):
        with pytest.raises(MalformedPacket):
            stream.feed(data)


@pytest.mark.parametrize(
    ("data", "kind", "code"),
    [
        (QOS_3, MalformedPacket, ReasonCode.MALFORMED_PACKET),
        (HUGE, PacketTooLarge, ReasonCode.PACKET_TOO_LARGE),
        (b"\x10\x0c\x00\x04MQTT\x06\x02\x00\x00\x00\x00", UnsupportedProtocol, None),
    ],
)
def test_errors_carry_the_wire_code(data: bytes, kind: type[PeerError], code: int | None) -> None:
    with pytest.raises(kind) as caught:
        decoder().feed(data)
    assert caught.value.code == code


def test_too_large_is_found_on_the_header_and_nothing_is_kept() -> None:
    stream = decoder()
    for byte in HUGE[:-1]:
        assert stream.feed(bytes([byte])) == []
    with pytest.raises(PacketTooLarge):
        stream.feed(HUGE[-1:])
    assert stream.buffered == 0


def test_limit_is_on_the_remaining_length_and_inclusive() -> None:
    body = b"\x00\x01t" + bytes(MQTT_MAX_REMAINING_BYTES - 3)
    packet = b"\x30\x80\x80\x04" + body
    assert decoder(4).feed(packet) == [Publish("t", body[3:])]
    with pytest.raises(PacketTooLarge):
        Decoder(max_remaining=MQTT_MAX_REMAINING_BYTES - 1, version=4).feed(packet)


def test_only_received_bytes_of_the_unfinished_packet_are_kept() -> None:
    stream = decoder(4)
    packet = b"\x30\xff\xff\x03\x00\x01t"
    assert stream.feed(PING + packet) == [Pingreq()]
    assert stream.buffered == len(packet)
    assert stream.feed(bytes(65_535 - 3) + PING) == [
        Publish("t", bytes(65_532)),
        Pingreq(),
    ]
    assert stream.buffered == 0


@pytest.mark.parametrize(
    "short",
    [
        b"\x30\x03\x00\x02t",
        b"\x30\x05\x00\x01t\x02\x01",
        b"\xa2\x06\x00\x01\x00\x00\x02a",
        b"\x82\x06\x00\x01\x00\x00\x01a",
        b"\x40\x04\x00\x01\x00\x01",
        b"\xe0\x02\x00\x01",
    ],
)
def test_a_field_never_swallows_the_next_packet(short: bytes) -> None:
    """Hostile-input M5: the byte that is missing here stands right behind the packet."""
    for following in (b"\x30\x03\x00\x01t", b"\x01", PING):
        with pytest.raises(MalformedPacket, match=r"malformed [PUSD]"):
            decoder(5).feed(short + following)


def test_version_comes_from_the_first_connect() -> None:
    stream = decoder(0)
    assert stream.version == 0
    stream.feed(encode(Connect(5, "c"), 5))
    assert stream.version == 5
    stream.feed(encode(Connect(4, "c"), 4))
    assert stream.version == 5
    assert stream.feed(encode(Puback(1, 0x97), 5)) == [Puback(1, 0x97)]


def test_before_connect_packets_are_read_as_311() -> None:
    assert decoder(0).feed(b"\x30\x04\x00\x01t\x00") == [Publish("t", b"\x00")]
    with pytest.raises(MalformedPacket):
        decoder(0).feed(b"\xf0\x00")


@pytest.mark.parametrize("version", [1, 2, 6, -1, 256, None])
def test_unknown_version_is_our_own_mistake(version: int) -> None:
    with pytest.raises(LocalError):
        Decoder(max_remaining=1, version=version)
    with pytest.raises(LocalError):
        decode(PING, version)
    with pytest.raises(LocalError):
        encode(Pingreq(), version)


@pytest.mark.parametrize("data", [b"", b"\xc0", PING + b"\x00", PING + PING, b"\x30\x05\x00\x01t"])
def test_decode_wants_exactly_one_packet(data: bytes) -> None:
    with pytest.raises(MalformedPacket):
        decode(data, 5)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer(kind: type) -> None:
    assert decoder().feed(kind(PING)) == [Pingreq()]
    assert decode(kind(PING), 4) == Pingreq()


def test_a_result_does_not_change_with_the_buffer_it_came_from() -> None:
    data = bytearray(encode(Publish("topic", b"payload"), 4))
    (packet,) = decoder(4).feed(data)
    data[:] = bytes(len(data))
    assert packet == Publish("topic", b"payload")


LONG = "x" * 65_536


@pytest.mark.parametrize(
    ("packet", "version"),
    [
        (Publish("a/#", b""), 5),
        (Publish("a/+", b""), 4),
        (Publish("", b""), 4),
        (Publish("a\0", b""), 4),
        (Publish("\ud800", b""), 4),
        (Publish(LONG, b""), 4),
        (Publish("a", b"", qos=1), 4),
        (Publish("a", b"", qos=1, packet_id=0), 4),
        (Publish("a", b"", qos=1, packet_id=65_536), 4),
        (Publish("a", b"", qos=0, packet_id=1), 4),
        (Publish("a", b"", qos=3, packet_id=1), 4),
        (Publish("a", b"", qos=-1, packet_id=1), 4),
        (Publish("a", b"", properties=Properties(maximum_qos=1)), 5),
        (Publish("a", b"", properties=Properties(topic_alias=65_536)), 5),
        (Publish("a", b"", properties=Properties(payload_format_indicator=256)), 5),
        (Publish("a", b"", properties=Properties(message_expiry_interval=2**32)), 5),
        (
            Publish("a", b"", properties=Properties(subscription_identifiers=(2**28,))),
            5,
        ),
        (Publish("a", b"", properties=Properties(content_type=LONG)), 5),
        (Publish("a", b"", properties=Properties(user_properties=(("k", LONG),))), 5),
        (Puback(1, 256), 5),
        (Puback(1, properties=Properties(user_properties=(("k", "v"),) * 65)), 5),
        (Pubrel(0), 5),
        (Connect(6, "c"), 5),
        (Connect(4, "c", keep_alive=65_536), 4),
        (Connect(4, LONG), 4),
        (Connect(4, "c", password=bytes(65_536)), 4),
        (Connect(4, "c", will=Will("t", qos=3)), 4),
        (Connect(5, "c", will=Will("t", properties=Properties(receive_maximum=1))), 5),
        (Connack(False, -1), 4),
        (Subscribe(1, ()), 4),
        (Subscribe(1, (Subscription("a", qos=3),)), 4),
        (Subscribe(1, (Subscription("a", retain_handling=3),)), 5),
        (Subscribe(1, (Subscription(LONG),)), 4),
        (
            Subscribe(1, (Subscription("a"),), Properties(subscription_identifiers=(1, 2))),
            5,
        ),
        (Suback(1, ()), 4),
        (Suback(1, (256,)), 4),
        (Unsubscribe(1, ()), 4),
        (Unsubscribe(1, (LONG,)), 4),
        (Unsuback(1), 5),
        (Auth(), 4),
    ],
)
def test_encode_refuses_what_decode_would_refuse(packet: Packet, version: int) -> None:
    with pytest.raises(LocalError):
        encode(packet, version)


def test_encode_refuses_other_types() -> None:
    with pytest.raises(LocalError):
        encode("PINGREQ", 4)  # type: ignore[arg-type]


def test_fields_a_version_lacks_are_left_out() -> None:
    reason = Properties(reason_string="no")
    assert encode(Puback(1, 0x97, reason), 4) == b"\x40\x02\x00\x01"
    assert encode(Disconnect(0x8E, reason), 4) == b"\xe0\x00"
    assert encode(Unsuback(1, (17,)), 4) == b"\xb0\x02\x00\x01"
    assert (
        encode(Publish("t", b"", properties=Properties(topic_alias=1)), 4) == b"\x30\x03\x00\x01t"
    )
    option = Subscription("a", 1, True, True, 2)
    assert encode(Subscribe(1, (option,)), 4) == b"\x82\x06\x00\x01\x00\x01a\x01"


def test_thingsboard_forms_of_outcomes() -> None:
    """MQTT spec 1.9: success is short, an error carries an empty property block."""
    assert encode(Puback(1), 5) == b"\x40\x02\x00\x01"
    assert encode(Puback(1, 0x99), 5) == b"\x40\x04\x00\x01\x99\x00"
    assert encode(Disconnect(), 5) == b"\xe0\x00"
    assert encode(Disconnect(0x8E), 5) == b"\xe0\x02\x8e\x00"
    assert encode(Connack(False, 0), 5) == b"\x20\x03\x00\x00\x00"


def test_extremes_of_size() -> None:
    longest = "x" * 65_535
    slashes = "/" * 65_400
    for packet in (
        Publish(longest, b"\x00" * 300_000),
        Subscribe(1, tuple(Subscription(f"a/{i}") for i in range(10_000))),
        Subscribe(1, (Subscription(slashes), Subscription(longest))),
        Unsubscribe(1, tuple(f"a/{i}" for i in range(10_000))),
    ):
        assert decode(encode(packet, 5), 5) == packet


def test_thousands_of_user_properties_stop_at_the_cap() -> None:
    pair = b"\x26\x00\x00\x00\x00"
    block = pair * 13_000
    assert len(block) == 65_000
    with pytest.raises(MalformedPacket, match="malformed DISCONNECT"):
        decode(b"\xe0\xec\xfb\x03\x00\xe8\xfb\x03" + block, 5)
    within = Properties(user_properties=(("", ""),) * MQTT_USER_PROPERTIES)
    assert decode(encode(Disconnect(0, within), 5), 5) == Disconnect(0, within)


def test_repr_of_connect_shows_no_credentials() -> None:
    shown = repr(Connect(4, "c", username="token", password=b"secret"))
    assert "token" not in shown
    assert "secret" not in shown
