"""Properties of the MQTT codec over generated packets, splits and damage."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from tbfast.codec.mqtt import (
    Decoder,
    MalformedPacket,
    PacketTooLarge,
    UnsupportedProtocol,
    decode,
    encode,
)
from tbfast.errors import PeerError
from tbfast.model.mqtt import Packet
from tests.support import mqtt_strategies, oracle_mqtt
from tests.support.mqtt_vectors import load

LIMIT = 4_096
KIND = {
    MalformedPacket: "malformed",
    PacketTooLarge: "too_large",
    UnsupportedProtocol: "unsupported",
}
VERSIONS = st.sampled_from([3, 4, 5])
SEEDS = [vector.data for vector in load()]
STREAMS = VERSIONS.flatmap(
    lambda version: st.tuples(
        st.just(version),
        st.lists(mqtt_strategies.packets(version), min_size=1, max_size=5),
    )
)


def run(data: bytes, version: int, cuts: list[int]) -> tuple[list[Packet], str | None]:
    """Feeds data cut at these places; the packets and the kind of error that ended them."""
    stream = Decoder(max_remaining=LIMIT, version=version)
    packets: list[Packet] = []
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    try:
        for start, stop in pairwise(edges):
            packets += stream.feed(data[start:stop])
    except PeerError as error:
        assert error is stream.failed
    return packets, KIND[type(stream.failed)] if stream.failed else None


@given(STREAMS)
def test_round_trip(case: tuple[int, list[Packet]]) -> None:
    version, packets = case
    for packet in packets:
        data = encode(packet, version)
        assert decode(data, version) == packet
        assert oracle_mqtt.first_packet(data, version, 2**28) == (packet, len(data))


@given(STREAMS, st.lists(st.integers(0, 5_000), max_size=8))
def test_any_split_gives_the_same_packets(case: tuple[int, list[Packet]], cuts: list[int]) -> None:
    version, packets = case
    data = b"".join(encode(packet, version) for packet in packets)
    assert run(data, version, cuts) == (packets, None)
    assert run(data, version, list(range(len(data)))) == (packets, None)


@settings(max_examples=300)
@given(st.binary(max_size=64), st.sampled_from([0, 3, 4, 5]), st.lists(st.integers(0, 64)))
def test_random_bytes_as_the_oracle(data: bytes, version: int, cuts: list[int]) -> None:
    assert run(data, version, cuts) == oracle_mqtt.stream(data, version, LIMIT)


@settings(max_examples=300)
@given(
    st.sampled_from(SEEDS),
    st.sampled_from([0, 3, 4, 5]),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=3),
)
def test_damaged_packets_as_the_oracle(
    seed: bytes, version: int, damage: list[tuple[int, int]]
) -> None:
    data = bytearray(seed)
    for place, value in damage:
        if data:
            data[place % len(data)] = value
    assert run(bytes(data), version, [1, 3, 9]) == oracle_mqtt.stream(bytes(data), version, LIMIT)


@settings(max_examples=100)
@given(STREAMS, st.data())
def test_one_flipped_bit_as_the_oracle(case: tuple[int, list[Packet]], data: st.DataObject) -> None:
    version, packets = case
    stream = bytearray(b"".join(encode(packet, version) for packet in packets))
    place = data.draw(st.integers(0, 8 * len(stream) - 1))
    stream[place // 8] ^= 1 << place % 8
    flipped = bytes(stream)
    assert run(flipped, version, [2, 5]) == oracle_mqtt.stream(flipped, version, LIMIT)
