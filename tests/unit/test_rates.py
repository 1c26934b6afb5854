"""The syntax of rate limits, and what their refusals say (MQTT spec 8.1)."""

import pytest

from tbfast.errors import PeerError
from tbfast.model.rates import (
    DEVICE,
    NAMES,
    TENANT,
    limit_text,
    over_limit,
    parse_limit,
    rate_limits,
)


@pytest.mark.parametrize(
    ("text", "buckets"),
    [
        ("", ()),
        ("1:1", ((1, 1),)),
        ("1000:1,20000:60", ((1000, 1), (20000, 60))),
        ("2147483647:2147483647", ((2147483647, 2147483647),)),
        ("4:1,3:2,2:3,1:4", ((4, 1), (3, 2), (2, 3), (1, 4))),
    ],
)
def test_a_limit_is_read_and_written(text: str, buckets: tuple[tuple[int, int], ...]) -> None:
    assert parse_limit(text) == buckets
    assert limit_text(buckets) == (text or None)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("20", "not capacity:seconds"),
        ("20:", "not capacity:seconds"),
        ("0:1", "not capacity:seconds"),
        ("1:0", "not capacity:seconds"),
        ("-1:1", "not capacity:seconds"),
        ("1:1 ", "not capacity:seconds"),
        ("1:1,", "not capacity:seconds"),
        ("1.5:1", "not capacity:seconds"),
        ("١:1", "not capacity:seconds"),
        ("1:1:1", "not capacity:seconds"),
        ("1" * 100_000, "not capacity:seconds"),
        ("2147483648:1", "above 2147483647"),
        ("1:9999999999", "above 2147483647"),
        ("1:60,2:60", "same number of seconds"),
        ("5:1,4:2,3:3,2:4,1:5", "more than 4 pairs"),
    ],
)
def test_a_bad_limit_says_what_is_wrong(text: str, why: str) -> None:
    with pytest.raises(PeerError, match=why) as error:
        parse_limit(text)
    assert len(str(error.value)) < 200


def test_a_profile_names_the_member_that_is_wrong() -> None:
    found = rate_limits({"transportDeviceMsgRateLimit": "20:600", "maxDevices": 3})
    assert found.reported(DEVICE) == {
        "messages": "20:600",
        "telemetryMessages": None,
        "telemetryDataPoints": None,
    }
    assert found.reported(TENANT)["messages"] is None
    with pytest.raises(PeerError, match="transportGatewayMsgRateLimit: 'x' is not"):
        rate_limits({"transportGatewayMsgRateLimit": "x"})
    with pytest.raises(PeerError, match="transportGatewayMsgRateLimit should be a text"):
        rate_limits({"transportGatewayMsgRateLimit": 5})


def test_a_refusal_names_limit_value_and_time() -> None:
    error = over_limit(DEVICE, 1, ((20, 600),), 1, 29_000_000_001)
    assert str(error) == "transportDeviceTelemetryMsgRateLimit 20:600 is used up; try again in 30 s"
    assert (NAMES[error.limit], error.retry_s) == ("transportDeviceTelemetryMsgRateLimit", 30)
    never = over_limit(TENANT, 2, ((20, 1), (40, 60)), 21, None)
    assert never.retry_s is None
    assert str(never) == (
        "transportTenantTelemetryDataPointsRateLimit 20:1,40:60 never allows 21 data points at once"
    )
