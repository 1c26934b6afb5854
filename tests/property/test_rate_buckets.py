"""Buckets in shared memory against a plain token bucket, and hammered by several processes."""

import mmap
import multiprocessing
from copy import copy
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbfast._ext.rate import Rates, take
from tbfast.errors import RateLimited
from tbfast.model.rates import DEVICE, NAMES, RateLimits

NS_PER_S = 1_000_000_000


class PlainBucket:
    """Tokens and the time they were counted; it starts full."""

    def __init__(self, capacity: int, seconds: int) -> None:
        self.capacity, self.seconds = capacity, seconds
        self.tokens = Fraction(capacity)
        self.at_ns = 0

    def take(self, tokens: int, now_ns: int) -> bool:
        came = Fraction((now_ns - self.at_ns) * self.capacity, self.seconds * NS_PER_S)
        self.tokens, self.at_ns = min(self.tokens + came, Fraction(self.capacity)), now_ns
        if tokens > self.tokens:
            return False
        self.tokens -= tokens
        return True


# Capacities whose tokens come after a whole number of nanoseconds: both sides are then exact.
@given(
    capacity=st.sampled_from([1, 2, 4, 5, 8, 10, 20, 64, 100, 1000, 20_000, 1_000_000]),
    seconds=st.sampled_from([1, 7, 60, 600, 86_400]),
    steps=st.lists(
        st.tuples(st.fractions(0, 2, max_denominator=50), st.integers(1, 1_100_000)), max_size=60
    ),
)
def test_a_cell_is_a_token_bucket(
    capacity: int, seconds: int, steps: list[tuple[Fraction, int]]
) -> None:
    cells, plain = bytearray(16), PlainBucket(capacity, seconds)
    now_ns = start_ns = 5_000_000_000_000
    plain.at_ns = start_ns
    for wait, wanted in steps:
        now_ns += int(wait * seconds * NS_PER_S)
        tokens = 1 + wanted % (capacity + capacity // 8 + 1)
        waits = take(cells, 1, capacity, seconds, tokens, now_ns)
        assert (waits == 0) == plain.take(tokens, now_ns)
        if tokens > capacity:
            assert waits is None
        elif waits:
            # Not a nanosecond early, and then indeed.
            assert take(bytearray(cells), 1, capacity, seconds, tokens, now_ns + waits - 1)
            assert take(bytearray(cells), 1, capacity, seconds, tokens, now_ns + waits) == 0
    assert cells[:8] == bytes(8)


@given(capacity=st.integers(1, 20_000), seconds=st.integers(1, 1_000_000))
def test_a_full_bucket_gives_exactly_its_capacity(capacity: int, seconds: int) -> None:
    cells = bytearray(8)
    taken = 0
    while taken <= capacity and take(cells, 0, capacity, seconds, 1, 1) == 0:
        taken += 1
    assert taken == capacity


def _hammer(cells: mmap.mmap, start: object, taken: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    got = 0
    for _ in range(200_000):
        got += take(cells, 0, 300_000, 600, 1, NS_PER_S) == 0
    taken.put(got)  # type: ignore[attr-defined]


def test_processes_together_never_exceed_a_bucket() -> None:
    context = multiprocessing.get_context("fork")
    cells = mmap.mmap(-1, 4096)
    start, taken = context.Barrier(2), context.Queue()
    both = [context.Process(target=_hammer, args=(cells, start, taken)) for _ in range(2)]
    for process in both:
        process.start()
    shares = [taken.get(timeout=60) for _ in both]
    for process in both:
        process.join()
    assert sum(shares) == 300_000


def _limits(**texts: tuple[tuple[int, int], ...]) -> RateLimits:
    return RateLimits(tuple(texts.get(name, ()) for name in NAMES))


def _spend(rates: Rates, device: int, points: int, now_ns: int = 1) -> int | None:
    """What limit refused, if one did."""
    try:
        rates.message(DEVICE, device, points, now_ns)
    except RateLimited as error:
        return error.limit
    return None


@given(
    first=st.tuples(st.integers(1, 6), st.just(10)),
    second=st.tuples(st.integers(1, 6), st.just(600)),
    messages=st.integers(1, 14),
)
def test_all_buckets_of_a_limit_give_or_none(
    first: tuple[int, int], second: tuple[int, int], messages: int
) -> None:
    rates = Rates()
    rates.put(_limits(transportDeviceMsgRateLimit=(first, second)))
    plain = [PlainBucket(*first), PlainBucket(*second)]
    for number in range(messages):
        now_ns = number * NS_PER_S
        fits = all(copy(bucket).take(1, now_ns) for bucket in plain)
        if fits:
            assert all(bucket.take(1, now_ns) for bucket in plain)
        assert (_spend(rates, 7, 0, now_ns) is None) == fits


def test_the_time_to_wait_is_that_of_the_slowest_bucket() -> None:
    for buckets in (((1, 10), (1, 600)), ((1, 600), (1, 10))):
        rates = Rates()
        rates.put(_limits(transportDeviceMsgRateLimit=buckets))
        rates.message(DEVICE, 1, 0, 1)
        with pytest.raises(RateLimited) as refusal:
            rates.message(DEVICE, 1, 0, 1)
        assert refusal.value.retry_s == 600
        rates.message(DEVICE, 1, 0, 1 + 600 * NS_PER_S)


def test_tokens_of_an_earlier_stage_are_gone() -> None:
    rates = Rates()
    rates.put(
        _limits(
            transportTenantTelemetryMsgRateLimit=((3, 600),),
            transportDeviceTelemetryDataPointsRateLimit=((5, 600),),
        )
    )
    points, tenant = 5, 1
    assert _spend(rates, 1, 6) == points  # takes a token of the tenant's three
    assert _spend(rates, 1, 5) is None
    assert _spend(rates, 2, 1) is None
    assert _spend(rates, 2, 1) == tenant


@pytest.mark.parametrize("device", [0, 1, 1 << 40])
def test_devices_have_buckets_of_their_own(device: int) -> None:
    rates = Rates()
    rates.put(_limits(transportDeviceMsgRateLimit=((2, 600),)))
    assert [_spend(rates, device, 0) for _ in range(3)] == [None, None, 3]
    assert _spend(rates, device + 1, 0) is None
    assert _spend(rates, device, 1) is None, "telemetry has another limit"


def test_new_limits_start_full_and_the_same_ones_change_nothing() -> None:
    rates = Rates()
    limits = _limits(transportDeviceMsgRateLimit=((1, 600),))
    rates.put(limits)
    assert [_spend(rates, 1, 0) for _ in range(2)] == [None, 3]
    rates.put(limits)
    assert _spend(rates, 1, 0) == 3
    for capacity in (2, 1, 2):
        rates.put(_limits(transportDeviceMsgRateLimit=((capacity, 600),)))
        assert [_spend(rates, 1, 0) for _ in range(capacity + 1)] == [None] * capacity + [3]
    rates.put(RateLimits())
    assert _spend(rates, 1, 0) is None
    assert rates.limits == RateLimits()
