"""Every vector through the codec and through the oracle, whole and byte by byte."""

import re

import pytest

from tbfast import limits
from tbfast.codec.mqtt import (
    Decoder,
    MalformedPacket,
    PacketTooLarge,
    UnsupportedProtocol,
    decode,
    encode,
)
from tbfast.errors import PeerError
from tbfast.model import mqtt
from tests.support import oracle_mqtt
from tests.support.mqtt_vectors import Vector, load

VECTORS = load()
GOOD = [v for v in VECTORS if v.packet is not None]
BAD = [v for v in VECTORS if v.packet is None]
KIND = {
    MalformedPacket: "malformed",
    PacketTooLarge: "too_large",
    UnsupportedProtocol: "unsupported",
}
# Accepted, but we write the same packet otherwise.
NOT_OURS = re.compile("longer than needed|reason only|unused bit")


def name(vector: Vector) -> str:
    return vector.name


def decoder(version: int) -> Decoder:
    return Decoder(max_remaining=limits.MQTT_MAX_REMAINING_BYTES, version=version)


def outcome_bytewise(vector: Vector) -> str:
    """What feeding one byte at a time ends in: packet, more, or the kind of error."""
    stream = decoder(vector.version)
    got = []
    try:
        for byte in vector.data:
            got += stream.feed(bytes([byte]))
    except PeerError as error:
        return KIND[type(error)]
    assert got == ([vector.packet] if vector.packet is not None else [])
    return "packet" if got else "more"


@pytest.mark.parametrize("vector", GOOD, ids=name)
def test_accepted(vector: Vector) -> None:
    assert decode(vector.data, vector.version) == vector.packet
    assert outcome_bytewise(vector) == "packet"


@pytest.mark.parametrize("vector", BAD, ids=name)
def test_refused(vector: Vector) -> None:
    if vector.error == "more":
        stream = decoder(vector.version)
        assert stream.feed(vector.data) == []
        assert stream.buffered == len(vector.data)
    else:
        with pytest.raises(PeerError) as caught:
            decoder(vector.version).feed(vector.data)
        assert KIND[type(caught.value)] == vector.error
    assert outcome_bytewise(vector) == vector.error


@pytest.mark.parametrize("vector", GOOD, ids=name)
def test_encodes_back(vector: Vector) -> None:
    assert vector.packet is not None
    data = encode(vector.packet, vector.version)
    assert decode(data, vector.version) == vector.packet
    if not NOT_OURS.search(vector.name):
        assert data == vector.data


def test_oracle_agrees() -> None:
    for vector in VECTORS:
        packets, error = oracle_mqtt.stream(
            vector.data, vector.version, limits.MQTT_MAX_REMAINING_BYTES
        )
        expected = None if vector.error == "more" else vector.error
        assert (packets, error) == (
            [vector.packet] if vector.packet else [],
            expected,
        ), vector.name


def test_vectors_cover_every_type_and_property() -> None:
    covered = {(type(v.packet).__name__, v.version) for v in GOOD}
    expected = {
        (kind.__name__, version)
        for kind in mqtt.PACKET_TYPES
        for version in (3, 4, 5)
        if kind is not mqtt.Auth or version == 5
    }
    assert covered == expected
    blocks = [v.packet.properties for v in GOOD if hasattr(v.packet, "properties")]
    blocks += [v.packet.will.properties for v in GOOD if getattr(v.packet, "will", None)]
    used = {f for block in blocks if block is not None for f in fields_set(block)}
    assert used == set(mqtt.Properties.__struct_fields__)


def fields_set(block: mqtt.Properties) -> list[str]:
    return [f for f in block.__struct_fields__ if getattr(block, f) not in (None, ())]
