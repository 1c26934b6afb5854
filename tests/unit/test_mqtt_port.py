"""The MQTT port with its commit path and journal, over real sockets."""

import asyncio
import json

from tbfast import limits
from tbfast.engine.mqtt import session
from tbfast.model import mqtt as m
from tests.support.mqtt_port import connect_packet, publish, running_port


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
