"""Round trips of attributes and calls over MQTT, against request and response through mosquitto.

    deploy/packages.sh mosquitto:mosquitto && python -m benches.rpc [--devices N] [--seconds S]

Every device has one request under way at a time; all clients share this process, so the figures
are those of the client where the server is faster.  Peer: two clients per device, one asks on a
topic, the other one answers on another.  All at QoS 0.
"""

import argparse
import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Self

import msgspec
import uvloop

from benches.baselines.mosquitto import mosquitto, version
from tbfast.cli import client
from tbfast.codec import mqtt as codec
from tbfast.model import mqtt as m
from tests.support.server import Server

PREFIX = "v1/devices/me/"
RoundTrip = Callable[[], Awaitable[object]]


class Peer:
    """One MQTT connection that sends and takes PUBLISHes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = codec.Decoder(max_remaining=1 << 20, version=4)
        self._packets: list[m.Packet] = []

    @classmethod
    async def connect(cls, port: int, name: str, *filters: str) -> Self:
        """Accepted and subscribed."""
        peer = cls(*await asyncio.open_connection("127.0.0.1", port))
        peer._send(m.Connect(4, name, username=name))
        assert isinstance(await peer._next(), m.Connack)
        peer._send(m.Subscribe(1, tuple(m.Subscription(f, 0) for f in filters)))
        assert isinstance(await peer._next(), m.Suback)
        return peer

    def publish(self, topic: str, payload: bytes) -> None:
        """QoS 0."""
        self._send(m.Publish(topic, payload, qos=0))

    async def message(self) -> m.Publish:
        """The next PUBLISH."""
        while not isinstance(packet := await self._next(), m.Publish):
            pass
        return packet

    async def ask(self, topic: str, payload: bytes) -> m.Publish:
        """Sends one and waits for the next that comes."""
        self.publish(topic, payload)
        return await self.message()

    async def serve(self, topic_of: Callable[[str], str]) -> None:
        """Answers everything."""
        while True:
            packet = await self.message()
            self.publish(topic_of(packet.topic), b'{"ok":true}')

    def close(self) -> None:
        self._writer.close()

    def _send(self, packet: m.Packet) -> None:
        self._writer.write(codec.encode(packet, 4))

    async def _next(self) -> m.Packet:
        while not self._packets:
            data = await self._reader.read(65_536)
            if not data:
                raise ConnectionError("the server closed the connection")
            self._packets += self._decoder.feed(data)
        return self._packets.pop(0)


class Caller:
    """Calls of one device over REST on the node's socket, on one kept connection."""

    def __init__(
        self, device: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._reader = reader
        self._writer = writer
        body = b'{"method":"get","params":{"pin":7}}'
        self._request = (
            b"POST /api/rpc/twoway/%b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"
        ) % (device.encode(), len(body), body)

    async def call(self) -> None:
        """One round trip."""
        self._writer.write(self._request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = next(
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        )
        await self._reader.readexactly(length)

    def close(self) -> None:
        self._writer.close()


async def measure(round_trips: list[RoundTrip], seconds: float) -> dict[str, float]:
    """Round trips per second and their latency in ms."""
    took: list[float] = []
    begun = time.perf_counter()

    async def loop(round_trip: RoundTrip) -> None:
        while (before := time.perf_counter()) < begun + seconds:
            await round_trip()
            took.append(time.perf_counter() - before)

    await asyncio.gather(*map(loop, round_trips))
    spent = time.perf_counter() - begun
    took.sort()
    return {
        "round_trips_per_s": len(took) / spent,
        "p50_ms": 1e3 * statistics.median(took),
        "p99_ms": 1e3 * took[len(took) * 99 // 100],
    }


async def on_tbfast(server: Server, devices: int, seconds: float) -> dict[str, Any]:
    """Attributes asked for, the server called, devices called."""
    names = [server.add_device(f"bench-{number}") for number in range(devices)]
    for name in names:
        server.save_attributes(name, "SHARED_SCOPE", {"interval": 30})
    found: dict[str, Any] = {}
    async with contextlib.AsyncExitStack() as stack:
        peers = []
        for name in names:
            filters = ("attributes/response/+", "rpc/response/+")
            peer = await Peer.connect(server.mqtt_port, name, *(PREFIX + f for f in filters))
            stack.callback(peer.close)
            peers.append(peer)

        def asking(peer: Peer, topic: str, payload: bytes) -> RoundTrip:
            return lambda: peer.ask(PREFIX + topic, payload)

        attributes = b'{"sharedKeys":"interval"}'
        trips = [asking(peer, "attributes/request/1", attributes) for peer in peers]
        found["attributes"] = await measure(trips, seconds)
        method = b'{"method":"getCurrentTime","params":{}}'
        trips = [asking(peer, "rpc/request/1", method) for peer in peers]
        found["call of the server"] = await measure(trips, seconds)
    async with contextlib.AsyncExitStack() as stack:
        trips = []
        for name in names:
            peer = await Peer.connect(server.mqtt_port, name, PREFIX + "rpc/request/+")
            stack.callback(peer.close)
            serving = asyncio.create_task(
                peer.serve(lambda topic: topic.replace("request", "response"))
            )
            stack.callback(serving.cancel)
            streams = await asyncio.open_unix_connection(server.data_dir / client.SOCKET_NAME)
            caller = Caller(server.device_id(name), *streams)
            stack.callback(caller.close)
            trips.append(caller.call)
        found["call of a device"] = await measure(trips, seconds)
    return found


async def on_mosquitto(port: int, devices: int, seconds: float) -> dict[str, float]:
    """A client asks, another one answers."""
    async with contextlib.AsyncExitStack() as stack:
        trips: list[RoundTrip] = []
        for number in range(devices):
            asker = await Peer.connect(port, f"asker-{number}", f"response/{number}")
            answerer = await Peer.connect(port, f"answerer-{number}", f"request/{number}")
            stack.callback(asker.close)
            stack.callback(answerer.close)
            serving = asyncio.create_task(
                answerer.serve(lambda topic: topic.replace("request", "response"))
            )
            stack.callback(serving.cancel)
            topic = f"request/{number}"
            trips.append(lambda p=asker, t=topic: p.ask(t, b'{"method":"get"}'))
        return await measure(trips, seconds)


async def run(args: argparse.Namespace) -> dict[str, Any]:
    """Both servers, and the ratios."""
    with Server(workers=1) as server:
        found = await on_tbfast(server, args.devices, args.seconds)
    with mosquitto() as broker:
        peer = await on_mosquitto(broker.port, args.devices, args.seconds)
    for result in found.values():
        result["of_mosquitto"] = result["round_trips_per_s"] / peer["round_trips_per_s"]
    return {"devices": args.devices, version(): peer, **found}


def main() -> int:
    """Prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=5.0, help="per scenario")
    found = uvloop.run(run(parser.parse_args()))
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(found)).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
