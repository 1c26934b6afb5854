"""Hostile JSON and Protobuf through a real server (hostile-input spec 9 and 10).

The codecs' own tests judge every value; here what matters is that a refusal is told, leaves no row
and disturbs nobody.  What must hold besides is checked after every test by the fixture `field`.
"""

import random

import pytest

from tbfast.model import mqtt as m
from tests.support import proto_profiles as protos
from tests.support.battlefield import Field, scaled
from tests.support.google_messages import encode
from tests.support.mqtt_profiles import device, profile
from tests.support.wire import Wire

SEED = 20_261_126
TOPICS = ("v1/devices/me/telemetry", "v1/devices/me/attributes", "v2/t/j", "v2/a/j")


def code(wire: Wire, payload: bytes, topic: str) -> int:
    """The reason code of the PUBACK."""
    wire.send(m.Publish(topic, payload, 1, packet_id=9))
    answer = wire.receive()
    assert isinstance(answer, m.Puback) and answer.packet_id == 9
    return answer.reason_code


# --- 9: JSON ---------------------------------------------------------------------------------

REFUSED: dict[str, bytes] = {
    "J1 opening brackets": b'{"a":' + b"[" * 60_000,
    "J1 opening braces": b'{"a":' * 13_000,
    "J1 nested and closed": b'{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "J3 exponent without end": b'{"a":1e999999999}',
    "J3 exponent of 20 digits": b'{"a":1e99999999999999999999}',
    "J5 number": b"1",
    "J5 string": b'"text"',
    "J5 null": b"null",
    "J5 nothing": b"",
    "J6 trailing comma": b'{"a":1,}',
    "J6 bytes after the document": b'{"a":1}x',
    "J6 a second document": b'{"a":1}{"a":2}',
}
REFUSED_TELEMETRY: dict[str, bytes] = {
    "J7 ts beyond 64 bits": b'{"ts":9223372036854775808,"values":{"a":1}}',
    "J7 ts far below": b'{"ts":-1e30,"values":{"a":1}}',
    "J7 ts is a boolean": b'{"ts":true,"values":{"a":1}}',
    "J7 ts is null": b'{"ts":null,"values":{"a":1}}',
    "J7 ts is an object": b'{"ts":{},"values":{"a":1}}',
    "J7 ts is a word": b'{"ts":"yesterday","values":{"a":1}}',
    "J7 ts is a fraction in a string": b'{"ts":"1.5","values":{"a":1}}',
    "J7 ts in other digits": '{"ts":"١٢","values":{"a":1}}'.encode(),
    "J8 values is an array": b'{"ts":1,"values":[1]}',
    "J8 values is a string": b'{"ts":1,"values":"x"}',
    "J8 good and bad entries": b'[{"a":1},{"ts":1,"values":{"b":2}},5]',
    "J8 a bad one last": b"[" + b'{"a":1},' * 5_000 + b"[]]",
}


@pytest.mark.parametrize("version", [4, 5])
def test_j1_j3_j5_j6_j7_j8_refused_documents(field: Field, version: int) -> None:
    for name, payload in (REFUSED | REFUSED_TELEMETRY).items():
        for topic in TOPICS if name in REFUSED else TOPICS[::2]:
            with field.open(version) as wire:
                if version == 5:
                    assert code(wire, payload, topic) == 0x99, name
                    wire.ping()
                else:  # closed, without a PUBACK
                    wire.send(m.Publish(topic, payload, 1, packet_id=9))
                    assert wire.expect_close() == [], name
    assert field.rows() == {}
    assert field.server.attributes(field.mallory, "CLIENT_SCOPE") == {}


def test_j2_j3_j4_j5_j6_j9_documents_that_are_stored(field: Field) -> None:
    """What is accepted comes back out as JSON, through every interface that reads it."""
    deep = b"[" * 250 + b"1" + b"]" * 250
    documents = [
        b'{"big":%s,"n":NaN,"i":-Infinity,"z":-0}' % (b"9" * 400),
        b'{"twice":1,"twice":2}',
        b'{"deep":%s}' % deep,
        b'{"latin":"caf\xe9","lone":"\\ud800","nul":"a\\u0000b"}',
        '{"arabic":"١٢","under":"1_000","blank":" 5 ","plus":"+5","hex":"0x10"}'.encode(),
        b"{}", b"[]", b'{"ts":1,"values":{}}',
    ]  # fmt: skip
    with field.open(5) as wire:
        for document in documents:
            assert code(wire, document, TOPICS[0]) == 0, document[:40]
    rows = {key: points[0]["value"] for key, points in field.rows().items()}
    assert rows["big"] == "9" * 400
    assert (rows["n"], rows["i"], rows["z"]) == ("NaN", "-Infinity", 0)
    assert len(field.server.query(field.mallory, "twice")["twice"]) == 1
    assert rows["twice"] == 2
    assert str(rows["deep"]).replace(" ", "") == deep.decode()
    assert (rows["latin"], rows["lone"], rows["nul"]) == ("caf\ufffd", "\ufffd", "a\x00b")
    assert (rows["under"], rows["blank"], rows["plus"], rows["hex"]) == (
        "1_000", " 5 ", "+5", "0x10",
    )  # fmt: skip
    assert rows["arabic"] == 12  # as ThingsBoard: any script's decimal digits are numbers


def test_j5_keys_that_storage_refuses(field: Field) -> None:
    with field.open(5) as wire:
        for key in (b"", b" ", b"k" * 60_000, b"{{x}}", b"<b>x</b>"):
            assert code(wire, b'{"good":1,"%s":2}' % key, TOPICS[0]) == 0
        wire.ping()
    assert field.rows() == {}


def test_j10_names_by_the_thousand(field: Field) -> None:
    with field.open(5) as wire:
        for round_number in range(scaled(10)):
            names = b",".join(b'"k%d-%d":1' % (round_number, n) for n in range(4_000))
            assert code(wire, b'{"ts":1,"values":{%s}}' % names, TOPICS[0]) == 0
            assert code(wire, b'{"ts":1,"values":{%s,}}' % names, TOPICS[0]) == 0x99


# --- 10: Protobuf ----------------------------------------------------------------------------

VARINT_11 = b"\xff" * 10 + b"\x01"
MALFORMED: dict[str, bytes] = {
    "B1 varint of eleven bytes": b"\x08" + VARINT_11,
    "B1 tag of eleven bytes": VARINT_11,
    "B1 field 0": b"\x00\x01",
    "B1 field number too large": b"\x80\x80\x80\x80\x10\x01",
    "B1 wire type 6": b"\x0e",
    "B1 wire type 7": b"\x0f",
    "B1 end of a group that is none": b"\x7c",
    "B1 group without an end": b"\x7b",
    "B1 groups in groups": b"\x7b" * 60_000,
    "B1 varint cut short": b"\x08\x80",
    "B2 length past the end": b"\x1a\x05ab",
    "B2 length with bit 31": b"\x1a\xff\xff\xff\xff\x0f",
    "B2 length with bit 63": b"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    "B2 fixed64 cut short": b"\x09\x00\x00",
    "B3 unknown messages, no end": b"\x7a\xff\xff\x03" + b"\x7a" * 100,
}


@pytest.fixture
def metered(field: Field) -> str:
    """A device of a Protobuf profile."""
    name = f"protobuf-{field.mallory}"
    return device(field.server, name, profile(field.server, name))


def test_b1_b2_b3_malformed_messages(field: Field, metered: str) -> None:
    with field.wire(5).open(metered) as wire:
        for name, payload in MALFORMED.items():
            for topic in ("v2/t", "v2/a/p", "v1/devices/me/attributes/request/1", "v2/r/req/p/1",
                          "v2/r/res/1", "v1/devices/me/claim"):  # fmt: skip
                assert code(wire, payload, topic) == 0x99, (name, topic)
        wire.ping()
        assert code(wire, protos.made(protos.TELEMETRY, temperature=1.5), "v2/t") == 0
    assert set(field.server.query(metered)) == {"temperature"}
    assert field.server.values(metered, "temperature") == [1.5]
    assert field.server.attributes(metered, "CLIENT_SCOPE") == {}


def test_b9_numbers_that_are_none(field: Field, metered: str) -> None:
    values = (float("nan"), float("inf"), float("-inf"))
    with field.wire(5).open(metered) as wire:
        for value in values:
            payload = protos.made(protos.TELEMETRY, temperature=value)
            assert code(wire, payload, "v2/t") == 0
            wanted = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
            # Within one millisecond the last one wins, so each is looked for by itself.
            assert field.server.values(metered, "temperature")[-1] == wanted


def test_random_bytes_as_messages(field: Field, metered: str) -> None:
    """Accepted or refused, nothing else."""
    dice = random.Random(SEED)
    good = protos.made(protos.TELEMETRY, temperature=21.5, inner_object={"key1": "a", "key4": 7})
    with field.wire(5).open(metered) as wire:
        for _ in range(scaled(500)):
            flipped = bytearray(good)
            for _ in range(dice.randint(1, 4)):
                flipped[dice.randrange(len(good))] ^= 1 << dice.randrange(8)
            for payload in (bytes(flipped), dice.randbytes(dice.randint(0, 200))):
                assert code(wire, payload, "v2/t") in (0, 0x99)
        wire.ping()


def test_hostile_registrations(field: Field) -> None:
    """Neither JSON nor Protobuf: told (MQTT 5); the session stays and leaves no device."""
    listed = field.server.rest("GET", "/api/tenant/devices?pageSize=1000&page=0")[1]
    request = encode("ProvisionDeviceRequestMsg", {"deviceName": "ghost"})
    payloads = [*MALFORMED.values(), b"[" * 60_000, b'{"a":' * 12_000, request[:-1]]
    with field.wire(5).open("provision") as wire:
        for payload in payloads:
            assert code(wire, payload, "/provision/request") == 0x99, payload[:20]
        wire.send(m.Publish("/provision/request", request, 0))
        answer = wire.receive()
        assert isinstance(answer, m.Publish)
        assert bytes(answer.payload) == b"\x08\x02"  # NOT_FOUND, and nothing besides
    after = field.server.rest("GET", "/api/tenant/devices?pageSize=1000&page=0")[1]
    assert after["totalElements"] == listed["totalElements"]
