"""MQTT codec: nanoseconds a packet.

    python -m pytest benches/micro/test_bench_mqtt.py --benchmark-enable -s

Baseline "plain Python": the shortest PUBLISH parser one would write by hand (struct and slices,
no validation beyond UTF-8), over the same bytes in the same run.
"""

import struct

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tbfast._ext.mqtt import scan_publishes
from tbfast.codec.mqtt import Decoder, encode
from tbfast.limits import MQTT_MAX_REMAINING_BYTES
from tbfast.model.mqtt import Puback, Publish

PACKETS = 1_000
PAYLOAD = b'{"temperature":21.5,"humidity":60,"ok":true}'
SAMPLE = Publish("v1/devices/me/telemetry", PAYLOAD, qos=1, packet_id=7)


baseline_ns: dict[str, float] = {}


def report(benchmark: BenchmarkFixture, packets: int) -> None:
    """Adds ns per packet and the ratio to the baseline, which runs first."""
    if benchmark.stats is None:  # --benchmark-disable: the code ran once as a test
        return
    ns = benchmark.stats["min"] / packets * 1e9
    benchmark.extra_info["ns_per_packet"] = round(ns, 1)
    if "plain Python" in baseline_ns and packets > 1:
        benchmark.extra_info["plain_python_ratio"] = round(baseline_ns["plain Python"] / ns, 1)
    print(f"\n{benchmark.name}: {benchmark.extra_info}")


def plain_python(data: bytes) -> list[tuple[str, bytes, int]]:
    """The baseline."""
    out = []
    at = 0
    while at < len(data):
        first, at = data[at], at + 1
        remaining = shift = 0
        while True:
            byte, at = data[at], at + 1
            remaining |= (byte & 127) << shift
            if byte < 128:
                break
            shift += 7
        end = at + remaining
        (n,) = struct.unpack_from("!H", data, at)
        topic = data[at + 2 : at + 2 + n].decode()
        at += 2 + n
        packet_id = 0
        if first & 6:
            (packet_id,) = struct.unpack_from("!H", data, at)
            at += 2
        out.append((topic, data[at:end], packet_id))
        at = end
    return out


def test_publish_plain_python(benchmark: BenchmarkFixture) -> None:
    data = encode(SAMPLE, 4) * PACKETS
    assert len(benchmark(plain_python, data)) == PACKETS
    report(benchmark, PACKETS)
    if benchmark.stats is not None:
        baseline_ns["plain Python"] = benchmark.stats["min"] / PACKETS * 1e9


@pytest.mark.parametrize("version", [4, 5])
def test_frame_and_publish_in_c(benchmark: BenchmarkFixture, version: int) -> None:
    data = encode(SAMPLE, version) * PACKETS
    assert benchmark(scan_publishes, data, version) == PACKETS
    report(benchmark, PACKETS)


def test_publish_objects(benchmark: BenchmarkFixture) -> None:
    data = encode(SAMPLE, 4) * PACKETS
    decoder = Decoder(max_remaining=MQTT_MAX_REMAINING_BYTES, version=4)
    assert len(benchmark(decoder.feed, data)) == PACKETS
    report(benchmark, PACKETS)


def test_encode_publish(benchmark: BenchmarkFixture) -> None:
    assert benchmark(encode, SAMPLE, 4)
    report(benchmark, 1)


@pytest.mark.parametrize("reason", [0, 0x99])
def test_encode_puback(benchmark: BenchmarkFixture, reason: int) -> None:
    assert benchmark(encode, Puback(7, reason), 5)
    report(benchmark, 1)
