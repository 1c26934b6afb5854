"""What rate limits cost a plain telemetry PUBLISH: nanoseconds a message.

    python -m pytest benches/micro/test_bench_rates.py --benchmark-enable -s

Baseline "none": an ingest path that knows no limits, over the same bytes in the same run.
"""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tbfast._ext.ingest import Ingest
from tbfast._ext.rate import Rates
from tbfast.codec.mqtt import encode
from tbfast.model.mqtt import Publish
from tbfast.model.rates import NAMES, RateLimits

MESSAGES = 32  # of one read
PAYLOAD = b'{"temperature":21.5,"humidity":60,"ok":true}'
READ = encode(Publish("v1/devices/me/telemetry", PAYLOAD, qos=1, packet_id=7), 4) * MESSAGES
WIDE = ((2_000_000_000, 1),)

baseline_ns: dict[str, float] = {}


def shared(*limits: str) -> Rates:
    rates = Rates()
    rates.put(RateLimits(tuple(WIDE if name in limits else () for name in NAMES)))
    return rates


CASES = {
    "none": None,
    "off": shared(),
    "device": shared("transportDeviceTelemetryMsgRateLimit"),
    "tenant and device, messages and points": shared(
        *(name for name in NAMES if "Telemetry" in name and "Gateway" not in name)
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_messages(benchmark: BenchmarkFixture, name: str) -> None:
    ingest = Ingest(rates=CASES[name])
    ingest.at(1_700_000_000_000, 1)

    def messages() -> None:
        ingest.open(0, 42, 4)
        for _ in range(30):
            used, _ = ingest.walk(0, READ)
            assert used == len(READ)
        ingest.recycle(ingest.take(1, 1, 1, 1_700_000_000_000, 1))

    benchmark(messages)
    if benchmark.stats is None:  # --benchmark-disable: the code ran once as a test
        return
    ns = benchmark.stats["min"] / (30 * MESSAGES) * 1e9
    baseline_ns.setdefault("none", ns)
    benchmark.extra_info["ns_per_message"] = round(ns, 1)
    benchmark.extra_info["ratio_to_none"] = round(ns / baseline_ns["none"], 3)
    print(f"\n{name}: {benchmark.extra_info}")
