"""A session at its rate limits: both paths give the same bytes and rows (MQTT spec 8.1)."""

import pytest

from tbfast._ext.rate import Rates
from tbfast.engine.mqtt.topics import PROVISION_REQUEST
from tbfast.errors import RateLimited
from tbfast.model import mqtt as m
from tbfast.model.operations import RpcRequest
from tbfast.model.rates import NAMES, RateLimits
from tests.support.mqtt_host import DEVICE, KNOWN, Host
from tests.support.wire import connect

MESSAGES = "transportDeviceMsgRateLimit"
TELEMETRY = "transportDeviceTelemetryMsgRateLimit"
POINTS = "transportDeviceTelemetryDataPointsRateLimit"


def limited(**capacities: int) -> Rates:
    rates = Rates()
    rates.put(
        RateLimits(
            tuple(((capacities[name], 600),) if name in capacities else () for name in NAMES)
        )
    )
    return rates


def opened(rates: Rates, *, hot: bool = True, version: int = 5) -> Host:
    host = Host(hot=hot, rates=rates)
    host.write(connect("token", version))
    return host


def publish(packet_id: int, payload: bytes) -> m.Publish:
    return m.Publish("v1/devices/me/telemetry", payload, 1, packet_id=packet_id)


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize(
    ("limit", "capacity", "accepted"), [(TELEMETRY, 2, 2), (POINTS, 4, 2), (POINTS, 5, 2)]
)
def test_a_limit_ends_both_paths_alike(
    version: int, limit: str, capacity: int, accepted: int
) -> None:
    ends = []
    for hot in (True, False):
        host = opened(limited(**{limit: capacity}), hot=hot, version=version)
        host.write(*(publish(number, b'{"a":%d,"new%d":1}' % (number, number)) for number in
                     range(1, 5)))  # fmt: skip
        block = host.commit()
        assert block is not None
        assert (b"new2" in block, b"new3" in block) == (True, False)
        assert host.ended == "finish"
        assert host.refusals == ["rate"]
        acks = [p for p in host.replies() if isinstance(p, m.Puback)]
        assert [ack.packet_id for ack in acks] == [1, 2][:accepted]
        ends.append((bytes(host.sent), block))
    assert ends[0] == ends[1]


def test_a_refused_payload_takes_no_token() -> None:
    host = opened(limited(**{TELEMETRY: 1}))
    host.write(publish(1, b"["), publish(2, b'{"a":1}'))
    host.commit()
    answers = [p for p in host.replies() if isinstance(p, m.Puback)]
    assert [(a.packet_id, a.reason_code) for a in answers] == [(1, 0x99), (2, 0)]


def test_a_report_of_a_call_counts_and_is_made_all_the_same() -> None:
    host = opened(limited(**{MESSAGES: 2}))  # one for the session, one for the subscription
    host.write(m.Subscribe(1, (m.Subscription("v1/devices/me/rpc/request/+", 0),)))
    host.notify(RpcRequest(1, "m", b"{}"), 5)
    assert host.delivered == [(5, "acknowledged")]
    host.write(m.Publish("v1/devices/me/rpc/response/1", b"{}", 1, packet_id=1))
    assert host.refusals == ["rate"]


def test_a_client_that_registers_is_not_limited() -> None:
    host = Host(rates=limited(**{MESSAGES: 1}))
    host.write(connect("provision", 5))
    wants = b'{"provisionDeviceKey":"k","provisionDeviceSecret":"s"}'
    for number in range(1, 4):
        host.write(m.Publish(PROVISION_REQUEST, wants, 1, packet_id=number))
    assert len(host.operations) == 3
    assert host.refusals == []


def test_the_device_of_a_session_is_the_one_that_pays() -> None:
    rates = limited(**{TELEMETRY: 1})
    host = opened(rates)
    host.write(publish(1, b'{"a":1}'))
    with pytest.raises(RateLimited, match="used up"):
        rates.message(KNOWN.scope, DEVICE, 1, host.now * 1_000_000)
    rates.message(KNOWN.scope, DEVICE + 1, 1, host.now * 1_000_000)
