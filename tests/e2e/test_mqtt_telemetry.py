"""MQTT telemetry as a device and an operator see it: a real server, real sockets, the real CLI."""

import json
import socket
import threading
import time
from collections.abc import Callable

import pytest

from tbfast import limits
from tbfast.codec import mqtt as codec
from tbfast.model import mqtt as m
from tbfast.model.mqtt import ReasonCode as Code
from tests.support.server import Server
from tests.support.waiting import wait_until
from tests.support.wire import TELEMETRY, Closed, Wire, connect

NewWire = Callable[..., Wire]
VERSIONS = pytest.mark.parametrize("version", [3, 4, 5])


def reasons(packets: list[m.Packet]) -> list[int]:
    return [p.reason_code for p in packets if isinstance(p, m.Disconnect)]


# --- CONNECT ---------------------------------------------------------------------------------


@VERSIONS
def test_token_lets_in_whatever_else_is_sent(wire: NewWire, token: str, version: int) -> None:
    for fields in ({}, {"client_id": ""}, {"password": b"any"}, {"clean_start": False}):
        answer = wire(version=version).connect(token, **fields)
        assert (answer.reason_code, answer.session_present) == (0, False)


@VERSIONS
@pytest.mark.parametrize(
    ("fields", "v5", "v3"),
    [
        ({"token": "no such token"}, 0x86, 5),
        ({"token": "no such token", "password": b"p"}, 0x86, 5),
        ({"token": None}, 0x85, 2),
        ({"token": None, "client_id": ""}, 0x87, 5),
        ({"token": "%"}, 0x86, 5),
    ],
)
def test_refused_connect(
    wire: NewWire, fields: dict[str, object], v5: int, v3: int, version: int
) -> None:
    one = wire(version=version)
    answer = one.connect(**fields)  # type: ignore[arg-type]
    assert answer.reason_code == (v5 if version == 5 else v3)
    assert reasons(one.expect_close()) == []


def test_connect_and_publish_in_one_segment(server: Server, wire: NewWire, token: str) -> None:
    one = wire()
    one.send(
        connect(token),
        m.Subscribe(1, (m.Subscription("v1/devices/me/attributes", 1), m.Subscription("#"))),
        m.Publish(TELEMETRY, b"{early:1}", 1, packet_id=2),
    )
    one.expect(m.Connack(False, 0), m.Suback(1, (1, 0x80)), m.Puback(2))
    assert server.values(token, "early") == [1]


def test_who_sends_and_goes_without_waiting(server: Server, wire: NewWire, token: str) -> None:
    """Also while nobody knows the device yet: the lookup takes longer than the farewell."""
    with wire() as peer:
        peer.send(connect(token), m.Publish(TELEMETRY, b'{"ts":1,"values":{"a":1}}', 0))
    wait_until(lambda: server.values(token, "a") == [1], what="it is stored")


@pytest.mark.parametrize("known", [False, True])
def test_who_shuts_its_side_is_still_answered(
    server: Server, wire: NewWire, token: str, known: bool
) -> None:
    if known:
        wire().open(token).close()
    peer = wire()
    body = b'{"ts":1,"values":{"a":1}}'
    peer.send(connect(token), m.Publish(TELEMETRY, body, 1, packet_id=7))
    peer.sock.shutdown(socket.SHUT_WR)
    answers = peer.expect_close()
    assert [type(answer) for answer in answers] == [m.Connack, m.Puback]
    assert server.values(token, "a") == [1]


def test_a_stranger_that_goes_without_waiting_is_refused(wire: NewWire) -> None:
    peer = wire()
    peer.send(connect("nobody-has-this-token"), m.Pingreq())
    peer.sock.shutdown(socket.SHUT_WR)
    (answer,) = peer.expect_close()
    assert isinstance(answer, m.Connack) and answer.reason_code == 5


def test_many_devices_with_one_client_id(server: Server, wire: NewWire) -> None:
    names = [server.add_device(f"same-client-{i}") for i in range(3)]
    opened = [wire().open(name, client_id="sdk-client") for name in names]
    for one in opened:
        one.ping()


# --- PUBLISH ---------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize("topic", [TELEMETRY, "v2/t", "v2/t/j"])
def test_topics_and_qos(
    server: Server, wire: NewWire, token: str, topic: str, version: int
) -> None:
    one = wire(version=version).open(token)
    one.send(
        m.Publish(topic, b'{"n":0}'),
        m.Publish(topic, b'{"n":1}', 1, packet_id=1),
        m.Publish(topic, b'{"n":2}', 2, packet_id=2),
    )
    one.expect(m.Puback(1), m.Pubrec(2))
    one.send(m.Pubrel(2))
    one.expect(m.Pubcomp(2))
    # Without a time of their own the three may share a millisecond: then the last arrival stays.
    assert server.values(token, "n")[-1] == 2
    one.ping()


def test_every_type_reads_back_as_it_was_sent(server: Server, wire: NewWire, token: str) -> None:
    sent = {
        "long": 9223372036854775807, "negative": -1, "double": 0.1, "exact": 3.0, "yes": True,
        "no": False, "text": 'q"\\\u00e9\U0001f321', "json": {"a": [1, None, {"b": "c"}]},
    }  # fmt: skip
    payload = json.dumps({"ts": 1000, "values": sent})
    wire().open(token).publish(payload)
    printed = json.loads(server.cli("query", token, "--json"))
    assert printed == {key: [{"ts": 1000, "value": value}] for key, value in sent.items()}
    text = server.cli("query", token, "--keys", "exact,long")
    assert "3.0" in text
    assert "9223372036854775807" in text


def test_query_order_range_and_limit(server: Server, wire: NewWire, token: str) -> None:
    records = [{"ts": ts, "values": {"a": ts, "b": -ts}} for ts in (30, 10, 50, 20, 40)]
    wire().open(token).publish(json.dumps(records))

    def times(*words: str, key: str = "a") -> list[int]:
        return [p["ts"] for p in json.loads(server.cli("query", token, "--json", *words))[key]]

    assert times() == [50, 40, 30, 20, 10]
    assert times("--start", "20", "--end", "40") == [30, 20]
    assert times("--start", "20", "--limit", "2", key="b") == [50, 40]
    assert set(json.loads(server.cli("query", token, "--json", "--keys", "b"))) == {"b"}
    server.cli("query", "no such device", code=3)


def test_last_arrival_wins_at_one_time(server: Server, wire: NewWire, token: str) -> None:
    one = wire().open(token)
    for number, value in enumerate((1, 2, 3), 1):
        one.publish(json.dumps({"ts": 5, "values": {"a": value}}), number)
    assert server.query(token) == {"a": [{"ts": 5, "value": 3}]}


def test_server_time(server: Server, wire: NewWire, token: str) -> None:
    before = time.time_ns() // 1_000_000
    wire().open(token).publish("{a:1}")
    (point,) = server.query(token)["a"]
    assert before <= point["ts"] <= time.time_ns() // 1_000_000


@pytest.mark.parametrize("topic", ["a", "/provision/request", "v1/devices/me/telemetry/x"])
def test_unknown_topic(server: Server, wire: NewWire, token: str, topic: str) -> None:
    old, new = wire(version=4).open(token), wire(version=5)
    old.publish("{a:1}", 3, topic)
    old.ping()
    new.open(token)
    new.send(m.Publish(topic, b"{a:1}", 1, packet_id=4))
    answer = new.receive()
    assert isinstance(answer, m.Puback)
    assert answer.reason_code == Code.TOPIC_NAME_INVALID
    new.ping()
    assert server.query(token) == {}


@VERSIONS
@pytest.mark.parametrize("payload", [b"", b"{", b"1", b'{"a":1,}', b'[{"a":1},2]'])
def test_payload_that_does_not_convert(
    server: Server, wire: NewWire, token: str, payload: bytes, version: int
) -> None:
    one = wire(version=version).open(token)
    one.send(m.Publish(TELEMETRY, payload, 1, packet_id=9))
    if version == 5:
        answer = one.receive()
        assert isinstance(answer, m.Puback)
        assert answer.reason_code == Code.PAYLOAD_FORMAT_INVALID
        one.ping()
    else:
        assert one.expect_close() == []
    assert server.query(token) == {}


@VERSIONS
@pytest.mark.parametrize(
    "raw",
    [b"\x36\x05\x00\x01t\x00\x01", b"\x00\x00", b"\x82\x02\x00\x01", b"\x30\x80\x80\x80\x80\x01"],
    ids=["qos-3", "type-0", "no-filter", "long-length"],
)
def test_malformed_packet(wire: NewWire, token: str, raw: bytes, version: int) -> None:
    one = wire(version=version).open(token)
    one.send(m.Publish(TELEMETRY, b"{a:1}", 1, packet_id=1), raw)
    first, *rest = one.expect_close()
    assert first == m.Puback(1)  # accepted before, so answered before the close
    assert reasons(rest) == ([Code.MALFORMED_PACKET] if version == 5 else [])


@VERSIONS
def test_largest_packet_and_one_byte_more(
    server: Server, wire: NewWire, token: str, version: int
) -> None:
    one = wire(version=version).open(token)
    overhead = 2 + len(TELEMETRY) + 2 + (version == 5)
    text = "x" * (limits.MQTT_MAX_REMAINING_BYTES - overhead - len('{"ts":7,"values":{"a":""}}'))
    one.publish(f'{{"ts":7,"values":{{"a":"{text}"}}}}')
    assert server.values(token, "a") == [text]
    too_long = json.dumps({"a": text + "x" * 20}).encode()
    one.send(m.Publish(TELEMETRY, too_long, 1, packet_id=2))
    assert reasons(one.expect_close()) == ([Code.MALFORMED_PACKET] if version == 5 else [])


# --- sessions --------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5])
def test_takeover(server: Server, wire: NewWire, token: str, version: int) -> None:
    older = wire(version=version).open(token)
    newer = wire().open(token)
    assert reasons(older.expect_close()) == ([Code.SESSION_TAKEN_OVER] if version == 5 else [])
    newer.publish("{a:1}")


def test_second_connect(server: Server, wire: NewWire, token: str) -> None:
    other = server.add_device(f"{token}-other")
    one = wire(version=5).open(token)
    one.send(connect(other, 5), m.Publish(TELEMETRY, b"{a:1}", 1, packet_id=1))
    assert reasons(one.expect_close()) == [Code.PROTOCOL_ERROR]
    assert server.query(other) == server.query(token) == {}


@pytest.mark.parametrize("version", [4, 5])
def test_removed_device_is_disconnected_within_a_second(
    server: Server, wire: NewWire, token: str, version: int
) -> None:
    one = wire(version=version).open(token)
    one.publish("{a:1}")
    server.cli("device", "remove", token)
    assert reasons(one.expect_close(1.0)) == ([Code.ADMINISTRATIVE_ACTION] if version == 5 else [])
    assert wire(version=version).connect(token).reason_code == (0x86 if version == 5 else 5)


def test_device_added_while_its_client_keeps_trying(server: Server, wire: NewWire) -> None:
    name = "comes-later"
    assert wire().connect(name).reason_code == 5
    server.add_device(name)
    wait_until(lambda: wire().connect(name).reason_code == 0)


def test_disconnect(server: Server, wire: NewWire, token: str) -> None:
    for version, answer in ((4, []), (5, [m.Disconnect()])):
        one = wire(version=version).open(token)
        one.publish('{"ts":1,"values":{"a":1}}')
        one.send(m.Disconnect())
        assert one.expect_close() == answer
    assert server.values(token, "a") == [1]


# --- what an acknowledgement means -----------------------------------------------------------


@pytest.mark.parametrize("durability", ["disk", "process"])
def test_a_query_sees_what_was_acknowledged(durability: str) -> None:
    with Server(durability=durability) as server:
        server.add_device("d")
        with Wire(server.mqtt_port) as one:
            one.open("d")
            for number in range(1, 101):
                one.publish(json.dumps({"ts": number, "values": {"a": number}}), number)
                assert server.values("d", "a")[-1:] == [number]
            assert server.values("d", "a") == list(range(1, 101))
        assert server.stop() == 0
        # Read from the store of the stopped server.
        stored = json.loads(server.cli("query", "d", "--json", "--limit", "1000"))["a"]
        assert [p["value"] for p in stored] == list(range(100, 0, -1))


def test_rows_survive_a_restart(own_server: Server) -> None:
    own_server.add_device("d")
    for number in range(1, 4):
        with Wire(own_server.mqtt_port) as one:
            one.open("d").publish(json.dumps({"ts": number, "values": {"a": number}}))
        assert own_server.values("d", "a") == list(range(1, number + 1))
        assert own_server.stop() == 0
        own_server.start()
    assert own_server.values("d", "a") == [1, 2, 3]


def test_tail_shows_rows_live(server: Server, wire: NewWire, token: str) -> None:
    one = wire().open(token)
    for words in ((token,), ()):
        with server.tail(*words) as tail:
            lines: list[dict[str, object]] = []

            def follow(tail: object = tail, lines: list[dict[str, object]] = lines) -> None:
                lines.extend(map(json.loads, tail.stdout))  # type: ignore[attr-defined]

            reader = threading.Thread(target=follow)
            reader.start()
            sent = 0

            def seen(lines: list[dict[str, object]] = lines) -> bool:
                nonlocal sent
                sent += 1
                one.publish(json.dumps({"ts": sent, "values": {"live": sent}}), sent)
                return any(line["device"] == token for line in lines)

            try:
                wait_until(seen)
            finally:
                tail.terminate()
                reader.join()
            line = next(line for line in lines if line["device"] == token)
            assert set(line) == {"device", "id", "ts", "key", "value"}
            assert (line["key"], line["ts"]) == ("live", line["value"])


# --- more than one worker, and the end -------------------------------------------------------


def test_takeover_across_workers() -> None:
    with Server(workers=2) as server:
        server.add_device("d")
        older = Wire(server.mqtt_port, version=5).open("d")
        used = set()
        for round_number in range(1, 25):
            newer = Wire(server.mqtt_port, version=5).open("d")
            newer.publish(json.dumps({"ts": round_number, "values": {"a": round_number}}))
            assert reasons(older.expect_close()) == [Code.SESSION_TAKEN_OVER]
            older.close()
            older = newer
            used |= {w["index"] for w in server.node()["workers"] if w["connections"]}
        older.ping()
        older.close()
        assert used == {0, 1}, "the kernel gave every connection to one worker"
        assert server.values("d", "a") == list(range(1, 25))
        assert server.stop() == 0


class _Publisher(threading.Thread):
    """Publishes QoS 1 without waiting for answers until the server ends the connection."""

    def __init__(self, server: Server, name: str, version: int) -> None:
        super().__init__(daemon=True)
        self.wire = Wire(server.mqtt_port, version=version).open(name)
        self.device = name
        self.sent = 0
        self.acknowledged: list[int] = []
        self.last: list[m.Packet] = []
        self.flowing = threading.Event()
        self.ended = threading.Event()

    def run(self) -> None:
        writer = threading.Thread(target=self._write)
        writer.start()
        try:
            while True:
                packet = self.wire.receive(30)
                if isinstance(packet, m.Puback):
                    assert packet.reason_code == 0
                    self.acknowledged.append(packet.packet_id)
                    if len(self.acknowledged) > 200:
                        self.flowing.set()
                else:
                    self.last.append(packet)
        except Closed:
            self.ended.set()
        writer.join()
        self.wire.close()

    def _write(self) -> None:
        try:
            while self.sent < 65_000:
                batch = []
                for _ in range(20):
                    self.sent += 1
                    record = b'{"ts":%d,"values":{"a":%d}}' % (self.sent, self.sent)
                    publish = m.Publish(TELEMETRY, record, 1, packet_id=self.sent)
                    batch.append(codec.encode(publish, self.wire.version))
                self.wire.sock.sendall(b"".join(batch))
                if self.sent - len(self.acknowledged) > 2_000:
                    wait_until(self._caught_up, 30)
        except OSError:
            return

    def _caught_up(self) -> bool:
        return self.sent - len(self.acknowledged) < 1_000 or self.ended.is_set()


@pytest.mark.parametrize("durability", ["disk", "process"])
def test_stop_under_load_answers_what_was_accepted(durability: str) -> None:
    with Server(durability=durability) as server:
        names = [server.add_device(f"load-{i}") for i in range(4)]
        publishers = [_Publisher(server, name, 4 + i % 2) for i, name in enumerate(names)]
        for one in publishers:
            one.start()
        for one in publishers:
            assert one.flowing.wait(30)
        assert server.stop() == 0
        for one in publishers:
            one.join(30)
            assert not one.is_alive()
            stored = json.loads(server.cli("query", one.device, "--json", "--limit", "100000"))
            values = sorted(point["value"] for point in stored["a"])
            # Whatever was stored was answered, and the other way round.
            assert values == one.acknowledged == list(range(1, len(values) + 1))
            goodbye = reasons(one.last)
            assert goodbye == ([Code.SERVER_SHUTTING_DOWN] if one.wire.version == 5 else [])
