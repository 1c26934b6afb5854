"""The load generator against mosquitto: a broker that was not written for it."""

from collections.abc import Iterator

import pytest

from benches.baselines.mosquitto import Broker, mosquitto
from tbfast.loadgen.plan import Plan
from tbfast.loadgen.run import run

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with mosquitto() as running:
        yield running


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize(("depth", "rate"), [(1, None), (32, None), (64, 2_000.0)])
def test_messages_are_acknowledged(
    broker: Broker, version: int, qos: int, depth: int, rate: float | None
) -> None:
    plan = Plan(
        port=broker.port, connections=20, depth=depth, rate=rate, qos=qos, version=version,
        duration_s=0.5, warmup_s=0.1, pids=(broker.pid,),
    )  # fmt: skip
    result = run(plan)
    assert result.messages > 0
    assert (result.refused, result.stray, result.unsent, result.unacknowledged) == (0, 0, 0, 0)
    assert (result.lost, result.broken) == (0, 0)
    assert result.server is not None
    assert result.server.cpu_us_per_message is not None
    assert 0 < result.server.cpu_us_per_message < 10_000
    if rate:
        assert result.rate == pytest.approx(rate, rel=0.1)
