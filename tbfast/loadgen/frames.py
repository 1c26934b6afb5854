"""The bytes of a load test, encoded once: every CONNECT, and the PUBLISH all messages copy."""

import json
import re
import socket
import struct
from typing import Final

from tbfast._ext.loadgen import Template
from tbfast.codec import mqtt
from tbfast.errors import LocalError
from tbfast.loadgen.plan import MAX_BURST_BYTES, Plan, PlanError
from tbfast.model.mqtt import Connect, Publish

PORTS_PER_ADDRESS: Final = 20_000  # of the 28,232 the kernel gives out by default
_FIRST_PLACE: Final = "1700000000000"  # 13 digits where the time of a message is written


def payload(keys: int, own_ts: bool) -> bytes:
    """Telemetry with decimals, integers and booleans in turn; its digits change per message."""
    named = ("temperature", "humidity", "ok")
    values = []
    for i in range(keys):
        name = named[i] if i < len(named) else f"key{i}"
        values.append(f'"{name}":' + ("21.5", "60", "true")[i % 3])
    text = "{" + ",".join(values) + "}"
    return f'{{"ts":{_FIRST_PLACE},"values":{text}}}'.encode() if own_ts else text.encode()


def templates(plan: Plan) -> tuple[Template, Template]:
    """The PUBLISH of a message and of a marker (QoS 1)."""
    body = payload(plan.keys, plan.own_ts) if plan.payload is None else plan.payload
    changing = plan.payload is None
    marker = _template(plan, body, 1, changing)
    if plan.qos == 1:
        return marker, marker
    return _template(plan, body, plan.qos, changing), marker


def _template(plan: Plan, body: bytes, qos: int, changing: bool) -> Template:
    packet = Publish(plan.topic, body, qos=qos, packet_id=1 if qos else None)
    frame = mqtt.encode(packet, plan.version)
    if len(frame) * plan.depth > MAX_BURST_BYTES:
        raise PlanError(f"a round of a device exceeds {MAX_BURST_BYTES >> 20} MiB; lower --depth")
    topic = plan.topic.encode()
    start = len(frame) - len(body)
    values = []
    if changing:
        # The two digits before a decimal point, or the whole of a two-digit integer.
        values = [start + found.start(1) for found in re.finditer(rb":(\d\d)[.,}]", body)]
    return Template(
        frame,
        id_at=frame.index(topic) + len(topic) if qos else 0,
        ts_at=start + body.index(_FIRST_PLACE.encode()) if changing and plan.own_ts else 0,
        values=values,
    )


def connects(plan: Plan) -> list[bytes]:
    """One CONNECT per device; the token is the user name (MQTT spec 2.1)."""
    return [
        mqtt.encode(
            Connect(
                plan.version,
                client_id=f"bench-{i}",
                username=plan.tokens[i] if plan.tokens else None,
            ),
            plan.version,
        )
        for i in range(plan.connections)
    ]


def ledger_prefixes(plan: Plan) -> list[bytes]:
    """Start of a ledger line per device: ``{"token":"...","ts":``."""
    names = plan.tokens or [f"bench-{i}" for i in range(plan.connections)]
    return [
        b'{"token":' + json.dumps(name).encode() + b',"ts":' for name in names[: plan.connections]
    ]


def server_address(host: str, port: int) -> bytes:
    """Packed sockaddr; raises LocalError for a name nobody knows."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise LocalError(f"there is no host {host!r}: {error}") from error
    family, *_, address = found[0]
    head = struct.pack("=H", family) + struct.pack("!H", port)
    packed = socket.inet_pton(family, str(address[0]))
    if family == socket.AF_INET:
        return head + packed + bytes(8)
    return head + bytes(4) + packed + bytes(4)


def source_addresses(plan: Plan) -> list[bytes]:
    """Packed addresses 127.0.0.1.. to connect from when one has too few ports; else none."""
    needed = -(-plan.connections // PORTS_PER_ADDRESS)
    if needed == 1 or not plan.host.startswith("127."):
        return []
    return [server_address(f"127.0.{i // 250}.{i % 250 + 1}", 0) for i in range(needed)]
