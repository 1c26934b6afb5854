"""The MQTT port with its commit path and journal, over real sockets."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Iterator

from tbfast import limits
from tbfast._ext import metrics as words
from tbfast.codec import mqtt as codec
from tbfast.engine.mqtt import session
from tbfast.model import mqtt as m
from tbfast.model.transport import DEFAULT_MQTT, MqttProfile
from tests.support.mqtt_port import Client, Port, connect_packet, publish, running_port


async def _until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


def test_early_publish_is_committed_when_the_answer_comes_between_turns(tmp_path):
    async def run() -> None:
        async with running_port(tmp_path) as node:
            node.directory.cold = True
            client = await node.connect()
            client.send(connect_packet("a"), publish(b'{"t":1}', 7))
            await _until(lambda: node.directory.waiting)
            node.directory.answer()
            assert isinstance(await client.receive(), m.Connack)
            assert await client.receive() == m.Puback(packet_id=7)
            assert node.metrics.groups[-1][0] == 1

    asyncio.run(run())


def test_groups_of_packets_outside_the_hot_path_are_bounded(tmp_path):
    payload = json.dumps({"k": "x" * 20_000}).encode()

    async def run() -> None:
        async with running_port(tmp_path) as node:
            client = await node.connect()
            client.send(connect_packet("a"))
            await client.receive()
            client.send(*(publish(payload, n, qos=2) for n in range(1, 101)))
            assert [(await client.receive()).packet_id for _ in range(100)] == [*range(1, 101)]
            largest = max(size for _, size in node.metrics.groups)
            assert largest < limits.BATCH_GROUP_BYTES + 2 * len(payload)

    asyncio.run(run())


def test_an_edited_profile_reaches_its_open_sessions(tmp_path):
    edited = MqttProfile(telemetry_topic="/t")

    async def run() -> None:
        async with running_port(tmp_path) as node:
            for token in ("a", "b"):
                client = await node.connect()
                client.send(connect_packet(token))
                await client.receive()
            node.port.profile_changed("profile of b", edited)
            engines = node.port._engines.values()
            found = {e.credentials.credentials_id: e.credentials.mqtt for e in engines}
            assert found == {"a": DEFAULT_MQTT, "b": edited}

    asyncio.run(run())


class _Broken(Exception):
    pass


def test_a_fault_of_ours_ends_that_connection_only(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise _Broken

    monkeypatch.setitem(session._HANDLERS, m.Publish, fail)

    async def run() -> None:
        async with running_port(tmp_path) as node:
            unhandled: list[dict[str, object]] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, c: unhandled.append(c))
            bad, good = await node.connect(), await node.connect()
            for name, client in (("a", bad), ("b", good)):
                client.send(connect_packet(name))
                await client.receive()
            bad.send(publish(b"{}", 1, qos=2))
            good.send(publish(b'{"t":1}', 9))
            assert await bad.closed()
            assert await good.receive() == m.Puback(packet_id=9)
            assert unhandled == []

    asyncio.run(run())


def test_a_fault_while_held_input_is_taken_up_ends_that_connection(tmp_path, monkeypatch):
    """Its input must not stay behind: the next read would not fit beside it."""

    def fail(*_: object) -> None:
        raise _Broken

    monkeypatch.setitem(session._HANDLERS, m.Publish, fail)

    async def run() -> None:
        async with running_port(tmp_path) as node:
            unhandled: list[dict[str, object]] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, c: unhandled.append(c))
            client = await node.connect()
            client.send(connect_packet("a"))
            await client.receive()
            node.port.press(True)
            client.send(publish(b"{}", 1, qos=2), publish(b"x" * 60_000, 2, qos=2))
            await _until(lambda: node.port.reactor.held)
            node.port.press(False)
            assert await client.closed()
            assert unhandled == []

    asyncio.run(run())


async def _session(node: Port, name: str, source: str = "127.0.0.1") -> Client:
    client = await node.connect(source)
    client.send(connect_packet(name))
    assert isinstance(await client.receive(), m.Connack)
    return client


async def _alive(client: Client) -> None:
    client.send(m.Pingreq())
    assert isinstance(await client.receive(), m.Pingresp)


def test_too_many_strangers_cost_the_address_that_has_most(tmp_path):
    async def run() -> None:
        async with running_port(tmp_path, max_strangers=4) as node:
            device = await _session(node, "device")
            quiet = await node.connect("127.0.0.2")
            flood = [await node.connect("127.0.0.3") for _ in range(6)]
            for oldest in flood[:3]:
                assert await oldest.closed()
            assert node.port.reactor.strangers == 4
            quiet.send(connect_packet("quiet"))
            assert isinstance(await quiet.receive(), m.Connack)
            await _alive(device)
            assert node.port.reactor.strangers == 3
            assert node.slot.get(words.REFUSED_MQTT + words.REASON_LIMIT) == 3

    asyncio.run(run())


def test_what_strangers_hold_is_bounded(tmp_path):
    """Whole packets in the early queue and pieces of packets count alike."""

    async def run() -> None:
        async with running_port(tmp_path, max_stranger_bytes=100_000) as node:
            node.directory.cold = True
            honest = await node.connect("127.0.0.2")
            honest.send(connect_packet("honest"))
            waiting, piece = await node.connect(), await node.connect()
            waiting.send(connect_packet("slow"), publish(b"x" * 60_000, 1))
            await _until(lambda: len(node.directory.waiting) == 2)
            piece.writer.write(codec.encode(publish(b"y" * 60_000, 2), 4)[:59_000])
            assert await waiting.closed()
            node.directory.answer()
            assert isinstance(await honest.receive(), m.Connack)
            assert node.port.reactor.connections == 2

    asyncio.run(run())


def test_a_full_worker_lets_devices_in_past_strangers(tmp_path):
    async def run() -> None:
        async with running_port(tmp_path, max_connections=4) as node:
            flood = [await node.connect("127.0.0.3") for _ in range(4)]
            await _until(lambda: node.port.reactor.connections == 4)
            device = await _session(node, "device", "127.0.0.2")
            assert await flood[0].closed()
            await _alive(device)
            assert node.port.reactor.connections == 4

    asyncio.run(run())


def test_strangers_that_speak_make_room_a_little_later(tmp_path):
    """Half a CONNECT keeps nobody out."""

    async def run() -> None:
        async with running_port(tmp_path, max_connections=4) as node:
            flood = [await node.connect("127.0.0.3") for _ in range(4)]
            for client in flood:
                client.writer.write(codec.encode(connect_packet("x"), 4)[:5])
            await _until(lambda: node.slot.get(words.RECEIVED_BYTES_MQTT) == 4 * 5)
            device = await _session(node, "device", "127.0.0.2")
            assert await flood[0].closed()
            await _alive(device)
            assert node.slot.get(words.REFUSED_MQTT + words.REASON_LIMIT) == 1  # not its time alone

    asyncio.run(run())


def test_newcomers_of_a_storm_do_not_push_each_other_out(tmp_path):
    """All wait in the queue of the socket at once, with their CONNECT; all get in in their turn."""

    async def run() -> None:
        async with running_port(tmp_path, max_connections=4) as node:
            address = node.listener.getsockname()
            storm = [socket.create_connection(address, 5) for _ in range(40)]
            for number, sock in enumerate(storm):
                sock.sendall(codec.encode(connect_packet(f"device-{number}"), 4))
            for sock in storm:
                client = Client(*await asyncio.open_connection(sock=sock))
                assert isinstance(await client.receive(), m.Connack)
                client.writer.close()

    asyncio.run(run())


def test_a_full_worker_without_strangers_accepts_again_when_one_leaves(tmp_path):
    async def run() -> None:
        async with running_port(tmp_path, max_connections=2) as node:
            first = await _session(node, "first")
            await _session(node, "second")
            third = await node.connect()
            third.send(connect_packet("third"))
            await _alive(first)
            assert node.port.reactor.connections == 2
            first.send(m.Disconnect())
            first.writer.close()
            assert isinstance(await third.receive(), m.Connack)

    asyncio.run(run())


def test_the_order_of_sessions_does_not_follow_the_wall_clock(tmp_path):
    async def run() -> None:
        async with running_port(tmp_path) as node:
            before = time.monotonic_ns() // 1_000_000
            await _session(node, "device")
            ((_, _, _, at_ms, _, _),) = node.port.open_sessions()
            assert before <= at_ms <= time.monotonic_ns() // 1_000_000

    asyncio.run(run())


def test_who_is_in_is_served_before_a_crowd_of_strangers(tmp_path):
    async def run() -> None:
        async with running_port(tmp_path) as node:
            device = await _session(node, "device")
            crowd = [await node.connect("127.0.0.3") for _ in range(200)]
            await _until(lambda: node.port.reactor.connections == 201)
            node.directory.cold = True
            with unserved(node):
                for number, stranger in enumerate(crowd):
                    stranger.send(connect_packet(f"stranger {number}"))
                device.send(m.Pingreq())
                node.port.reactor.ready()
                assert 0 < len(node.directory.waiting) <= 64
                assert isinstance(await device.receive(), m.Pingresp)
            await _until(lambda: len(node.directory.waiting) == 200)
            node.directory.answer()
            for stranger in crowd:
                assert isinstance(await stranger.receive(), m.Connack)
                await _alive(stranger)
            assert node.port.reactor.strangers == 0

    asyncio.run(run())


@contextlib.contextmanager
def unserved(node: Port) -> Iterator[None]:
    """The loop does not serve the port meanwhile: the test calls its turns."""
    loop, fileno = asyncio.get_running_loop(), node.port.reactor.fileno()
    loop.remove_reader(fileno)
    yield
    loop.add_reader(fileno, node.port.reactor.ready)
