"""The hot path changes nothing: the same stream gives the same answers and the same rows.

One host takes runs of plain PUBLISHes with `Ingest.walk` and gives the rest to the engine, as the
reactor does; the other has its hot path off and feeds the engine alone.  Each gets the stream in
pieces of its own; commits, refusals of the store and time fall on the same bytes for both.
"""

import itertools
from typing import Any, NamedTuple

from hypothesis import example, given
from hypothesis import strategies as st

from tbfast.codec import mqtt as codec
from tbfast.model import mqtt as m
from tbfast.model.auth import StoredCredentials
from tbfast.model.transport import MqttProfile, ProtobufPayload
from tests.support import proto_profiles
from tests.support.json_documents import damaged, payloads
from tests.support.mqtt_host import KNOWN, Host, connect
from tests.support.rows import read_block

TOPICS = st.sampled_from(["v1/devices/me/telemetry", "v2/t"] * 4 + ["v2/t/j"])
OTHER_TOPICS = st.sampled_from(
    ["v2/t/p", "v2/a", "v1/gateway/telemetry", "v1/devices/me/telemetryX", "v2/", "x", "$SYS"]
)
GOOD = st.sampled_from(
    [
        b'{"a":1}', b'{"temperature":21.5,"on":true}', b"{temperature:25}", b"[]", b"{}",
        b'{"ts":1451649600512,"values":{"a":"x","b":{"c":[1,null]}}}', b'[{"a":1},{"b":"2"}]',
        b'{"a":null}', b'{"":1}', b'{"<b>":1}', b'{"a":"\xff"}', b'{"a":1,"a":2}',
    ]
)  # fmt: skip
# Refused, some after keys that no other payload has.
BAD = st.sampled_from(
    [b"", b"1", b'{"fresh":1,}', b'[{"new":1},2]', b'{"ts":1,"values":3}', b'{"odd":1e99999}']
)
READINGS = [
    proto_profiles.made(proto_profiles.TELEMETRY, temperature=21.5, inner_object={"key1": "a"}),
    proto_profiles.made(proto_profiles.TELEMETRY, temperature=0.1, humidity=float("nan")),
    proto_profiles.made(proto_profiles.TIMED, ts=5, values={"level": 3, "samples": [1.0]}),
    proto_profiles.made(proto_profiles.TIMED, values={}),
]
IDS = st.sampled_from([1, 2, 3, 65_535])
ALIASES = st.none() | st.sampled_from([0, 1, 2, 16, 17])


@st.composite
def publishes(draw: st.DrawFn, version: int, payloads: Any, topics: Any = TOPICS) -> bytes:
    qos = draw(st.sampled_from([0, 1, 1, 1, 2]))
    properties, topic = None, draw(topics)
    if version == 5 and draw(st.integers(0, 4)) == 0:
        alias = draw(ALIASES)
        topic = "" if alias is not None and draw(st.booleans()) else topic
        properties = m.Properties(topic_alias=alias, content_type=draw(st.none() | st.just("j")))
    packet = m.Publish(
        topic,
        draw(payloads),
        qos,
        retain=draw(st.booleans()),
        dup=draw(st.booleans()) if qos else False,
        packet_id=draw(IDS) if qos else None,
        properties=properties,
    )
    return codec.encode(packet, version)


def others(version: int) -> st.SearchStrategy[bytes]:
    """Packets that are no PUBLISH and leave the session open."""
    packets: list[Any] = [
        m.Pingreq(), m.Pubrel(1), m.Pubrel(2), m.Puback(1), m.Pubcomp(9),
        m.Subscribe(5, (m.Subscription("v2/a", 1), m.Subscription("#"))),
        m.Unsubscribe(6, ("v2/a",)),
    ]  # fmt: skip
    return st.sampled_from([codec.encode(p, version) for p in packets])


def ends(version: int) -> st.SearchStrategy[bytes]:
    """What closes the session, or cannot be a packet."""
    framed = [codec.encode(connect(version), version), codec.encode(m.Disconnect(), version)]
    raw = [b"\x36\x02\x00\x00", b"\x00\x00", b"\x30\xff\xff\xff\xff\x7f", b"\x32\x03\x00\x01x"]
    return st.sampled_from(framed + raw) | st.binary(min_size=1, max_size=6)


@st.composite
def streams(draw: st.DrawFn, version: int) -> bytes:
    """Mostly plain PUBLISHes; what may close the session comes late."""
    plain = publishes(version, GOOD)
    safe = st.one_of(
        *[plain] * 6, others(version), others(version), publishes(version, GOOD, OTHER_TOPICS)
    )
    any_payload = publishes(version, BAD | payloads(lenient=True) | damaged())
    parts = draw(st.lists(safe, max_size=2))
    parts.append(codec.encode(connect(version), version))
    parts += draw(st.lists(safe if version < 5 else safe | any_payload, min_size=8, max_size=40))
    if draw(st.booleans()):
        parts += draw(st.lists(safe | any_payload, max_size=10))
    if draw(st.booleans()):
        parts.append(draw(ends(version)))
        parts += draw(st.lists(safe, max_size=3))
    return b"".join(parts)


class Act(NamedTuple):
    """What happens once so many thousandths of the stream have arrived."""

    at: int
    kind: str


ACTS = st.lists(
    st.builds(
        Act,
        st.integers(0, 1000),
        st.sampled_from(["commit"] * 6 + ["late", "late", "advance", "advance"]),
    )
    | st.builds(Act, st.integers(700, 1000), st.sampled_from(["fail", "shutdown"])),
    max_size=8,
).map(sorted)
SIZES = st.lists(st.integers(1, 60) | st.integers(1, 2_000), min_size=1, max_size=8)


def play(host: Host, stream: bytes, acts: list[Act], sizes: list[int]) -> Host:
    pieces = itertools.cycle(sizes)
    at = 0
    late = []
    for act in [*acts, Act(1000, "commit")]:
        end = len(stream) * act.at // 1000
        while at < end:
            size = min(next(pieces), end - at)
            host.receive(stream[at : at + size])
            at += size
        match act.kind:
            case "commit":
                late.append(host.take())
                for group in late:
                    host.complete(group)
                late.clear()
            case "late":  # written, durable only with the next one
                late.append(host.take())
            case "fail":
                host.fail(host.take())
            case "advance":
                host.advance(997)
            case "shutdown":
                host.shutdown(m.ReasonCode.SESSION_TAKEN_OVER)
    return host


def assert_same(
    stream: bytes,
    acts: list[Act],
    ours: list[int],
    theirs: list[int],
    who: StoredCredentials = KNOWN,
) -> None:
    hot = play(Host(hot=True, who=who), stream, acts, ours)
    cold = play(Host(hot=False, who=who), stream, acts, theirs)
    assert bytes(hot.sent) == bytes(cold.sent)
    assert hot.blocks == cold.blocks
    assert (hot.ended, hot.refusals) == (cold.ended, cold.refusals)
    for block in hot.blocks:
        read_block(block)


@given(st.data(), st.sampled_from([3, 4, 5]), ACTS, SIZES, SIZES)
def test_any_stream_in_any_pieces(
    data: st.DataObject, version: int, acts: list[Act], ours: list[int], theirs: list[int]
) -> None:
    assert_same(data.draw(streams(version)), acts, ours, theirs)


PROFILE_TOPICS = ["v1/devices/me/telemetry", "v2/t", "v2/t/j", "plant/data", "#", "plant/+"]


@st.composite
def profiles(draw: st.DrawFn) -> StoredCredentials:
    """Topics of their own, and either payload format."""
    topics = st.sampled_from(PROFILE_TOPICS)
    payload = draw(
        st.sampled_from([MqttProfile().payload, proto_profiles.PAYLOAD])
        | st.builds(
            ProtobufPayload,
            telemetry_schema=st.sampled_from([None, proto_profiles.TIMED, "broken"]),
            json_compatible=st.booleans(),
        )
    )
    return proto_profiles.known(
        telemetry_topic=draw(topics),
        attributes_topic=draw(st.sampled_from(["v1/devices/me/attributes"] * 3) | topics),
        send_ack_on_validation_exception=draw(st.booleans()),
        payload=payload,
    )


@given(st.data(), profiles(), st.sampled_from([4, 5]), ACTS, SIZES, SIZES)
def test_any_profile(
    data: st.DataObject,
    who: StoredCredentials,
    version: int,
    acts: list[Act],
    ours: list[int],
    theirs: list[int],
) -> None:
    topics = st.sampled_from([*PROFILE_TOPICS[:4], "v2/t/p", "v2/a", "plant/x"])
    readings = st.sampled_from(READINGS) | st.binary(max_size=4)
    packets = publishes(version, readings | readings | GOOD, topics)
    parts = data.draw(st.lists(packets | packets | others(version), max_size=30))
    assert_same(codec.encode(connect(version), version) + b"".join(parts), acts, ours, theirs, who)


@given(st.binary(max_size=60), st.sampled_from([4, 5]), SIZES, SIZES)
@example(b"\x32\x0b\x00\x04v2/t\x00\x01{}\x00", 5, [1], [100])
def test_random_bytes_after_connect(
    tail: bytes, version: int, ours: list[int], theirs: list[int]
) -> None:
    stream = codec.encode(connect(version), version) + tail
    assert_same(stream, [], ours, theirs)


def test_flipped_bits() -> None:
    """Every bit of a short run of packets, one at a time."""
    packets = [
        m.Publish("v2/t", b'{"a":1}', 1, packet_id=1),
        m.Publish("v2/t", b'{"b":2}', 0),
        m.Publish("v2/t", b'{"c":3}', 1, packet_id=2),
    ]
    for version in (4, 5):
        head = codec.encode(connect(version), version)
        body = b"".join(codec.encode(p, version) for p in packets)
        for bit in range(len(body) * 8):
            flipped = bytearray(body)
            flipped[bit // 8] ^= 1 << bit % 8
            assert_same(head + bytes(flipped), [Act(900, "commit")], [7], [1000])


def test_run_that_outgrows_every_buffer() -> None:
    """More answers than a group has room for at first, more rows than a batch."""
    payload = b'{"text":"' + b"x" * 500 + b'"}'
    parts = [codec.encode(connect(4), 4)]
    for number in range(1, 3_000):
        payload_now = payload if number % 4 == 0 else b'{"a":%d}' % number
        parts.append(codec.encode(m.Publish("v2/t", payload_now, 1, packet_id=number), 4))
    assert_same(b"".join(parts), [Act(500, "commit")], [100_000], [70_000])
