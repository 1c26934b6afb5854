"""The load generator against a server that counts."""

import json
from collections import Counter
from itertools import groupby, pairwise
from pathlib import Path

import pytest

from tbfast.loadgen.frames import payload
from tbfast.loadgen.plan import Plan, PlanError
from tbfast.loadgen.result import Result
from tbfast.loadgen.run import ServerUnusable, run
from tests.support.stub_broker import StubBroker, stub_broker


def short(broker: StubBroker, **fields: object) -> Plan:
    """A test of a fraction of a second with few devices."""
    connections = fields.setdefault("connections", 5)
    assert isinstance(connections, int)
    tokens = tuple(f"T{i}" for i in range(connections))
    common = {"port": broker.port, "tokens": tokens, "duration_s": 0.2, "warmup_s": 0.05}
    return Plan(**{**common, **fields})  # type: ignore[arg-type]


def healthy(result: Result) -> bool:
    return not any(
        (result.refused, result.stray, result.unsent, result.unacknowledged, result.lost,
         result.broken)
    )  # fmt: skip


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("depth", [1, 7])
def test_closed_loop(version: int, qos: int, depth: int) -> None:
    with stub_broker() as broker:
        result = run(short(broker, version=version, qos=qos, depth=depth))
    assert healthy(result)
    assert len(broker.connects) == broker.disconnects == 5
    assert {c.protocol_version for c in broker.connects} == {version}
    assert len({c.client_id for c in broker.connects}) == 5
    # Warm-up and what was in flight at the end are not in the result.
    assert 0 < result.messages <= len(broker.published)
    assert result.rate == pytest.approx(result.messages / result.seconds, rel=0.01)
    assert result.lag is None
    if qos:
        assert result.latency is not None
        assert 0 < result.latency.p50 <= result.latency.p99 <= result.latency.max < 10e6
        assert len(broker.published) == len(broker.acknowledged)
        assert {n % depth for n in Counter(user for user, _ in broker.published).values()} == {0}
    else:
        assert result.latency is None


@pytest.mark.parametrize("keys", [1, 2, 3, 12])
def test_every_message_is_a_distinct_row(keys: int) -> None:
    with stub_broker() as broker:
        run(short(broker, keys=keys, depth=20, first_ts_ms=1_700_000_000_000))
    times: dict[str, list[int]] = {}
    values = set()
    for user, text in broker.published:
        message = json.loads(text)
        assert len(message["values"]) == keys
        times.setdefault(user, []).append(message["ts"])
        values.add(message["values"]["temperature"])
    assert times.keys() == {f"T{i}" for i in range(5)}
    for found in times.values():
        assert found == list(range(1_700_000_000_000, 1_700_000_000_000 + len(found)))
    assert len(values) > 1


def test_payload_without_time() -> None:
    assert payload(3, own_ts=False) == b'{"temperature":21.5,"humidity":60,"ok":true}'
    with stub_broker() as broker:
        run(short(broker, own_ts=False))
    assert all(json.loads(text).keys() == {"temperature", "humidity", "ok"}
               for _, text in broker.published)  # fmt: skip


def test_fixed_payload_and_topic() -> None:
    text = b'{"ts":1700000000000,"values":{"a":21.5}}'
    with stub_broker() as broker:
        run(short(broker, payload=text, topic="t/x"))
    assert {found for _, found in broker.published} == {text}


def test_open_loop_keeps_its_rate() -> None:
    with stub_broker() as broker:
        result = run(short(broker, rate=1_000.0, depth=50, duration_s=0.5))
    assert healthy(result)
    assert result.lag is not None
    assert result.messages == pytest.approx(500, rel=0.1)
    assert len(broker.acknowledged) == pytest.approx(550, rel=0.1)
    per_device = Counter(user for user, _ in broker.published).values()
    assert max(per_device) - min(per_device) <= 1


def test_open_loop_of_bursts() -> None:
    """Every device sends its messages in groups, one device after the other."""
    with stub_broker() as broker:
        result = run(short(broker, rate=1_000.0, depth=50, burst=10, duration_s=0.5))
    assert healthy(result)
    assert result.messages == pytest.approx(500, abs=20)
    users = [user for user, _ in broker.published]
    assert set(Counter(users).values()) <= {100, 110, 120}
    groups = [(user, len(list(same))) for user, same in groupby(users)]
    assert {n % 10 for _, n in groups} == {0}
    assert [user for user, _ in groups[:5]] == [f"T{i}" for i in range(5)]


@pytest.mark.parametrize(
    "fields", [{"burst": 2}, {"burst": 3, "depth": 2, "rate": 10.0}], ids=["closed", "depth"]
)
def test_bursts_that_cannot_be(fields: dict[str, float]) -> None:
    with pytest.raises(PlanError):
        Plan(port=1883, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("depth", [1, 500])
def test_open_loop_charges_a_stall_to_every_message_due(depth: int) -> None:
    """A server that stops for 0.3 s of 1 s: a third of the messages waited, 0.15 s on average,
    whether they were sent meanwhile (depth 500) or could not be (depth 1)."""
    with stub_broker(hold_after=300, hold_s=0.3) as broker:
        result = run(short(broker, rate=1_000.0, depth=depth, duration_s=1.0))
    assert healthy(result)
    latency = result.latency
    assert latency is not None
    assert latency.p99 > 200_000
    assert latency.p90 > 100_000
    assert latency.max > 290_000
    assert latency.p50 < 100_000


def test_stall_past_the_end_is_charged_too() -> None:
    with stub_broker(hold_after=400, hold_s=0.5) as broker:
        result = run(short(broker, rate=1_000.0, depth=1, duration_s=0.5, warmup_s=0.0))
    assert healthy(result)
    assert len(broker.acknowledged) == pytest.approx(500, abs=2)
    assert result.latency is not None
    assert result.latency.max > 400_000


def test_answers_in_pieces() -> None:
    with stub_broker(dribble=True) as broker:
        result = run(short(broker, qos=2, version=5, depth=3))
    assert healthy(result)
    assert result.messages > 0
    assert len(broker.acknowledged) == len(broker.published)


def test_receive_maximum_is_kept() -> None:
    with stub_broker(receive_maximum=3) as broker:
        result = run(short(broker, version=5, depth=10))
    assert healthy(result)
    assert broker.most_in_flight == 3


def test_refused_messages_are_not_acknowledged(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    with stub_broker(puback=0x97) as broker:
        result = run(short(broker, version=5, ledger=ledger))
    assert (result.messages, result.latency) == (0, None)
    assert result.refused == len(broker.published)
    assert ledger.read_bytes() == b""


@pytest.mark.parametrize(("version", "code"), [(4, 5), (5, 0x87)])
def test_refused_connections(version: int, code: int) -> None:
    with (
        stub_broker(connack=code) as broker,
        pytest.raises(ServerUnusable, match=f"0 of 5 .* 5 with {code}"),
    ):
        run(short(broker, version=version))


def test_nobody_listens() -> None:
    with stub_broker() as broker:
        plan = short(broker)
    with pytest.raises(ServerUnusable, match="Connection refused"):
        run(plan)


@pytest.mark.parametrize("qos", [1, 2])
def test_ledger_is_what_was_acknowledged(tmp_path: Path, qos: int) -> None:
    ledger = tmp_path / "ledger"
    with stub_broker() as broker:
        run(short(broker, qos=qos, depth=4, ledger=ledger))
    assert rows_of(ledger) == Counter(
        (user, json.loads(text)["ts"]) for user, text in broker.acknowledged
    )


def test_reconnect_sends_again_what_was_not_acknowledged(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    with stub_broker(drop_every=9) as broker:
        result = run(short(broker, depth=4, ledger=ledger, reconnect=True, duration_s=0.5))
    assert result.lost > 0
    assert result.reconnects >= result.lost - 5
    assert result.unacknowledged == 0
    found = rows_of(ledger)
    published = Counter((user, json.loads(text)["ts"]) for user, text in broker.published)
    acknowledged = Counter((user, json.loads(text)["ts"]) for user, text in broker.acknowledged)
    assert set(found.values()) == {1}
    # Acknowledgements can be lost with a connection, then the message is acknowledged again.
    assert found.keys() == acknowledged.keys() == published.keys()
    assert max(published.values()) > 1
    assert any(first + 1 == second for first, second in pairwise(sorted(ts for _, ts in found)))


def test_lost_connection_without_reconnect_is_reported() -> None:
    with stub_broker(drop_every=10) as broker:
        result = run(short(broker, depth=4))
    assert result.lost == 5
    assert result.unacknowledged >= 5


def test_idle() -> None:
    with stub_broker() as broker:
        result = run(short(broker, idle=True, connections=300))
    assert healthy(result)
    assert (len(broker.connects), broker.published, result.messages) == (300, [], 0)


def rows_of(ledger: Path) -> Counter[tuple[str, int]]:
    lines = [json.loads(line) for line in ledger.read_bytes().splitlines()]
    assert all(line.keys() == {"token", "ts", "seq"} for line in lines)
    return Counter((line["token"], line["ts"]) for line in lines)


@pytest.mark.parametrize(
    "fields",
    [
        {"connections": 3, "tokens": ("a", "b")},
        {"ledger": Path("x"), "qos": 0},
        {"ledger": Path("x"), "own_ts": False},
        {"ledger": Path("x"), "payload": b"{}"},
        {"idle": True, "rate": 5.0},
    ],
)
def test_contradictions(fields: dict[str, object]) -> None:
    with pytest.raises(PlanError):
        Plan(port=1883, **fields)  # type: ignore[arg-type]
