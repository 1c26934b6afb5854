"""Devices download the packages they are given, over MQTT and HTTP (MQTT spec 6.3, HTTP spec 5)."""

import http.client
import json
import random
from collections.abc import Callable, Iterator
from contextlib import closing
from urllib.parse import urlencode

import pytest

from tbfast import limits
from tbfast.model import mqtt as m
from tbfast.model.mqtt import ReasonCode as Code
from tests.support.multipart import CONTENT_TYPE, form
from tests.support.packages import add_package, assign
from tests.support.server import Server
from tests.support.wire import Wire

SIZE = 10_000
DATA = random.Random(1).randbytes(SIZE)
BIG = random.Random(2).randbytes(3_000_000)  # more than a session may have unsent
CHUNK = 4096


@pytest.fixture(scope="module")
def node() -> Iterator[Server]:
    with Server() as server:
        for number, (title, data) in enumerate((("fw", DATA), ("big", BIG))):
            server.add_device(title)
            assign(server, title, add_package(server, title, f"{number}", data))
        server.add_device("both")
        assign(server, "both", add_package(server, "both", data=b"firmware"))
        software = add_package(server, "both", data=b"software", type="SOFTWARE")
        assign(server, "both", software, "softwareId")
        server.add_device("url")
        assign(server, "url", add_package(server, "url", data=None, url="http://h/fw"))
        server.add_device("none")
        yield server


@pytest.fixture
def wires(node: Server) -> Iterator[Callable[..., Wire]]:
    opened: list[Wire] = []

    def session(token: str, version: int = 4, **fields: object) -> Wire:
        opened.append(Wire(node.mqtt_port, version=version).open(token, **fields))
        return opened[-1]

    yield session
    for one in opened:
        one.close()


def ask(wire: Wire, n: int, size: bytes = b"4096", *, request: str = "1", kind: str = "fw") -> None:
    topic = f"v2/{kind}/request/{request}/chunk/{n}"
    wire.send(m.Publish(topic, size, 1, packet_id=n % 60_000 + 1))


def chunk(wire: Wire, n: int, *, request: str = "1", kind: str = "fw") -> bytes:
    """The PUBACK and then the chunk, which is acknowledged."""
    wire.expect(m.Puback(n % 60_000 + 1))
    packet = wire.receive()
    assert isinstance(packet, m.Publish)
    assert (packet.topic, packet.qos) == (f"v2/{kind}/response/{request}/chunk/{n}", 1)
    wire.send(m.Puback(packet.packet_id or 0))
    return packet.payload


def refused(wire: Wire) -> str:
    """The error of a chunk request, after which the connection ends without a PUBACK."""
    packet, *rest = wire.expect_close()
    assert isinstance(packet, m.Publish) and packet.topic == "v2/fw/error", packet
    assert rest == ([] if wire.version < 5 else rest)
    if wire.version == 5:
        (end,) = rest
        assert isinstance(end, m.Disconnect)
        assert end.reason_code == Code.IMPLEMENTATION_SPECIFIC_ERROR
    return packet.payload.decode()


# --- MQTT ------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5])
def test_chunk_by_chunk(wires: Callable[..., Wire], version: int) -> None:
    wire = wires("fw", version)
    found = []
    for n in range(4):
        ask(wire, n)
        found.append(chunk(wire, n))
    assert [len(part) for part in found] == [4096, 4096, SIZE - 8192, 0]
    assert b"".join(found) == DATA
    ask(wire, 0, b"")  # of the size it had
    assert chunk(wire, 0) == DATA[:CHUNK]
    ask(wire, 0, b"0")
    assert chunk(wire, 0) == DATA[:CHUNK]
    ask(wire, 2_147_483_647, b"65536")
    assert chunk(wire, 2_147_483_647) == b""


@pytest.mark.parametrize("size", [b"", b"0", b"-5"])
def test_a_whole_file(wires: Callable[..., Wire], size: bytes) -> None:
    wire = wires("fw")
    ask(wire, 0, size, request="007")
    assert chunk(wire, 0, request="007") == DATA
    ask(wire, 3, size, request="8")
    assert chunk(wire, 3, request="8") == DATA


def test_many_at_once_come_in_order(wires: Callable[..., Wire]) -> None:
    wire = wires("big")
    size, count = 30_000, 100
    requests = [
        m.Publish(f"v2/fw/request/1/chunk/{n}", b"%d" % size, 1, packet_id=n + 1)
        for n in range(count)
    ]
    wire.send(*requests)
    assert b"".join(chunk(wire, n) for n in range(count)) == BIG
    wire.ping()


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize(
    ("device", "payload", "why"),
    [
        ("none", b"10", "NOT_FOUND"),
        ("url", b"10", "FAILURE"),
        ("fw", b"65537", "PAYLOAD_TOO_LARGE"),
        ("big", b"", "PAYLOAD_TOO_LARGE"),
    ],
)
def test_errors(
    wires: Callable[..., Wire], version: int, device: str, payload: bytes, why: str
) -> None:
    wire = wires(device, version)
    ask(wire, 0, payload)
    assert refused(wire) == why


def test_a_chunk_larger_than_the_client_takes(wires: Callable[..., Wire]) -> None:
    wire = wires("fw", 5, properties=m.Properties(maximum_packet_size=1000))
    ask(wire, 0, b"900")
    assert chunk(wire, 0) == DATA[:900]
    ask(wire, 0, b"990")
    assert refused(wire) == "PAYLOAD_TOO_LARGE"


@pytest.mark.parametrize("payload", [b" 10", b"2147483648", b"ten", b"1.0", b"\xff", b"1" * 99])
@pytest.mark.parametrize("topic", ["v2/fw/request/1/chunk/0"])
def test_what_is_no_number(wires: Callable[..., Wire], topic: str, payload: bytes) -> None:
    five = wires("fw", 5)
    five.send(m.Publish(topic, payload, 1, packet_id=5))
    answer = five.receive()
    assert isinstance(answer, m.Puback) and answer.reason_code == Code.PAYLOAD_FORMAT_INVALID
    five.ping()
    four = wires("fw", 4)
    four.send(m.Publish(topic, payload, 1, packet_id=5))
    assert four.expect_close() == []


def test_a_chunk_number_beyond_31_bits(wires: Callable[..., Wire]) -> None:
    wire = wires("fw", 5)
    wire.send(m.Publish("v2/fw/request/1/chunk/2147483648", b"10", 1, packet_id=5))
    answer = wire.receive()
    assert isinstance(answer, m.Puback) and answer.reason_code == Code.PAYLOAD_FORMAT_INVALID


def test_firmware_and_software_under_one_request(wires: Callable[..., Wire]) -> None:
    wire = wires("both")
    ask(wire, 0, b"100")
    assert chunk(wire, 0) == b"firmware"
    ask(wire, 0, b"100", kind="sw")
    assert chunk(wire, 0, kind="sw") == b"software"
    wire.send(m.Publish("any/v2/fw/request/1/chunk/0/more", b"4", 1, packet_id=1))
    assert chunk(wire, 0) == b"firm"


def test_an_assignment_in_the_middle_of_a_download(node: Server) -> None:
    node.add_device("moves")
    packages = [add_package(node, "moves", v, v.encode() * 4) for v in ("aa", "bb")]
    assign(node, "moves", packages[0])
    with Wire(node.mqtt_port).open("moves") as wire:
        ask(wire, 0, b"4", request="1")
        assert chunk(wire, 0, request="1") == b"aaaa"
        assign(node, "moves", packages[1])
        ask(wire, 1, b"4", request="1")
        assert chunk(wire, 1, request="1") == b"aaaa"
        ask(wire, 0, b"4", request="2")
        assert chunk(wire, 0, request="2") == b"bbbb"
        for other in range(3, limits.MQTT_PACKAGE_REQUESTS + 3):  # forgets the first
            ask(wire, 0, b"4", request=f"{other}")
            chunk(wire, 0, request=f"{other}")
        ask(wire, 1, b"4", request="1")
        assert chunk(wire, 1, request="1") == b"bbbb"
    with Wire(node.mqtt_port).open("moves") as wire:  # nothing outlives the connection
        ask(wire, 0, b"4", request="1")
        assert chunk(wire, 0, request="1") == b"bbbb"


def test_a_package_that_is_deleted_meanwhile(node: Server) -> None:
    node.add_device("loses")
    package = add_package(node, "loses", data=b"x" * 100)
    assign(node, "loses", package)
    with Wire(node.mqtt_port).open("loses") as wire:
        ask(wire, 0, b"10")
        assert chunk(wire, 0) == b"x" * 10
        assign(node, "loses", None)
        assert node.rest("DELETE", f"/api/otaPackage/{package}") == (200, None)
        ask(wire, 1, b"10")
        assert refused(wire) == "NOT_FOUND"


# --- HTTP ------------------------------------------------------------------------------------


def get(
    node: Server,
    device: str,
    *,
    method: str = "GET",
    kind: str = "firmware",
    headers: dict[str, str] | None = None,
    **query: object,
) -> tuple[http.client.HTTPResponse, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=20)) as peer:
        target = f"/api/v1/{device}/{kind}?{urlencode(query)}"
        peer.request(method, target, headers=headers or {})
        answer = peer.getresponse()
        return answer, answer.read()


def test_http_chunks_one_too_many(node: Server) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=20)) as peer:
        found = []
        for n in range(4):  # on one connection
            peer.request("GET", f"/api/v1/fw/firmware?title=fw&version=0&size=4096&chunk={n}")
            answer = peer.getresponse()
            assert answer.status == 200
            found.append(answer.read())
            assert answer.headers["content-length"] == str(len(found[-1]))
    assert [len(part) for part in found] == [4096, 4096, SIZE - 8192, 0]
    assert b"".join(found) == DATA


@pytest.mark.parametrize("query", [{}, {"size": 0}, {"size": -1, "chunk": 7}, {"size": 2**40}])
def test_http_whole_files(node: Server, query: dict[str, int]) -> None:
    answer, data = get(node, "big", title="big", version="1", **query)
    assert answer.status == 200
    assert data == BIG
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == "attachment;filename=fw.bin"
    assert answer.headers["x-filename"] == "fw.bin"
    assert answer.headers["etag"] is None


def test_http_head(node: Server) -> None:
    answer, data = get(node, "big", method="HEAD", title="big", version="1")
    assert (answer.status, data) == (200, b"")
    assert answer.headers["content-length"] == str(len(BIG))


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-9", slice(0, 10)),
        ("bytes=500000-", slice(500_000, None)),
        ("Bytes=-70000", slice(-70_000, None)),
        ("bytes=100000-99999999", slice(100_000, None)),
        ("bytes=-99999999", slice(0, None)),
    ],
)
def test_http_range(node: Server, header: str, part: slice) -> None:
    headers = {"Range": header}
    answer, data = get(node, "big", headers=headers, title="big", version="1")
    assert (answer.status, data) == (206, BIG[part])
    first = range(len(BIG))[part].start
    shown = f"bytes {first}-{first + len(data) - 1}/{len(BIG)}"
    assert answer.headers["content-range"] == shown
    assert answer.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize(
    "headers",
    [
        {"Range": "bytes=0-1,3-4"},
        {"Range": "bytes=9-2"},
        {"Range": "bytes=-"},
        {"Range": "lines=0-1"},
        {"Range": "bytes=0-9", "If-Range": '"tag"'},
    ],
)
def test_http_ranges_that_do_not_count(node: Server, headers: dict[str, str]) -> None:
    answer, data = get(node, "big", headers=headers, title="big", version="1")
    assert (answer.status, data) == (200, BIG)
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-range"] is None


@pytest.mark.parametrize("header", ["bytes=999999999-", "bytes=-0"])
def test_http_ranges_that_cannot_be_had(node: Server, header: str) -> None:
    answer, data = get(node, "big", headers={"Range": header}, title="big", version="1")
    assert (answer.status, json.loads(data)["errorCode"]) == (416, 31)
    assert answer.headers["content-range"] == f"bytes */{len(BIG)}"


def test_http_range_of_a_chunk(node: Server) -> None:
    asked = {"title": "fw", "version": "0", "size": 4096, "chunk": 2}
    answer, data = get(node, "fw", headers={"Range": "bytes=1-3"}, **asked)
    assert (answer.status, data) == (206, DATA[8193:8196])
    answer, data = get(node, "fw", headers={"Range": "bytes=1-3"}, **asked | {"chunk": 3})
    assert (answer.status, data) == (200, b"")


def test_http_software(node: Server) -> None:
    answer, data = get(node, "both", kind="software", title="both", version="1.0", size=4, chunk=1)
    assert (answer.status, data) == (200, b"ware")


@pytest.mark.parametrize(
    ("device", "query", "status"),
    [
        ("nobody", {"title": "fw", "version": "0"}, 401),
        ("fw", {"title": "fw"}, 400),
        ("fw", {"version": "0"}, 400),
        ("fw", {"title": "../../etc/passwd", "version": "0"}, 400),
        ("fw", {"title": "fw", "version": ""}, 400),
        ("fw", {"title": "fw", "version": "0", "size": "ten"}, 400),
        ("fw", {"title": "fw", "version": "0", "size": 10, "chunk": -1}, 400),
        ("fw", {"title": "fw", "version": "0", "size": 65536, "chunk": 65536}, 400),
        ("none", {"title": "fw", "version": "0"}, 404),
        ("url", {"title": "url", "version": "1.0"}, 404),
    ],
)
def test_http_refusals(node: Server, device: str, query: dict[str, object], status: int) -> None:
    answer, data = get(node, device, **query)
    assert answer.status == status
    if query.get("title") in ("../../etc/passwd", "url") or device == "none":
        assert data == b""


def test_other_methods_on_the_paths_of_packages(node: Server) -> None:
    answer, _ = get(node, "fw", method="POST")
    assert answer.status == 405
    answer, _ = get(node, "fw", method="OPTIONS")
    assert answer.status == 200


def test_a_peer_that_does_not_read_a_large_file(node: Server) -> None:
    """The worker keeps a bounded part of it, and others are served."""
    with closing(http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=20)) as slow:
        slow.request("GET", "/api/v1/big/firmware?title=big&version=1")
        answer, data = get(node, "fw", title="fw", version="0")
        assert (answer.status, data) == (200, DATA)
        assert slow.getresponse().read() == BIG


def test_downloads_are_no_activity(node: Server) -> None:
    node.add_device("quiet")
    assign(node, "quiet", add_package(node, "quiet"))
    assert get(node, "quiet", title="quiet", version="1.0")[1] == b"bytes"
    path = "/api/v1/quiet/attributes"
    assert "active" not in json.dumps(node.attributes("quiet", "SERVER_SCOPE"))
    with closing(http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=20)) as peer:
        peer.request("GET", path)
        assert peer.getresponse().status == 200


# --- the way in ------------------------------------------------------------------------------


def test_an_upload_through_the_public_port() -> None:
    with Server(env={"TBFAST_OTA__MAX_UPLOAD_BYTES": "100000"}) as server:
        package = add_package(server, "fw", data=None)
        with closing(http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=20)) as peer:

            def post(path: str, body: bytes, **headers: str) -> tuple[int, dict[str, object]]:
                peer.request("POST", path, body, headers)
                answer = peer.getresponse()
                return answer.status, json.loads(answer.read())

            path = f"/api/otaPackage/{package}"
            assert post(path, form(DATA), **{"Content-Type": CONTENT_TYPE})[0] == 401
            login = {"username": "admin@tbfast.local", "password": server.first_password()}
            token = post("/api/auth/login", json.dumps(login).encode())[1]["token"]
            headers = {"Content-Type": CONTENT_TYPE, "X-Authorization": f"Bearer {token}"}
            assert post(path, form(bytes(100_000)), **headers)[0] == 413
            peer.close()
            status, saved = post(path, form(DATA), **headers)
            assert (status, saved["dataSize"]) == (200, SIZE)
