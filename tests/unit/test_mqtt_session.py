"""The session engine with a real Ingest: CONNECT, PUBLISH, SUBSCRIBE and every way to an end."""

from typing import Any

import msgspec
import pytest

from tbfast import limits
from tbfast.codec import mqtt as codec
from tbfast.engine.mqtt.settings import Settings, State
from tbfast.engine.mqtt.topics import FILTERS
from tbfast.errors import PeerError
from tbfast.model import mqtt as m
from tbfast.model.mqtt import ReasonCode as Code
from tests.support.mqtt_host import CLIENT_ID, KNOWN, MAX_REMAINING, Host, connect, opened
from tests.support.rows import read_block

TELEMETRY = "v1/devices/me/telemetry"
GOOD = b'{"a":1}'
BAD = b'{"a":'


CHUNK_REQUEST = m.Publish("v2/fw/request/1/chunk/0", b"10", 1, packet_id=1)


def publish(qos: int = 1, packet_id: int | None = 1, **fields: Any) -> m.Publish:
    given = {"topic": TELEMETRY, "payload": GOOD} | fields
    return m.Publish(qos=qos, packet_id=packet_id if qos else None, **given)


def keys(host: Host) -> list[str]:
    """Keys of all rows stored, in order."""
    found = []
    for block in host.blocks:
        found += [row.key for record in read_block(block).records for row in record]
    return found


def disconnect(host: Host) -> m.Disconnect:
    """The only packet left to read, a DISCONNECT; the connection is at its end."""
    (packet,) = host.replies()
    assert isinstance(packet, m.Disconnect)
    assert host.ended == "finish"
    return packet


def assert_closed(host: Host, code: Code) -> None:
    """CLOSE(code) of the spec's vocabulary."""
    if host.engine.version == 5:
        assert disconnect(host).reason_code == code
    else:
        assert host.replies() == []
        assert host.ended == "finish"


# --- packets that are none (MQTT spec 1.2) ---------------------------------------------------

MALFORMED = {
    "QoS 3": b"\x36\x05\x00\x01t\x00\x01",
    "reserved flags of SUBSCRIBE": b"\x80\x06\x00\x01\x00\x01t\x00",
    "packet id 0": b"\x32\x05\x00\x01t\x00\x00",
    "bytes left over in SUBSCRIBE": b"\x82\x07\x00\x01\x00\x01t\x00\x00",
    "bytes left over in UNSUBSCRIBE": b"\xa2\x06\x00\x01\x00\x01t\x00",
    "wildcard in topic": b"\x30\x03\x00\x01+",
    "five-byte length": b"\x30\x80\x80\x80\x80\x01",
    "type 0": b"\x00\x00",
    "topic that is not UTF-8": b"\x30\x04\x00\x02\xc3\x28",
    "filter that is not UTF-8": b"\x82\x07\x00\x01\x00\x02\xff\xff\x00",
    "PINGREQ with a body": b"\xc0\x01\x00",
}
MALFORMED_V3 = MALFORMED | {"AUTH": b"\xf0\x00", "DISCONNECT with a body": b"\xe0\x01\x00"}
MALFORMED_V5 = MALFORMED | {"unknown property": b"\x30\x06\x00\x01t\x02\x7f\x00"}


@pytest.mark.parametrize("hot", [True, False])
@pytest.mark.parametrize("version", [3, 4, 5])
def test_malformed_closes_an_open_session(version: int, hot: bool) -> None:
    for name, data in (MALFORMED_V5 if version == 5 else MALFORMED_V3).items():
        host = opened(version, hot=hot)
        host.receive(data)
        assert_closed(host, Code.MALFORMED_PACKET)
        assert host.refusals == ["malformed"], name


@pytest.mark.parametrize("data", MALFORMED_V3.values(), ids=MALFORMED_V3)
def test_malformed_before_connect_is_cut_without_a_word(data: bytes) -> None:
    # What is well framed waits in the early queue and is looked at after CONNACK.
    host = Host()
    host.receive(data)
    if host.ended is None:
        host.write(connect(4))
        assert isinstance(host.replies()[0], m.Connack)
        assert host.ended == "finish"
    else:
        assert (host.ended, host.sent) == ("abort", b"")


@pytest.mark.parametrize(
    "data",
    [
        b"\x10\x0c\x00\x04MQTX\x04\x02\x00\x3c\x00\x00",
        b"\x10\x0c\x00\x05MQTT\x04\x02\x00\x3c\x00\x00",
        *(b"\x10\x0c\x00\x04MQTT" + bytes([n]) + b"\x02\x00\x3c\x00\x00" for n in (0, 2, 6)),
        b"\x10\x0e\x00\x06MQIsdp\x04\x02\x00\x3c\x00\x00",
        b"\x10\x0c\x00\x04MQTT\x04\x03\x00\x3c\x00\x00",  # reserved flag
        b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x00\x00",  # a byte left over
        b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02\xff\xfe",  # client id is not UTF-8
    ],
)
def test_connect_that_cannot_be_accepted_is_cut_without_connack(data: bytes) -> None:
    host = Host()
    host.receive(data)
    assert (host.ended, host.sent, host.asked) == ("abort", b"", [])


@pytest.mark.parametrize("client_id", ["", "x" * 24, "x" * 300])
@pytest.mark.parametrize("version", [3, 4, 5])
def test_client_ids_of_any_length(version: int, client_id: str) -> None:
    host = Host()
    host.write(connect(version, client_id=client_id))
    (answer,) = host.replies()
    assert isinstance(answer, m.Connack)
    assert answer.reason_code == 0
    assigned = answer.properties and answer.properties.assigned_client_identifier
    assert assigned == (CLIENT_ID if version == 5 and not client_id else None)


@pytest.mark.parametrize("hot", [True, False])
@pytest.mark.parametrize("version", [4, 5])
def test_remaining_length_bound(version: int, hot: bool) -> None:
    def packet(remaining: int) -> bytes:
        body = codec.encode(publish(0, payload=b""), version)[2:]
        length = bytes([remaining & 0x7F | 0x80, remaining >> 7 & 0x7F | 0x80, remaining >> 14])
        value = b" " * (remaining - len(body) - len(GOOD)) + GOOD
        return b"\x30" + length + body + value

    host = opened(version, hot=hot)
    host.receive(packet(MAX_REMAINING))
    host.commit()
    assert keys(host) == ["a"]
    host.receive(packet(MAX_REMAINING + 1)[:5])  # refused at the header, before the body
    assert_closed(host, Code.MALFORMED_PACKET)
    assert host.refusals == ["too_big"]


def test_second_connect_closes() -> None:
    for version in (4, 5):
        host = opened(version)
        host.write(connect(version, username="other"))
        assert_closed(host, Code.PROTOCOL_ERROR)
        assert len(host.asked) == 1


@pytest.mark.parametrize(
    "packet",
    [
        m.Connack(False, 0), m.Puback(9), m.Pubrec(9), m.Pubcomp(9), m.Suback(9, (0,)),
        m.Unsuback(9, (0,)), m.Pingresp(), m.Auth(),
    ],
    ids=lambda p: type(p).__name__,
)  # fmt: skip
def test_packets_only_a_server_sends_are_ignored(packet: m.Packet) -> None:
    host = opened(5)
    host.write(packet, m.Pingreq())
    assert host.replies() == [m.Pingresp()]


# --- early packets ---------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5])
def test_early_packets_are_answered_in_order_after_connack(version: int) -> None:
    host = Host(who="later")
    early = [m.Subscribe(1, (m.Subscription("v2/a"),)), publish(packet_id=2), m.Pingreq()]
    host.receive(b"".join(codec.encode(p, version) for p in [connect(version), *early]))
    assert host.sent == b""
    host.authenticate(KNOWN)
    kinds = [type(p) for p in host.replies()]
    assert kinds == [m.Connack, m.Suback, m.Pingresp]
    host.commit()
    assert host.replies() == [m.Puback(2)]


def test_packets_before_connect_wait_as_well() -> None:
    host = Host()
    host.receive(codec.encode(m.Pingreq(), 4) + codec.encode(publish(), 4))
    assert host.sent == b""
    host.write(connect(4))
    assert [type(p) for p in host.replies()] == [m.Connack, m.Pingresp]
    host.commit()
    assert keys(host) == ["a"]


@pytest.mark.parametrize("version", [4, 5])
def test_early_queue_bound_in_packets(version: int) -> None:
    host = Host(who="later")
    host.write(connect(version), *[m.Pingreq()] * limits.MQTT_QUEUE)
    assert host.ended is None
    host.write(m.Pingreq())
    assert_closed(host, Code.QUOTA_EXCEEDED)
    assert host.refusals == ["early_queue"]
    host.authenticate(KNOWN)  # the answer comes too late
    assert host.opened == 0


@pytest.mark.parametrize("version", [4, 5])
def test_early_queue_bound_in_bytes(version: int) -> None:
    big = publish(payload=b'"' + b"x" * 60_000 + b'"')
    size = len(codec.encode(big, version))
    host = Host(who="later")
    host.write(connect(version), *[big] * (limits.MQTT_EARLY_BYTES // size))
    assert host.ended is None
    host.write(big)
    assert_closed(host, Code.QUOTA_EXCEEDED)


def test_early_queue_without_connect_is_cut() -> None:
    host = Host()
    host.write(*[m.Pingreq()] * (limits.MQTT_QUEUE + 1))
    assert (host.ended, host.sent) == ("finish", b"")


def test_early_packets_of_a_refused_client_leave_nothing() -> None:
    host = Host(who="later")
    host.write(connect(4), publish(), publish(0))
    host.authenticate(None)
    assert host.replies() == [m.Connack(False, 5)]
    assert host.ended == "finish"
    assert host.ingest.group.empty


@pytest.mark.parametrize("raw", [b"\x00\x00", b"\x30\xff\xff\xff\x7f" + b"x" * 500])
@pytest.mark.parametrize("version", [4, 5])
def test_bytes_that_are_no_packet_are_refused_in_their_turn(version: int, raw: bytes) -> None:
    """CONNACK first, however long the lookup takes."""
    for who in (KNOWN, "later"):
        host = Host(who=who)
        host.write(connect(version), m.Pingreq())
        host.receive(raw)
        if who == "later":
            host.receive(b"\xc0\x00" * 500)  # no sense can be made of what follows
            host.authenticate(KNOWN)
        connack, pingresp, *rest = host.replies()
        assert isinstance(connack, m.Connack)
        assert pingresp == m.Pingresp()
        assert [type(p) for p in rest] == [m.Disconnect] * (version == 5)
        assert host.ended == "finish"


# --- CONNACK (MQTT spec 1.3, 1.6, 1.9) -------------------------------------------------------

REFUSALS = [
    ({"username": "u", "password": b"p"}, Code.BAD_USER_NAME_OR_PASSWORD, 5),
    ({"username": "u"}, Code.BAD_USER_NAME_OR_PASSWORD, 5),
    ({"username": None, "password": b""}, Code.BAD_USER_NAME_OR_PASSWORD, 5),
    ({"username": ""}, Code.BAD_USER_NAME_OR_PASSWORD, 5),
    ({"username": None}, Code.CLIENT_IDENTIFIER_NOT_VALID, 2),
    ({"username": None, "client_id": ""}, Code.NOT_AUTHORIZED, 5),
    ({"username": None, "client_id": " "}, Code.NOT_AUTHORIZED, 5),
]


@pytest.mark.parametrize("version", [3, 4, 5])
@pytest.mark.parametrize(("fields", "v5", "v3"), REFUSALS)
def test_nobody_accepts(fields: dict[str, Any], v5: Code, v3: int, version: int) -> None:
    host = Host(who=None)
    host.write(connect(version, **fields))
    (answer,) = host.replies()
    assert isinstance(answer, m.Connack)
    assert answer.reason_code == (v5 if version == 5 else v3)
    assert (host.ended, host.opened, host.refusals) == ("finish", 0, ["auth"])
    host.write(m.Pingreq())
    assert host.replies() == []


@pytest.mark.parametrize("transport", ["COAP", "LWM2M", "SNMP"])
@pytest.mark.parametrize(("version", "code"), [(4, 3), (5, Code.SERVER_UNAVAILABLE)])
def test_profile_of_another_transport(transport: str, version: int, code: int) -> None:
    host = Host(who=msgspec.structs.replace(KNOWN, transport=transport))
    host.write(connect(version))
    (answer,) = host.replies()
    assert isinstance(answer, m.Connack)
    assert (answer.reason_code, host.ended, host.opened) == (code, "finish", 0)


@pytest.mark.parametrize("transport", ["DEFAULT", "MQTT"])
def test_profile_of_this_transport(transport: str) -> None:
    assert opened(4, who=msgspec.structs.replace(KNOWN, transport=transport)).opened == 1


@pytest.mark.parametrize(("version", "code"), [(3, 3), (4, 3), (5, Code.SERVER_UNAVAILABLE)])
def test_lookup_unavailable(version: int, code: int) -> None:
    host = Host(who="later")
    host.write(connect(version))
    host.unavailable()
    (answer,) = host.replies()
    assert isinstance(answer, m.Connack)
    assert (answer.reason_code, host.ended) == (code, "finish")


@pytest.mark.parametrize(("version", "code"), [(3, 3), (4, 3), (5, Code.SERVER_BUSY)])
def test_a_server_that_waits_for_its_disk_is_busy(version: int, code: int) -> None:
    host = Host(who="later")
    host.write(connect(version), publish())
    host.busy()
    (answer,) = host.replies()
    assert isinstance(answer, m.Connack)
    assert (answer.reason_code, host.ended, host.opened) == (code, "finish", 0)
    host.authenticate(KNOWN)  # too late
    assert (host.replies(), host.opened) == ([], 0)


def test_presented_credentials_reach_the_lookup_as_sent() -> None:
    host = opened(4, connect={"client_id": "+/#", "username": "t", "password": b"\xff\x00"})
    (asked,) = host.asked
    assert (asked.client_id, asked.user_name, asked.password) == ("+/#", "t", b"\xff\x00")


@pytest.mark.parametrize("clean", [True, False])
def test_v3_connack_is_four_bytes(clean: bool) -> None:
    host = Host()
    host.write(connect(4, clean_start=clean))
    assert host.sent == b"\x20\x02\x00\x00"


def test_v5_connack_announces_the_bounds() -> None:
    host = Host()
    host.write(connect(5, properties=m.Properties(session_expiry_interval=60)))
    assert host.replies() == [
        m.Connack(
            False,
            0,
            m.Properties(
                receive_maximum=limits.MQTT_RECEIVE_MAXIMUM,
                maximum_packet_size=MAX_REMAINING + 4,
                topic_alias_maximum=limits.MQTT_TOPIC_ALIAS_MAXIMUM,
                session_expiry_interval=0,
            ),
        )
    ]


# --- PUBLISH (MQTT spec 1.8, 2.1, 3) ---------------------------------------------------------


@pytest.mark.parametrize("hot", [True, False])
@pytest.mark.parametrize("version", [3, 4, 5])
def test_answers_come_with_the_commit(version: int, hot: bool) -> None:
    host = opened(version, hot=hot)
    host.write(publish(0), publish(1, 7), publish(2, 8), publish(1, 9))
    assert host.replies() == []
    assert host.commit() is not None
    assert host.replies() == [m.Puback(7), m.Pubrec(8), m.Puback(9)]
    assert keys(host) == ["a"] * 4


def test_answer_of_a_later_group_does_not_come_with_an_earlier_one() -> None:
    host = opened()
    host.write(publish(packet_id=1))
    first = host.take()
    host.write(publish(packet_id=2))
    host.complete(first)
    assert host.replies() == [m.Puback(1)]
    host.commit()
    assert host.replies() == [m.Puback(2)]


@pytest.mark.parametrize("payload", [b"{}", b"[]", b'{"ts":1,"values":{}}', b'{"a":null}'])
def test_messages_without_values_are_acknowledged(payload: bytes) -> None:
    host = opened()
    host.write(publish(payload=payload))
    assert host.commit() is None
    assert host.replies() == [m.Puback(1)]


def test_packet_id_sent_again_is_stored_again() -> None:
    host = opened()
    host.write(publish(), publish(dup=True))
    host.commit()
    assert host.replies() == [m.Puback(1), m.Puback(1)]
    assert keys(host) == ["a", "a"]


@pytest.mark.parametrize("version", [4, 5])
def test_qos_2_repeats_are_not_stored_again(version: int) -> None:
    host = opened(version)
    host.write(publish(2, 5), publish(2, 5, dup=True))
    host.commit()
    host.write(publish(2, 5, dup=True))
    host.commit()
    assert host.replies() == [m.Pubrec(5)] * 3
    assert keys(host) == ["a"]
    host.write(m.Pubrel(5))
    assert host.replies() == [m.Pubcomp(5)]
    host.write(publish(2, 5))
    host.commit()
    assert host.replies() == [m.Pubrec(5)]
    assert keys(host) == ["a", "a"]


def test_pubrec_of_a_repeat_waits_for_the_group_that_holds_the_message() -> None:
    host = opened()
    host.write(publish(2, 5), publish(2, 5, dup=True))
    assert host.replies() == []
    host.fail(host.take())
    assert host.replies() == []
    assert host.ended == "finish"


@pytest.mark.parametrize(("version", "code"), [(4, 0), (5, Code.PACKET_IDENTIFIER_NOT_FOUND)])
def test_pubrel_of_an_unknown_id(version: int, code: int) -> None:
    host = opened(version)
    host.write(m.Pubrel(65_535))
    assert host.replies() == [m.Pubcomp(65_535, code)]


@pytest.mark.parametrize("payload", [BAD, b"", b"1", b'"a"', b"[1]", b'{"ts":1,"values":2}'])
@pytest.mark.parametrize("hot", [True, False])
def test_reject(payload: bytes, hot: bool) -> None:
    for qos, answer in ((1, m.Puback), (2, m.Pubrec)):
        host = opened(5, hot=hot)
        host.write(publish(qos, payload=payload))
        (reply,) = host.replies()
        assert isinstance(reply, answer)
        assert reply.reason_code == Code.PAYLOAD_FORMAT_INVALID
        assert reply.properties is not None
        assert reply.properties.reason_string
        assert (host.ended, host.commit()) == (None, None)
    for version, qos in ((5, 0), (4, 0), (4, 1), (4, 2), (3, 1)):
        host = opened(version, hot=hot)
        host.write(publish(qos, payload=payload))
        assert_closed(host, Code.PAYLOAD_FORMAT_INVALID)
        assert host.refusals == ["payload"]
        assert host.ingest.group.empty


def test_rejected_qos_2_leaves_its_id_free() -> None:
    host = opened(5)
    host.write(publish(2, 5, payload=BAD), m.Pubrel(5))
    rejected, unknown = host.replies()
    assert isinstance(rejected, m.Pubrec)
    assert unknown == m.Pubcomp(5, Code.PACKET_IDENTIFIER_NOT_FOUND)


@pytest.mark.parametrize("topic", ["v2/t/p"])
def test_protobuf_topic_of_a_json_profile_is_a_reject(topic: str) -> None:
    host = opened(5)
    host.write(publish(topic=topic))
    (reply,) = host.replies()
    assert isinstance(reply, m.Puback)
    assert reply.reason_code == Code.PAYLOAD_FORMAT_INVALID


@pytest.mark.parametrize(
    "topic",
    [
        "a", "/provision/request", "$SYS/broker", "v1/devices/me/telemetry/", "v2/tt", " v2/t",
        "V2/T", "v1/devices/me", "/", "v2/x/" + "/" * 70, "x" * 2_000,
    ],
)  # fmt: skip
def test_unknown_topic(topic: str) -> None:
    for version, code in ((4, 0), (5, Code.TOPIC_NAME_INVALID)):
        host = opened(version)
        host.write(publish(0, topic=topic), publish(1, 3, topic=topic), publish(2, 4, topic=topic))
        one, two = host.replies()
        assert isinstance(one, m.Puback)
        assert isinstance(two, m.Pubrec)
        assert (one.packet_id, one.reason_code) == (3, code)
        assert (two.packet_id, two.reason_code) == (4, code)
        assert (host.ended, host.commit()) == (None, None)


def test_v3_qos_2_to_an_unknown_topic_completes() -> None:
    host = opened(4)
    host.write(publish(2, 4, topic="a"), m.Pubrel(4))
    assert host.replies() == [m.Pubrec(4), m.Pubcomp(4)]


@pytest.mark.parametrize("topic", ["v1/gateway/telemetry", "v1/gateway", "v1/gatewayX"])
@pytest.mark.parametrize("version", [4, 5])
def test_gateway_topics_of_a_device_are_dropped_in_silence(version: int, topic: str) -> None:
    host = opened(version)
    host.write(*[publish(qos, 3, topic=topic) for qos in (0, 1, 2)])
    assert host.replies() == []
    assert (host.ended, host.commit()) == (None, None)


@pytest.mark.parametrize("topic", ["v2/t", "v2/t/j", TELEMETRY])
@pytest.mark.parametrize("hot", [True, False])
def test_telemetry_topics(topic: str, hot: bool) -> None:
    host = opened(hot=hot)
    host.write(publish(topic=topic))
    host.commit()
    assert host.replies() == [m.Puback(1)]
    assert keys(host) == ["a"]


# --- topic aliases ---------------------------------------------------------------------------


def aliased(alias: int, topic: str = "", packet_id: int = 1) -> m.Publish:
    return publish(1, packet_id, topic=topic, properties=m.Properties(topic_alias=alias))


@pytest.mark.parametrize("alias", range(1, 17))
def test_alias(alias: int) -> None:
    host = opened(5)
    host.write(aliased(alias, TELEMETRY, 1), aliased(alias, "", 2))
    host.commit()
    assert host.replies() == [m.Puback(1), m.Puback(2)]
    assert keys(host) == ["a", "a"]


def test_alias_can_be_set_anew() -> None:
    host = opened(5)
    host.write(aliased(1, "elsewhere"), aliased(1, TELEMETRY), aliased(1, "", 2))
    host.commit()
    codes = [(p.packet_id, p.reason_code) for p in host.replies() if isinstance(p, m.Puback)]
    assert codes == [(1, Code.TOPIC_NAME_INVALID), (1, 0), (2, 0)]


@pytest.mark.parametrize("alias", [0, 2, 17, 65_535])
def test_alias_that_is_not_set(alias: int) -> None:
    host = opened(5)
    host.write(aliased(1, TELEMETRY), aliased(alias, "", 2))
    (reply,) = host.replies()
    assert isinstance(reply, m.Puback)
    assert (reply.packet_id, reply.reason_code) == (2, Code.TOPIC_NAME_INVALID)
    assert host.ended is None


@pytest.mark.parametrize("alias", [0, 17, 65_535])
def test_alias_out_of_range_beside_a_topic_is_ignored(alias: int) -> None:
    host = opened(5)
    host.write(aliased(alias, TELEMETRY))
    host.commit()
    assert host.replies() == [m.Puback(1)]


def test_empty_topic_without_alias() -> None:
    host = opened(5)
    host.write(publish(topic=""))
    (reply,) = host.replies()
    assert isinstance(reply, m.Puback)
    assert reply.reason_code == Code.TOPIC_NAME_INVALID


def test_alias_topics_are_bounded_and_never_stale() -> None:
    host = opened(5)
    long = "x" * 8_000
    host.write(aliased(1, TELEMETRY), aliased(2, long), aliased(3, long), aliased(1, long))
    host.commit()
    host.replies()
    host.write(aliased(1, "", 9))
    (reply,) = host.replies()
    assert isinstance(reply, m.Puback)
    assert reply.reason_code == Code.TOPIC_NAME_INVALID
    assert host.commit() is None


# --- what an MQTT 5 client wants to hear -----------------------------------------------------


@pytest.mark.parametrize("wanted", [None, 1, 0])
def test_reason_strings_unless_the_client_declines(wanted: int | None) -> None:
    asked = {"properties": m.Properties(request_problem_information=wanted)}
    host = opened(5, connect=asked)
    host.write(publish(topic="a"), publish(2, topic="a"), publish(payload=BAD), connect(5))
    *acks, last = host.replies()
    assert [type(p) for p in [*acks, last]] == [m.Puback, m.Pubrec, m.Puback, m.Disconnect]
    for packet in (*acks, last):
        assert packet.reason_code >= 0x80
        assert bool(packet.properties and packet.properties.reason_string) == (wanted != 0)
    refused = Host(who=None)
    refused.write(connect(5, **asked))
    (answer,) = refused.replies()
    assert bool(answer.properties) == (wanted != 0)


def test_success_is_byte_for_byte_plain() -> None:
    host = opened(5)
    host.write(publish(), publish(2, 2))
    host.commit()
    host.write(m.Pubrel(2))
    assert bytes(host.sent[-12:]) == b"\x40\x02\x00\x01\x50\x02\x00\x02\x70\x02\x00\x02"


def test_reason_string_is_left_out_above_the_clients_maximum_packet_size() -> None:
    host = opened(5, connect={"properties": m.Properties(maximum_packet_size=40)})
    host.write(publish(topic="a"))
    (reply,) = host.replies()
    assert reply.properties and reply.properties.reason_string
    host = opened(5, connect={"properties": m.Properties(maximum_packet_size=12)})
    host.write(publish(topic="a"))
    assert host.replies() == [m.Puback(1, Code.TOPIC_NAME_INVALID)]


def test_packet_above_the_clients_maximum_packet_size_is_dropped() -> None:
    host = opened(5, connect={"properties": m.Properties(maximum_packet_size=12)})
    many = tuple(m.Subscription(f"none/{i}") for i in range(20))
    host.write(m.Subscribe(1, many), m.Pingreq())
    assert host.replies() == [m.Pingresp()]


def test_connack_survives_a_tiny_maximum_packet_size() -> None:
    host = Host()
    host.write(connect(5, client_id="", properties=m.Properties(maximum_packet_size=20)))
    assert host.replies() == [m.Connack(False, 0)]


# --- SUBSCRIBE, UNSUBSCRIBE ------------------------------------------------------------------

REFUSED_FILTERS = [
    "#", "+", "+/#", "v1/#", "v1/devices/me/#", "v1/devices/me/rpc/request/#", "a+/b", "a/#/b", "",
    "v1/devices/me/rpc/request/5", "v2/fw/response/+", "v1/devices/me/telemetry", "$SYS/#", "#a",
    "$share/g/v2/a", "$share//x", "$share/+/x", "$share/g", "v2/a\r\n", "v2/a\t", "/" * 3_000,
]  # fmt: skip


@pytest.mark.parametrize("version", [3, 4, 5])
def test_known_filters_are_granted_at_most_qos_1(version: int) -> None:
    host = opened(version)
    for qos in (0, 1, 2):
        wanted = tuple(m.Subscription(f, qos) for f in sorted(FILTERS))
        host.write(m.Subscribe(3, wanted))
        assert host.replies() == [m.Suback(3, (min(qos, 1),) * len(FILTERS))]


@pytest.mark.parametrize(("version", "code"), [(3, 0x80), (4, 0x80), (5, 0x8F)])
def test_other_filters_fail_alone(version: int, code: int) -> None:
    host = opened(version)
    wanted = [m.Subscription(f, 1) for f in REFUSED_FILTERS]
    host.write(m.Subscribe(4, (m.Subscription("v2/a"), *wanted, m.Subscription("v2/a/j", 1))))
    assert host.replies() == [m.Suback(4, (0, *[code] * len(wanted), 1))]
    assert host.ended is None


@pytest.mark.parametrize(("version", "code"), [(4, 0x80), (5, Code.QUOTA_EXCEEDED)])
def test_filters_past_the_bound(version: int, code: int) -> None:
    host = opened(version)
    more = limits.MQTT_FILTERS_PER_SUBSCRIBE + 10
    host.write(m.Subscribe(4, (m.Subscription("v2/a"),) * more))
    (reply,) = host.replies()
    assert isinstance(reply, m.Suback)
    assert reply.reason_codes == (0,) * (more - 10) + (code,) * 10


def test_unsubscribe() -> None:
    old = opened(4)
    old.write(m.Unsubscribe(3, ("v2/a", "none")))
    assert old.replies() == [m.Unsuback(3)]
    host = opened(5)
    host.write(m.Subscribe(1, (m.Subscription("v2/a"), m.Subscription("none"))))
    host.replies()
    host.write(m.Unsubscribe(3, ("v2/a", "none", "v2/a", "v2/a/j")))
    missing = Code.NO_SUBSCRIPTION_EXISTED
    assert host.replies() == [m.Unsuback(3, (0, missing, missing, missing))]


def test_unsubscribing_what_is_not_held_ends_nothing() -> None:
    host = opened(5)
    for held, other in (("v2/a", "v2/a/j"), ("v2/r/req/+", "v1/devices/me/rpc/request/+")):
        host.write(m.Subscribe(1, (m.Subscription(held),)), m.Unsubscribe(2, (other,)))
    assert host.engine.listens == (True, True)
    # But one that is held ends its kind, whatever else is subscribed (MQTT spec 2.5).
    host.write(m.Subscribe(3, (m.Subscription("v2/a/j"),)), m.Unsubscribe(4, ("v2/a",)))
    assert host.engine.listens == (False, True)


# --- the end: closing, takeover, time, the store ---------------------------------------------


@pytest.mark.parametrize(
    "code", [Code.SESSION_TAKEN_OVER, Code.SERVER_SHUTTING_DOWN, Code.ADMINISTRATIVE_ACTION]
)
@pytest.mark.parametrize("version", [4, 5])
def test_shutdown_of_an_idle_session(version: int, code: Code) -> None:
    host = opened(version)
    host.shutdown(code)
    assert_closed(host, code)


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("hot", [True, False])
def test_closing_waits_for_answers_of_accepted_messages(version: int, hot: bool) -> None:
    host = opened(version, hot=hot)
    host.advance(300_000)
    host.write(publish(packet_id=1))
    first = host.take()
    host.write(publish(packet_id=2))
    host.receive(b"\x00\x00")
    assert host.state is State.CLOSING
    host.write(publish(packet_id=3), m.Pingreq())  # not acted on any more
    host.complete(first)
    assert host.replies() == [m.Puback(1)]
    host.advance(999)
    assert host.ended is None
    host.commit()
    puback, *rest = host.replies()
    assert puback == m.Puback(2)
    assert [p.reason_code for p in rest] == ([Code.MALFORMED_PACKET] if version == 5 else [])
    assert host.ended == "finish"


@pytest.mark.parametrize("version", [4, 5])
def test_closing_ends_at_the_disconnect_timeout(version: int) -> None:
    host = opened(version, settings=Settings(close_timeout_ms=700))
    host.advance(300_000)
    host.write(publish())
    host.shutdown(Code.SESSION_TAKEN_OVER)
    host.advance(699)
    assert host.ended is None
    host.advance(1)
    assert_closed(host, Code.SESSION_TAKEN_OVER)
    host.commit()
    assert host.replies() == []
    assert keys(host) == ["a"]


def test_client_disconnect() -> None:
    for version, answer in ((4, []), (5, [m.Disconnect()])):
        host = opened(version)
        host.write(publish(), m.Disconnect())
        assert host.replies() == answer
        assert host.ended == "finish"
        host.commit()
        assert keys(host) == ["a"]


def test_no_connect_in_time() -> None:
    host = Host()
    host.receive(b"\x10")
    host.advance(limits.MQTT_CONNECT_TIMEOUT_MS - 1)
    host.receive(b"\x0c")  # progress does not extend it
    assert host.ended is None
    host.advance(1)
    assert (host.ended, host.sent, host.refusals) == ("abort", b"", ["timeout"])


def test_what_the_host_lets_wait_does_not_count() -> None:
    host = Host()
    host.advance(limits.MQTT_CONNECT_TIMEOUT_MS - 1)
    host.engine.waited(500)
    host.advance(500)
    assert host.ended is None
    host.advance(1)
    assert host.ended == "abort"


def test_lookup_counts_against_the_connect_timeout() -> None:
    host = Host(who="later")
    host.write(connect(5))
    host.advance(limits.MQTT_CONNECT_TIMEOUT_MS)
    assert host.ended == "abort"


@pytest.mark.parametrize("hot", [True, False])
def test_inactivity(hot: bool) -> None:
    idle = limits.MQTT_IDLE_TIMEOUT_MS
    for packet in (m.Pingreq(), publish(0), publish(0, topic="a")):
        host = opened(5, hot=hot)
        host.advance(idle - 1)
        host.write(packet)
        host.advance(idle - 1)
        assert host.ended is None
        host.commit()
        host.replies()
        host.advance(1)
        assert_closed(host, Code.MAXIMUM_CONNECT_TIME)


def test_chunks_of_packages_are_no_activity() -> None:
    host = opened(5)
    host.advance(limits.MQTT_IDLE_TIMEOUT_MS - 1)
    host.write(CHUNK_REQUEST)
    assert len(host.operations) == 1 and host.ended is None
    host.advance(1)
    assert host.ended == "finish"


def test_the_keep_alive_hears_every_packet() -> None:
    host = opened(5, settings=Settings(keep_alive_factor=1.5), connect={"keep_alive": 10})
    host.advance(14_999)
    host.write(CHUNK_REQUEST)
    host.advance(14_999)
    assert host.ended is None
    host.advance(1)
    assert host.ended == "finish"


@pytest.mark.parametrize("hot", [True, False])
def test_what_is_no_activity(hot: bool) -> None:
    """MQTT spec 8.5; MQTT's own keep-alive counts every packet."""
    idle = limits.MQTT_IDLE_TIMEOUT_MS
    call = publish(payload=b'{"method":"getSessionLimits"}', topic="v1/devices/me/rpc/request/1")
    for packet in (publish(payload=b"no JSON"), call, m.Puback(7), m.Pubrel(7), m.Pingresp()):
        settings = Settings(keep_alive_factor=2.0)
        host = opened(5, hot=hot, settings=settings, connect={"keep_alive": idle // 2_000})
        for _ in range(3):
            host.advance(idle // 4)
            host.write(packet)
            host.replies()
        host.advance(idle // 4 - 1)
        assert host.ended is None, packet
        host.advance(1)
        assert_closed(host, Code.MAXIMUM_CONNECT_TIME)


@pytest.mark.parametrize("hot", [True, False])
def test_keep_alive_factor(hot: bool) -> None:
    settings = Settings(keep_alive_factor=1.5)
    host = opened(5, hot=hot, settings=settings, connect={"keep_alive": 10})
    host.advance(14_999)
    host.write(publish(0))
    host.commit()
    host.advance(14_999)
    assert host.ended is None
    host.advance(1)
    assert host.ended == "finish"


@pytest.mark.parametrize(("factor", "keep_alive"), [(0.0, 1), (1.5, 0)])
def test_keep_alive_off(factor: float, keep_alive: int) -> None:
    settings = Settings(keep_alive_factor=factor)
    host = opened(4, settings=settings, connect={"keep_alive": keep_alive})
    host.advance(limits.MQTT_IDLE_TIMEOUT_MS - 1)
    assert host.ended is None


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [1, 2])
def test_store_refusal_closes_without_an_acknowledgement(version: int, qos: int) -> None:
    host = opened(version)
    host.write(publish(qos))
    host.fail(host.take())
    assert_closed(host, Code.QUOTA_EXCEEDED)
    assert host.refusals == ["store"]


def test_store_refusal_of_qos_0_leaves_the_session_open() -> None:
    host = opened(5)
    host.write(publish(0))
    host.fail(host.take())
    assert (host.replies(), host.ended) == ([], None)


def test_store_refusal_of_one_group_still_answers_the_others() -> None:
    host = opened(5)
    host.write(publish(packet_id=1))
    refused = host.take()
    host.write(publish(packet_id=2))
    host.fail(refused)
    assert host.ended is None
    host.commit()
    puback, last = host.replies()
    assert puback == m.Puback(2)
    assert isinstance(last, m.Disconnect)


def test_store_refusal_while_closing_ends_the_wait() -> None:
    host = opened(5)
    host.write(publish())
    host.shutdown(Code.SESSION_TAKEN_OVER)
    host.fail(host.take())
    assert_closed(host, Code.SESSION_TAKEN_OVER)


def test_connect_that_does_not_decode_names_no_secret() -> None:
    secret = b"SECRETTOKEN"
    data = b"\x10\x1d\x00\x04MQTT\x04\x82\x00\x3c\x00\x01c\x00\x0b" + secret + b"xyz"
    with pytest.raises(PeerError) as caught:
        codec.decode(data, 4)
    assert "SECRET" not in str(caught.value)
